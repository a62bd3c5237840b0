"The metrics against stored values of the field's scorer, and with every kind of Java"
import contextlib, io, json, os, subprocess, sys
import numpy as np
import pytest
from caption_nb.core import InputError, repo_path, shared_path
from caption_nb.metrics.ngram import DocFreq, bleu, cider, doc_freq, rouge_l
from caption_nb.metrics.ptb import find_java, tokenize
from caption_nb.metrics.registry import METRICS, Metric, base_name, direction, find_pictures
from caption_nb.metrics.scorecard import compare, mean_of, score, score_domains
from caption_nb.metrics.systems import latex, remarks, system_rows, wide
from caption_nb.rewards.cider import CiderDReward, advantage, build_cider_df

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
    refs,first = {i['id']:i['refs'] for i in d['images']},d['images'][:10]
    df = doc_freq({i:[eos(r) for r in v] for i,v in refs.items()})
    def by_metric(texts): return cider({i['id']:[eos(r) for r in i['refs']] for i in first}, {i['id']:eos(t) for i,t in zip(first, texts)}, df)[1]
    reward = CiderDReward(build_cider_df(refs), refs)
    def by_reward(texts): return reward(texts, [i['id'] for i in first])
    for scores in (by_metric, by_reward):
        greedy = scores([i['greedy'] for i in first])
        samples = np.stack([scores([i['samples'][k] for i in first]) for k in range(5)], 1)
        for got,name in [(greedy,'greedy_scores'), (samples,'sample_scores'), (advantage(samples, greedy),'advantage_greedy'), (advantage(samples),'advantage_sample')]:
            assert np.abs(got-np.array(d['expected'][name])).max()<1e-10, name

OUTPUTS = [('coco_karpathy','test_captions.json',n) for n in ('zerocap','magic','clip_retrieval','opg_swinv2_mlp')]
OUTPUTS += [('flickr30k_text','test_captions.json',n) for n in ('zerocap','magic','clip_retrieval')]

@pytest.mark.parametrize('folder,refs,system', OUTPUTS)
def test_known_scores_of_published_systems(folder, refs, system):
    want = load('data',folder,'predictions','scores.json')[system]
    java = find_java() is not None
    card = score(data('data',folder,refs), data('data',folder,'predictions',f'{system}.json'), ('bleu','rouge','cider')+('meteor',)*java, missing='drop')
    assert card.counts['n_images']==want['n'] and {k:round(v, 6) for k,v in card.corpus.items()}=={k:v for k,v in want.items() if k!='n' and (java or k!='METEOR')}
    for k,v in card.corpus.items(): assert card.intervals[k][0]<v<card.intervals[k][1]

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

needs_java = pytest.mark.skipif(find_java() is None, reason='needs Java')

@needs_java
@pytest.mark.parametrize('system', ['opg','zerocap','magic'])
def test_meteor_of_coco120(system):
    images,want = load('golden','metrics','coco120.json')['images'],load('golden','metrics','coco120_expected.json')
    card = score({i['id']:i['refs'] for i in images}, {i['id']:i['cands'][system] for i in images}, ('meteor','bleu','rouge','cider'), n_boot=0)
    assert abs(card.corpus['METEOR']-want['scores'][system]['corpus']['METEOR'])<1e-12
    assert np.abs(card.per_image.METEOR.to_numpy()-np.array(want['scores'][system]['per_image']['METEOR'])).max()<1e-12
    for k in want['scores'][system]['corpus']: assert card.corpus[k]==pytest.approx(want['scores'][system]['corpus'][k], abs=1e-9), k

@needs_java
@pytest.mark.parametrize('refs,cands', [('sacap_refs','sacap_candidates'), ('coco_gt','coco_results'), (None,'viecap_generated_captions'), ('nocaps_gt','nocaps_results'), (None,'viecap_nocaps_overall')])
def test_layouts_with_meteor(refs, cands):
    folder = repo_path('tests','golden','metrics','layouts')
    want = json.loads((folder/'expected.json').read_text())
    sides = refs and folder/f'{refs}.json', folder/f'{cands}.json'
    nocaps = 'nocaps' in cands
    cards = score_domains(*sides, metrics='bleu,meteor,rouge,cider', n_boot=0) if nocaps else dict(three=score(*sides, 'bleu,meteor,rouge,cider', n_boot=0))
    for name,card in cards.items():
        for k,v in (want['nocaps'][name] if nocaps else want['three_images']).items(): assert card.corpus[k]==pytest.approx(v, abs=1e-12), (name, k)

