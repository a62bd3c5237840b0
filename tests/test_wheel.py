"What `pip install` brings: a wheel, unpacked where there is no checkout, finds the toy weights and captions with them"
import os, shutil, subprocess, sys, zipfile
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = 'caption_nb settings.ini setup.py pyproject.toml MANIFEST.in README.md LICENSE data/toy'.split()

CODE = """
import sys
from pathlib import Path
from PIL import Image
import caption_nb
from caption_nb.models.clip import load_clip
from caption_nb.models.lm import load_lm
from caption_nb.models.vision import load_vision
from caption_nb.models.weights import find_weights
from caption_nb.zerocap.caption import ZeroCapConfig, load_zerocap
inside = Path(caption_nb.__file__).parent
assert inside==Path(sys.argv[1])/'caption_nb', inside
for name,kind in dict(clip='clip', pac='clip', weak='clip', lm='lm', xvlm='xvlm').items():
    found = find_weights(f'toy/{name}', kind)
    assert inside in found.parents, found
assert load_vision('xvlm:toy/xvlm').dim and load_clip('toy/pac').dim and load_lm('toy/lm').tokenizer
captions = load_zerocap('toy/lm', 'toy/clip', ZeroCapConfig(max_len=4, beam_size=2))([Image.new('RGB', (64, 64), 'red')], quiet=True)
print(captions[0].text)
"""

def run(*words, **kw): return subprocess.run([str(w) for w in words], capture_output=True, text=True, **kw)

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "Folder with what the wheel holds, and nothing of the checkout"
    tmp = tmp_path_factory.mktemp('wheel')
    for s in SOURCES:
        (tmp/'src'/s).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT/s).is_dir(): shutil.copytree(ROOT/s, tmp/'src'/s, ignore=shutil.ignore_patterns('__pycache__', 'pictures'))
        else: shutil.copy(ROOT/s, tmp/'src'/s)
    built = run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', tmp/'dist', tmp/'src')
    assert built.returncode==0, built.stderr
    wheel, = (tmp/'dist').glob('*.whl')
    zipfile.ZipFile(wheel).extractall(tmp/'site')
    return tmp/'site'

def elsewhere(site, tmp_path, **more):
    "The environment of a user: no checkout, an empty cache"
    env = {k:v for k,v in os.environ.items() if not k.startswith('CAPTION_NB_') and k!='IN_TEST'}
    return dict(cwd=tmp_path, env=env|dict(PYTHONPATH=str(site), PYTHONSAFEPATH='1', CAPTION_NB_CACHE=str(tmp_path/'cache'), OMP_NUM_THREADS='1')|more)

def test_weights_are_found(site, tmp_path):
    done = run(sys.executable, '-c', CODE, site, **elsewhere(site, tmp_path, CAPTION_NB_BUILD='0'))
    assert done.returncode==0 and done.stdout.split(), done.stderr

def test_built_on_demand(site, tmp_path):
    "A part that the wheel does not bring is trained into the user's cache, with a bar; once there, it is found"
    code = "from caption_nb.models.weights import find_weights; print(find_weights('toy/expert', 'clip'))"
    made = run(sys.executable, '-c', code, **elsewhere(site, tmp_path, CAPTION_NB_BUILD='tiny'))
    assert made.returncode==0, made.stderr
    assert made.stdout.strip()==str(tmp_path/'cache'/'tiny'/'toy'/'expert') and 'trained now, once' in made.stderr and '%|' in made.stderr
    os.rename(tmp_path/'cache'/'tiny', tmp_path/'cache'/'weights') # where those of full size are made
    found = run(sys.executable, '-c', code, **elsewhere(site, tmp_path, CAPTION_NB_BUILD='0'))
    assert found.stdout.strip()==str(tmp_path/'cache'/'weights'/'toy'/'expert'), found.stderr
