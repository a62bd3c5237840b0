"Every kind of weights: from a folder, from a cache of the hub, missing, and not what it claims to be"
import json, pickle, shutil
import open_clip, pytest, timm, torch
from PIL import Image
from safetensors.torch import load_file, save_file
from caption_nb.app.systems import load
from caption_nb.app.toyzoo import make_part
from caption_nb.core import InputError
from caption_nb.models.clip import load_clip
from caption_nb.dico.captioner import ClipWords, new_dico
from caption_nb.models.clipfiles import load_clip_tokenizer
from caption_nb.models.lm import load_lm
from caption_nb.models.vision import load_vision
from caption_nb.models.weights import KINDS, find_weights
from caption_nb.sacap.rephrase import RephraseConfig, load_rephraser
from caption_nb.sacap.synthesize import PIPELINE, SynthConfig, load_synthesizer

LOADERS = dict(clip=load_clip, lm=load_lm, xvlm=lambda name: load_vision(f'xvlm:{name}'), vision=load_vision,
               tokenizer=lambda name: load_clip_tokenizer(dict(text_cfg=dict(hf_tokenizer_name=str(name), vocab_size=600, context_length=40))))
PARTS = dict(clip='expert', lm='lm', xvlm='xvlm', vision='vision', tokenizer='expert') # kind -> folder of `zoo`

@pytest.fixture(scope='module')
def zoo(tmp_path_factory):
    "Tiny weights of each kind in the real formats"
    out = tmp_path_factory.mktemp('zoo')
    for p in ('expert', 'lm', 'xvlm'): make_part(p, out, 'tiny', 20, quiet=True)
    torch.manual_seed(0)
    (out/'vision').mkdir()
    save_file({k:v.contiguous() for k,v in timm.create_model('test_efficientnet').state_dict().items()}, out/'vision'/'model.safetensors')
    (out/'vision'/'config.json').write_text(json.dumps(dict(architecture='test_efficientnet', pretrained_cfg=dict(input_size=[3, 64, 64]))))
    return out

@pytest.fixture
def hub(tmp_path, monkeypatch):
    "An empty cache of the hub, and no download, no other place"
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'hub'))
    monkeypatch.setenv('CAPTION_NB_WEIGHTS', str(tmp_path/'weights'))
    monkeypatch.delenv('CAPTION_NB_ALLOW_DOWNLOAD', raising=False)
    monkeypatch.setenv('CAPTION_NB_BUILD', '0')
    return tmp_path/'hub'

def red(size): return Image.new('RGB', (size, size), 'red')

def into_hub(hub, name, folder):
    top = hub/f'models--{name.replace("/", "--")}'
    shutil.copytree(folder, top/'snapshots'/'abc')
    (top/'refs').mkdir()
    (top/'refs'/'main').write_text('abc')

def same(kind, a, b):
    "Whether two loaded things compute the same"
    if kind=='tokenizer': return a(['a red ring']).tolist()==b(['a red ring']).tolist()
    if kind=='clip': return torch.equal(a.text_features(['a red ring']), b.text_features(['a red ring']))
    if kind=='lm': return torch.equal(a.embed(torch.arange(9)), b.embed(torch.arange(9)))
    x = torch.rand(1, 3, *a.transform.size, generator=torch.Generator().manual_seed(0))
    return torch.equal(a(x), b(x))

@pytest.mark.parametrize('kind', LOADERS)
def test_folder_and_hub_cache(kind, zoo, hub):
    folder,door = zoo/PARTS[kind],LOADERS[kind]
    from_folder = door(folder)
    if kind!='vision': # timm's networks come from the hub by `timm:NAME`, which has its own test below
        into_hub(hub, 'someone/tiny', folder)
        assert same(kind, from_folder, door('someone/tiny'))
    shutil.copytree(folder, hub.parent/'weights'/'mine')
    assert same(kind, from_folder, door(hub.parent/'weights'/'mine')) # as a path
    if kind!='vision': assert same(kind, from_folder, door('mine'))   # below a folder of CAPTION_NB_WEIGHTS

def test_timm_from_hub_cache(zoo, hub):
    name = timm.get_pretrained_cfg('test_efficientnet').hf_hub_id
    into_hub(hub, name, zoo/'vision')
    a,b = load_vision('timm:test_efficientnet', size=(64, 64)),load_vision('timm:test_efficientnet', weights=zoo/'vision'/'model.safetensors', size=(64, 64))
    assert same('vision', a, b)

