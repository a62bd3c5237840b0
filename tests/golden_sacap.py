"""Golden numbers of SaCap: the files, and the dictionaries of the published code that they were made with

The numbers were recorded from the published code on tiny models, on the CPU in float32. Its dictionaries are keyed by texts, so a text that
occurs twice has one entry, and the supporting pictures' entries are laid over those of the captions' own pictures."""
import json
from pathlib import Path
import numpy as np

FOLDER = Path(__file__).parent/'golden'/'sacap'
KINDS = dict(syn='synthetic_image', sup='supporting_image', test='test_image') # features -> names in retrieval.json

def load(name): return json.loads((FOLDER/f'{name}.json').read_text(encoding='utf-8'))

def arrays(name):
    "The arrays of a file"
    with np.load(FOLDER/f'{name}.npz') as z: return {k:z[k] for k in z.files}

def features():
    "Unit vectors (n, 16) of texts, pictures and phrases, and the key of each row"
    return arrays('features'),load('features_keys')

def pictures():
    "Key -> vector of its picture, as the published training sees it"
    f,keys = features()
    return dict(zip(keys['syn'], f['syn']))|dict(zip(keys['sup'], f['sup']))

def prompts():
    "Key -> its phrases, as the published training sees them"
    found = load('retrieval')
    return {r['pk']:r['hard_prompt'] for kind in ('synthetic_image', 'supporting_image') for r in found[kind]}

def tokenizer():
    "The toy byte-pair encoding"
    from transformers import GPT2TokenizerFast
    return GPT2TokenizerFast.from_pretrained(FOLDER/'toy_tokenizer')
