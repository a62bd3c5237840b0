"What the kept runs in `reports` say is what the notebooks and the README claim"
import pytest
from caption_nb.core import read_json, repo_path

def kept(run): return read_json(repo_path('reports')/run/'result.json')

def test_zerocap_names_adds_and_reads():
    r = kept('toy/zerocap/captions')
    assert r['test.fact_F1']>=.6 and r['test.Toy_object_F1']>=.6
    assert all(r[f'test.{k}.low']>2*r[f'test.shuffled.{k}.high'] for k in ('Toy_object_F1', 'color_F1'))
    assert r['arithmetic.hit@1']>=.6 and r['arithmetic.n']==200 and r['arithmetic.shuffled']<.1
    assert r['ocr.preset_read.low']>r['ocr.chance']

@pytest.mark.parametrize('seed', range(3))
def test_the_second_stage_of_opg_gains(seed):
    r = kept(f'toy/opg/scst/{seed}')
    assert r['seed']==seed and r['test.CIDEr']-r['start.test.CIDEr']>=.05
