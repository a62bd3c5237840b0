"""Golden numbers of SaCap: the files, the dictionaries of the published code that they were made with, and the rules that made its tiny weights and pictures

The numbers were recorded from the published code on tiny models, on the CPU in float32. Its dictionaries are keyed by texts, so a text that
occurs twice has one entry, and the supporting pictures' entries are laid over those of the captions' own pictures. Every weight follows from its name."""
import json, zlib
from pathlib import Path
import numpy as np
import torch
from PIL import Image

FOLDER = Path(__file__).parent/'golden'/'sacap'
KINDS = dict(syn='synthetic_image', sup='supporting_image', test='test_image') # features -> names in retrieval.json
SIZES = dict(vocab_size=50257, n_embd=32, n_layer=2, n_head=2, n_positions=64)
TINY = dict(d=16, width=32, r=17, k=10, hidden=64, hard_len=20, max_len=30) # fields of `SacapConfig`

def load(name): return json.loads((FOLDER/f'{name}.json').read_text(encoding='utf-8'))

def arrays(name='tensors'):
    "The arrays of a file"
    with np.load(FOLDER/f'{name}.npz') as z: return {k:z[k] for k in z.files}

def tensors(name='tensors'): return {k:torch.from_numpy(v) for k,v in arrays(name).items()} # the same as tensors

def features():
    "Unit vectors (n, 16) of texts, pictures and phrases, and the key of each row"
    return arrays('features'),load('features_keys')

def vectors(kind):
    "Unit vectors of text, syn, sup, phrases or test by their key"
    return dict(zip(load('features_keys')[kind], tensors('features')[kind]))

def pictures():
    "Key -> vector of its picture, as the published training sees it"
    f,keys = features()
    return dict(zip(keys['syn'], f['syn']))|dict(zip(keys['sup'], f['sup']))

def hard_prompts(kind='synthetic_image'):
    "Ten phrases per key, best first"
    return {r['pk']:r['hard_prompt'] for r in load('retrieval')[kind]}

def prompts(): return hard_prompts()|hard_prompts('supporting_image') # as the published training sees them

def chosen_pictures():
    "The picture of each training caption after repair; where two are alike, the first"
    return [row['image_file_by_seed_0_to_7'][0].replace('synthetic_images', 'syn').replace('supporting_images', 'sup').removesuffix('.jpg') for row in load('repair')]

def tokenizer():
    "The toy byte-pair encoding"
    from transformers import GPT2TokenizerFast
    return GPT2TokenizerFast.from_pretrained(FOLDER/'toy_tokenizer')

def random(name): return np.random.RandomState(zlib.crc32(name.encode('utf-8')))

def picture(name):
    "The recorded picture called `name`: syn/0, sup/3, test/t_001"
    return Image.fromarray(random('pixels/'+('sup/18' if name=='sup/19' else name)).randint(0, 256, (32, 32, 3)).astype(np.uint8))

def live(v):
    "Ids of the vocabulary that have a word embedding"
    i = np.arange(v)
    return (i<94) | (i==220) | ((i>=256) & (i<476)) | (i==50256)

def weight(name, shape):
    "The weight called `name`"
    z,last = random(name).standard_normal(tuple(shape)),name.split('.')[-1]
    if 'bias' in last: w = .05*z
    elif last=='weight' and len(shape)==1: w = (1+.1*z)*(4 if name.endswith('ln_f.weight') else 1)
    elif name.endswith('wte.weight'):
        w = .15*z*live(shape[0])[:, None]
        w[13] *= 2.2
        w[50256] *= .3
    else: w = (.6 if name.endswith('wpe.weight') else .25)*z
    return torch.from_numpy(w.astype(np.float32))

def checkpoint():
    "Tensors of the recorded captioner under their published names, its image encoder left out"
    state = {n:weight(n, row['shape']) for n,row in load('parameter_table').items() if not n.startswith('clip.')}
    return state|{'language_decoder.lm_head.weight':state['language_decoder.transformer.wte.weight']}

def clip():
    "The recorded CLIP; only its image tower has the recorded weights"
    from caption_nb.models.clip import new_clip
    from caption_nb.models.clipfiles import tiny_config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = new_clip(tiny_config(embed_dim=16, quick_gelu=True), name='golden')
    made.model.visual.load_state_dict({k:weight(f'clip.visual.{k}', v.shape) for k,v in made.model.visual.state_dict().items()})
    return made