# ---- odd inputs: every case of bad_inputs.json, and the rows that have no case there

CASES = json.loads(repo_path('tests','golden','metrics','bad_inputs.json').read_text(encoding='utf-8'))['cases']

def sides(case):
    "References and candidates of a case; ids are integers written as text, one case holds an escape as plain text"
    def ids(d, as_text=False): return {k if as_text else int(k):v for k,v in d.items()}
    refs,cands = ids(case['refs']),ids(case['cands'], case['name']=='ids as text on one side')
    if case['name']=='lone surrogate': cands = {k:v.replace('\\ud83d', '\ud83d') for k,v in cands.items()}
    return refs,cands

@pytest.mark.parametrize('case', [c for c in CASES if c['want']!='error'], ids=lambda c: c['name'])
@pytest.mark.parametrize('java', ['no', pytest.param('auto', marks=needs_java)])
def test_odd_input_has_the_reference_scores(case, java):
    names,want = ('bleu','rouge','cider','meteor') if java=='auto' else ('bleu','rouge','cider'),case.get('expected', case['peer'])
    card = score(*sides(case), names, java=java, n_boot=0)
    assert set(card.status.values())=={'ok'}
    for k,v in want['scores'].items():
        if k in card.corpus: assert card.corpus[k]==pytest.approx(v, abs=1e-9), k
    for k,v in want.get('per_image', {}).items():
        if k in card.per_image: assert card.per_image[k].to_numpy()==pytest.approx(np.array(v), abs=1e-9), k

@pytest.mark.parametrize('case', [c for c in CASES if c['want']=='error'], ids=lambda c: c['name'])
def test_odd_input_is_an_error_of_ours(case):
    refs,cands = sides(case)
    with pytest.raises(InputError) as e: score(refs, cands)
    if case['name']!='nothing': assert any(str(i) in str(e.value) for i in (1,2,3,4)), e.value

THREE = {1:['A man riding a bike.', 'A man on a bicycle.'], 2:['Two dogs play.', 'Dogs on a lawn.'], 3:['A plate of food.', 'Rice on a plate.']}
SAID = {1:'a man rides a bike', 2:'two dogs', 3:'a plate of rice'}
def notes(card): return ' '.join(card.notes)

@pytest.mark.parametrize('empty', ['', '.', '   ', ' . '])
@pytest.mark.parametrize('at', [1,2,3])
def test_empty_candidates_are_counted(empty, at):
    card = score(THREE, SAID|{at:empty}, n_boot=0)
    assert card.counts['n_empty_candidates']==1 and '1 of 3 candidates are empty' in notes(card) and card.per_image.CIDEr[at]==0

def test_all_candidates_empty_is_said():
    card = score(THREE, dict.fromkeys(THREE, '.'), n_boot=0)
    assert 'All candidates are empty' in notes(card) and not any(card.corpus.values())

def test_empty_references_are_counted():
    card = score(THREE|{2:['Two dogs play.', '']}, SAID, n_boot=0)
    assert card.counts['n_empty_references']==1 and '1 references are empty' in notes(card)
    card = score(THREE|{2:['', ' . ']}, SAID|{2:''}, n_boot=0)
    assert card.per_image.ROUGE_L[2]==1 and card.counts['n_all_empty']==1 and 'ROUGE-L counts them as 1' in notes(card)

@pytest.mark.parametrize('sign', ['\r', '\n', '\r\n', '\v', '\f', '\x85', '\u2028', '\u2029', '\t', '\xa0', '\x1c', '\x1d', '\x1e'])
@pytest.mark.parametrize('java', ['no', pytest.param('auto', marks=needs_java)])
def test_no_sign_moves_captions_to_other_pictures(sign, java):
    odd = {k:v.replace(' ', sign, 1) for k,v in SAID.items()}
    refs = {k:[r.replace(' ', sign, 1)+" isn't" for r in v] for k,v in THREE.items()} # the contraction sends the line to Java
    plain = score({k:[r+" isn't" for r in v] for k,v in THREE.items()}, SAID, java=java, n_boot=0)
    assert score(refs, odd, java=java, n_boot=0).corpus==pytest.approx(plain.corpus, abs=1e-12)

def test_what_is_no_text_is_refused_or_repaired():
    for bad,cured in [('a \ud83d dog', 'a \ufffd dog'), (None, ''), (5, ''), (float('nan'), '')]:
        with pytest.raises(InputError, match='no proper text: 2'): score(THREE, SAID|{2:bad})
        card = score(THREE, SAID|{2:bad}, lenient=True, n_boot=0)
        assert card.counts['n_repaired']==1 and card.corpus==score(THREE, SAID|{2:cured}, n_boot=0).corpus

