"""Golden numbers of DiCO: the rules that made its tiny models, and the files

The numbers were recorded from the published code on the CPU in float32. Every weight follows from its name."""
import json
from pathlib import Path
import numpy as np
import torch

FOLDER = Path(__file__).parent/'golden'/'dico'

def load(): return json.loads((FOLDER/'dico.json').read_text(encoding='utf-8'))

def arrays():
    "The recorded arrays as tensors"
    with np.load(FOLDER/'dico.npz') as z: return {k:torch.from_numpy(z[k]) for k in z.files}

def draw(seed, shape, mean, std):
    "Normal numbers of a seed, drawn in float64"
    return torch.from_numpy((mean+std*np.random.RandomState(seed).standard_normal(tuple(shape))).astype(np.float32))

def seed_of(key):
    import zlib
    return zlib.crc32(key.encode())&0x7fffffff

def pixels(tag, b): return draw(seed_of(f'pixels#{tag}'), (b, 3, 16, 16), 0, 1)

def fill(table): return {name:draw(seed, shape, mean, std) for name,shape,_,seed,mean,std in table['rows']}

def captioner(tag='', perturb=0.):
    "The tiny captioner's tensors under their published names, those of a policy perturbed"
    state = fill(load()['parameters'])
    wte = state['decoder.transformer.wte.weight']
    wte[[58, 60]] = 0
    wte[59] *= 2
    if perturb:
        for k,v in state.items():
            if not k.startswith('encoder.vision_encoder.'): state[k] = v+draw(seed_of(f'policy#{tag}:{k}'), v.shape, 0, perturb)
    return state|{'decoder.lm_head.weight':state['decoder.transformer.wte.weight']}
