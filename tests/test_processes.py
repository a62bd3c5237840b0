"Reward training divided among two processes is that of one: the same samples, rewards, weights and scores"
import json, os, subprocess, sys
import numpy as np
import pytest
from safetensors.numpy import load_file
from caption_nb.core import read_json
from caption_nb.runs import read_log

XE = '--encoder pixels:32 --n-train 40 --n-val 8 --n-test 4 --epochs 2 --batch-size 8 --lm-layers 1 --lm-width 32 --lm-heads 2 --lm-epochs 1 --word-loss .1 --beam-size 2 --max-len 16 --precision fp32'
SCST = '--steps 6 --batch-size 8 --samples 3 --lr 1e-3 --eval-every 3 --log-every 1 --select= --precision fp32'

def train(folder, stage, out, options, processes=1):
    code = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'
    script = folder/'train.py'
    script.write_text(code)
    start = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)] if processes>1 else [sys.executable]
    env = os.environ|dict(CAPTION_NB_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true', PYTHONPATH=os.pathsep.join(sys.path))
    p = subprocess.run([*start, str(script), 'train', stage, '--out', str(folder/out), '--device', 'cpu', *options.split()], env=env, capture_output=True, text=True, timeout=600)
    assert p.returncode==0, p.stderr[-3000:]
    return folder/out

@pytest.mark.parametrize('more', ['', '--baseline greedy --accumulate 2'])
def test_two_processes_are_one(tmp_path, more):
    base = train(tmp_path, 'opg.xe', 'xe', XE)
    one,two = (train(tmp_path, 'opg.scst', f'scst{n}', f'{SCST} {more} --run {base}', n) for n in (1, 2))
    logs = [[{k:v for k,v in x.items() if k!='seconds'} for x in read_log(r/'log.jsonl')] for r in (one, two)]
    assert [x['step'] for x in logs[0]]==[x['step'] for x in logs[1]]
    for a,b in zip(*logs):
        assert set(a)==set(b)
        same = set(a)-(set() if '--accumulate' not in more else set(a)-{'loss', 'grad_norm', 'lr', 'val.CIDEr', 'val.words'}) # of several micro-batches the log has the last one's values
        assert all(abs(a[k]-b[k])<1e-4*max(1, abs(a[k])) for k in same), (a, b)
    assert (one/'captions.json').read_text()==(two/'captions.json').read_text() or _texts(one)==_texts(two)
    free = {'seconds', 'date', 'config_hash'}
    scores = [{k:v for k,v in read_json(r/'result.json').items() if k not in free and isinstance(v, float)} for r in (one, two)]
    assert scores[0]==scores[1]
    w = [load_file(r/'model'/'model.safetensors') for r in (one, two)]
    moved = [load_file(base/'model'/'model.safetensors')[k]-w[0][k] for k in w[0]]
    apart = np.concatenate([np.abs(w[0][k]-w[1][k]).ravel() for k in w[0]])
    assert apart.mean()<1e-3*np.concatenate([np.abs(m).ravel() for m in moved]).mean(), apart.mean() # the rounding of biases of attention keys, whose gradient is 0, apart

def _texts(run): return [c['caption'] for c in read_json(run/'captions.json')]
