"METEOR, SPICE and the tokeniser with every kind of Java: right values from a good one, a sentence from any other, and nothing left behind"
import gzip, json, os, random, shutil, signal, stat, subprocess, sys, threading, time, zipfile
from pathlib import Path
import numpy as np
import pytest
from caption_nb.core import InputError, repo_path, shared_path
from caption_nb.metrics.java import PARSER, Meteor, Shards, measured_meteor, meteor, meteor_parts, score_line, spice, spice_scores, spice_status
from caption_nb.metrics.ptb import JavaError, JavaMissing, find_jar, find_java, java_tokens, tokenize
from caption_nb.metrics.registry import tokenize_all
from caption_nb.metrics.scorecard import score

pytestmark = pytest.mark.skipif(os.name!='posix', reason='stand-ins for Java are shell scripts')
JAVA = find_java()
real = pytest.mark.skipif(JAVA is None, reason='needs Java')
REFS,CANDS = {1:['a dog barks at a cat','the dog is loud'], 2:['two cats sleep']},{1:'a dog barks', 2:'two cats sit'}
GREET = '2.0 3.0 1.0 1.0 1.0 1.0 1.0 1.0'+' 0.0'*12+' 1.0 2.0 2.0'
SAME = '3.0 3.0 1.0 1.0 2.0 2.0 1.0 1.0'+' 0.0'*12+' 1.0 3.0 3.0'

def fake(folder, body, name='java'):
    "A program that does what `body` (shell) says"
    p = Path(folder)/name
    p.write_text('#!/bin/sh\n'+body+'\n')
    p.chmod(p.stat().st_mode | stat.S_IEXEC)
    return str(p)

def fake_meteor(folder, after='while read l; do echo "%s"; done' % SAME, before=''):
    "A METEOR that greets well and then does `after`"
    return fake(folder, f'{before}\nread l; echo "{GREET}"\n{after}')

def children(): # processes of this one that have not been waited for
    return {pid for f in Path('/proc/self/task').glob('*/children') for pid in f.read_text().split()}

@pytest.fixture(autouse=True)
def nothing_left(tmp_path, monkeypatch):
    "No process and no temporary file may be left by any test"
    temp = tmp_path/'temp'
    temp.mkdir()
    monkeypatch.setenv('TMPDIR', str(temp))
    monkeypatch.setattr('tempfile.tempdir', str(temp))
    before = children()
    yield
    from caption_nb.metrics.java import _now
    if 'shards' in _now: _now.pop('shards').close()
    assert children()<=before and list(temp.iterdir())==[]

def tiny_package(folder):
    "An installation of the scorers that has METEOR with three paraphrases"
    root = Path(folder)/'pycocoevalcap'
    for part in ('tokenizer','spice'):
        root.mkdir(parents=True, exist_ok=True)
        (root/part).symlink_to(find_jar(part))
    (root/'meteor/data').mkdir(parents=True)
    (root/'meteor/meteor-1.5.jar').symlink_to(find_jar('meteor','meteor-1.5.jar'))
    text = ''.join(f'0.1\n{a}\n{b}\n' for a,b in [('dog','canine friend'), ('sit','sleep'), ('loud','noisy')])
    (root/'meteor/data/paraphrase-en.gz').write_bytes(gzip.compress(text.encode()))
    return Path(folder)

@pytest.fixture
def tiny(tmp_path): return tiny_package(tmp_path/'with a blank')

def table(folder): return Path(folder)/'pycocoevalcap/meteor/data/paraphrase-en.gz'

# ---- values

def golden(*parts):
    path = shared_path('golden','metrics',*parts)
    if path is None: pytest.skip('the stored values of 120 pictures are not here (CAPNB_SHARED)')
    return json.loads(path.read_text(encoding='utf-8'))

@pytest.fixture(scope='module')
def full():
    "One METEOR with its full table for all tests of values"
    m = Meteor()
    shards = Shards(m.java, m.jar, '2G', find_jar('meteor','data','paraphrase-en.gz'))
    shards.start(180, float('inf'))
    def measure(refs, cands):
        got = shards.ask([score_line(refs[i], c) for i,c in cands.items()], 180, 60, float('inf'))
        return measured_meteor([a.split() for a in got])
    yield measure
    shards.close()