@pytest.mark.parametrize('kind', [k for k in LOADERS if k!='vision'])
def test_missing(kind, hub):
    with pytest.raises(InputError) as e: LOADERS[kind]('someone/nothing')
    said = str(e.value)
    assert 'someone/nothing' in said and KINDS[kind].about in said                # what
    assert str(hub.parent/'weights') in said and 'Hugging Face cache' in said     # where it was looked for
    assert 'It should contain' in said and 'hf download someone/nothing' in said  # how to get it

@pytest.mark.parametrize('door', [lambda name: load_synthesizer(SynthConfig(model=name)), lambda name: load_rephraser(RephraseConfig(model=name)),
                                  lambda name: load_vision(f'{name}/model.safetensors'), load])
def test_missing_elsewhere(door, hub):
    with pytest.raises(InputError) as e: door('someone/nothing')
    assert 'someone/nothing' in str(e.value) and len(str(e.value))>60

def test_made_on_the_spot(hub, tmp_path, monkeypatch, capfd):
    "A real process trains what is missing; it ends up where no name is looked for, since it is tiny"
    monkeypatch.setenv('CAPTION_NB_BUILD', 'tiny')
    monkeypatch.setenv('CAPTION_NB_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('IN_TEST', raising=False)
    assert load_lm(find_weights('toy/lm', 'lm', roots=[tmp_path/'empty'])).tokenizer
    assert (tmp_path/'cache'/'tiny'/'toy'/'lm'/'training.json').is_file() and not (tmp_path/'cache'/'weights'/'toy').exists()
    monkeypatch.setattr('caption_nb.models.weights.BUILD', 'pass') # ends well and builds nothing
    with pytest.raises(InputError) as e: find_weights('toy/xvlm', 'xvlm', roots=[tmp_path/'empty'])
    assert 'toy/xvlm' in str(e.value) and 'is without' in str(e.value) and 'capnb prepare toy --parts xvlm' in str(e.value)

def test_parts_of_a_pipeline_in_the_hub_cache(hub, tmp_path):
    for f in PIPELINE.files:
        p = tmp_path/'pipe'/f.split('|')[0]
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text('{}')
    into_hub(hub, 'someone/painter', tmp_path/'pipe')
    assert find_weights('someone/painter', PIPELINE).name=='abc'

def test_captioner_from_folder_and_hub_cache(zoo, hub, tmp_path):
    eye,look = load_clip(zoo/'expert'),load_vision(f'open_clip:{zoo/"expert"}')
    new_dico(ClipWords(eye.tokenizer), look, name=f'open_clip:{zoo/"expert"}', width=16, layers=1, heads=2, hidden=16, max_len=4).save_pretrained(tmp_path/'mine')
    with pytest.raises(InputError, match='not in the hub cache'): load('someone/captioner')
    into_hub(hub, 'someone/captioner', tmp_path/'mine')
    a,b = load(tmp_path/'mine', 'cpu'),load('someone/captioner', 'cpu')
    assert a.label==b.label=='DiCO' and [c.text for c in a([red(64)], quiet=True)]==[c.text for c in b([red(64)], quiet=True)]

def test_file_of_tensors_from_folder_and_hub_cache(hub, tmp_path):
    "A fine-tuned checkpoint without a config, as published weights of metrics are"
    state = open_clip.CLIP(64, dict(layers=1, width=64, head_width=64, patch_size=16, image_size=32), dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)).state_dict()
    (tmp_path/'bare').mkdir()
    save_file({k:v.contiguous() for k,v in state.items()}, tmp_path/'bare'/'model.safetensors')
    def door(where): return load_clip('', weights=where, quick_gelu=False)
    with pytest.raises(InputError, match='a file of tensors') as e: door('someone/bare')
    assert 'someone/bare' in str(e.value) and 'Hugging Face cache' in str(e.value) and 'hf download' in str(e.value)
    into_hub(hub, 'someone/bare', tmp_path/'bare')
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    a,b = (door(w).model.encode_image(x) for w in (tmp_path/'bare', 'someone/bare'))
    assert torch.equal(a, b)

def test_rephraser_from_hub_cache(zoo, hub):
    into_hub(hub, 'someone/writer', zoo/'lm')
    a,b = (load_rephraser(RephraseConfig(model=str(m), template='base', max_new=4), 'cpu') for m in (zoo/'lm', 'someone/writer'))
    assert a.fingerprint==b.fingerprint and all(torch.equal(x, y) for x,y in zip(a.model.parameters(), b.model.parameters()))

def weights_in(folder): return next(p for p in folder.iterdir() if p.suffix in ('.safetensors', '.bin'))

class Evil:
    def __reduce__(self): return (exec, ('raise SystemExit("code ran")',))

