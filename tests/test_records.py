"What the kept runs in `reports` say is what the notebooks and the README claim"
import pytest
from caption_nb.core import config_hash, make_config, read_json, repo_path, to_dict
from caption_nb.zerocap.arithmetic import TOY_CAPTION, preset
from caption_nb.zerocap.published import ZeroCapConfig

def kept(run): return read_json(repo_path('reports')/run/'result.json')

def test_zerocap_names_adds_and_reads():
    r = kept('toy/zerocap/captions')
    assert all(r[f'test.{k}']>=.6 for k in ('fact_F1', 'Toy_object_F1', 'color_F1'))
    assert all(r[f'test.{k}.low']>2*r[f'test.shuffled.{k}.high'] for k in ('Toy_object_F1', 'color_F1'))
    assert r['arithmetic.hit@1']>=.6 and r['arithmetic.n']==200 and r['arithmetic.shuffled']<.1
    assert r['ocr.preset_read.low']>r['ocr.chance'] and r['ocr.sign_read.low']>r['ocr.chance']
    said = read_json(repo_path('reports')/'toy/zerocap/captions/answers.json')
    assert [sum(x[k]==x['answer'] for x in said['signs'])/200 for k in ('preset', 'sign')]==[r['ocr.preset_read'], r['ocr.sign_read']] and len(said['sums'])==200

@pytest.mark.parametrize('seed', range(3))
def test_the_second_stage_of_opg_gains(seed):
    r = kept(f'toy/opg/scst/{seed}')
    assert r['seed']==seed and r['test.CIDEr']-r['start.test.CIDEr']>=.05
    said = [c for c in read_json(repo_path('reports')/f'toy/opg/scst/{seed}/captions.json') if c['split']=='test']
    assert len(said)==300 and not any('cut_off' in c.get('extra', {}) or any(a==b for a,b in zip(w, w[1:])) for c in said for w in [c['caption'].split()]) # they end, no word twice running

def test_the_ablation_of_opg_says_what_its_notebook_says():
    rows = {p.parent.parent.name:kept(p.parent.relative_to(repo_path('reports')))['test.CIDEr'] for p in repo_path('reports/ablation/opg_toy').glob('*/seed-0/result.json')}
    base = rows.pop('base')
    assert len(rows)==12 and max(rows, key=rows.get) in ('mask-reference-0.1', 'aux-loss-0.1') and base>max(rows.values())
    assert rows['mask-reference-0.9']<.2*base and rows['frozen']<rows['frozen-transformer']<.65*base
    assert base-.12<rows['mask-soft'] and rows['aux-loss-0.3']<rows['aux-loss-0.1'] and rows['mapper-transformer']<rows['mapper-linear']<base

def test_zerocap_takes_the_settings_that_were_best_on_validation_pictures():
    r,ran = kept('ablation/zerocap_chosen'),kept('toy/zerocap/captions')
    rows = {k.split('/')[0]:v for k,v in r.items() if k.endswith('/fact_F1')}
    assert max(rows, key=rows.get)=='fluency 0.5, 8 candidates' and rows['default()']<.35
    cfg = make_config(ZeroCapConfig, to_dict(preset('caption', **TOY_CAPTION)), 'records')
    assert (cfg.beam_size, cfg.ce_scale, cfg.top_size)==(16, .5, 8) and config_hash(cfg)==ran['config_hash']

def test_photographs_by_opg():
    "The second stage gains four points on its own start, searched for alike; a second opinion of similar pictures passes .54 with the first stage's weights"
    scst,first = kept('photos/opg/scst'),kept('photos/opg/xe')
    assert scst['start.test.CIDEr']==first['test.CIDEr'] and scst['test.CIDEr']-first['test.CIDEr']>=.04
    assert all(scst[f'test.CIDEr.{e}']>first[f'test.CIDEr.{e}'] for e in ('low', 'high'))
    assert kept('photos/opg/consensus')['test.CIDEr']>=.54 and kept('photos/opg/consensus')['encoder']==first['encoder']

def test_the_ablation_on_photographs_says_what_its_notebook_says():
    rows = {p.parent.parent.name:kept(p.parent.relative_to(repo_path('reports'))) for p in repo_path('reports/ablation/opg_photos').glob('*/seed-0/result.json')}
    cider = {k:r['test.CIDEr'] for k,r in rows.items()}
    base = cider['base']
    assert len(rows)==13 and all(r['test.n']==500 for r in rows.values())
    assert all(abs(cider[k]-base)<.02 for k in ('mask-soft', 'mask-ste', 'aux-loss-0.1', 'aux-loss-0.3', 'mapper-clip_mlp', 'mask-reference-0.1', 'mask-reference-0.5'))
    assert cider['mask-reference-0.9']<.4*base and cider['frozen']<.6*base and cider['frozen-transformer']<.6*base and .02<base-cider['mapper-linear']<.03

def test_both_stages_of_opg_are_fast_on_a_processor():
    r = kept('benchmarks/opg')
    assert r['preset']=='full' and r['processors']==2 and 'cpu' in r['device']
    assert r['xe.bf16.lowest']>=5 and r['scst.bf16.lowest']>=8 and r['xe.larger.lowest']>=5
