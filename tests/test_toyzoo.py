"The toy world's weights: the same to the byte however many processes make them, and made once when two commands want them"
import os, subprocess, sys
from caption_nb.app.toyzoo import MAKERS, ToyZooConfig, build_toy_zoo
from caption_nb.core import read_json

CODE = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'
TINY = '--size tiny --n-heldout 10 --jobs 1'.split()

def files_in(zoo): return {str(p.relative_to(zoo)):p.read_bytes() for part in MAKERS for p in (zoo/part).rglob('*') if p.is_file()}

def test_jobs_do_not_matter(tmp_path):
    a,b = ({k:v for r in build_toy_zoo(ToyZooConfig(size='tiny', n_heldout=10, jobs=j), tmp_path/str(j), quiet=True) for k,v in r.items() if 'seconds' not in k} for j in (1, 2))
    assert a==b
    one,two = files_in(tmp_path/'1'),files_in(tmp_path/'2')
    assert len({f.split('/')[0] for f in one})==len(MAKERS) and set(one)==set(two)
    assert not [f for f in one if one[f]!=two[f]]

def start(out, *more, **env):
    return subprocess.Popen([sys.executable, '-c', CODE, 'prepare', 'toy', *TINY, '--out', str(out), *more], env=os.environ|dict(OMP_NUM_THREADS='1')|env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def test_two_commands_at_once(tmp_path):
    both = [start(tmp_path/'zoo', '--parts', 'lm') for _ in range(2)]
    said = [p.communicate(timeout=600) for p in both]
    assert [p.returncode for p in both]==[0, 0], said
    assert [p.name for p in (tmp_path/'zoo'/'.work').iterdir()]==['lm.lock']
    assert read_json(tmp_path/'zoo'/'lm'/'training.json')['exam']
    assert {line for out,_ in said for line in out.splitlines() if 'per word' in line}!=set()
