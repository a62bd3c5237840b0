"SRACap at tiny size: our side of each row of its table; kills; two processes; the original's checkpoints by command"
import shlex, sys
import pytest
import torch
from caption_nb.app import cli
from caption_nb.app.sracapcommands import COMMANDS
from caption_nb.core import read_json, repo_path, write_json
from caption_nb.data.toy import toy_captions, toy_world
from test_processes import same_runs, train
sys.path.append(str(repo_path('tests')))
import golden_sracap as golden

SMALL = '--encoder clip_pooled:toy/clip --lm toy/lm --k 3 --clip-length 2 --layers 1 --heads 4 --max-new 40 --beam-size 2 --temperature .05 --batch-size 8 --warmup .1 --lr 1e-3 --precision fp32 --device cpu'.split()

@pytest.fixture(scope='module')
def place(tmp_path_factory, request):
    "A folder of captioned toy pictures in COCO's Karpathy layout, and the cache of this module"
    place = tmp_path_factory.mktemp('sracap')
    patch = pytest.MonkeyPatch()
    patch.setenv('CAPTION_NB_CACHE', str(place/'cache'))
    request.addfinalizer(patch.undo)
    world = toy_world(place/'world', n_train=8, n_val=4, n_test=5, n_near=0, n_out=0, n_style=0, n_text=0, n_text_train=0)
    rows = [dict(image=str(r.path), caption=r.captions, split=r.split, image_id=r.image_id) for r in world]
    write_json(place/'coco.json', rows)
    write_json(place/'refs.json', {f'{r.image_id}.png':r.captions for r in world if r.split=='test'})
    (place/'pictures').mkdir()
    for r in world:
        if r.split=='test': (place/'pictures'/f'{r.image_id}.png').write_bytes(open(r.path, 'rb').read())
    return place

def ours(title, place):
    "Our command of a row, its names made those of this place"
    words = shlex.split(next(c.ours for c in COMMANDS if c.title==title))[1:]
    names = {'annotations/coco':place/'coco.json', 'annotations/coco/val2014':place/'pictures', 'corpora/coco':place/'corpus', 'runs/sracap':place/'run', 'captions.json':place/'captions.json', 'adapted.json':place/'adapted.json',
             'annotations/coco/refs.json':place/'refs.json', 'ViT-L-14/openai':'toy/pac'}
    return [str(names.get(w, w)) for w in words]

@pytest.fixture(scope='module')
def trained(place):
    assert cli.main([*ours('Train', place), *SMALL, '--least', '1', '--steps', '4'])==0
    return read_json(place/'run'/'result.json')

def test_preparation(place):
    words = [*ours('Data Preparation', place), '--clip', 'toy/clip', '--least', '1', '--device', 'cpu']
    assert cli.main(words)==0
    made = read_json(place/'corpus'/'corpus.json')
    assert made['captions']==40 and made['with_triples']>20 and made['names']>3 # the training part alone
    vectors = sorted((p, p.stat().st_mtime_ns) for p in (place/'cache').rglob('*.npy'))
    assert cli.main(words)==0 and vectors==sorted((p, p.stat().st_mtime_ns) for p in (place/'cache').rglob('*.npy')) # nothing is made again

def test_training(place, trained):
    assert (trained['supervision'], trained['stage'], trained['n_captions'], trained['test.n'])==('text', 'pretrain', 40, 5)
    assert 'test.CIDEr.low' in trained and not read_json(place/'run'/'config.json')['end'] # of the preset

