"""Golden numbers of SRACap: the files, and the rules that made the tiny weights, tokenizer, encoders and pictures that they were recorded with

The numbers were recorded from the published code on tiny models, on the CPU in float32. Every tensor follows from its name."""
import json, os, zlib
from pathlib import Path
import numpy as np
import torch

FOLDER = Path(__file__).parent/'golden'/'sracap'

def load(name): return json.loads((FOLDER/f'{name}.json').read_text(encoding='utf-8'))

def det(name, shape, scale=1., shift=0.):
    "The tensor of that name: numbers in [shift-scale, shift+scale)"
    n,m = int(np.prod(shape)),np.uint64(0xFFFFFFFF)
    x = (np.arange(n, dtype=np.uint64)*np.uint64(2654435761)+np.uint64(zlib.crc32(f'a/{name}'.encode()))) & m
    x ^= x >> np.uint64(16)
    x = (x*np.uint64(0x7FEB352D)) & m
    x ^= x >> np.uint64(15)
    x = (x*np.uint64(0x846CA68B)) & m
    x ^= x >> np.uint64(16)
    u = (x.astype(np.float64)+.5)/2**32
    return torch.from_numpy((scale*(2*u-1)+shift).astype(np.float32).reshape(shape))

def gpt2_tokenizer():
    "GPT-2's own, where real data are at hand; None elsewhere"
    folder = Path(os.environ.get('CAPNB_SHARED', ''))/'data'/'gpt2'
    if not (folder/'vocab.json').is_file(): return None
    from transformers import GPT2Tokenizer
    return GPT2Tokenizer(str(folder/'vocab.json'), str(folder/'merges.txt'))

class ToyTokenizer:
    "Greedy longest match over the recorded pieces; characters that start no piece are skipped"
    def __init__(self): self.pieces,self.eos_token_id = load('toy')['pieces'],len(load('toy')['pieces'])-1

    def __len__(self): return len(self.pieces)

    def encode(self, text):
        ids,i,order = [],0,sorted(range(len(self.pieces)), key=lambda n: -len(self.pieces[n]))
        while i<len(text):
            n = next((n for n in order if text.startswith(self.pieces[n], i)), None)
            if n is not None: ids.append(n)
            i += len(self.pieces[n]) if n is not None else 1
        return ids

    def __call__(self, text): return type('Ids', (), dict(input_ids=self.encode(text)))
    def decode(self, ids, skip_special_tokens=False): return ''.join(self.pieces[int(i)] for i in ids)

def ours(name):
    "Our name of a recorded weight"
    return name.replace('mapping_network.', 'mapper.') if name.startswith('mapping_network.') else 'lm.'+name

def weights(fitted=False):
    "The tiny captioner's weights under their recorded names"
    if fitted:
        with np.load(FOLDER/'tiny_captioner.npz') as z: return {k:torch.from_numpy(z[k].astype(np.float32)) for k in z.files}
    out = {}
    for name,shape in load('captioner')['param_names'].items():
        tag = 'gpt/'+name[4:] if name.startswith('gpt.') else 'map/'+name[len('mapping_network.'):]
        norm = name.endswith('weight') and ('.ln_' in name or 'norm' in name)
        out[name] = det(tag, shape, .1, 1.) if norm else det(tag, shape, .2)
    out['gpt.transformer.wte.weight'] *= 3
    return out

def net(cfg, fitted=False):
    "The tiny captioner as our network"
    from transformers import GPT2Config, GPT2LMHeadModel
    from caption_nb.models.lm import PrefixLM
    from caption_nb.sracap.model import SracapNet
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=78, n_embd=32, n_layer=2, n_head=4, n_positions=192, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0., bos_token_id=77, eos_token_id=77))
    tok = ToyTokenizer()
    made = SracapNet(cfg, PrefixLM(gpt, tok, [1, 2]))
    state = {ours(k):v for k,v in weights(fitted).items()}
    left = made.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and set(left.missing_keys)<={'lm.gpt.lm_head.weight'}, left
    gpt.tie_weights()
    return made.eval()
