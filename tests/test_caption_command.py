"`capnb caption`: any picture, any interruption, one sentence for each mistake"
import os, signal, subprocess, sys, time
import pytest
from PIL import Image
from caption_nb.core import read_json
from test_kill import OPTIONS, start

CODE = 'import sys; from caption_nb.app.cli import main; sys.exit(main(sys.argv[1:]))'

def capnb(*words, **kw):
    return subprocess.run([sys.executable, '-c', CODE, *map(str, words)], capture_output=True, text=True, env=os.environ|dict(OMP_NUM_THREADS='1'), **kw)

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp('trained')
    p = start(out/'run', out/'cache')
    assert p.wait()==0, p.stderr.read().decode()
    return out/'run'

@pytest.fixture
def album(tmp_path):
    (tmp_path/'album'/'deep').mkdir(parents=True)
    for i in range(30): Image.new('RGB', (30+i, 40), (8*i, 90, 10)).save(tmp_path/'album'/f'{i:02}.png')
    Image.new('CMYK', (30, 30)).save(tmp_path/'album'/'deep'/'scan.jpg')
    (tmp_path/'album'/'broken.jpg').write_bytes(b'\xff\xd8\xff')
    return tmp_path/'album'

def test_folder_and_file(run, album, tmp_path):
    single = tmp_path/'single.png'
    Image.new('L', (5, 5)).save(single)
    r = capnb('caption', single, album, '--run', run, '--out', tmp_path/'c.json')
    assert r.returncode==0, r.stderr
    caps = read_json(tmp_path/'c.json')
    assert [c['image_id'] for c in caps]==['single.png', *(f'{i:02}.png' for i in range(30)), 'deep/scan.jpg']
    assert 'broken.jpg' in r.stderr and '1 pictures skipped' in r.stderr

def test_strict_stops(run, album, tmp_path):
    r = capnb('caption', album, '--run', run, '--out', tmp_path/'c.json', '--strict')
    assert r.returncode==1 and 'broken.jpg' in r.stderr and 'Traceback' not in r.stderr

def test_killed_and_continued(run, album, tmp_path):
    whole = tmp_path/'whole.json'
    assert capnb('caption', album, '--run', run, '--out', whole, '--batch-size', 2).returncode==0
    out,part = tmp_path/'c.json',tmp_path/'c.json.part'
    p = subprocess.Popen([sys.executable, '-c', CODE, 'caption', str(album), '--run', str(run), '--out', str(out), '--batch-size', '2'],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None and not (part.exists() and part.read_bytes().count(b'\n')>3): time.sleep(.001)
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert part.exists() or out.exists()
    assert capnb('caption', album, '--run', run, '--out', out, '--batch-size', 2).returncode==0
    a,b = read_json(out),read_json(whole)
    assert [(c['image_id'], c['caption']) for c in a]==[(c['image_id'], c['caption']) for c in b] and not part.exists()
    assert all(abs(x['score']-y['score'])<1e-4 for x,y in zip(a, b)) # another split into batches, other last bits

def test_other_choices(run, album, tmp_path):
    "Shorter captions by a choice at the call; a file begun with other choices is not gone on with"
    out = tmp_path/'c.json'
    words = ['caption', album/'00.png', album/'01.png', '--run', run, '--out', out]
    assert capnb(*words, '--choices', 'max_len=3', 'beam_size=1').returncode==0
    assert all(len(c['caption'].split())<=3 and len(c.get('candidates', []))==0 for c in read_json(out))
    r = capnb(*words)
    assert r.returncode==1 and 'not written by this captioner' in r.stderr
    (tmp_path/'c.json').unlink()
    for choice,code,said in (('max_len', 2, 'name=value'), ('max_len=soon', 1, "max_len is 'soon'"), ('lm_layers=3', 1, 'What can: beam_size')):
        r = capnb(*words, '--choices', choice)
        assert r.returncode==code and said in r.stderr and 'Traceback' not in r.stderr and not out.exists(), (choice, r)

def test_mistakes_get_a_sentence(run, album, tmp_path):
    whole = tmp_path/'whole.json'
    whole.write_text('[{"image_id": 1, "caption": "a dog"}]')
    for words,code,said in [
        (['caption', 'gone.png', '--run', run], 1, 'gone.png: no such file or folder'),
        (['caption', album, '--run', tmp_path/'none'], 1, 'no such folder'),
        (['caption', album, '--run', album], 1, 'holds no trained captioner'),
        (['caption', album], 2, 'run'),
        (['train', 'opg.xe', '--data', tmp_path/'none'], 1, 'none'),
        (['train', 'magic'], 2, 'the stages are opg.xe'),
        (['train', 'opg.xe', '--batch-size', '0'], 1, 'batch_size is 0'),
        (['train', 'opg.xe', '--encoder', 'pixels:32', '--n-train', '8', '--out', album/'00.png'], 1, '00.png'),
        (['evaluate', whole], 2, 'give the references'),
        (['run', 'nb.ipynb', '--params', album], 1, 'cannot be read'),
        (['sweep', 'nb.ipynb', '--jobs', 'x'], 2, 'whole number'),
        (['evaluate', tmp_path/'none.json', tmp_path/'none.json'], 2, 'none.json'),
        (['dance'], 2, 'no command dance')]:
        r = capnb(*words, cwd=tmp_path)
        assert r.returncode==code and said in r.stderr and 'Traceback' not in r.stderr, (words, r)
