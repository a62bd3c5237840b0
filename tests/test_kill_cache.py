"A feature store that is killed at any moment and continued ends with the same bytes"
import os, random, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from PIL import Image

CODE = '''
import os, sys
from pathlib import Path
import numpy as np
import caption_nb.data.cache as cache

kill_at,n = int(sys.argv[1]),0

def tick(): # one more moment at which the process may die
    global n
    n += 1
    if n==kill_at: os.kill(os.getpid(), 9)

def put(path, offset, data, put=cache._put):
    tick()
    if n+1==kill_at: put(path, offset, data[:len(data)//2]) # half written
    tick()
    put(path, offset, data)
    tick()

def write_json(*args, write=cache.write_json, **kwargs):
    tick()
    write(*args, **kwargs)
    tick()

class Encoder: # of arrays, so that a process starts quickly
    name,fingerprint,n_tokens,dim = 'mean colour','0',1,3
    def transform(self, im, view=0, seed=0): return np.asarray(im, dtype=np.float32).transpose(2,0,1)
    def __call__(self, pixels):
        tick()
        return pixels.mean((2,3))[:,None]

cache._put,cache.write_json = put,write_json
pictures = sorted(Path(sys.argv[2]).glob('*'))*40
store = cache.cache_features(Encoder(), pictures, sys.argv[3], views=2, batch_size=64)
print(n, len(store), len(store.missing), store.verify())
'''

def run(kill_at, pictures, store, cache):
    env = dict(os.environ, CAPTION_NB_CACHE=str(cache), IN_TEST='1')
    return subprocess.run([sys.executable, '-c', CODE, str(kill_at), str(pictures), str(store)], env=env, capture_output=True, text=True)

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i in range(9): Image.fromarray(rng.integers(0, 255, (8,8,3), dtype=np.uint8)).save(folder/f'{i}.png')
    (folder/'bad.png').write_bytes(b'not a picture')
    return folder

@pytest.fixture(scope='module')
def whole(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    r = run(0, pictures, folder/'store', folder/'cache')
    assert r.returncode==0, r.stderr
    moments,rows,missing,damaged = map(int, r.stdout.split())
    assert (rows,missing,damaged)==(400,40,0) and moments>30
    return folder/'store',moments

@pytest.mark.skipif(sys.platform=='win32', reason='no SIGKILL on Windows')
@pytest.mark.parametrize('seed', [0, 1])
def test_killed_and_continued(pictures, whole, tmp_path, seed):
    store,moments = whole
    rng,killed = random.Random(seed),0
    for at in sorted(rng.sample(range(1, moments-4), 5)): # a little later each time, as the rest gets shorter
        r = run(max(1, at//(killed+1)), pictures, tmp_path/'store', tmp_path/'cache')
        if r.returncode==0: break
        assert r.returncode==-9, r.stderr
        killed += 1
    assert killed>=3
    r = run(0, pictures, tmp_path/'store', tmp_path/'cache')
    assert r.returncode==0, r.stderr
    assert r.stdout.split()[1:]==['400','40','0']
    for name in ('features.npy','blocks.bin','ids.json','files.json','meta.json'): assert (tmp_path/'store'/name).read_bytes()==(store/name).read_bytes(), name

@pytest.mark.skipif(sys.platform=='win32', reason='no file locks on Windows')
def test_two_at_once_share_the_work(pictures, whole, tmp_path):
    env = dict(os.environ, CAPTION_NB_CACHE=str(tmp_path/'cache'), IN_TEST='1')
    both = [subprocess.Popen([sys.executable, '-c', CODE, '0', str(pictures), str(tmp_path/'store')], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    out = [p.communicate() for p in both]
    assert [p.returncode for p in both]==[0,0], out
    assert (tmp_path/'store'/'features.npy').read_bytes()==(whole[0]/'features.npy').read_bytes()
