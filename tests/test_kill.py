"A training killed with SIGKILL at random moments ends with the bytes of one that nobody disturbed"
import os, random, subprocess, sys, time
from pathlib import Path
import psutil
import pytest
from caption_nb.core import read_json
from caption_nb.runs import read_log
from test_runs import wait_for_end

OPTIONS = ('--encoder pixels:32 --n-train 40 --n-val 8 --n-test 4 --epochs 6 --batch-size 8 --lm-layers 1 --lm-width 32 --lm-heads 2 --lm-epochs 1 '
           '--beam-size 2 --max-len 16 --save-every 3 --log-every 1 --precision fp32').split()

ZOO = ('--data toy --n-toy 24 --backbone random:test_efficientnet --views 2 --cells 2 --queries 2 --dim 32 --text-width 64 --expert-dim 32 --expert-width 64 --vocab-size 400 --epochs 3 '
       '--batch-size 8 --lm-layers 1 --lm-width 32 --lm-heads 2 --lm-vocab 400 --lm-steps 8 --save-every 2 --log-every 1').split()
SCST = '--steps 12 --batch-size 8 --samples 3 --lr 1e-3 --eval-every 4 --save-every 3 --log-every 1 --precision fp32'.split()
TRAIN,PREPARE = ('train', 'opg.xe', *OPTIONS),('prepare', 'zoo', *ZOO)

def start(out, cache, words=TRAIN):
    code = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'
    env = os.environ|dict(CAPTION_NB_CACHE=str(cache), OMP_NUM_THREADS='1')
    return subprocess.Popen([sys.executable, '-c', code, *words, '--out', str(out)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

def bytes_in(folder):
    "How much the run has written: something that grows with its progress"
    return sum(_size(Path(d)/f) for d,_,files in os.walk(folder) for f in files) # folders may go while it walks

def _size(p):
    try: return p.stat().st_size
    except OSError: return 0 # renamed in this moment

def let_it_write(p, out, times):
    "Wait until the run folder has grown that many times: log lines, checkpoints, captions"
    last = bytes_in(out)
    while times and p.poll() is None:
        now = bytes_in(out)
        if now!=last: last,times = now,times-1
        time.sleep(.001)

def finish_with_kills(out, cache, kills, seed, words=TRAIN):
    rng,done = random.Random(seed),0
    for _ in range(60):
        p,wait = start(out, cache, words),rng.uniform(0, .03)
        if done<kills:
            let_it_write(p, out, rng.randint(1, 25))
            time.sleep(wait)
            if p.poll() is None:
                p.kill()
                done += 1
        err = p.communicate()[1].decode()
        if p.returncode==0: return done
        assert p.returncode==-9, err
    raise AssertionError('never finished')

@pytest.fixture(scope='module')
def calm(tmp_path_factory):
    out = tmp_path_factory.mktemp('calm')
    assert finish_with_kills(out/'run', out/'cache', 0, 0)==0
    return out/'run'

def same_runs(a, b):
    "Weights, captions, settings and scores of two runs are the same to the byte"
    for name in ('model/model.safetensors', 'captions.json', 'config.json'):
        assert (a/name).read_bytes()==(b/name).read_bytes(), name
    scores = [{k:v for k,v in read_json(r/'result.json').items() if k not in ('seconds', 'date')} for r in (a, b)]
    assert scores[0]==scores[1]

def test_kills_leave_no_trace(calm, tmp_path):
    kills = int(os.environ.get('CAPNB_KILLS', 2))
    done = finish_with_kills(tmp_path/'run', tmp_path/'cache', kills, seed=int(os.environ.get('CAPNB_KILL_SEED', 1)))
    assert done==kills # it was really killed so often
    same_runs(tmp_path/'run', calm)
    assert not [p for p in tmp_path.rglob('*.tmp') if 'result' in p.name]

def test_reward_training_goes_on(calm, tmp_path):
    words = 'train', 'opg.scst', '--run', str(calm), *SCST
    for name,kills in [('calm', 0), ('storm', 2)]: assert finish_with_kills(tmp_path/name, tmp_path/'cache', kills, 3, words)==kills
    same_runs(tmp_path/'storm', tmp_path/'calm')
    logs = [[{k:v for k,v in x.items() if k!='seconds'} for x in read_log(tmp_path/k/'log.jsonl')] for k in ('calm', 'storm')]
    assert logs[0]==logs[1]

def test_a_killed_zoo_is_the_same_zoo(tmp_path):
    kills = int(os.environ.get('CAPNB_KILLS', 1))
    assert finish_with_kills(tmp_path/'calm', tmp_path/'cache', 0, 0, PREPARE)==0
    assert finish_with_kills(tmp_path/'zoo', tmp_path/'other', kills, int(os.environ.get('CAPNB_KILL_SEED', 2)), PREPARE)==kills
    for name in ('clip/open_clip_model.safetensors', 'expert/open_clip_model.safetensors', 'lm/model.safetensors'):
        assert (tmp_path/'zoo'/name).read_bytes()==(tmp_path/'calm'/name).read_bytes(), name

def test_killed_toy_weights_are_the_same(tmp_path):
    words = 'prepare toy --size tiny --parts lm,xvlm --jobs 1 --n-heldout 10'.split()
    kills = int(os.environ.get('CAPNB_KILLS', 1))
    for name,n in [('calm', 0), ('storm', kills)]: assert finish_with_kills(tmp_path/name, tmp_path/'cache', n, 3, words)==n
    for part,weights in [('lm', 'model.safetensors'), ('xvlm', 'pytorch_model.bin')]:
        for f in (weights, 'training.json'): assert (tmp_path/'storm'/part/f).read_bytes()==(tmp_path/'calm'/part/f).read_bytes(), f
        assert not (tmp_path/'storm'/'.work'/part).exists()

def test_helpers_end_with_the_call_that_started_them(tmp_path):
    p,helpers,until = start(tmp_path/'zoo', tmp_path/'cache', ('prepare', 'toy', '--parts', 'xvlm,lm,weak', '--jobs', '2')),[],time.time()+240
    def logs(): return [l for l in (tmp_path/'zoo').glob('.work/*/*/log.jsonl') if l.stat().st_size]
    try:
        while len(logs())<2 and time.time()<until and p.poll() is None: time.sleep(.1)
        assert len(logs())==2, 'two parts were to be in training by now'
        helpers = psutil.Process(p.pid).children(recursive=True)
        assert len(helpers)>=2
        p.kill()
        p.wait()
        for h in helpers: wait_for_end(h.pid, 60)
        assert len(list((tmp_path/'zoo').glob('.work/*/*/state/last.pt')))==2 # they kept what they had
        assert sum(d.is_dir() for d in (tmp_path/'zoo'/'.work').iterdir())==2 # and went on to nothing else
    finally:
        p.kill()
        for h in helpers:
            if h.is_running(): h.kill()
        p.stderr.close()
