"A caption belongs to the picture whose id it carries, whatever the batches and beams; files of results load, ours and the original's"
import dataclasses, json
import numpy as np
import pytest
import torch
from PIL import Image
from caption_nb.app.systems import caption_to_file
from caption_nb.core import read_json, shared_path
from caption_nb.data.table import make_table
from caption_nb.metrics.inputs import align, read_candidates, read_references
from caption_nb.models.lm import small_gpt2, train_tokenizer
from caption_nb.models.vision import load_vision
from caption_nb.opg.prefix import PrefixCaptioner, PrefixConfig
from caption_nb.train.stage import caption_part, features_of

IDS = [f'{n}' for n in (522418, 42, 9, 7, 581929, 73, 100, 3, 88)]

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Nine pictures and an untrained captioner with loud weights, which says something else about each"
    tmp = tmp_path_factory.mktemp('pairs')
    for i,k in enumerate(IDS): Image.fromarray(np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp/f'{k}.png')
    words = [f'a {a} {b} near the {c}' for a in ('red', 'blue', 'green') for b in ('cat', 'dog', 'ball') for c in ('box', 'tree', 'house')]
    torch.manual_seed(0)
    lm,encoder = small_gpt2(train_tokenizer(words, 300), 1, 32, 2, 64, 0., seed=0, init=.4),load_vision('pixels:8', size=24)
    model = PrefixCaptioner(PrefixConfig(encoder=encoder.name, d=encoder.dim, r=encoder.n_tokens, prefix_scale=8., max_len=8), lm, encoder).eval()
    return tmp, make_table([dict(image_id=k, path=tmp/f'{k}.png', captions=[f'picture {k}']) for k in IDS]), model

def with_beams(model, k):
    model.cfg = dataclasses.replace(model.cfg, beam_size=k)
    return model

def alone(model, folder):
    "Captions of the pictures one by one"
    return {k:model([folder/f'{k}.png'], quiet=True)[0].text for k in IDS}

@pytest.mark.parametrize('beams', [1, 2, 3, 5])
def test_any_batch_any_beams(world, beams):
    folder,table,model = world
    want = alone(with_beams(model, beams), folder)
    assert len(set(want.values()))>=7, want # else a wrong pairing could not be seen
    part = features_of(table, model.encoder)
    for size in (1, 2, 4, 9, 50):
        for caps in (model(table, batch_size=size, quiet=True), caption_part(model, part, batch_size=size, quiet=True)):
            assert [c.image_id for c in caps]==IDS
            assert {c.image_id:c.text for c in caps}==want, size
        assert [c.image_id for c in caption_part(model, part, 5, size, quiet=True)]==IDS[:5]

@pytest.mark.parametrize('size', [1, 2, 4, 9])
def test_a_broken_picture_shifts_nothing(world, tmp_path, size):
    folder,_,model = world
    want = alone(with_beams(model, 2), folder)
    for k in IDS: (tmp_path/f'{k}.png').write_bytes((folder/f'{k}.png').read_bytes() if k!='9' else b'no picture')
    caps,skipped = caption_to_file(model, [tmp_path/f'{k}.png' for k in IDS], tmp_path/'captions.json', 'key', size, quiet=True)
    assert list(skipped)==['9.png'] and {c.image_id:c.text for c in caps}=={f'{k}.png':v for k,v in want.items() if k!='9'}

def test_result_files_load(world, tmp_path):
    "Ours, and the original's, whose loader adds a running `id` to each row"
    folder,table,model = world
    want = alone(with_beams(model, 2), folder)
    caption_to_file(model, table, tmp_path/'ours.json', 'key', 4, quiet=True)
    rows = [dict(image_id=int(k), caption=v) for k,v in want.items()]
    (tmp_path/'theirs.json').write_text(json.dumps(rows, indent=4))
    (tmp_path/'theirs_with_id.json').write_text(json.dumps([r|dict(id=i+1) for i,r in enumerate(rows)], indent=4))
    gt = dict(images=[dict(id=int(k)) for k in IDS], annotations=[dict(image_id=int(k), caption=f'picture {k}', id=i) for i,k in enumerate(IDS)])
    for name in ('ours.json', 'theirs.json', 'theirs_with_id.json'):
        found = read_candidates(tmp_path/name)
        assert {str(k):v for k,v in found.items()}==want, name
        refs,caps,_ = align(read_references(gt), found)
        assert list(refs)==list(caps) and {refs[k][0]:caps[k] for k in refs}=={f'picture {k}':v for k,v in want.items()}, name

def test_the_published_result_file_loads():
    file = shared_path('data', 'coco_karpathy', 'predictions', 'opg_swinv2_mlp.json')
    if file is None: pytest.skip('set CAPNB_SHARED to a folder with data/coco_karpathy')
    caps = read_candidates(file)
    assert len(caps)==5000 and len(set(caps.values()))==4204
    assert caps=={r['image_id']:r['caption'] for r in read_json(file)}