@real
@pytest.mark.parametrize('system', ['opg','zerocap','magic'])
def test_meteor_of_120_pictures(full, system):
    images,want = golden('coco120.json')['images'],golden('coco120_expected.json')
    ids = [i['id'] for i in images]
    refs,cands,how,_ = tokenize_all({i['id']:i['refs'] for i in images}, {i['id']:i['cands'][system] for i in images})
    got,stored = full(refs, cands),want['scores'][system]
    assert abs(got.corpus[0]-stored['corpus']['METEOR'])<1e-12
    assert np.abs(got.per_image[0]-np.array(stored['per_image']['METEOR'])).max()<1e-12
    order = random.Random(1).sample(ids, len(ids))
    turned = full(refs, {i:cands[i] for i in order})
    assert abs(turned.corpus[0]-got.corpus[0])<1e-12
    assert dict(zip(order, turned.per_image[0]))==dict(zip(ids, got.per_image[0]))

CASES = [c for c in json.loads(repo_path('tests','golden','metrics','bad_inputs.json').read_text(encoding='utf-8'))['cases'] if c['want']!='error']

@real
@pytest.mark.parametrize('case', CASES, ids=lambda c: c['name'])
def test_meteor_of_odd_inputs(full, case):
    want = (case.get('expected') or case['peer'])
    refs,cands,_,_ = tokenize_all(case['refs'], {str(i):c for i,c in case['cands'].items()})
    got = full(refs, cands)
    assert abs(got.corpus[0]-want['scores']['METEOR'])<1e-12
    if 'METEOR' in want.get('per_image', {}): assert np.abs(got.per_image[0]-np.array(want['per_image']['METEOR'])).max()<1e-12

def odd_captions(n, seed=0):
    "Captions of a small grammar with strange characters strewn in"
    rng = random.Random(seed)
    words = "a the man's dog doesn't cannot two 2 $5.00 (red) \"blue\" café 犬 😀 St. p.m. e-mail 1/2 … — ’s co. U.S. running runs ran happily , ; ! ? ... near on top of 61A".split()
    return [rng.choice(['',' ','\t'])+' '.join(rng.choices(words, k=rng.randint(0, 12)))+rng.choice(['','.','\u00a0',' !']) for _ in range(n)]

@real
def test_the_field_s_own_scorers_agree(full, capfd):
    "Tokens and all metrics of 500 pictures against pycocoevalcap"
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor as Theirs
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    if not os.access(find_jar('tokenizer'), os.W_OK): pytest.skip('the reference tokeniser writes into its installation, which is read-only here')
    texts = odd_captions(1500)
    raw_refs,raw = {i:texts[3*i+1:3*i+3] for i in range(500)},{i:texts[3*i] for i in range(500)}
    def theirs(d): return PTBTokenizer().tokenize({i:[dict(caption=c) for c in v] for i,v in d.items()})
    gts,res = theirs(raw_refs),theirs({i:[c] for i,c in raw.items()})
    refs,cands,how,_ = tokenize_all(raw_refs, raw)
    assert how=='java' and refs==gts and cands=={i:v[0] for i,v in res.items()}
    card = score(refs, cands, ('bleu','rouge','cider'), n_boot=0)
    bleu = Bleu(4).compute_score(gts, res)
    for name,value,each in [*((f'Bleu_{k+1}', bleu[0][k], bleu[1][k]) for k in range(4)), ('ROUGE_L', *Rouge().compute_score(gts, res)), ('CIDEr', *Cider().compute_score(gts, res))]:
        assert abs(card.corpus[name]-value)<1e-12 and np.abs(card.per_image[name]-np.array(each)).max()<1e-12, name
    peer = Theirs()
    value,each = peer.compute_score(gts, res)
    del peer
    got = full(refs, cands)
    assert abs(got.corpus[0]-value)<1e-12 and np.abs(got.per_image[0]-np.array(each)).max()<1e-12

@real
def test_reduced_table_gives_the_same_numbers(tmp_path, monkeypatch):
    "All 23 numbers, with a table of some thousand pairs made for the purpose, reduced and divided among two processes"
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    rng,texts = random.Random(3),odd_captions(600, seed=4)
    tokens = tokenize(texts)[0]
    words = sorted({w for t in tokens for w in t.split()})
    words += [f'word{k}' for k in range(300)] # never used
    pairs = {(' '.join(rng.choices(words, k=rng.randint(1,2))),' '.join(rng.choices(words, k=rng.randint(1,3)))) for _ in range(20000)}
    big = tiny_package(tmp_path/'big')
    table(big).write_bytes(gzip.compress(''.join(f'0.1\n{a}\n{b}\n' for a,b in sorted(pairs)).encode(), 1))
    monkeypatch.syspath_prepend(str(big))
    assert find_jar('meteor','data','paraphrase-en.gz')==table(big)
    refs,cands = {i:tokens[3*i+1:3*i+3] for i in range(200)},{i:tokens[3*i] for i in range(200)}
    with Meteor(table='full') as m: whole = m.stats(refs, cands)
    with Meteor(table='reduced', shards=2) as m:
        reduced = m.stats(refs, cands)
        from caption_nb.metrics.java import _now
        one = _now['shards']
        m.stats({i:refs[i] for i in range(50)}, {i:cands[i] for i in range(50)})
        assert _now['shards'] is one and 0<len(one.rows)<len(pairs)/2
    assert np.array_equal(whole, reduced) and whole[:,16:20].sum()>50 and one.n==2

