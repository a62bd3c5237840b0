"""Golden numbers of the OPG reference: the rule that made its tiny weights, and the files

The numbers were recorded from the reference implementation on the CPU with small dimensions. Weights follow from
their names alone, so nothing but the outputs has to be stored."""
import json, zlib
from pathlib import Path
import numpy as np
import torch

FOLDER = Path(__file__).parent/'golden'/'opg'
SIZES = dict(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128)

def load():
    "The recorded scalars and texts (a dict) and arrays (an npz)"
    return json.loads((FOLDER/'golden.json').read_text(encoding='utf-8')), np.load(FOLDER/'golden.npz')

def _random(name): return np.random.RandomState(zlib.crc32(name.encode()))
def gauss(name, shape): return torch.tensor(_random(name).standard_normal(shape).astype(np.float32))
def ints(name, low, high, shape): return torch.tensor(_random(name).randint(low, high, size=shape))

def weight(name, shape):
    "The weight called `name` in the reference"
    if len(shape)==1 and name.endswith('bias'): return 0.1*gauss(name, shape)
    if name.endswith('prefix_mask'): return gauss(name, shape)
    return 1+0.1*gauss(name, shape) if len(shape)==1 else 0.25*gauss(name, shape)

@torch.no_grad()
def fill(module, prefix=''):
    "Set every parameter of `module` by its name behind `prefix`; tied ones keep the name that comes first"
    for n,p in module.named_parameters(): p.copy_(weight(prefix+n, tuple(p.shape)))
    return module

@torch.no_grad()
def likely_stop(gpt, stop=13):
    "Turn the last norm of a filled GPT-2 towards the stop token, as the reference's tiny model has it"
    e = gpt.transformer.wte.weight[stop]
    gpt.transformer.ln_f.bias += 2.7*e/(e*e).sum()
    return gpt

def tiny_gpt2():
    "The reference's tiny GPT-2, without any dropout"
    from transformers import GPT2Config, GPT2LMHeadModel
    cfg = GPT2Config(**SIZES, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0.)
    return likely_stop(fill(GPT2LMHeadModel(cfg), 'gpt.')).eval()

def check_weights(module, prefix, recorded):
    "Compare shape, sum and sum of absolute values of each weight with those recorded; return how many there were"
    for n,p in module.named_parameters():
        shape,total,size = recorded[prefix+n]
        p = p.detach().double()
        assert list(p.shape)==shape, (n, p.shape, shape)
        assert abs(p.sum()-total)<1e-4 and abs(p.abs().sum()-size)<1e-3, n
    return sum(1 for _ in module.named_parameters())
