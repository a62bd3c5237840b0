"SaCap at tiny size: our side of each row of its table over a public data folder; kills; two processes; the original's checkpoints by command"
import shlex, sys
import numpy as np
import pytest
import torch
from PIL import Image
from caption_nb.app import cli
from caption_nb.app.cli import SACAP_STEPS
from caption_nb.app.sacapcommands import COMMANDS
from caption_nb.core import read_json, repo_path, write_json
from caption_nb.data.toy import toy_captions, toy_world
from caption_nb.models.clip import clip_encoder
from caption_nb.sacap.layout import open_prepared, write_feature_dict
from caption_nb.sacap.prepare import STEPS
from test_processes import same_runs, train
sys.path.append(str(repo_path('tests')))
import golden_sacap as golden

CLIP = '--clip toy/clip --device cpu'.split()
TOY = dict(features=[*CLIP, '--least', '1'], pictures=['--model', 'toy', '--precision', 'auto', '--suffix', '.png', *CLIP], rephrase=['--model', 'toy', '--template', 'chat', '--device', 'cpu'], supporting=['--model', 'toy', '--precision', 'auto', '--suffix', '.png', *CLIP], prompts=['--device', 'cpu'])
SMALL = '--encoder open_clip:toy/clip --lm toy/lm --hidden 32 --k 3 --hard-len 10 --max-len 14 --max-new 12 --beam-size 2 --batch-size 8 --warmup .1 --lr 1e-3 --precision fp32 --device cpu'.split()

@pytest.fixture(scope='module')
def place(tmp_path_factory, request):
    "The original's data folder with toy captions and pictures, and the cache of this module"
    place = tmp_path_factory.mktemp('sacap')
    patch = pytest.MonkeyPatch()
    patch.setenv('CAPTION_NB_CACHE', str(place/'cache'))
    request.addfinalizer(patch.undo)
    top = place/'data'/'mscoco'
    write_json(top/'train_captions.json', [c for cs in toy_captions('train', 12) for c in cs[:2]])
    world = toy_world(place/'world', n_train=0, n_val=0, n_test=5, n_near=0, n_out=0, n_style=0, n_text=0, n_text_train=0, size=64)
    write_json(top/'refs.json', {r.image_id:r.captions for r in world})
    (top/'test'/'test_images').mkdir(parents=True)
    for r in world: Image.open(r.path).save(top/'test'/'test_images'/f'{r.image_id}.jpg')
    return place

def ours(title, place):
    "Our command of a row, its names made those of this place"
    words = shlex.split(next(c.ours for c in COMMANDS if c.title==title))[1:]
    names = {'data/mscoco':place/'data'/'mscoco', 'stores/mscoco':place/'store', 'runs/sacap':place/'run', 'captions.json':place/'captions.json', 'data/mscoco/refs.json':place/'data'/'mscoco'/'refs.json'}
    return [str(names.get(w, w)) for w in words]

@pytest.fixture(scope='module')
def store(place):
    "All steps of the table, in its order"
    for c in COMMANDS[:5]:
        words = ours(c.title, place)
        assert cli.main([*words, *TOY[words[2]]])==0, c.title
    return open_prepared(place/'store')

@pytest.fixture(scope='module')
def trained(place, store):
    assert cli.main([*ours('training', place), *SMALL, '--steps', '4'])==0
    return read_json(place/'run'/'result.json')

def test_steps_are_named_once(): assert SACAP_STEPS==tuple(STEPS)

def test_steps(place, store):
    assert (len(store.corpus), len(store.pictures), len(store.rewrites), store.images.shape[0], store.test.shape[0])==(24, 96, 24, 96, 5)
    assert store.hard[1]['phrase'].shape==(96, min(10, len(store.phrase_vectors))) and store.test_hard.shape==(5,)
    before = {f:f.stat().st_mtime_ns for f in (place/'store'/'drawn').rglob('*.png')}
    words = ours('supporting image synthesis', place)
    assert cli.main([*words, *TOY['supporting']])==0
    assert before=={f:f.stat().st_mtime_ns for f in (place/'store'/'drawn').rglob('*.png')} # nothing is drawn again
    assert cli.main(['prepare', 'sacap', 'public', '--data', str(place/'data'/'mscoco'), '--root', str(place/'again'), '--dataset', 'mscoco', '--out', str(place/'store')])==0
    assert read_json(place/'again'/'mscoco'/'refs.json')==read_json(place/'data'/'mscoco'/'refs.json')
    assert cli.main(['prepare', 'sacap', 'features', '--data', str(place/'world'), '--out', str(place/'store')])==1
    assert cli.main(['prepare', 'sacap'])==2