def test_captions_with_and_without_adaptation(place, trained, capsys):
    assert cli.main([*ours('Eval', place), '--device', 'cpu'])==0
    adapt = [*ours('Eval with scene reinforcement switching', place), '--steps', '2', '--beams', '2', '--lr', '1e-3', '--device', 'cpu']
    assert cli.main(adapt)==0
    plain,adapted = ({c['image_id']:c for c in read_json(place/f)} for f in ('captions.json', 'adapted.json'))
    assert set(plain)==set(adapted)==set(read_json(place/'refs.json'))
    assert {k:c['caption'] for k,c in plain.items()}=={k:c['extra']['before'] for k,c in adapted.items()}
    assert all(len(c['extra']['looks'])==2 for c in adapted.values())
    at = (place/'adapted.json').read_bytes()
    assert cli.main(adapt)==0 and (place/'adapted.json').read_bytes()==at # what is done is not done again
    assert cli.main([*ours('Scores', place), '--metrics', 'cider', '--n-boot', '0'])==0
    assert 'CIDEr' in capsys.readouterr().out
    assert cli.main(['caption', str(place/'pictures'), '--run', str(place/'run'), '--out', str(place/'by_run.json')])==0
    assert [c['caption'] for c in read_json(place/'by_run.json')]==[c['caption'] for c in read_json(place/'captions.json')]

def test_a_checkpoint_of_the_original(place, tmp_path, monkeypatch):
    "The recorded weights by command"
    from caption_nb.models.clip import clip_encoder, new_clip
    from caption_nb.models.clipfiles import train_clip_tokenizer
    train_clip_tokenizer(['a man', 'a dog'], 300, tmp_path/'clip')
    clip = new_clip(dict(embed_dim=16, vision_cfg=dict(image_size=32, layers=1, width=32, head_width=16, patch_size=16), text_cfg=dict(context_length=20, vocab_size=300, width=32, heads=2, layers=1, hf_tokenizer_name='tiny')), tmp_path/'clip', name='tiny')
    torch.save(golden.weights(fitted=True), tmp_path/'coco_prefix-0001.pt')
    (tmp_path/'names.txt').write_text('man\ndog\n')
    monkeypatch.setattr('caption_nb.models.vision.load_vision', lambda spec, **how: clip_encoder(clip, pooled=True))
    monkeypatch.setattr('caption_nb.sracap.published.read_tokenizer', lambda name: golden.ToyTokenizer())
    words = ['caption', str(place/'pictures'), '--system', 'sracap', '--model-path', str(tmp_path/'coco_prefix-0001.pt'), '--heads', '4', '--device', 'cpu', '--out', str(tmp_path/'c.json')]
    assert cli.main(words)==2 # no names to look for
    assert cli.main([*words, '--vocabulary', str(tmp_path/'names.txt')])==0
    assert len(read_json(tmp_path/'c.json'))==5

def test_goes_on_exactly(place, monkeypatch):
    "Stopped after two of four steps, the run ends with the weights of the one that was not; the same seed gives the same bytes"
    from caption_nb.train.loop import Loop
    step,seen = Loop.train_step,[]
    def stop(self, batches):
        seen.append(self.step)
        if len(seen)==3: raise KeyboardInterrupt
        return step(self, batches)
    words = lambda out: ['train', 'sracap.pretrain', '--data', str(place/'coco.json'), '--test', str(place/'coco.json'), '--least', '1', '--out', str(place/out), *SMALL, '--steps', '4', '--n-val', '4', '--save-every', '2']
    monkeypatch.setattr(Loop, 'train_step', stop)
    assert cli.main(words('stopped'))==1 and not (place/'stopped'/'result.json').exists()
    monkeypatch.setattr(Loop, 'train_step', step)
    assert cli.main(words('stopped'))==0 and cli.main(words('whole'))==0
    for name in ('captions.json', 'model/model.safetensors'): assert (place/'stopped'/name).read_bytes()==(place/'whole'/name).read_bytes()

def test_two_processes(place):
    options = f'--data {place/"coco.json"} --test {place/"coco.json"} --least 1 --steps 4 --n-val 4 --log-every 1 --eval-every 2 '+' '.join(SMALL[:-2])+' --ema 0'
    same_runs(*(train(place, 'sracap.pretrain', f'by{n}', options, n) for n in (1, 2)))

def test_what_toy_captions_say(): # the rules read the toy grammar
    from caption_nb.data.parse import load_parser
    texts = [cs[0] for cs in toy_captions('test', 40)]
    assert sum(bool(t) for t in load_parser('rules')(texts))>30
