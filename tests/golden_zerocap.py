"""Golden numbers of the ZeroCap reference: the rules that made its tiny models, tokenizers and pictures, and the files

The numbers were recorded from the published code on the CPU in float32. Every weight follows from its name."""
import json, re
from pathlib import Path
import numpy as np
import torch
from PIL import Image

FOLDER = Path(__file__).parent/'golden'/'zerocap'
CASES = [p.stem for p in sorted(FOLDER.glob('*.json')) if p.stem!='units']
CONSONANTS,VOWELS = 'b d f g j k l m n p r s t v x z'.split(),'aeiou'
SYLLABLES = [c+v for c in CONSONANTS for v in VOWELS]
SIGNS = list('!"#,-.:;?\'')
WORDS = ['Image', ' Image', ' of', ' a', ' an', ' the', ' text', ' that', ' says', ' photo', ' and', ' .']
LONG = [f' {SYLLABLES[i%80]}{SYLLABLES[(7*i+3*(i//80)+5)%80]}' for i in range(341)]
LETTERS = list('abcdefghijklmnopqrstuvwxyz')
VOCAB = SIGNS+list('0123456789')+LETTERS+SYLLABLES+[' '+s for s in SYLLABLES]+[' '+s.capitalize() for s in SYLLABLES]+WORDS+LONG+['<|endoftext|>']
FORBIDDEN = [*range(10, 20), 3, 0, 6]

def load(name):
    "A recorded case, or `units`"
    return json.loads((FOLDER/f'{name}.json').read_text(encoding='utf-8'))

def key(s):
    "64-bit FNV-1a of a text"
    k = 0xCBF29CE484222325
    for b in s.encode(): k = ((k^b)*0x100000001B3)%2**64
    return k

def u(k, n):
    "The first `n` numbers in [0, 1) of the stream `k`"
    with np.errstate(over='ignore'):
        z = np.uint64(k)+np.arange(1, n+1, dtype=np.uint64)*np.uint64(0x9E3779B97F4A7C15)
        z = (z^(z>>np.uint64(30)))*np.uint64(0xBF58476D1CE4E5B9)
        z = (z^(z>>np.uint64(27)))*np.uint64(0x94D049BB133111EB)
        z = z^(z>>np.uint64(31))
    return (z>>np.uint64(11)).astype(np.float64)*2.**-53

def tensor(name, shape, seed=0, h=1., c=0.):
    "The tensor called `name`"
    return torch.tensor((c+h*(2*u(key(f'{seed}/{name}'), int(np.prod(shape)))-1)).astype(np.float32)).view(shape)

GPT = {'wte.weight':(.4, 0), 'wpe.weight':(.3, 0), 'ln_f.weight':(.1, 2), 'ln_f.bias':(.1, 0), 'ln_1.weight':(.1, 1), 'ln_2.weight':(.1, 1), 'ln_1.bias':(.1, 0),
       'ln_2.bias':(.1, 0), 'c_attn.weight':(.35, 0), 'c_fc.weight':(.25, 0), 'c_proj.weight':(.45, 0), '.bias':(.05, 0)}
CLIP = {'logit_scale':(0, 4.6051702), 'ln_final.weight':(.05, .25), 'ln_final.bias':(1., 0), 'ln_post.weight':(.1, 1), 'ln_post.bias':(.1, 0), 'ln_1.weight':(.1, 1),
        'ln_2.weight':(.1, 1), 'ln_pre.weight':(.1, 1), 'token_embedding.weight':(1., 0), 'positional_embedding':(.3, 0), 'class_embedding':(.3, 0), 'conv1.weight':(.25, 0),
        'text_projection':(.3, 0), 'visual.proj':(.3, 0), 'in_proj_weight':(.3, 0), 'out_proj.weight':(.3, 0), 'c_fc.weight':(.25, 0), 'c_proj.weight':(.25, 0), 'bias':(.05, 0)}

@torch.no_grad()
def fill(module, rules, seed):
    "Set every parameter by its name"
    for n,p in module.named_parameters():
        h,c = next(v for k,v in rules.items() if n.endswith(k))
        p.copy_(tensor(n, tuple(p.shape), seed, h, c))
    return module.eval().requires_grad_(False)

def tiny_gpt2(seed=0):
    "The reference's tiny GPT-2"
    from transformers import GPT2Config, GPT2LMHeadModel
    cfg = GPT2Config(vocab_size=640, n_positions=64, n_embd=48, n_layer=3, n_head=4, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0., bos_token_id=639, eos_token_id=639)
    return fill(GPT2LMHeadModel(cfg), GPT, seed)

class TinyTokenizer:
    "Greedy longest match over the 640 texts"
    bos_token_id = eos_token_id = 639
    all_special_ids = [639]
    ids = {t:i for i,t in enumerate(VOCAB)}
    def __len__(self): return len(VOCAB)
    def encode(self, text, add_special_tokens=False):
        "Ids of a text"
        out = []
        while text:
            n = next(n for n in range(13, 0, -1) if text[:n] in self.ids)
            out.append(self.ids[text[:n]])
            text = text[n:]
        return out
    def decode(self, ids, skip_special_tokens=False):
        "The text of ids"
        return ''.join(VOCAB[i] for i in ids if not (skip_special_tokens and i==639))

