"`capnb run` and `capnb sweep` stopped by Ctrl-C or killed: what is half done is never taken for done, what waits does not start, the next call goes on"
import os, re, signal, subprocess, sys, time
import nbformat, pytest
from pathlib import Path
from caption_nb.core import read_json
from caption_nb.runs import is_done, is_finished

pytestmark = pytest.mark.skipif(sys.platform=='win32', reason='signals of Unix')
CODE = 'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'

# Six steps, kept one by one; after those named in `hold` it waits until a file of that name is in the folder `go`. Step 7: the result is written, the notebook is not at its end
STEPS = '''
import os, time
from pathlib import Path
from caption_nb.runs import Run, finish
run,state = Run(out),Path(out)/'state'
state.mkdir(exist_ok=True)
(run/'pid').write_text(str(os.getpid()))

def step(i):
    if not (state/str(i)).exists(): (state/str(i)).write_text(str(os.getpid()))
    while str(i) in str(hold).split() and not Path(go, str(i)).exists(): time.sleep(.02)

run.start(dict(n=n))
for i in range(1, 7): step(i)
finish(run, dict(total=n*len(list(state.iterdir()))), [dict(image_id=n, caption='a cat')])
step(7)
'''

@pytest.fixture
def nb(tmp_path):
    cells = [nbformat.v4.new_code_cell("out = ''\nn = 1\nhold = ''\ngo = ''", metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(STEPS)]
    kernel = dict(name='python3', display_name='python3', language='python')
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel)), tmp_path/'steps.ipynb')
    return tmp_path/'steps.ipynb'

def start(command, nb, out, hold, **more):
    words = [x for k,v in dict(hold=hold, go=nb.parent/'go', **more).items() for x in ('-p', k, v)]
    return subprocess.Popen([sys.executable, '-c', CODE, command, *map(str, (nb, '--out', out, *words))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def wait_for(path, p, seconds=60):
    end = time.time()+seconds
    while not path.exists() and p.poll() is None and time.time()<end: time.sleep(.02)
    assert path.exists(), (p.poll(), p.communicate() if p.poll() is not None else 'too slow')

def wait_for_end(pid, seconds=10):
    "Until that process is gone: nobody goes on writing into the folder"
    end = time.time()+seconds
    while time.time()<end:
        try: state = Path(f'/proc/{pid}/stat').read_text().split()[2] if Path('/proc').is_dir() else os.kill(pid, 0)
        except (OSError, ProcessLookupError): return
        if state=='Z': return
        time.sleep(.05)
    raise AssertionError(f'process {pid} goes on')

KERNEL = re.compile(r'^ERROR:tornado\.general:.*\nTraceback .*\n(?:  .*\n)*zmq\.error\..*\n', re.M) # a kernel's own word on sockets that are closed while it is stopped

def assert_stopped(p):
    "It says that it was stopped, last, and nothing breaks on our side"
    err = p.communicate(timeout=30)[1]
    assert p.returncode==1 and 'stopped; call again to continue' in err.splitlines()[-1] and 'Traceback' not in KERNEL.sub('', err), err

def done(nb, out, hold): return is_done(nb, out, dict(hold=hold, go=str(nb.parent/'go')))

def let_go(nb, *steps):
    (nb.parent/'go').mkdir(exist_ok=True)
    for i in steps: (nb.parent/'go'/str(i)).touch()

def test_run_killed(nb, tmp_path):
    "SIGKILL in the middle, then between the result and the end of the notebook"
    out,pids = tmp_path/'run',[]
    for at in (3, 7):
        p = start('run', nb, out, '3 7')
        wait_for(out/'state'/str(at), p)
        p.kill()
        p.communicate()
        pids.append((out/'pid').read_text())
        wait_for_end(int(pids[-1]))
        assert is_finished(out)==(at==7) and not done(nb, out, '3 7')
        let_go(nb, at)
    p = start('run', nb, out, '3 7')
    err = p.communicate(timeout=120)[1]
    assert p.returncode==0 and 'Traceback' not in KERNEL.sub('', err) and done(nb, out, '3 7'), err
    assert read_json(out/'result.json')['total']==7 # the seventh step was there before the third start
    assert [(out/'state'/i).read_text() for i in '147']==[pids[0], pids[1], pids[1]] and not (out/'.running.ipynb').exists() # it went on, it did not begin again

def test_run_stopped(nb, tmp_path):
    "SIGTERM, as schedulers send it; Ctrl-C is the same path"
    out = tmp_path/'run'
    p = start('run', nb, out, 3)
    wait_for(out/'state'/'3', p)
    p.send_signal(signal.SIGTERM)
    assert_stopped(p)
    wait_for_end(int((out/'pid').read_text()))
    assert not is_finished(out) and not done(nb, out, 3)

def test_sweep_stopped(nb, tmp_path):
    "One run is done, one is in the middle, one waits: Ctrl-C keeps the first, stops the second, does not start the third"
    root = tmp_path/'sweep'
    p = start('sweep', nb, root, hold='[0, 3, 4]')
    wait_for(root/'hold=3'/'state'/'3', p)
    p.send_signal(signal.SIGINT)
    assert_stopped(p)
    wait_for_end(int((root/'hold=3'/'pid').read_text()))
    assert not (root/'hold=4').exists() and not is_finished(root/'hold=3')
    let_go(nb, 3, 4)
    first = (root/'hold=0'/'run.ipynb').stat().st_mtime_ns
    p = start('sweep', nb, root, hold='[0, 3, 4]')
    assert p.wait(60)==0, p.communicate()[1]
    assert all(done(nb, root/f'hold={k}', k) for k in (0, 3, 4)) and (root/'hold=0'/'run.ipynb').stat().st_mtime_ns==first