def test_missing_and_surplus_candidates():
    with pytest.raises(InputError, match='1 of 3 pictures have no candidate: 2'): score(THREE, {1:'a', 3:'b'})
    with pytest.raises(InputError, match='1 of 4 candidates have no references: 9'): score(THREE, SAID|{9:'a'})
    assert score(THREE, {1:'a', 3:'b'}, missing='drop', n_boot=0).counts['n_dropped']==1
    assert score(THREE, {1:'a', 3:'b'}, missing='empty', n_boot=0).counts['n_filled']==1
    with pytest.raises(InputError, match='missing must be one of'): score(THREE, SAID, missing='ignore')

def test_two_captions_for_a_picture():
    rows = [dict(image_id=k, caption=v) for k,v in SAID.items()]
    card = score(THREE, rows+rows[:1], n_boot=0)
    assert card.counts['n_merged']==1 and 'merged' in notes(card)
    with pytest.raises(InputError, match='several different captions: 1'): score(THREE, rows+[dict(image_id=1, caption='other')])

def test_twice_in_one_json_dictionary(tmp_path):
    (tmp_path/'c.json').write_text('{"1": "a man", "2": "two dogs", "3": "x", "1": "other"}')
    with pytest.raises(InputError, match="several different captions: '1'"): score(THREE, tmp_path/'c.json')

def test_no_references_or_nothing_at_all():
    with pytest.raises(InputError, match='1 pictures have no reference: 2'): score(THREE|{2:[]}, SAID)
    for refs,cands in [({}, {}), (THREE, {}), (THREE, [])]:
        with pytest.raises(InputError): score(refs, cands)

def test_few_pictures_get_a_warning():
    one = score({1:THREE[1]}, {1:SAID[1]}, n_boot=0)
    assert one.corpus['CIDEr']==0 and 'single picture is 0 whatever the caption' in notes(one)
    assert 'fewer than 50' in notes(score(THREE, SAID, n_boot=0))
    same = {i:['a dog runs', 'the dog'] for i in range(60)}
    card = score(same, dict.fromkeys(same, 'a dog runs'), n_boot=0)
    assert card.corpus['CIDEr']==0 and 'their references are (nearly) the same' in notes(card)
    assert 'fewer than' not in notes(score(THREE, SAID, df=DocFreq(100, {}), n_boot=0))

def test_no_cider_of_zero_without_a_word():
    same = {i:['a dog runs', 'the dog'] for i in range(60)}
    for said in ('a dog runs', 'nothing of it'):
        assert 'CIDEr is 0' in notes(score(same, dict.fromkeys(same, said), 'cider', n_boot=0)) # BLEU was not asked for

def test_instances_that_are_no_lists_of_known_categories():
    for odd,why in [(dict.fromkeys(THREE, 'dog'), "no list of category names: 1, 2, 3; that of 1 is 'dog'"), (dict.fromkeys(THREE, ['widget']), 'None of the annotated categories')]:
        card = score(THREE, SAID, 'bleu,chair', n_boot=0, extras=dict(instances=odd))
        assert card.corpus['CHAIR_i'] is None and card.status['CHAIR_i'].startswith('failed: ') and why in card.status['CHAIR_i']
    a,b = (score(THREE, SAID, 'chair', n_boot=0, extras=dict(instances=dict.fromkeys(THREE, [c]))).corpus for c in ('Sofa', 'couch'))
    assert a==b

def test_pictures_that_cannot_be_read_do_not_count_as_zero(tmp_path):
    from PIL import Image
    for n,colour in zip('abc', ('red','green','blue')): Image.new('RGB', (64,64), colour).save(tmp_path/f'{n}.png')
    (tmp_path/'c.png').write_bytes(b'no picture')
    refs = {i:['a thing'] for i in 'abc'}
    card = score(refs, {i:f'a {w} thing' for i,w in zip('abc', ('red','green','blue'))}, 'retrieval', images=tmp_path, extras=dict(weights='toy/clip'))
    assert card.corpus['CLIP R@5']==1 and card.intervals['CLIP R@5']==(1, 1)
    assert 'among 2 pictures; 1 captions have no readable picture' in notes(card)

