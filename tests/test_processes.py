"Training divided among processes is that of one: the same batches, samples, rewards, weights and scores"
import os, socket, subprocess, sys
import numpy as np
import pytest
from safetensors.numpy import load_file
from caption_nb.app.cli import main
from caption_nb.core import read_json
from caption_nb.runs import read_log
from caption_nb.sacap.layout import open_prepared
from caption_nb.sacap.prepare import PicturesStep, RephraseStep, add_pictures, add_rewrites, add_supporting

FIRST = '--encoder pixels:32 --n-toy 60 --n-train 40 --n-val 8 --n-test 4 --epochs 2 --batch-size 8 --lm-layers 1 --lm-width 32 --lm-heads 2 --lm-epochs 1 --beam-size 2 --max-len 16 --precision fp32'
XE = f'{FIRST} --word-loss .1'
SCST = '--steps 6 --samples 3 --lr 1e-3 --eval-every 3 --log-every 1 --select= --precision fp32'

CODE = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def start(folder, stage, out, options, processes=1, command='train'):
    "Exit statuses and standard errors of one run by one process, or by several as a launcher starts them"
    env = os.environ|dict(CAPTION_NB_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1')
    many = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes), ACCELERATE_USE_CPU='true') if processes>1 else {}
    cmd = [sys.executable, '-c', CODE, *command.split(), stage, '--out', str(folder/out), '--device', 'cpu', *options.split()]
    ps = [subprocess.Popen(cmd, env=env|many|(dict(RANK=str(i), LOCAL_RANK=str(i)) if many else {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for i in range(processes)]
    try: said = [p.communicate(timeout=900)[1] for p in ps]
    finally:
        for p in ps: p.kill()
    return [p.returncode for p in ps], said

def train(folder, stage, out, options, processes=1):
    "The folder of a run that ends well"
    status,said = start(folder, stage, out, options, processes)
    assert status==[0]*processes, '\n'.join(x[-2000:] for x in said)
    return folder/out

def launched(folder, stage, out, options):
    "The folder of a run that torchrun divides among two processes, called as the README says"
    script = folder/'capnb'
    script.write_text(CODE)
    env = os.environ|dict(CAPTION_NB_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1')
    cmd = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '--', str(script), 'train', stage, '--out', str(folder/out), '--device', 'cpu', *options.split()]
    done = subprocess.run(cmd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=900)
    assert done.returncode==0, done.stderr[-3000:]
    return folder/out

@pytest.fixture(scope='module')
def base(tmp_path_factory): return train(tmp_path_factory.mktemp('base'), 'opg.xe', 'xe', XE)

def same_runs(one, two):
    "Both logs, captions and scores are the same but for rounding; both weights"
    logs = [[{k:v for k,v in x.items() if k!='seconds'} for x in read_log(r/'log.jsonl')] for r in (one, two)]
    assert [x['step'] for x in logs[0]]==[x['step'] for x in logs[1]]
    for a,b in zip(*logs):
        assert set(a)==set(b)
        assert all(abs(a[k]-b[k])<1e-4*max(1, abs(a[k])) for k in a), (a, b)
    assert [c['caption'] for c in read_json(one/'captions.json')]==[c['caption'] for c in read_json(two/'captions.json')]
    scores = [{k:v for k,v in read_json(r/'result.json').items() if '.' in k} for r in (one, two)]
    assert scores[0]==scores[1]
    return [load_file(r/'model'/'model.safetensors') for r in (one, two)]

def far(a, b):
    "Mean distance of two sets of weights"
    return np.concatenate([np.abs(a[k]-b[k]).ravel() for k in a]).mean()

@pytest.mark.parametrize('more', ['--batch-size 8', '--batch-size 4 --how beam --own-words .5 --accumulate 2', '--batch-size 3 --baseline greedy --accumulate 2'])
def test_two_processes_are_one(base, tmp_path, more):
    one,two = (train(tmp_path, 'opg.scst', f'scst{n}', f'{SCST} {more} --run {base}', n) for n in (1, 2))
    w = same_runs(one, two)
    assert far(*w)<1e-3*far(load_file(base/'model'/'model.safetensors'), w[0]) # the rounding of biases of attention keys, whose gradient is 0, apart

def test_two_processes_of_the_first_stage_are_one(tmp_path):
    "Text, captions and negatives are those of one process, weights are chosen among all and written once; dropout alone would differ"
    more = f'{FIRST} --aux-loss .1 --aux-gather --captions 2 --accumulate 2 --lm-dropout 0'
    one,two = train(tmp_path, 'opg.xe', 'xe1', more),launched(tmp_path, 'opg.xe', 'xe2', more)
    w = same_runs(one, two)
    assert far(*w)<1e-5

def test_too_many_processes_are_refused(base, tmp_path):
    status,said = start(tmp_path, 'opg.scst', 'scst', f'{SCST} --batch-size 1 --run {base}', 2)
    assert 0 not in status
    assert any('a step of 1 cannot be divided among 2 processes' in x for x in said), said[0][-2000:]

DICO_XE = '--encoder pixels:32 --words toy/clip --n-toy 60 --n-train 40 --n-val 8 --n-test 4 --epochs 2 --batch-size 8 --width 32 --layers 1 --heads 2 --hidden 48 --max-len 14 --beam-size 3 --dropout 0 --judge toy/weak --precision fp32'
DICO = '--steps 4 --k 3 --batch-size 6 --lr 1e-3 --eval-every 2 --log-every 1 --select= --clip-metric dico_clip --clip-model toy/clip --precision fp32'

def test_two_processes_of_direct_optimisation_are_one(tmp_path):
    base = train(tmp_path, 'dico.xe', 'xe1', DICO_XE)
    assert far(*same_runs(base, train(tmp_path, 'dico.xe', 'xe2', DICO_XE, 2)))<1e-5
    one,two = (train(tmp_path, 'dico.dico', f'dico{n}', f'{DICO} --run {base}', n) for n in (1, 2))
    w = same_runs(one, two)
    assert far(*w)<1e-2*far(load_file(base/'model'/'model.safetensors'), w[0])

def test_two_processes_prepare_what_one_does(tmp_path, monkeypatch):
    "Pictures and rewrites to the byte; vectors are one process's work"
    drawing,writing = PicturesStep(n_toy=10, model='toy', suffix='.png', batch_size=3, device='cpu'),RephraseStep(n_toy=10, model='toy', batch_size=3, device='cpu')
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    one,two = (tmp_path/n for n in ('one', 'two'))
    for add,step in ((add_pictures, drawing), (add_rewrites, writing), (add_supporting, drawing)): add(step, one, quiet=True, alone=True)
    draw = '--n-toy 10 --model toy --suffix .png --batch-size 3'
    for step,options in dict(pictures=draw, rephrase='--n-toy 10 --model toy --batch-size 3', supporting=draw).items():
        status,said = start(tmp_path, step, 'two', options, 2, 'prepare sacap')
        assert status==[0, 0], '\n'.join(x[-2000:] for x in said)
    def made(folder): return {p.relative_to(folder).as_posix():p.read_bytes() for p in folder.rglob('*') if p.suffix=='.png' or p.name in ('rephrase.jsonl', 'rewrites.json', 'pictures.parquet', 'manifest.json')}
    assert made(one)==made(two) and len(made(one))>60
    a,b = open_prepared(one),open_prepared(two)
    assert (len(a.pictures), len(a.images.ids), b.images)==(80, 80, None)
    assert {k:p.relative_to(one) for k,p in a.pictures.items()}=={k:p.relative_to(two) for k,p in b.pictures.items()}
    features = ['prepare', 'sacap', 'features', '--n-toy', '10', '--least', '1', '--device', 'cpu', '--out', str(two)]
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert main(features)==2 # to be called without torchrun
    monkeypatch.delenv('WORLD_SIZE')
    assert main(features)==0 and np.array_equal(open_prepared(two).images[:], a.images[:])