@real
def test_reduced_real_table_gives_the_same_numbers(full, tmp_path, monkeypatch):
    "The same on the 5,274,084 real pairs, where an index of them is kept (making it takes some ten seconds)"
    keep = os.environ.get('CAPTION_NB_TEST_CACHE')
    if not keep: pytest.skip('makes or reads a 250 MB index; set CAPTION_NB_TEST_CACHE to a folder for it')
    monkeypatch.setenv('CAPTION_NB_CACHE', keep)
    images = golden('coco120.json')['images']
    refs,cands,_,_ = tokenize_all({i['id']:i['refs'] for i in images}, {i['id']:i['cands']['opg'] for i in images})
    with Meteor(table='reduced', shards=2) as m: reduced = m.stats(refs, cands)
    assert np.array_equal(full(refs, cands).parts, meteor_parts(reduced))

# ---- METEOR and bad Javas

@pytest.mark.parametrize('body,said', [
    ('echo "Error: could not reserve enough space" >&2; exit 1', 'ended with status 1: Error: could not reserve'),
    ('exit 0', 'ended with status 0: it printed no message'),
    ('yes "what do you mean"', "it printed 'what do you mean'"),
    ('head -c 3000000 /dev/zero; sleep 600', 'did not answer as it should'),
    ('yes "%s"' % GREET, 'unasked for'),
    ('read l; echo "%s"; sleep 600' % SAME, 'does not answer as METEOR does'),
    ('kill -9 $$', 'ended with status -9'),
])
def test_meteor_of_a_bad_java(tmp_path, body, said):
    start = time.monotonic()
    with pytest.raises(JavaError, match='.') as e: meteor(REFS, CANDS, java=fake(tmp_path, body))
    assert said in str(e.value) and '\n' not in str(e.value)
    assert time.monotonic()-start<20

@pytest.mark.parametrize('body', ['sleep 600', 'cat >/dev/null', 'while read l; do :; done; sleep 600', 'yes 1>&2', 'echo "2,0 3,0 1,0"; sleep 600', "trap '' TERM INT HUP; sleep 600 & wait"])
def test_meteor_that_never_answers(tmp_path, body):
    start = time.monotonic()
    with pytest.raises(JavaError, match='gave no answer within'): meteor(REFS, CANDS, timeout=.5, java=fake(tmp_path, body))
    assert time.monotonic()-start<20

def test_meteor_that_hangs_on_the_way(tmp_path):
    java = fake_meteor(tmp_path, f'read l; echo "{SAME}"; read l; sleep 600')
    with pytest.raises(JavaError, match='no answer within 0.3 seconds'): Meteor(java, limit=.3).stats(REFS, CANDS)

def test_meteor_that_always_dies_on_the_way_is_started_twice(tmp_path):
    java = fake_meteor(tmp_path, f'read l; echo "{SAME}"; echo heap is full >&2; exit 3', before=f'echo started >> {tmp_path}/log')
    many = {i:'a dog' for i in range(5)}
    with pytest.raises(JavaError, match='status 3: heap is full'): meteor({i:['a dog'] for i in many}, many, java=java)
    assert (tmp_path/'log').read_text().count('started')==2

def test_meteor_that_dies_once_goes_on(tmp_path):
    after = f'if [ -e {tmp_path}/again ]; then while read l; do echo "{SAME}"; done; fi; touch {tmp_path}/again; read l; echo "{SAME}"; exit 1'
    many = {i:'a dog' for i in range(5)}
    got = meteor({i:['a dog'] for i in many}, many, java=fake_meteor(tmp_path, after))
    assert list(got.per_image[0])==[1]*5

def test_meteor_with_a_lot_to_say(tmp_path):
    "A megabyte of warnings on its error output and a banner on the other are no obstacle"
    before = 'head -c 1000000 /dev/zero | tr "\\0" w >&2; echo "[0.001s][warning][os] large pages are not available"'
    assert list(meteor(REFS, CANDS, java=fake_meteor(tmp_path, before=before)).per_image[0])==[1,1]