class TinyClipTokenizer:
    "Letters two by two where they are a syllable"
    ids = {t:i for i,t in enumerate(SIGNS+list('0123456789')+LETTERS+SYLLABLES)}
    def __call__(self, texts, context_length=44):
        "Ids (n, context_length) of texts, too long ones cut before the end mark"
        rows = [[126]+self.pieces(t)[:context_length-2]+[127] for t in ([texts] if isinstance(texts, str) else texts)]
        return torch.tensor([r+[0]*(context_length-len(r)) for r in rows])
    def pieces(self, text):
        "Ids of one text, without marks"
        out = []
        for run in re.findall(r'<\|startoftext\|>|<\|endoftext\|>|[a-z]+|\d|\S', text.lower()):
            if run.startswith('<|'): out.append(126+run.startswith('<|end')); continue
            while run:
                n = 2 if run[:2] in self.ids and len(run)>1 else 1
                out.append(self.ids[run[:n]])
                run = run[n:]
        return out

def tiny_clip(seed=0):
    "The reference's tiny CLIP, as a `Clip` of ours"
    from caption_nb.models.clip import Clip
    from caption_nb.models.clipfiles import build_clip
    from caption_nb.models.pixels import PictureTransform
    cfg = dict(embed_dim=24, quick_gelu=True, vision_cfg=dict(layers=1, width=32, head_width=16, patch_size=8, image_size=16),
               text_cfg=dict(context_length=44, vocab_size=128, width=32, heads=2, layers=2))
    return Clip(fill(build_clip(cfg), CLIP, seed), TinyClipTokenizer(), PictureTransform(size=(16, 16)), cfg, 'tiny')

def picture(k):
    "Picture `k` as PIL"
    return Image.fromarray((256*u(key(f'image/{k}'), 16*16*3)).astype(np.uint8).reshape(16, 16, 3))

def pixels(*ks):
    "Pictures as the recorded tower received them"
    return torch.stack([torch.tensor(np.asarray(picture(k)).astype(np.float32)).permute(2, 0, 1)/127.5-1 for k in ks])

OPTIONS = dict(cond_text='prompt', target_seq_length='max_len')

def settings(case):
    "The recorded options as fields of our config"
    out,words = {},case['cli']
    for i,w in enumerate(words):
        name = OPTIONS.get(w[2:], w[2:])
        if not w.startswith('--') or name in ('reset_context_delta', 'run_type', 'arithmetics_weights'): continue
        v = words[i+1]
        out[name] = v if name in ('prompt', 'end_token') else int(v) if name in ('max_len', 'beam_size', 'num_iterations') else float(v)
    return out|dict(clean_blanks=False)

def close(a, b, rel=0., tol=0.):
    "Fail where two nested lists of numbers differ"
    a,b = torch.as_tensor(a, dtype=torch.float64),torch.as_tensor(b, dtype=torch.float64)
    assert a.shape==b.shape, (a.shape, b.shape)
    assert ((a-b).abs()<=tol+rel*b.abs()).all(), (a-b).abs().max()

def check_steps(case, steps):
    "Compare a trace with the recorded one, within the recorded tolerances"
    assert len(steps)==len(case['steps'])
    tokenizer = TinyTokenizer()
    for got,want in zip(steps, case['steps']):
        assert got['context']==want['context'], want['step']
        k = len(got['context'])
        assert [r[:5] for r in got['plain_ids']]==want['plain_top_ids']
        close([r[:5] for r in got['plain_probs']], want['plain_top_probs'], 5e-3)
        assert [r[:8] for r in got['next_ids']]==want['next_top_ids']
        close([r[:8] for r in got['next_probs']], want['next_top_probs'], 5e-3)
        for name,ours,rel,tol in (('delta_norms', 'shift_norms', 5e-3, 0), ('raw_logit_end', 'end_logit', 0, 2e-3), ('next_mass_per_beam', 'mass', 5e-3, 0), ('next_end_prob', 'end_prob', 5e-3, 1e-9)):
            close(got[ours], want[name], rel, tol)
        for i,w in zip(got['iterations'], want['iterations'], strict=True):
            close(i['clip'], w['clip_loss_per_beam'], tol=1e-3)
            close(i['fluency'], w['ce_loss_per_beam'], tol=1e-3)
            close(i['total'], w['total_loss'], tol=1e-3*k)
            close(i['grad_norms'], w['grad_norms'], 5e-3)
            close(i['cut'], w['candidate_cut'], 1e-2)
            close([r[:3] for r in i['target_probs']], w['target_top_probs'], 5e-3)
            for ids,probs,theirs,p in zip(i['target_ids'], i['target_probs'], w['target_top_ids'], w['target_top_probs']):
                at = dict(zip(ids, probs))
                assert all(x in at for x in theirs), (theirs, ids)
                close([at[x] for x in theirs], p, 5e-3)
        close([s for _,s in got['beams']], [s for _,s in want['beams_after']], tol=1e-3)
        assert [tokenizer.decode(ids) for ids,_ in got['beams']]==[t for t,_ in want['beams_after']]
