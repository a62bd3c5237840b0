"DiCO at tiny size: our side of each row of its table, from shards; kills; two processes"
import json, shlex
import numpy as np
import pytest
from caption_nb.app import cli
from caption_nb.app.dicocommands import COMMANDS
from caption_nb.core import read_json
from caption_nb.data.toy import toy_world

SMALL = '--encoder pixels:48 --words toy/clip --width 32 --layers 1 --heads 2 --hidden 48 --batch-size 8 --steps 4 --n-val 8 --eval-every 4 --max-len 14 --beam-size 3 --judge toy/weak --precision fp32 --device cpu'.split()
TUNE = '--k 3 --batch-size 8 --steps 3 --eval-every 3 --lr 1e-3 --clip-metric dico_clip --clip-model toy/clip --judge toy/weak --precision fp32 --device cpu'.split()

@pytest.fixture(scope='module')
def place(tmp_path_factory, request):
    "Shards of a small world with their datasets.json, and the cache of this module"
    place = tmp_path_factory.mktemp('dico')
    patch = pytest.MonkeyPatch()
    patch.setenv('CAPTION_NB_CACHE', str(place/'cache'))
    request.addfinalizer(patch.undo)
    world = toy_world(place/'world', n_train=24, n_val=8, n_test=6, n_near=0, n_out=0, n_style=0, n_text=0, n_text_train=0, size=64)
    world.save(place/'toy.csv')
    for split in ('train', 'val', 'test'): assert cli.main(['prepare', 'shards', '--data', str(place/'toy.csv'), '--split', split, '--per-shard', '10', '--out', str(place/'shards')])==0
    assert set(read_json(place/'shards'/'datasets.json'))=={'train', 'val', 'test'}
    return place

def ours(title, place):
    "Our command of a row, its names made those of this place"
    words = shlex.split(next(c.ours for c in COMMANDS if c.title==title))[1:]
    names = {'datasets.json':place/'shards'/'datasets.json', 'runs/dico-xe':place/'xe', 'runs/dico':place/'dico', 'coco-384-test-dict-625-{000..007}.tar':place/'shards'/'test-000.tar', 'captions.json':place/'c.json'}
    return [str(names.get(w, w)) for w in words]

@pytest.fixture(scope='module')
def trained(place):
    words = ours('cross-entropy pre-training', place)
    assert cli.main([*words, *SMALL])==0
    return read_json(place/'xe'/'result.json')

@pytest.fixture(scope='module')
def tuned(place, trained):
    assert cli.main([*ours('DiCO fine-tuning', place), *TUNE])==0
    return read_json(place/'dico'/'result.json')

def test_training_from_shards(place, trained):
    assert trained['test.n']==6 and trained['n_train']==24 and trained['stage']=='xe'
    config = read_json(place/'xe'/'config.json')
    assert config['pad_in_loss'] and config['lr']==2.5e-4 # of the preset
    assert all(f'test.{k}' in trained for k in ('CIDEr', 'PAC-S', 'RefPAC-S', 'ends'))

def test_tuning(place, trained, tuned):
    assert tuned['stage']=='dico' and tuned['start.test.CIDEr']==trained['test.CIDEr']
    lines = [json.loads(l) for l in (place/'dico'/'log.jsonl').read_text().splitlines()]
    assert lines[0]['step']==0 and 'val.RefPAC-S' in lines[0]

def test_inference_over_shards(place, tuned, capsys):
    assert cli.main([*ours('inference', place), '--device', 'cpu'])==0
    found = {c['image_id']:c['caption'] for c in read_json(place/'c.json')}
    assert found=={c['image_id']:c['caption'] for c in read_json(place/'dico'/'captions.json') if c['split']=='test'}
    assert cli.main(['caption', str(place/'shards'/'test-000.tar'), str(place/'world'), '--run', str(place/'dico')])==2

def test_same_seed_same_captions(place, tuned):
    assert cli.main([*[w if w!=str(place/'dico') else str(place/'again') for w in ours('DiCO fine-tuning', place)], *TUNE])==0
    assert (place/'again'/'captions.json').read_bytes()==(place/'dico'/'captions.json').read_bytes()
    assert (place/'again'/'model'/'model.safetensors').read_bytes()==(place/'dico'/'model'/'model.safetensors').read_bytes()

def test_goes_on_exactly(place, trained, tuned, monkeypatch):
    "Stopped after two of three steps, the run ends with the weights of the one that was not"
    from caption_nb.train.loop import Loop
    step,seen = Loop.train_step,[]
    def stop(self, batches):
        seen.append(self.step)
        if len(seen)==3: raise KeyboardInterrupt
        return step(self, batches)
    words = [*[w if w!=str(place/'dico') else str(place/'stopped') for w in ours('DiCO fine-tuning', place)], *TUNE, '--save-every', '1']
    monkeypatch.setattr(Loop, 'train_step', stop)
    assert cli.main(words)==1 and not (place/'stopped'/'result.json').exists()
    monkeypatch.setattr(Loop, 'train_step', step)
    assert cli.main(words)==0
    assert (place/'stopped'/'model'/'model.safetensors').read_bytes()==(place/'dico'/'model'/'model.safetensors').read_bytes()
    scores = [{k:v for k,v in read_json(place/r/'result.json').items() if k.startswith('test.') and not isinstance(v, str)} for r in ('stopped', 'dico')]
    assert scores[0].keys()==scores[1].keys() and np.allclose(list(scores[0].values()), list(scores[1].values()))