def test_meteor_is_interrupted(tmp_path, monkeypatch):
    "After an exception in the middle the process is gone, and the next call begins afresh"
    from caption_nb.metrics.java import Talk
    java,receive,before = fake_meteor(tmp_path),Talk.receive,children()
    count = iter(range(100))
    def interrupted(self, *args):
        if next(count)==2: raise KeyboardInterrupt
        return receive(self, *args)
    monkeypatch.setattr(Talk, 'receive', interrupted)
    with pytest.raises(KeyboardInterrupt): meteor(REFS, CANDS, java=java)
    assert children()==before
    assert list(meteor(REFS, CANDS, java=java).per_image[0])==[1,1]

def test_meteor_of_nothing():
    with pytest.raises(InputError, match='no candidates'): Meteor(JAVA or sys.executable).score({}, {})
    with pytest.raises(InputError, match='1 candidates have no references: 1'): Meteor(JAVA or sys.executable).score({1:[]}, {1:'a dog'})
    with pytest.raises(InputError, match='lone surrogate'): Meteor(JAVA or sys.executable).score({1:['a']}, {1:'a \ud83d'})

def test_no_java(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('JAVA_HOME', '')
    monkeypatch.delenv('CAPTION_NB_JAVA', raising=False)
    for f in (meteor, spice):
        with pytest.raises(JavaMissing, match='no java found'): f(REFS, CANDS)
    assert 'no java found' in spice_status()

@real
def test_no_room_for_the_reduced_table(tmp_path, monkeypatch):
    from caption_nb.metrics.paraphrases import Paraphrases
    small = tiny_package(tmp_path/'small')
    monkeypatch.syspath_prepend(str(small))
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    def full_disk(self, rows, path): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(Paraphrases, 'write', full_disk)
    with pytest.raises(JavaError, match='cannot be written: No space left'): Meteor(table='reduced').score(REFS, CANDS)

@real
def test_no_room_for_the_index(tmp_path, monkeypatch):
    "A cache that cannot be written costs time only, or is said if the reduced table was asked for"
    small = tiny_package(tmp_path/'small')
    monkeypatch.syspath_prepend(str(small))
    (tmp_path/'cache').write_text('a file where a folder should be')
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    assert Meteor(table='auto').score(REFS, CANDS).corpus[0]>.3
    with pytest.raises(OSError): Meteor(table='reduced').score(REFS, CANDS)

@real
def test_meteor_of_very_long_captions(tiny):
    "METEOR's need of memory grows with the square of the length; where it does not suffice, the caption is named"
    with Meteor(table=table(tiny), memory='300M', limit=600) as m:
        assert m.score({1:['x'*100_000], 2:['a dog '*300]}, {1:'x'*100_000, 2:'dog '*300}).per_image[0,0]==1
        with pytest.raises(JavaError, match='OutOfMemoryError.*METEOR was at .dog dog'): m.score({1:['a dog '*2000]}, {1:'dog '*2000})

@real
def test_threads_share_one_meteor(tiny):
    from caption_nb.metrics.java import _now
    with Meteor(table=table(tiny), memory='300M') as m:
        want,got = m.stats(REFS, CANDS),[]
        def work(): got.extend(Meteor(table=table(tiny), memory='300M').stats(REFS, CANDS) for _ in range(5))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert len(got)==20 and all(np.array_equal(g, want) for g in got)
        assert len(_now['shards'].talks)==1

@real
def test_meteor_killed_between_two_calls(tiny):
    from caption_nb.metrics.java import _now
    with Meteor(table=table(tiny), memory='300M') as m:
        want = m.stats(REFS, CANDS)
        for t in _now['shards'].talks: t.p.kill()
        assert np.array_equal(m.stats(REFS, CANDS), want)

@real
def test_meteor_with_too_little_memory():
    with pytest.raises(JavaError, match='(?i)memory|heap'): Meteor(memory='20M', table='full', start=120).score(REFS, CANDS)

# ---- whole interpreters

SCORE = 'import json,sys; from caption_nb.metrics.java import meteor; m=meteor(*json.load(sys.stdin)); print(json.dumps([m.corpus[0], m.per_image[0].tolist()]))'

def interpreter(code, tmp_path, package=None, limit=120, **env):
    "What a fresh Python prints, with the small METEOR of `package`; temporary files and processes are counted afterwards"
    temp = tmp_path/'of the interpreter'
    temp.mkdir(exist_ok=True)
    path = os.pathsep.join([str(package)]*(package is not None)+[str(repo_path())])
    p = subprocess.run([sys.executable, '-c', code], input=json.dumps([REFS, CANDS]), env=os.environ|dict(PYTHONPATH=path, TMPDIR=str(temp))|env, capture_output=True, text=True,
                       timeout=limit, cwd=tmp_path)
    assert list(temp.iterdir())==[]
    return p

def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().split()[2]!='Z'
    except OSError: return False

def gone(pid, seconds=20):
    until = time.monotonic()+seconds
    while alive(pid) and time.monotonic()<until: time.sleep(.1)
    return not alive(pid)

@real
@pytest.mark.parametrize('env', [dict(), dict(JAVA_TOOL_OPTIONS='-Duser.language=de -Duser.country=DE'), dict(_JAVA_OPTIONS='-Duser.language=it -Duser.country=IT'),
                                 dict(LC_ALL='C'), dict(LC_ALL='de_DE.UTF-8', LANG='de_DE.UTF-8')], ids=['plain','tool options','_JAVA_OPTIONS','C','LC_ALL'])
def test_locale_and_blank_in_the_path_do_not_matter(tiny, tmp_path, env):
    p = interpreter(SCORE, tmp_path, tiny, **env)
    assert p.returncode==0, p.stderr
    corpus,each = json.loads(p.stdout)
    with Meteor(table=table(tiny), memory='300M') as m: want = m.score(REFS, CANDS)
    assert (corpus, each)==(want.corpus[0], want.per_image[0].tolist()) and want.parts[1,16:20].sum()>0 # a paraphrase was used

@real
@pytest.mark.parametrize('how', ['raise RuntimeError("in the middle")', 'raise KeyboardInterrupt', 'import sys; sys.exit(7)', 'import signal; signal.signal(2, signal.default_int_handler); signal.raise_signal(2)'])
def test_interpreter_ends_after_an_exception_in_meteor(tiny, tmp_path, how):
    code = f'''
import json, sys
from caption_nb.metrics import java
receive,count = java.Talk.receive,iter(range(9))
def broken(self, *args):
    print(self.p.pid, file=sys.stderr, flush=True)
    if next(count)==2: {how}
    return receive(self, *args)
java.Talk.receive = broken
java.meteor(*json.load(sys.stdin))'''
    start = time.monotonic()
    p = interpreter(code, tmp_path, tiny, limit=60)
    assert p.returncode!=0 and time.monotonic()-start<60
    assert gone(p.stderr.split()[0])

@real
@pytest.mark.parametrize('end', ['', 'os._exit(3)', 'os.kill(os.getpid(), 9)', 'os.kill(os.getpid(), 15)', 'raise SystemExit(2)'])
def test_no_java_outlives_python(tiny, tmp_path, end):
    code = SCORE+'\nimport os\nfrom caption_nb.metrics.java import _now\nprint(_now["shards"].talks[0].p.pid, flush=True)\n'+end
    p = interpreter(code, tmp_path, tiny)
    pid = p.stdout.split('\n')[-2]
    assert pid.isdigit() and gone(pid)

@real
def test_a_fork_leaves_the_parent_s_meteor_alone(tiny, tmp_path):
    code = '''
import json, os, sys
from caption_nb.metrics.java import meteor, _now
refs,cands = json.load(sys.stdin)
want = meteor(refs, cands).corpus[0]
mine = _now['shards'].talks[0].p
child = os.fork()
if child==0:
    ok = meteor(refs, cands).corpus[0]==want and _now['shards'].talks[0].p.pid!=mine.pid
    sys.exit(0 if ok else 5) # the ordinary way out, with all clean-up
assert os.waitpid(child, 0)[1]==0
assert mine.poll() is None and meteor(refs, cands).corpus[0]==want and _now['shards'].talks[0].p is mine
print('fine')'''
    p = interpreter(code, tmp_path, tiny)
    assert p.stdout.strip()=='fine', p.stderr

@real
def test_nothing_is_written_into_the_installation(tiny, tmp_path):
    root = tiny/'pycocoevalcap'
    def listing(): return sorted(str(p) for r in (root, find_jar('tokenizer'), find_jar('spice')) for p in r.rglob('*') if '__pycache__' not in p.parts)
    before = listing()
    folders = [root/'meteor/data', root/'meteor', root]
    for f in folders: f.chmod(0o555)
    try:
        code = SCORE+'\nfrom caption_nb.metrics.ptb import tokenize; print(tokenize(["a man\'s dog (old)"]))'
        p = interpreter(code, tmp_path, tiny)
    finally:
        for f in folders: f.chmod(0o755)
    assert p.returncode==0, p.stderr
    until = time.monotonic()+60
    while listing()!=before and time.monotonic()<until: time.sleep(.2) # the COCO tools themselves, in a test beside this one, leave a file there for a moment
    assert "'java'" in p.stdout and listing()==before

# ---- the tokeniser

@pytest.mark.parametrize('body,said', [('yes', 'printed more than'), ('cat >/dev/null; sleep 600', 'no answer within'), ('cat; echo', 'did not answer as a tokeniser'),
                                       ('exec >&-; sleep 600', 'no answer within'), ('sleep 600 & exit 4', 'no answer within'), ('kill -11 $$', 'ended with status -11')])
def test_tokeniser_of_a_bad_java(tmp_path, body, said, monkeypatch):
    start = time.monotonic()
    with pytest.raises(JavaError) as e: java_tokens(["a man's dog"], fake(tmp_path, body), limit=3)
    assert said in str(e.value) and '\n' not in str(e.value) and time.monotonic()-start<30

# ---- SPICE

@pytest.fixture
def parser(tmp_path, monkeypatch):
    "A folder with two empty archives where SPICE's parser should be"
    folder = tmp_path/'parser lib'
    folder.mkdir()
    for n in PARSER: (folder/n).touch()
    monkeypatch.setenv('CAPTION_NB_SPICE_LIB', str(folder))
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    return folder

def writes(rows): return 'while [ "$1" != -out ]; do shift; done\ncat > "$2" <<END\n'+json.dumps(rows)+'\nEND'
def row(i, f): return dict(image_id=i, scores=dict(All=dict(f=f, pr=f, re=f), Color=dict(f=None)))

def test_spice_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_NB_SPICE_LIB', str(tmp_path))
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    java = fake(tmp_path, 'exit 1')
    monkeypatch.setenv('CAPTION_NB_JAVA', java)
    if all((find_jar('spice','lib')/n).exists() for n in PARSER): pytest.skip('the parser is installed here')
    with pytest.raises(JavaMissing, match='stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar; put them into .*spice or set CAPTION_NB_SPICE_LIB'): spice(REFS, CANDS)
    assert 'SPICE needs' in spice_status()
    (tmp_path/PARSER[0]).touch()
    assert 'SPICE needs' in spice_status()
    (tmp_path/PARSER[1]).touch()
    assert spice_status()=='ok'

def test_spice_values_follow_their_pictures(parser, tmp_path):
    "SPICE returns them in its own order"
    java = fake(tmp_path, writes([row(2, .25), row(0, 1.), row(1, 0)]))
    got = spice({30:['a'], 10:['b'], 'x':['c']}, {30:'a', 10:'b', 'x':'c'}, java=java)
    assert got.per_image[0].tolist()==[1, 0, .25] and got.corpus[0]==pytest.approx(1.25/3)

@pytest.mark.parametrize('body,said', [
    ('echo "java.lang.OutOfMemoryError: Java heap space" >&2; exit 1', 'status 1: java.lang.OutOfMemoryError'),
    ('exit 0', 'left no readable scores'),
    ('echo "[{" > "$(while [ "$1" != -out ]; do shift; done; echo "$2")"', 'left no readable scores'),
    (writes([row(0, .5)]), 'scores of 1 pictures where 2 were asked for'),
    (writes([row(0, .5), row(1, None)]), 'scores of 1 pictures where 2 were asked for'),
    (writes([row(0, .5), row(1, .5), row(7, .5)]), 'left scores of 3 pictures where 2'),
    ('yes', 'printed more than'),
])
def test_spice_of_a_bad_java(parser, tmp_path, body, said):
    with pytest.raises(JavaError) as e: spice(REFS, CANDS, timeout=60, java=fake(tmp_path, body))
    assert said in str(e.value) and '\n' not in str(e.value)

def test_spice_that_never_ends(parser, tmp_path):
    start = time.monotonic()
    with pytest.raises(JavaError, match='no answer within'): spice(REFS, CANDS, timeout=.5, java=fake(tmp_path, 'sleep 600 & wait'))
    assert time.monotonic()-start<20

def test_spice_goes_without_its_cache_if_that_fails(parser, tmp_path):
    body = 'case "$*" in *-cache*) echo "Exception: org.fusesource.lmdbjni.LMDBException: MDB_CORRUPTED" >&2; exit 1;; esac\n'+writes([row(0, .5), row(1, .5)])
    assert spice(REFS, CANDS, java=fake(tmp_path, body)).corpus[0]==.5

@real
def test_spice_with_an_empty_parser(parser):
    with pytest.raises(JavaError, match='NoClassDefFoundError.*SemgrexPattern'): spice(REFS, CANDS)

PARSER_STANDIN = '''
package edu.anu.spice;
import java.util.*;
import java.net.URL;
import edu.cmu.meteor.aligner.SynonymDictionary;
import edu.cmu.meteor.util.Constants;
class SpiceParser { // every word is an object, or an attribute of the word behind it if it is a colour
    final SynonymDictionary synonyms;
    final LmdbTupleDB db;
    SpiceParser(String path, int threads, Boolean merge) throws java.io.IOException {
        db = path == null ? null : new LmdbTupleDB(path);
        String at = Constants.DEFAULT_SYN_DIR_URL.toString();
        synonyms = new SynonymDictionary(new URL(at + "/english.exceptions"), new URL(at + "/english.synsets"), new URL(at + "/english.relations"));
    }
    ArrayList<ArrayList<String>> tuples(String caption) {
        if (db != null) {
            Map<String, ArrayList<ArrayList<String>>> known = db.getTransaction(Collections.singletonList(caption));
            if (known.containsKey(caption)) return known.get(caption);
        }
        ArrayList<ArrayList<String>> out = new ArrayList<ArrayList<String>>();
        String before = null;
        for (String w : caption.split(" ")) {
            boolean colour = w.equals("red") || w.equals("blue");
            if (!colour && !w.isEmpty()) {
                out.add(new ArrayList<String>(Collections.singletonList(w)));
                if (before != null) out.add(new ArrayList<String>(Arrays.asList(w, before)));
            }
            before = colour ? w : null;
        }
        if (db != null) db.putTransaction(Collections.singletonMap(caption, out));
        return out;
    }
    public List<SceneGraph> parseCaptions(List<String> input, List<Integer> chunks) {
        List<SceneGraph> out = new ArrayList<SceneGraph>();
        Iterator<String> it = input.iterator();
        for (Integer n : chunks) {
            SceneGraph g = new SceneGraph(synonyms, true);
            for (int k = 0; k < n; k++) for (ArrayList<String> t : tuples(it.next())) g.addTuple(t);
            out.add(g);
        }
        return out;
    }
    public List<SceneGraph> parseCaptions(List<String> input) { return parseCaptions(input, Collections.nCopies(input.size(), 1)); }
}'''

@real
@pytest.mark.skipif(shutil.which('javac') is None, reason='needs a Java compiler')
def test_spice_itself_behind_a_stand_in_for_the_parser(parser, tmp_path):
    "The real scorer, synonyms, cache and output on this Java; only the sentence parser is ours"
    lib,out = find_jar('spice','lib'),tmp_path/'classes'
    (tmp_path/'SpiceParser.java').write_text(PARSER_STANDIN)
    subprocess.run(['javac', '-nowarn', '-cp', f'{find_jar("spice","spice-1.0.jar")}{os.pathsep}{lib}/*', '-d', out, tmp_path/'SpiceParser.java'], check=True, capture_output=True)
    shutil.copy(find_jar('tokenizer','stanford-corenlp-3.4.1.jar'), parser/PARSER[0]) # its small classes are the same
    with zipfile.ZipFile(parser/PARSER[1], 'w') as z: z.write(out/'edu/anu/spice/SpiceParser.class', 'edu/anu/spice/SpiceParser.class')
    refs = {'b':['red dog house','blue cat'], 'a':['café'], 'c':['dog'], 'd':['car']}
    cands = {'b':'red dog cat', 'a':'café', 'c':'', 'd':'automobile'}
    for _ in range(2): # the second time from the cache
        got = spice_scores(refs, cands)
        assert [round(s['All']['f'], 9) for s in got]==[.75, 1, 0, 1] # 3 of 3 and 3 of 5 tuples; same; nothing; a synonym
        assert got[0]['Color']==dict(tp=1, fp=0, fn=1, pr=1., re=.5, f=pytest.approx(2/3), numImages=1)
    if sys.platform=='linux': assert (tmp_path/'cache/spice/parses/data.mdb').stat().st_size>0
    assert spice(refs, cands).corpus[0]==pytest.approx(2.75/4)

# ---- nothing outlives Python, however it ends

ENDS = dict(tokeniser='from caption_nb.metrics.ptb import java_tokens; java_tokens(["a man\'s dog"], java)',
            spice='from caption_nb.metrics.java import spice; spice({1:["a"]}, {1:"a"}, java=java)',
            meteor='from caption_nb.metrics.java import meteor; meteor({1:["a"]}, {1:"a"}, java=java)')

AS_FROM_A_SHELL = 'import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); signal.signal(signal.SIGINT, signal.default_int_handler)\n' # however signals were inherited

def hanging(folder): # a Java with a child that both notice nothing, and the file that tells their numbers
    return fake(folder, 'sleep 600 & echo $! $$ > "$PIDS.new"; mv "$PIDS.new" "$PIDS"; wait'),folder/'pids'

def began(path, p=None, seconds=60):
    until = time.monotonic()+seconds
    while not path.exists() and time.monotonic()<until and (p is None or p.poll() is None): time.sleep(.05)
    return path.read_text().split()

def in_a_thread(code): return f'import threading\ndef work():\n    {code}\nt = threading.Thread(target=work, daemon=True)\nt.start()\nt.join()'

@pytest.mark.parametrize('thread', [False, True], ids=['main thread','thread'])
@pytest.mark.parametrize('number', ['SIGTERM','SIGHUP','SIGINT','SIGKILL'])
@pytest.mark.parametrize('what', ENDS)
def test_a_hanging_java_ends_with_python(parser, tmp_path, what, number, thread):
    java,pids = hanging(tmp_path)
    code = AS_FROM_A_SHELL+f'java = {java!r}\n'+(in_a_thread(ENDS[what]) if thread else ENDS[what])
    p = subprocess.Popen([sys.executable, '-c', code], env=os.environ|dict(PYTHONPATH=str(repo_path()), PIDS=str(pids), TMPDIR=str(tmp_path)), stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        family = began(pids, p)
        p.send_signal(getattr(signal, number))
        p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode!=0 and len(family)==2 and all(gone(q) for q in family)

def test_a_hanging_java_ends_with_python_though_a_forked_child_lives_on(tmp_path):
    java,pids = hanging(tmp_path)
    code = (f'import os, threading, time\nfrom caption_nb.metrics.ptb import java_tokens\nthreading.Thread(target=java_tokens, args=(["a man\'s dog"], {java!r}), daemon=True).start()\n'
            f'while not os.path.exists({str(pids)!r}): time.sleep(.01)\nif os.fork()==0: time.sleep(600)\nos.kill(os.getpid(), 9)')
    p = subprocess.Popen([sys.executable, '-c', code], env=os.environ|dict(PYTHONPATH=str(repo_path()), PIDS=str(pids)), start_new_session=True)
    try:
        assert p.wait(60)==-9 and all(gone(q) for q in began(pids))
        os.killpg(p.pid, 0) # the child is there
    finally: os.killpg(p.pid, 9)

def test_handlers_of_the_caller_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv('PIDS', str(tmp_path/'pids'))
    def handlers(): return [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)]
    before,seen = handlers(),[]
    watch = threading.Thread(target=lambda: (began(tmp_path/'pids'), seen.append(handlers())))
    watch.start()
    with pytest.raises(JavaError, match='no answer'): java_tokens(["a man's dog"], hanging(tmp_path)[0], limit=1)
    watch.join()
    assert [before]==seen and handlers()==before
    assert all(gone(q) for q in began(tmp_path/'pids'))

def test_what_java_started_ends_with_it(tmp_path, monkeypatch):
    "A Java that ends well and leaves a child"
    monkeypatch.setenv('PIDS', str(tmp_path/'pids'))
    java = fake(tmp_path, 'sleep 600 >/dev/null 2>&1 </dev/null & echo $! > "$PIDS"; cat >/dev/null; exit 4')
    with pytest.raises(JavaError, match='status 4'): java_tokens(["a man's dog"], java)
    assert gone((tmp_path/'pids').read_text().strip())

# ---- the score card

@pytest.mark.parametrize('body,reason', [('echo no memory today >&2; exit 1', 'no memory today'), ('yes no', 'printed'), ('exec >/dev/null; cat >/dev/null; exit 9', 'status 9')])
def test_score_card_with_a_bad_java(tmp_path, monkeypatch, body, reason):
    "The Python metrics come, METEOR is a gap with a reason"
    monkeypatch.setenv('CAPTION_NB_JAVA', fake(tmp_path, body))
    refs,cands = {i:[f"a man's {i} dogs"] for i in range(60)},{i:f"a man's {i} dogs" for i in range(60)}
    card = score(refs, cands, ('bleu','meteor','rouge','cider'), n_boot=0)
    assert card.corpus['METEOR'] is None and reason in card.status['METEOR'] and card.corpus['CIDEr']>1 and card.settings['tokenizer']=='approximate'

@real
def test_score_card_with_meteor(tiny, monkeypatch):
    monkeypatch.syspath_prepend(str(tiny))
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tiny/'cache'))
    refs,cands = {i:[f'a dog and {i} cats', 'it barks'] for i in range(60)},{i:f'{i} cats and a dog' if i%2 else f'a dog and {i} cats' for i in range(60)}
    card = score(refs, cands, ('meteor','cider'), n_boot=200)
    low,high = card.intervals['METEOR']
    assert card.status['METEOR']=='ok' and low<card.corpus['METEOR']<high<=1