def test_long_captions_and_words():
    for text in ('dog', 'dog '*30, 'dog cat '*900, 'x'*100_000, 'word '*10_000):
        for java in ['no']+['auto']*(find_java() is not None): assert set(score(THREE, SAID|{2:text}, java=java, n_boot=0).status.values())=={'ok'}

def test_order_of_ids_does_not_matter():
    rng = np.random.default_rng(0)
    refs = {f'{k:03}':[' '.join(rng.choice(list('abcdefgh'), 7)) for _ in range(3)] for k in range(80)}
    cands = {k:' '.join(rng.choice(list('abcdefgh'), 6)) for k in refs}
    a = score(refs, cands)
    mixed = {k:cands[k] for k in rng.permutation(list(cands))}
    b = score({k:refs[k] for k in rng.permutation(list(refs))}, mixed)
    assert a.corpus==pytest.approx(b.corpus, abs=1e-12) and all(a.intervals[k]==pytest.approx(b.intervals[k], abs=1e-12) for k in a.corpus)
    assert np.abs(a.per_image-b.per_image.loc[a.per_image.index]).to_numpy().max()<1e-12

def test_coco_files_that_lack_things(tmp_path):
    gt = dict(annotations=[dict(image_id=k, caption=r) for k,v in THREE.items() for r in v]) # no info, licenses, type, images, annotation ids
    rows = [dict(image_id=k, caption=v) for k,v in SAID.items()]
    want = score(THREE, SAID, n_boot=0).corpus
    assert score(gt, rows, n_boot=0).corpus==want
    assert score(gt, [r|dict(image_id=f'COCO_val2014_{r["image_id"]:012}.jpg') for r in rows], n_boot=0).corpus==want
    with pytest.raises(InputError, match="1 of 3 candidates have no references: 77"): score(gt, rows[:2]+[dict(image_id=77, caption='a')])
    (tmp_path/'res.json').write_text(json.dumps([dict(image_id=1, text='a dog')]))
    with pytest.raises(InputError, match=r"res.json: item 0 has no 'caption' \(it has \['image_id', 'text'\]\)"): score(gt, tmp_path/'res.json')

@pytest.mark.parametrize('text,want', [('[{"image_id": 1', 'is not valid JSON'), ('', 'is not valid JSON'), ('"words"', 'this is str'), ('\ufeff{"1": "a man", "2": "x", "3": "y"}', None)])
def test_broken_files(tmp_path, text, want):
    (tmp_path/'c.json').write_text(text, encoding='utf-8')
    if want is None: assert score(THREE, tmp_path/'c.json', n_boot=0).counts['n_images']==3
    else:
        with pytest.raises(InputError, match=want): score(THREE, tmp_path/'c.json')

# ---- which way is better, and what can be compared

LESS = {*(f'{k}_{n}' for k in ('Rep','Rep_ratio') for n in (1,2,3,4)), 'Longest_run', 'Cut_off', 'Self_BLEU_4', 'CHAIR_s', 'CHAIR_i'}
NEITHER = {'Length', 'Length_sd', 'Vocabulary'}

def test_every_value_a_metric_can_give_has_a_direction(tmp_path):
    from caption_nb.data.toy import toy_world
    world = toy_world(n_train=0, n_val=0, n_test=6, n_near=0, n_out=0, n_style=0, n_text=0, n_text_train=0, quiet=True).split('test')
    refs,scenes = world.references(),dict(zip(world.rows.image_id, world.rows.scene))
    said = {i:v[0] for i,v in refs.items()}
    full = dict(train=['a dog'], groups={i:v[:2] for i,v in refs.items()}, finished=dict.fromkeys(refs, True), scenes=scenes, weights='toy/clip', instances={i:['dog'] for i in refs})
    fast = [m for m in METRICS if m not in ('meteor','spice','pac_s','pac_s_pp','dico_reward')] # those weights must be tuned ones
    cards = [score(refs, said, fast, n_boot=0, images=world, extras=x) for x in (full, {k:v for k,v in full.items() if k in ('scenes','weights')})]
    given = {n for c in cards for n,s in c.status.items() if s=='ok'}
    declared = {n for m in METRICS.values() for n in m.columns+m.more}
    assert {base_name(n) for n in given}<=declared and {'CHAIR_s','CHAIR_s (refs)','Self_BLEU_4','Novel','CLIP MRR','RefCLIP-S','All_right','Thing_F1'}<=given
    for n in given|declared: assert direction(n)==(-1 if base_name(n) in LESS else 0 if base_name(n) in NEITHER else 1), n
    assert {n for c in cards for n in c.settings['rests_on']}==given