def test_training(place, trained):
    assert trained['supervision']=='text' and trained['test.n']==5 and trained['stage']=='xe' and trained['n_captions']==24
    config = read_json(place/'run'/'config.json')
    assert config['decay_all'] and config['positions']=='released' and config['need_rewrites'] # of the preset
    assert 'test.CIDEr.low' in trained

def test_inference_and_evaluation(place, trained, capsys):
    data = ['--root', str(place/'data'), '--device', 'cpu']
    assert cli.main([*ours('inference', place), *data])==0
    found = {c['image_id']:c['caption'] for c in read_json(place/'captions.json')}
    assert set(found)==set(read_json(place/'data'/'mscoco'/'refs.json'))
    assert cli.main([*ours('evaluation', place), '--metrics', 'cider', '--n-boot', '0'])==0
    assert 'CIDEr' in capsys.readouterr().out
    other = [w if w!=str(place/'captions.json') else str(place/'other.json') for w in ours('inference', place)]
    assert cli.main([*other, *data, '--support-dataset', str(place/'store')])==0 # with the whole corpus as memory

def test_checkpoints_of_the_original(tmp_path, monkeypatch):
    "The recorded checkpoint by command: its files, and captions of any pictures"
    f,keys = golden.features()
    top = tmp_path/'data'/'toy'
    for n in keys['test']:
        (top/'test'/'test_images').mkdir(parents=True, exist_ok=True)
        golden.picture(f'test/{n}').save(top/'test'/'test_images'/f'{n}.jpg', format='png')
    write_json(top/'refs.json', {n:['x'] for n in keys['test']})
    write_feature_dict(top/'test'/'test_image_global_feature_dict.pt', keys['test'], f['test'])
    write_json(top/'test'/'test_image_hard_prompt_dict.json', golden.load('retrieval')['test_image'])
    write_feature_dict(top/'train'/'text_feature_dict.pt', keys['text'], f['text'])
    write_feature_dict(tmp_path/'data'/'object_phrases_feature_dict.pt', keys['phrases'], f['phrases'])
    golden.tokenizer().save_pretrained(tmp_path/'words')
    (tmp_path/'trained').mkdir()
    torch.save(golden.checkpoint(), tmp_path/'trained'/'captioner_0.pt')
    monkeypatch.setattr('caption_nb.models.vision.load_vision', lambda spec, **how: clip_encoder(golden.clip()))
    words = ['caption', '--system', 'sacap', '--model-path', str(tmp_path/'trained'), '--root', str(tmp_path/'data'), '--support-dataset', 'toy', '--tokenizer', str(tmp_path/'words'), '--heads', '2', '--device', 'cpu']
    assert cli.main([*words, '--test-dataset', 'toy'])==0
    assert read_json(tmp_path/'trained'/'test_in_toy'/'captioner_0_res.json')==golden.load('inference_folder')['test_in_toy/captioner_0_res.json']
    assert cli.main([*words, str(top/'test'/'test_images'), '--out', str(tmp_path/'c.json')])==0
    assert len(read_json(tmp_path/'c.json'))==7

def test_goes_on_exactly(place, store, monkeypatch):
    "Stopped after two of four steps, the run ends with the weights of the one that was not; the same seed gives the same bytes"
    from caption_nb.train.loop import Loop
    step,seen = Loop.train_step,[]
    def stop(self, batches):
        seen.append(self.step)
        if len(seen)==3: raise KeyboardInterrupt
        return step(self, batches)
    words = lambda out: ['train', 'sacap.xe', '--data', str(place/'store'), '--test=', '--out', str(place/out), *SMALL, '--steps', '4', '--n-val', '4', '--save-every', '2', '--repair', 'softmax', '--drop-phrases', '.3']
    monkeypatch.setattr(Loop, 'train_step', stop)
    assert cli.main(words('stopped'))==1 and not (place/'stopped'/'result.json').exists()
    monkeypatch.setattr(Loop, 'train_step', step)
    assert cli.main(words('stopped'))==0 and cli.main(words('whole'))==0
    for name in ('captions.json', 'model/model.safetensors'): assert (place/'stopped'/name).read_bytes()==(place/'whole'/name).read_bytes()

def test_two_processes(place, store):
    options = f'--data {place/"store"} --test= --steps 4 --n-val 4 --repair softmax --shuffle-phrases --log-every 1 --eval-every 2 '+' '.join(SMALL[:-2])+' --ema 0'
    one,two = (train(place, 'sacap.xe', f'by{n}', options, n) for n in (1, 2))
    a,b = same_runs(one, two)
    for k in a: assert np.allclose(a[k], b[k], atol=1e-4), k
