"ZeroCap's commands at tiny size: each of the original's, folders, kills, two processes; and 200 sums of the toy world"
import json, os, shlex, signal, subprocess, sys, time
from pathlib import Path
import pytest
from caption_nb.app import cli
from caption_nb.app.zerocapcommands import COMMANDS
from caption_nb.core import read_json, shared_path
from caption_nb.data.toyscenes import render_scene, sample_scene

CODE = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'
TINY = '--lm_model toy/lm --clip toy/clip --device cpu --target_seq_length 3 --beam_size 2 --num_iterations 2 --stepsize 1'.split()
TOY = TINY+['--cond_text', 'there is a']
PROMPTS = {'captioning on a single image':'Image of a', 'visual arithmetic':'Image of a', 'real world knowledge':'Image of', 'OCR':'Image of text that says', 'several GPUs':'Image of a'}

def caption(*words): return cli.main(['caption', '--system', 'zerocap', *map(str, words)])

def start(*words, **kw):
    return subprocess.Popen([sys.executable, '-c', CODE, 'caption', '--system', 'zerocap', *map(str, words)], env=os.environ|dict(OMP_NUM_THREADS='1'), stdout=subprocess.DEVNULL, **kw)

@pytest.fixture(scope='module')
def album(tmp_path_factory):
    folder = tmp_path_factory.mktemp('album')
    for i in range(8): render_scene(sample_scene(i), 64).save(folder/f'{i}.png')
    (folder/'bad.png').write_bytes(b'no')
    return folder

@pytest.fixture(scope='module')
def whole(album, tmp_path_factory):
    "What one process says that nobody disturbs"
    out = tmp_path_factory.mktemp('whole')/'c.json'
    assert caption('--images', album, *TOY, '--batch_size', 3, '--out', out)==0
    return read_json(out)

def told(caps): return [(c['image_id'], c['caption'], [b['text'] for b in c['candidates']]) for c in caps]

def numbers(caps): return [[c['score'], *(b[k] for b in (c['extra'], *c['candidates']) for k in ('clip', 'clip_with_prompt', 'fluency', 'length')), *(b['score'] for b in c['candidates'])] for c in caps]

def check_same(out, caps):
    "The same captions, and scores within what batches of other sizes do to the last digits"
    found = read_json(out)
    assert told(found)==told(caps)
    for a,b in zip(numbers(found), numbers(caps), strict=True): assert a==pytest.approx(b, abs=2e-4)

@pytest.mark.parametrize('side', ['theirs', 'ours'])
@pytest.mark.parametrize('c', COMMANDS, ids=lambda c: c.title)
def test_commands_of_the_readme(c, side, album, tmp_path, capsys):
    words = shlex.split(c.theirs.partition('run.py ')[2]) if side=='theirs' else shlex.split(c.ours)[4:]
    examples = [w for w in words if w.endswith('.jpg')] # the original's own pictures where they are at hand, else those of the test
    theirs = {w:shared_path(f'data/examples/zerocap_{Path(w).parts[-2].lower()}__{Path(w).name}') or album/f'{i}.png' for i,w in enumerate(examples)}
    words = [theirs.get(w) or dict(FILE=album/'0.png', FOLDER=album, A=album/'0.png', B=album/'1.png', C=album/'2.png').get(w, w) for w in words]
    assert caption(*words, *TINY, '--out', tmp_path/'c.json')==0
    found = read_json(tmp_path/'c.json')
    assert len(found)==(8 if album in words else 1) and all(x['extra']['prompt']==PROMPTS[c.title] and len(x['candidates'])==1 for x in found)
    if c.title=='visual arithmetic':
        assert found[0]['extra']['sum']=='{} + {} - {}'.format(*(Path(theirs[w]).stem for w in examples) if side=='theirs' else '012')
        assert len(found[0]['extra']['images'])==3
    if len(found)==1: assert f'best clip: {PROMPTS[c.title]}' in capsys.readouterr().out

def test_folder_with_a_bad_picture(whole, album):
    assert [c['image_id'] for c in whole]==[f'{i}.png' for i in range(8)] and len({c['caption'] for c in whole})>2

def test_killed_and_continued(whole, album, tmp_path):
    out,part = tmp_path/'c.json',tmp_path/'c.json.part'
    p = start('--images', album, *TOY, '--batch_size', 1, '--out', out, stderr=subprocess.DEVNULL)
    while p.poll() is None and not (part.exists() and part.read_bytes().count(b'\n')>2): time.sleep(.001)
    p.send_signal(signal.SIGKILL)
    p.wait()
    before = [json.loads(l) for l in part.read_bytes().split(b'\n')[1:] if l.endswith(b'}')]
    assert p.returncode==-signal.SIGKILL and 0<len(before)<8
    assert caption('--images', album, *TOY, '--batch_size', 3, '--out', out)==0
    check_same(out, whole)
    assert not part.exists()
    after = {c['image_id']:c for c in read_json(out)}
    assert all({k:v for k,v in after[b['image_id']].items() if k!='by'}==b for b in before) # to the last digit: not done again

@pytest.mark.parametrize('profile', ['default', 'published'])
def test_two_processes_are_one(profile, whole, album, tmp_path):
    "In the published profile a step's distribution spans the beams of a picture, wherever it is captioned"
    out,words = tmp_path/'c.json',['--images', album, *TOY, '--profile', profile]
    p = start(*words, '--multi_gpu', '--processes', 2, '--out', out, stderr=subprocess.PIPE, text=True)
    _,err = p.communicate(timeout=600)
    assert p.returncode==0, err[-2000:]
    assert err.count('bad.png')==1 and [x.name for x in tmp_path.iterdir()]==['c.json']
    if profile!='default': assert caption(*words, '--batch_size', 3, '--out', tmp_path/'one.json')==0
    check_same(out, whole if profile=='default' else read_json(tmp_path/'one.json'))

def test_a_failing_process_ends_the_others(album, tmp_path):
    p = start('--images', album, *TOY, '--multi_gpu', '--processes', 2, '--strict', '--out', tmp_path/'c.json', stderr=subprocess.PIPE, text=True)
    _,err = p.communicate(timeout=600)
    assert p.returncode==1 and 'bad.png' in err

def test_200_sums(tmp_path, capsys):
    "A right answer to at least six of ten"
    from caption_nb.zerocap.arithmetic import TOY as BEST, toy_relations
    options = json.dumps(BEST)
    assert caption('--relations', toy_relations(tmp_path/'toy', 200, seed=2), '--preset', 'arithmetic', '--lm_model', 'toy/lm', '--clip', 'toy/clip', '--device', 'cpu', '--batch_size', 50, '--options', options, '--out', tmp_path/'c.json')==0
    head,*lines = [l.split('\t') for l in capsys.readouterr().out.splitlines() if l.startswith(('relation', 'all'))]
    scores = dict(zip(head, lines[-1]))
    assert scores['n']=='200' and float(scores['hit@1'])>=.6 and float(scores['hit@5'])>=float(scores['hit@1'])