def test_direction_reaches_comparison_and_bold_type():
    refs = {i:[f'a dog number {i} runs on grass', f'the brown dog {i} is running'] for i in range(60)}
    good = {i:f'a dog {i} runs on grass' for i in refs}
    bad = {i:f'a dog dog dog dog {i} a dog a dog with a cat and a car' for i in refs}
    a,b = (score(refs, c, 'bleu,cider,diversity,chair') for c in (good, bad))
    better = compare(a, b, names=('good','bad')).better
    for n in ('CIDEr','CHAIR_s (refs)','CHAIR_i (refs)','Rep_1','Rep_ratio_2','Longest_run'): assert better[n]=='good', n
    assert better['Length']==''
    rows = system_rows(dict(good=a, bad=b))
    assert not rows[rows.best & (rows.system=='bad')].metric.isin(LESS|NEITHER|{'CHAIR_s (refs)'}).any()
    table = wide(rows, interval=False)
    assert table.loc['good','CHAIR_i (refs)'].endswith('*') and table.loc['good','Rep_1'].endswith('*') and '*' not in table.loc['bad','Length']+table.loc['good','Length']
    assert r'\textbf{0.0}' in latex(rows[rows.metric=='CHAIR_s (refs)'], interval=False)

def test_other_settings_are_not_compared():
    from caption_nb.metrics.ngram import DocFreq
    refs = {i:[f'a dog number {i} runs on grass', f'the brown dog {i} is running on a lawn'] for i in range(60)}
    cands = {i:f'a dog {i} runs' for i in refs}
    def card(metrics, **extras): return score(refs, cands, metrics, extras=extras)
    a,b = score(refs, cands, 'bleu,cider'),score(refs, cands, 'bleu,cider', df=DocFreq(100_000, {}))
    assert compare(a, b).note.to_dict()=={f'Bleu_{k}':'' for k in (1,2,3,4)}|{'CIDEr':'not comparable: different document frequencies'}
    rows = system_rows(dict(a=a, b=b))
    assert remarks(rows)==['CIDEr: the rows have different document frequencies and cannot be compared.'] and 'document frequencies' in latex(rows)
    pairs = [(card('chair'), card('chair', instances=dict.fromkeys(refs, ['dog'])), 'CHAIR_s and CHAIR_s .refs'),
             (card('chair', instances=dict.fromkeys(refs, ['dog'])), card('chair', instances=dict.fromkeys(refs, ['cat'])), 'different instances'),
             (card('diversity', train=['a dog']), card('diversity', train=['a cat']), ''),
             (score(refs, cands, 'cider'), score({i:v[:1] for i,v in refs.items()}, cands, 'cider'), 'different references')]
    for x,y,why in pairs:
        if why:
            with pytest.raises(InputError, match=f'cannot be compared.*{why}'): compare(x, y)
            with pytest.raises(InputError, match=f'cannot be averaged.*{why}'): mean_of([x, y])
        else: assert compare(x, y).note[lambda n: n!=''].to_dict()=={'Novel':'not comparable: different training captions'}
    odd = {i:f"{c}; it's grass" for i,c in cands.items()}
    no = score({i:[*v, "isn't it"] for i,v in refs.items()}, odd, 'cider', java='no')
    if find_java():
        with pytest.raises(InputError, match='different tokens'): compare(no, score({i:[*v, "isn't it"] for i,v in refs.items()}, odd, 'cider'))

def test_parsers_and_judges_are_not_mixed(tmp_path):
    refs,cands = {i:['a red dog'] for i in range(30)},{i:'a red dog' for i in range(30)}
    (tmp_path/'g.jsonl').write_text(json.dumps(dict(caption='a red dog', triples=[['dog','is','red']]))+'\n')
    a,b = score(refs, cands, 'graph'),score(refs, cands, 'graph', extras=dict(parser=str(tmp_path/'g.jsonl')))
    assert a.status['Thing_F1']==b.status['Thing_F1']=='ok'
    with pytest.raises(InputError, match='different parser'): compare(a, b)
    x,y = score(refs, cands, 'cider,bleu'),score(refs, cands, 'cider,bleu')
    y.settings['rests_on']['Bleu_1'] = y.settings['rests_on']['Bleu_1']|dict(judge='B')
    x.settings['rests_on']['Bleu_1'] = x.settings['rests_on']['Bleu_1']|dict(judge='A')
    assert compare(x, y).note['Bleu_1']=='not comparable: different judge'

