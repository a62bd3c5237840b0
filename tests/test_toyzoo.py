"The toy world's weights: the same to the byte however many processes make them, and made once when two commands want them"
import os, subprocess, sys
import open_clip, pytest, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from caption_nb.app.toyzoo import MAKERS, ToyZooConfig, build_toy_zoo
from caption_nb.core import read_json, repo_path
from caption_nb.data.toyscenes import render_scene, sample_scene
from caption_nb.models.clip import load_clip
from caption_nb.models.lm import load_lm

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

SHIPPED = repo_path('data')/'toy'

@pytest.mark.parametrize('part', ['clip', 'pac', 'weak'])
def test_open_clip_opens_what_is_shipped(part):
    "Importing caption_nb is enough for open_clip to know the towers"
    where,texts,pictures = f'local-dir:{SHIPPED/part}',['a red star', 'a large blue ring left of a house'],[render_scene(sample_scene(i)) for i in range(3)]
    model,_,transform = open_clip.create_model_and_transforms(where)
    ours = load_clip(SHIPPED/part)
    with torch.no_grad():
        text = model.eval().encode_text(open_clip.get_tokenizer(where)(texts), normalize=True)
        image = model.encode_image(torch.stack([transform(p) for p in pictures]), normalize=True)
    assert torch.allclose(text, ours.text_features(texts), atol=1e-5)
    assert torch.allclose(image, ours.image_features(torch.stack([ours.transform(p) for p in pictures])), atol=1e-3)

def test_transformers_opens_what_is_shipped():
    tok,lm = AutoTokenizer.from_pretrained(SHIPPED/'lm'),AutoModelForCausalLM.from_pretrained(SHIPPED/'lm', dtype=torch.float32)
    ours,ids = load_lm(SHIPPED/'lm'),tok(['a red star is left of a ring'], return_tensors='pt')['input_ids']
    assert torch.equal(ids[0], torch.tensor(ours.tokenizer.encode('a red star is left of a ring')))
    with torch.no_grad(): assert torch.allclose(lm(ids).logits, ours.gpt(ids).logits, atol=1e-5)
