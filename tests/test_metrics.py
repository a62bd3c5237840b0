"The metrics against stored values of the field's scorer, and with every kind of Java"
import json, os, subprocess, sys
import numpy as np
import pytest
from caption_nb.core import shared_path
from caption_nb.metrics.ngram import DocFreq, bleu, cider, doc_freq, rouge_l
from caption_nb.metrics.ptb import find_java, tokenize
from caption_nb.metrics.scorecard import score

def data(*parts):
    "A file of the development data; texts of others, so it is read where it is"
    path = shared_path(*parts)
    if path is None: pytest.skip(f'{"/".join(parts)} is not here (CAPNB_SHARED)')
    return path

def load(*parts): return json.loads(data(*parts).read_text(encoding='utf-8'))

def of_paper(refs, cands):
    "Every value of the three metrics under the names of the stored scores"
    (b,be),(r,re_),(c,ce) = bleu(refs, cands),rouge_l(refs, cands),cider(refs, cands)
    return {f'Bleu_{k+1}':(b[k],be[k]) for k in range(4)} | {'ROUGE_L':(r,re_), 'CIDEr':(c,ce)}

@pytest.mark.parametrize('system', ['opg','zerocap','magic'])
def test_coco120(system):
    images,want = load('golden','metrics','coco120.json')['images'],load('golden','metrics','coco120_expected.json')
    ids = [i['id'] for i in images]
    for java in ['no'] + ['auto']*(find_java() is not None):
        tokens,_ = tokenize([t for i in images for t in i['refs']], java)
        refs = {k:tokens[5*n:5*n+5] for n,k in enumerate(ids)}
        cands = dict(zip(ids, tokenize([i['cands'][system] for i in images], java)[0]))
        stored = want['tokens'][system]
        assert list(cands.values())==(list(stored.values()) if isinstance(stored, dict) else stored)
        for name,(corpus,each) in of_paper(refs, cands).items():
            assert abs(corpus-want['scores'][system]['corpus'][name])<1e-9, name
            assert np.abs(each-np.array(want['scores'][system]['per_image'][name])).max()<1e-9, name

def test_reward_of_stored_document_frequencies():
    d = load('golden','metrics','scst60.json')
    def eos(t): return t.strip().removesuffix('.').strip()+' <eos>'
    df = doc_freq({i['id']:[eos(r) for r in i['refs']] for i in d['images']})
    first = d['images'][:10]
    refs = {i['id']:[eos(r) for r in i['refs']] for i in first}
    def scores(texts): return cider(refs, {i['id']:eos(t) for i,t in zip(first, texts)}, df)[1]
    greedy = scores([i['greedy'] for i in first])
    samples = np.stack([scores([i['samples'][k] for i in first]) for k in range(5)], 1)
    others = (samples.sum(1, keepdims=True)-samples)/4
    for got,name in [(greedy,'greedy_scores'), (samples,'sample_scores'), (samples-greedy[:,None],'advantage_greedy'), (samples-others,'advantage_sample')]:
        assert np.abs(got-np.array(d['expected'][name])).max()<1e-10, name

OUTPUTS = [('coco_karpathy','test_captions.json',n) for n in ('zerocap','magic','clip_retrieval','opg_swinv2_mlp')]
OUTPUTS += [('flickr30k_text','test_captions.json',n) for n in ('zerocap','magic','clip_retrieval')]

@pytest.mark.parametrize('folder,refs,system', OUTPUTS)
def test_known_scores_of_published_systems(folder, refs, system):
    want = load('data',folder,'predictions','scores.json')[system]
    card = score(data('data',folder,refs), data('data',folder,'predictions',f'{system}.json'), missing='drop')
    for k,v in card.corpus.items():
        assert round(v, 6)==pytest.approx(want[k], abs=1.01e-6), k
        assert card.intervals[k][0]<v<card.intervals[k][1]

REFS = {f'{n}.jpg':[f"A man's dog number {n} doesn't bark!", f'Dog {n} on St. James St.'] for n in range(60)}
CANDS = {f'{n}.jpg':f"a man's dog {n} (barking)" for n in range(60)}
CODE = 'import json,sys; from caption_nb.metrics.scorecard import score; s=score(*json.load(sys.stdin), n_boot=0); print(json.dumps([s.corpus, s.settings["tokenizer"], s.notes]))'

def in_process(**env):
    "Scores from a fresh interpreter with another environment"
    p = subprocess.run([sys.executable, '-c', CODE], input=json.dumps([REFS, CANDS]), env=os.environ|env, capture_output=True, text=True, timeout=120)
    assert p.returncode==0, p.stderr
    return json.loads(p.stdout)

def test_no_java_still_scores(tmp_path):
    corpus,how,notes = in_process(PATH=str(tmp_path), JAVA_HOME='', CAPTION_NB_JAVA='')
    assert how=='approximate' and 'no java was found' in ' '.join(notes)
    assert corpus==score(REFS, CANDS, n_boot=0).corpus

@pytest.mark.skipif(find_java() is None, reason='needs Java')
@pytest.mark.parametrize('env', [dict(JAVA_TOOL_OPTIONS='-Duser.language=de -Duser.country=DE'), dict(_JAVA_OPTIONS='-Duser.language=tr -Dfile.encoding=ISO-8859-1'),
                                 dict(LC_ALL='C'), dict(LC_ALL='tr_TR.UTF-8')])
def test_locale_of_java_does_not_matter(env):
    corpus,how,_ = in_process(**env)
    assert how=='java' and corpus==score(REFS, CANDS, n_boot=0).corpus

def test_document_frequencies_of_two_pictures():
    assert cider({1:['dog']}, {1:'dog'}, DocFreq(2, {}))[0]==pytest.approx(2.5)