def test_luck_of_seeds_counts():
    rng = np.random.default_rng(0)
    refs = {i:[' '.join(rng.choice(list('abcdefghijklm'), 8)) for _ in range(3)] for i in range(80)}
    def system(p, seed):
        r = np.random.default_rng(seed)
        return score(refs, {i:' '.join(w if r.random()<p else 'q' for w in v[0].split()) for i,v in refs.items()})
    steady,wild = [system(.6, s) for s in (1,2,3)],[system(p, 4) for p in (.55, .7, .95)]
    assert compare(steady[0], wild[2]).better['CIDEr']=='b' and compare(steady, wild).better['CIDEr']==''
    assert compare(steady, [system(p, s) for p,s in ((.9,5),(.91,6),(.92,7))]).better['CIDEr']=='b'
    assert not system_rows(dict(a=steady, b=wild), ['CIDEr']).best.any()
    assert mean_of(wild).high['CIDEr']-mean_of(wild).low['CIDEr']>2*(mean_of(steady).high['CIDEr']-mean_of(steady).low['CIDEr'])

def test_one_doubtful_picture_name_does_not_lose_the_others(tmp_path):
    from PIL import Image
    for n in ('p0.png','p0.jpg','p1.png','p2.png'): Image.new('RGB', (8,8)).save(tmp_path/n)
    found,_,odd = find_pictures(tmp_path, ['p0','p1','p2'])
    assert (sorted(found), odd)==(['p1','p2'], ['p0'])
    card = score({k:['a dog'] for k in ('p0','p1','p2')}, {k:'a dog' for k in ('p0','p1','p2')}, 'bleu', n_boot=0, images=tmp_path)
    assert "1 of 3 pictures were not found" in notes(card) and "1 of them because several pictures bear the name: 'p0'" in notes(card)

# ---- one metric in trouble

def test_a_metric_that_fails_stops_no_other(monkeypatch):
    def explode(t): raise RecursionError('deep\nand deeper')
    monkeypatch.setitem(METRICS, 'bang', Metric(('Bang',), explode))
    card = score(REFS, CANDS, ('bang','bleu','rouge','cider','clip_s','toy','retrieval'), n_boot=100)
    assert card.status['Bang']=='failed: RecursionError: deep' and card.corpus['Bang'] is None and card.intervals['Bang'] is None
    assert {k:v for k,v in card.corpus.items() if k in ('Bleu_4','ROUGE_L','CIDEr')}=={k:v for k,v in score(REFS, CANDS, n_boot=0).corpus.items() if k in ('Bleu_4','ROUGE_L','CIDEr')}
    assert all('\n' not in s and len(s)<300 for s in card.status.values()) and json.loads(card.to_json())['corpus']['Bang'] is None
    assert '–' in repr(card) and 'Bang: failed' in repr(card)

def test_no_java_leaves_gaps_not_holes(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path)); monkeypatch.setenv('JAVA_HOME', ''); monkeypatch.delenv('CAPTION_NB_JAVA', raising=False)
    card = score(REFS, CANDS, 'bleu,meteor,rouge,cider,spice', n_boot=0)
    assert {k for k,v in card.corpus.items() if v is None}=={'METEOR','SPICE'}
    assert all(card.status[k].startswith('skipped: no java found') for k in ('METEOR','SPICE')), card.status

def test_reward_with_more_words_than_two_bytes_count():
    rng = np.random.default_rng(1)
    words = {i:[f'w{x}' for x in range(60*i, 60*i+120)] for i in range(1150)} # half of them shared with the next picture
    refs = {i:[' '.join(c) for c in rng.permutation(w).reshape(12, 10)] for i,w in words.items()}
    df = build_cider_df(refs, how='plain')
    ids = list(range(0, 1150, 9))
    cands = [' '.join(refs[i][0].split()[:5]+list(rng.choice(words[i], 4))+['new', 'word', 'new']) for i in ids]
    want = cider({k:refs[i] for k,i in enumerate(ids)}, dict(enumerate(cands)), df.doc_freq())[1]
    for prepared in (True, False):
        reward = CiderDReward(df, refs, prepared=prepared)
        assert len(reward.vocab)>65_535 and len(df.words)>65_535 and reward.top==2**32-1
        assert want.mean()>.3 and np.abs(reward(cands, ids)-want).max()<1e-12
        assert np.abs(reward([np.array([reward.vocab.get(w, 0) for w in c.split()]) for c in cands], ids)-reward([' '.join(w for w in c.split() if w in reward.vocab) for c in cands], ids)).max()<1e-12