@pytest.mark.parametrize('kind', ['clip', 'lm', 'xvlm', 'vision'])
def test_cut_off(kind, zoo, hub, tmp_path):
    shutil.copytree(zoo/PARTS[kind], tmp_path/'cut')
    w = weights_in(tmp_path/'cut')
    w.write_bytes(w.read_bytes()[:-1000])
    with pytest.raises(InputError) as e: LOADERS[kind](tmp_path/'cut')
    assert w.name in str(e.value) and 'cut off or damaged' in str(e.value)

@pytest.mark.parametrize('kind', ['clip', 'lm', 'xvlm', 'vision'])
def test_code_in_a_pickle(kind, zoo, hub, tmp_path):
    shutil.copytree(zoo/PARTS[kind], tmp_path/'evil')
    weights_in(tmp_path/'evil').unlink()
    (tmp_path/'evil'/('open_clip_pytorch_model.bin' if kind=='clip' else 'pytorch_model.bin')).write_bytes(pickle.dumps(dict(model=Evil())))
    with pytest.raises(InputError) as e: LOADERS[kind](tmp_path/'evil')
    assert 'pytorch_model.bin' in str(e.value) and 'refused' in str(e.value)

@pytest.mark.parametrize('kind', ['clip', 'lm', 'xvlm', 'vision'])
def test_other_architecture(kind, zoo, hub, tmp_path):
    "The weights of something else under the right name"
    other = dict(clip='lm', lm='clip', xvlm='clip', vision='lm')[kind]
    shutil.copytree(zoo/PARTS[kind], tmp_path/'other')
    w = weights_in(tmp_path/'other')
    state = load_file(weights_in(zoo/PARTS[other]))
    if w.suffix=='.bin': torch.save(dict(model=state), w)
    else: save_file(state, w)
    with pytest.raises(InputError) as e: LOADERS[kind](tmp_path/'other')
    assert str(tmp_path/'other') in str(e.value)
    assert any(k in str(e.value) for k in state) # names of what was found

CODE = """open({ran!r}, 'w').close()
from transformers import GPT2Config, PreTrainedTokenizerFast
class OwnConfig(GPT2Config): pass
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""

@pytest.mark.parametrize('kind', ['clip', 'lm', 'tokenizer'])
def test_code_beside_weights(kind, zoo, hub, tmp_path, monkeypatch):
    "A folder that brings code and asks for trust: nothing is run, even where somebody would say yes on the screen"
    monkeypatch.setattr('builtins.input', lambda *a: 'y')
    folder,ran = tmp_path/'own',tmp_path/'ran'
    shutil.copytree(zoo/PARTS[kind], folder)
    (folder/'own.py').write_text(CODE.format(ran=str(ran)))
    def change(name, f): (folder/name).write_text(json.dumps(f(json.loads((folder/name).read_text()))))
    if kind=='lm': change('config.json', lambda c: c|dict(model_type='own', auto_map=dict(AutoConfig='own.OwnConfig')))
    else: change('tokenizer_config.json', lambda c: c|dict(tokenizer_class='OwnTokenizer', auto_map=dict(AutoTokenizer=[None, 'own.OwnTokenizer'])))
    if kind=='clip':
        def trusted(c): c['model_cfg']['text_cfg']['tokenizer_kwargs'] = dict(trust_remote_code=True); return c
        change('open_clip_config.json', trusted)
    with pytest.raises(InputError) as e: LOADERS[kind](folder)
    assert 'custom code' in str(e.value) and not ran.exists()

def test_pickle_under_another_name(zoo, hub, tmp_path):
    "What a file is decides, and not what its name ends in"
    shutil.copytree(zoo/'expert', tmp_path/'clip')
    torch.save(dict(model=Evil()), weights_in(tmp_path/'clip'))
    with pytest.raises(InputError) as e: load_clip(tmp_path/'clip')
    assert 'open_clip_model.safetensors is refused: it asks to run' in str(e.value)

@pytest.mark.parametrize('kind', ['clip', 'lm', 'xvlm', 'vision'])
def test_not_a_number(kind, zoo, hub, tmp_path):
    shutil.copytree(zoo/PARTS[kind], tmp_path/'nan')
    w = weights_in(tmp_path/'nan')
    state = load_file(w) if w.suffix!='.bin' else torch.load(w, weights_only=True)['model']
    name = next(k for k,v in state.items() if v.is_floating_point() and v.ndim>1)
    state[name].view(-1)[0] = torch.nan
    if w.suffix=='.bin': torch.save(dict(model=state), w)
    else: save_file(state, w, metadata=dict(format='pt'))
    with pytest.raises(InputError) as e: LOADERS[kind](tmp_path/'nan')
    assert 'NaN or infinite' in str(e.value) and name.removeprefix('vision_encoder.') in str(e.value)
