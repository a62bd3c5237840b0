"Reward training divided among two processes is that of one: the same samples, rewards, weights and scores"
import os, socket, subprocess, sys
import numpy as np
import pytest
from safetensors.numpy import load_file
from caption_nb.core import read_json
from caption_nb.runs import read_log

XE = '--encoder pixels:32 --n-train 40 --n-val 8 --n-test 4 --epochs 2 --batch-size 8 --lm-layers 1 --lm-width 32 --lm-heads 2 --lm-epochs 1 --word-loss .1 --beam-size 2 --max-len 16 --precision fp32'
SCST = '--steps 6 --batch-size 8 --samples 3 --lr 1e-3 --eval-every 3 --log-every 1 --select= --precision fp32'

CODE = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def train(folder, stage, out, options, processes=1):
    "One run by one process, or by several as a launcher starts them"
    env = os.environ|dict(CAPTION_NB_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1')
    many = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes), ACCELERATE_USE_CPU='true') if processes>1 else {}
    cmd = [sys.executable, '-c', CODE, 'train', stage, '--out', str(folder/out), '--device', 'cpu', *options.split()]
    ps = [subprocess.Popen(cmd, env=env|many|(dict(RANK=str(i), LOCAL_RANK=str(i)) if many else {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for i in range(processes)]
    try: said = [p.communicate(timeout=900)[1] for p in ps]
    finally:
        for p in ps: p.kill()
    assert [p.returncode for p in ps]==[0]*processes, '\n'.join(x[-2000:] for x in said)
    return folder/out

@pytest.fixture(scope='module')
def base(tmp_path_factory): return train(tmp_path_factory.mktemp('base'), 'opg.xe', 'xe', XE)

@pytest.mark.parametrize('more', ['', '--baseline greedy --accumulate 2'])
def test_two_processes_are_one(base, tmp_path, more):
    one,two = (train(tmp_path, 'opg.scst', f'scst{n}', f'{SCST} {more} --run {base}', n) for n in (1, 2))
    logs = [[{k:v for k,v in x.items() if k!='seconds'} for x in read_log(r/'log.jsonl')] for r in (one, two)]
    assert [x['step'] for x in logs[0]]==[x['step'] for x in logs[1]]
    for a,b in zip(*logs):
        assert set(a)==set(b)
        same = {'loss', 'grad_norm', 'lr', 'val.CIDEr'}&set(a) if 'accumulate' in more else set(a) # of several micro-batches the log has the last one's values
        assert all(abs(a[k]-b[k])<1e-4*max(1, abs(a[k])) for k in same), (a, b)
    assert [c['caption'] for c in read_json(one/'captions.json')]==[c['caption'] for c in read_json(two/'captions.json')]
    scores = [{k:v for k,v in read_json(r/'result.json').items() if '.' in k} for r in (one, two)]
    assert scores[0]==scores[1]
    w = [load_file(r/'model'/'model.safetensors') for r in (one, two)]
    moved = [load_file(base/'model'/'model.safetensors')[k]-w[0][k] for k in w[0]]
    apart = np.concatenate([np.abs(w[0][k]-w[1][k]).ravel() for k in w[0]])
    assert apart.mean()<1e-3*np.concatenate([np.abs(m).ravel() for m in moved]).mean(), apart.mean() # the rounding of biases of attention keys, whose gradient is 0, apart