@pytest.mark.parametrize('captions,images,why', [([None], [1], 'a text or an array'), (['a', None], [1, 1], 'are no text'), ([5], [1], 'a text or an array'), ([['a']], [1], 'Word numbers'), (['a'], [9], 'no references')])
def test_reward_of_what_is_no_caption(captions, images, why):
    refs = {1:['a dog'], 2:['a cat']}
    with pytest.raises(InputError, match=why): CiderDReward(build_cider_df(refs), refs)(captions, images)

def test_reward_does_not_grow():
    import tracemalloc
    rng = np.random.default_rng(0)
    def caption(): return ' '.join(f'w{x}' for x in rng.integers(0, 300, 10))
    refs = {i:[caption() for _ in range(5)] for i in range(100)}
    reward = CiderDReward(build_cider_df(refs), refs)
    def batch(): return reward([caption()+f' new{rng.integers(1<<40)}' for _ in range(60)], [int(i) for i in rng.integers(0, 100, 60)])
    for _ in range(20): batch()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000): batch()
    grown = tracemalloc.get_traced_memory()[0]-before
    tracemalloc.stop()
    assert grown<100_000, grown


# ---- the reference itself as the judge, and the program as people call it

@needs_java
def test_against_the_reference_on_made_up_captions():
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer import ptbtokenizer
    if not os.access(os.path.dirname(ptbtokenizer.__file__), os.W_OK): pytest.skip('the reference writes into its own folder, which is read-only')
    rng = np.random.default_rng(5)
    words = "a the dog dogs man's doesn't cannot (red) St. Dr. 11th 3.5 $5 50% U.S. p.m. well-known café 犬 … — “quoted” x,y A.M. & and/or ... ! ? ; : ' `".split()
    def caption(): return ' '.join(rng.choice(words, rng.integers(0, 14)))
    refs = {i:[caption() for _ in range(rng.integers(1, 6))] for i in range(300)}
    cands = {i:caption() if rng.random()<.7 else refs[i][0] for i in refs}
    def tokens(side): return ptbtokenizer.PTBTokenizer().tokenize({i:[dict(caption=c) for c in v] for i,v in side.items()})
    gts,res = tokens(refs),tokens({i:[c] for i,c in cands.items()})
    card = score(refs, cands, n_boot=0)
    (b,be),(r,re_),(c,ce) = Bleu(4).compute_score(gts, res, verbose=0),Rouge().compute_score(gts, res),Cider().compute_score(gts, res)
    for name,corpus,each in [*((f'Bleu_{k+1}', b[k], be[k]) for k in range(4)), ('ROUGE_L', r, re_), ('CIDEr', c, ce)]:
        assert card.corpus[name]==pytest.approx(corpus, abs=1e-12) and np.abs(card.per_image[name].to_numpy()-np.array(each)).max()<1e-12, name

@pytest.mark.parametrize('words,first,code', [
    (['--candidates_json', 'sacap_candidates.json', '--references_json', 'sacap_refs.json', '--metrics', 'bleu,cider'], 'BLEU-1: 0.8561', 0),
    (['--result_file_path', 'viecap_generated_captions.json', '--metrics', 'bleu,cider'], 'Bleu_1: 0.856', 0),
    (['coco_results.json', 'coco_gt.json', '--metrics', 'bleu,cider,clip_s', '--require', 'clip_s'], 'captions: COCO', 3),
    (['coco_results.json', 'gone.json'], '', 2)])
