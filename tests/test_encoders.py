"Encoders of every kind train a captioner, and ready features train the same one as the encoder that made them"
import numpy as np
import pytest
from fastcore.test import expect_fail
from safetensors.torch import load_file
from caption_nb.app.systems import load
from caption_nb.core import InputError
from caption_nb.data.cache import cache_features
from caption_nb.data.table import Table
from caption_nb.data.toy import toy_world
from caption_nb.models.vision import load_vision
from caption_nb.opg.train import ConsensusConfig, XEConfig, add_consensus, train_xe
from caption_nb.train.stage import features_of, load_data

SMALL = dict(epochs=1, batch_size=8, lm_layers=1, lm_width=32, lm_heads=2, n_val=4, beam_size=2, max_len=12, precision='fp32', device='cpu')

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a small table of drawn pictures"
    tmp = tmp_path_factory.mktemp('encoders')
    rows = toy_world(n_train=16).rows
    some = Table(rows.groupby('split', sort=False).head(16).reset_index(drop=True))
    some.save(tmp/'table.csv')
    return tmp

def table(place): return load_data(XEConfig(data=str(place/'table.csv')))

@pytest.mark.parametrize('views', [1, 2])
def test_ready_features_train_the_captioner_that_their_encoder_trains(place, views):
    how = 'opg' if views>1 else ''
    t,enc = table(place),load_vision('pixels:48', augment=how)
    store = cache_features(enc, t, place/f'store{views}', views=views)
    one = train_xe(XEConfig(encoder='pixels:48', augment=how, views=views, **SMALL), place/f'seen{views}', table=t, quiet=True)
    two = train_xe(XEConfig(encoder=f'features:{store.folder}', views=views, **SMALL), place/f'ready{views}', table=t, quiet=True)
    a,b = (load_file(place/f'{n}{views}'/'model'/'model.safetensors') for n in ('seen', 'ready'))
    assert a.keys()==b.keys() and all(a[k].equal(b[k]) for k in a)
    assert {k:v for k,v in one.items() if k.endswith('.CIDEr')}=={k:v for k,v in two.items() if k.endswith('.CIDEr')}
    with expect_fail(InputError, contains='has no encoder'): load(place/f'ready{views}')([t.rows.path[0]])

def test_ready_features_need_no_pictures(place):
    "Captions without pictures, one pooled vector each from a file of arrays; a picture that is not in it is left out"
    t = table(place)
    ids = list(t.rows.image_id)
    np.savez(place/'pooled.npz', ids=np.array(ids[1:]), features=np.random.default_rng(0).normal(size=(len(ids)-1, 12)).astype(np.float32))
    blind = Table(t.rows.assign(path=None))
    cfg = XEConfig(data=str(blind.save(place/'blind.csv')), encoder=f'features:{place/"pooled.npz"}', mapper='clip_mlp', **SMALL)
    result = train_xe(cfg, place/'blind', quiet=True)
    assert result['n_skipped']==1 and result['n_train']==len(t.split('train'))-1
    again = add_consensus(ConsensusConfig(run=str(place/'blind'), neighbours=3, beam_size=2, device='cpu'), place/'agreed', quiet=True)
    assert again['stage']=='consensus'
    with expect_fail(InputError, contains='Without strict they are left out'): features_of(t, load_vision(cfg.encoder), strict=True)
    with expect_fail(InputError, contains='set views to 1'): train_xe(XEConfig(encoder=cfg.encoder, views=2, **SMALL), place/'no', table=blind, quiet=True)

def test_augmented_views_change_what_is_learnt(place):
    t = table(place)
    runs = {a:train_xe(XEConfig(encoder='pixels:48', views=3, augment=a, **SMALL), place/f'views{a}', table=t, quiet=True) for a in ('', 'opg')}
    assert runs['']['encoder_fingerprint']!=runs['opg']['encoder_fingerprint']
    a,b = (load_file(place/f'views{n}'/'model'/'model.safetensors') for n in ('', 'opg'))
    assert any(not a[k].equal(b[k]) for k in a)