def test_the_program(tmp_path, words, first, code):
    folder = repo_path('tests','golden','metrics','layouts')
    words = [str(folder/w) if w.endswith('.json') else w for w in words]
    p = subprocess.run([sys.executable, '-c', 'import sys; from caption_nb.app.cli import main; sys.exit(main())', 'evaluate', *words, '--out', str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert p.returncode==code and p.stdout.startswith(first) and 'Traceback' not in p.stderr, (p.stdout, p.stderr)
    if code in (0, 3): assert len(list(tmp_path.glob('*.res')))==1 and len(list(tmp_path.glob('*.scores.json')))==1

def capnb(*words):
    "The program in this process: exit status, and what was said"
    from caption_nb.app.cli import main
    out,err = io.StringIO(),io.StringIO()
    with contextlib.redirect_stdout(out),contextlib.redirect_stderr(err):
        try: code = main([str(w) for w in words])
        except SystemExit as e: code = e.code
    return code, out.getvalue(), err.getvalue()

LAYOUTS_FOLDER = repo_path('tests','golden','metrics','layouts')
BOTH = LAYOUTS_FOLDER/'coco_results.json',LAYOUTS_FOLDER/'coco_gt.json'

def test_help_names_every_metric_and_layout():
    from caption_nb.metrics.inputs import LAYOUTS
    text = ' '.join(capnb('evaluate', '--help')[1].replace('│', ' ').split())
    for name in (*METRICS, *LAYOUTS, 'all', '--scenes', '--synonyms', '--parser', '--df', '--device'): assert name in text, name

@pytest.mark.parametrize('words,why', [(['--n_boot', '-3'], 'n_boot must be'), (['--seed', '-3'], 'seed must be'), (['--weights', 'clips=a'], "'clips'"), (['--weights', 'clip_s=a,b'], 'METRIC=FILE')])
def test_options_at_fault_are_sentences(tmp_path, words, why):
    code,_,err = capnb('evaluate', *BOTH, '--metrics', 'bleu', '--out', tmp_path, *words)
    assert code==2 and why in err and 'Traceback' not in err and not list(tmp_path.iterdir())

def test_references_that_are_no_list(tmp_path):
    (tmp_path/'r.json').write_text('{"annotations": 5}')
    code,_,err = capnb('evaluate', BOTH[0], tmp_path/'r.json', '--out', tmp_path)
    assert code==2 and "'annotations' must be a list" in err

def test_facts_of_drawn_scenes_and_stored_frequencies(tmp_path):
    from caption_nb.data.toy import toy_world
    world = toy_world(n_train=0, n_val=0, n_test=6, n_near=0, n_out=0, n_style=0, n_text=0, n_text_train=0, quiet=True).split('test')
    files = {n:tmp_path/f'{n}.json' for n in ('c','r','scenes')}
    files['c'].write_text(json.dumps({i:v[0] for i,v in world.references().items()}))
    files['r'].write_text(json.dumps(world.references()))
    files['scenes'].write_text(json.dumps({f'{i}.png':s for i,s in zip(world.rows.image_id, world.rows.scene)}))
    build_cider_df(world.references(), 'ptb').save(tmp_path/'df.npz')
    build_cider_df(world.references()).save(tmp_path/'reward.npz')
    code,_,err = capnb('evaluate', files['c'], files['r'], '--metrics', 'cider,toy,graph', '--scenes', files['scenes'], '--df', tmp_path/'df.npz', '--parser', 'rules', '--require', 'toy,graph', '--out', tmp_path/'s.json')
    kept = json.loads((tmp_path/'s.json').read_text())
    assert code==0 and kept['corpus']['All_right']==1 and 'stored, of 6 pictures' in kept['settings']['rests_on']['CIDEr']['document frequencies'], err
    assert set(kept['per_image'])==set(world.rows.image_id) and kept['per_image'][world.rows.image_id[0]]['All_right']==1
    code,_,err = capnb('evaluate', files['c'], files['r'], '--metrics', 'cider', '--df', tmp_path/'reward.npz')
    assert code==2 and 'was counted for a reward' in err

def test_a_folder_with_a_bad_file(tmp_path):
    for n in (2, 10): (tmp_path/f'e{n}_res.json').write_text(BOTH[0].read_text())
    (tmp_path/'e3_res.json').write_text('[{')
    code,out,err = capnb('evaluate', tmp_path, BOTH[1], '--metrics', 'bleu')
    assert code==2 and '1 of 3 files could not be scored' in err and 'e3_res.json' in err and out.index('e2_res')<out.index('e10_res')
    assert [l for l in (tmp_path/'all_res.txt').read_text().splitlines() if l.startswith('File')]==['File: e2_res.json','File: e10_res.json']
    for option in (['--out', tmp_path/'x.json'], ['--per_image', 'p.csv'], ['--latex', 't.tex']):
        code,_,err = capnb('evaluate', tmp_path, BOTH[1], *option)
        assert code==2 and 'would hold those of one file only' in err

def test_missing_weights_are_one_short_reason():
    refs = {i:['a dog'] for i in 'ab'}
    from PIL import Image
    images = {i:Image.new('RGB', (8,8)) for i in refs}
    card = score(refs, dict.fromkeys(refs, 'a dog'), 'retrieval,clip_s', n_boot=0, images=images, extras=dict(weights='no/such/weights'))
    assert len(card.status)==7
    for s in card.status.values(): assert s.startswith('skipped: ') and '\n' not in s and len(s)<260, s
