"""SaCap's model against the numbers of the published code, from texts and pictures to losses, weights and captions; its folder, damaged too

The notebooks show the same case by case; here the parts stand together as a user has them."""
import shutil
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from caption_nb.app import cli
from caption_nb.app.systems import load
from caption_nb.core import InputError, read_json, repo_path, write_json
from caption_nb.data.toyscenes import render_scene, sample_scene
from caption_nb.models.clip import clip_encoder
from caption_nb.models.lm import load_lm
from caption_nb.models.nearest import project
from caption_nb.models.vision import load_vision
from caption_nb.sacap.captioner import SacapCaptioner, guide, make_store, new_sacap, sacap_xe, text_store
from caption_nb.sacap.decode import beam_captions
from caption_nb.sacap.infer import caption_public
from caption_nb.sacap.layout import write_feature_dict
from caption_nb.sacap.model import default, published, seen_positions
from caption_nb.sacap.prompts import after_colon, batch_of, hard_items, public_rows, train_items
from caption_nb.sacap.published import load_public, public_sizes, to_public, to_theirs
from caption_nb.train.dico import dico
from caption_nb.train.scst import scst
import sys
sys.path.append(str(repo_path('tests')))
import golden_sacap as golden

def near(a, b, rtol): assert np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=rtol, atol=rtol/10), (a, b)

def store(kind): return text_store([*golden.vectors(kind)], torch.stack([*golden.vectors(kind).values()]), kind)

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('sacap')/'trained'/'captioner_0.pt'
    path.parent.mkdir()
    torch.save(golden.checkpoint(), path)
    return path

def recorded(checkpoint, **choices):
    "The recorded captioner from its file"
    return load_public(checkpoint, clip_encoder(golden.clip()), golden.tokenizer(), store('text'), store('phrases'), heads=2, dropout=0., **choices)

@pytest.fixture(scope='module')
def batch():
    "The recorded training batch from texts and pictures"
    phrases = golden.prompts() # texts are keys there, and the later one wins
    captions = [*golden.load('world')['rephrases']]
    items = train_items(golden.tokenizer(), captions, [phrases[c] for c in captions], published(**golden.TINY))
    grid = golden.clip().grid_tokens([golden.picture(n) for n in golden.chosen_pictures()])
    return items,batch_of(items)|dict(features=grid, soft=torch.from_numpy(project(golden.arrays()['global_feature'], store('text').features, .01)))

def test_tensors(batch):
    want = golden.tensors()
    near(batch[1]['soft'], want['projected_feature'], 2e-5)
    near(batch[1]['features'][0], want['grid_feature_item0'], 2e-5)
    near(batch[1]['features'].sum((1, 2)), want['grid_feature_sum'], 2e-5)
    near(golden.clip().project(batch[1]['features'], normalize=False), want['clip_image_embedding_unnormalised'], 2e-5)
    near(project(torch.stack([*golden.vectors('test').values()]), store('text').features, .01), want['test_projected_feature'], 2e-5)

def test_train_items(batch):
    want = golden.load('train_items')
    for got,name in zip(public_rows(batch[0], published(**golden.TINY)), ('input_ids', 'attention_mask', 'labels')): assert got.tolist()==[i[name] for i in want]

def test_loss_and_gradients(checkpoint, batch):
    model,want = recorded(checkpoint),golden.load('forward')
    near(model.net.soft_prompt(batch[1]['soft'])[0].detach(), golden.tensors()['soft_prompt_item0'], 2e-5)
    total,n,_ = sacap_xe()(model, dict(batch[1]))
    near(total.item()/n.item(), want['loss'], 2e-5)
    assert n.item()==want['n_targets']
    (total/n).backward()
    got = {to_theirs(k):p.grad.norm().item() for k,p in model.net.named_parameters()}
    assert set(got)==set(want['grad_norm'])
    for k,g in want['grad_norm'].items(): near(got[k], g, 2e-4)
    assert all(p.grad is None for p in model.encoder.model.parameters())

def test_training_loop(checkpoint, batch):
    model,want = recorded(checkpoint),golden.load('training_loop')
    optimiser = torch.optim.AdamW(model.net.parameters(), lr=want['lr_argument'])
    for step,line in enumerate(want['log_lines']):
        for g in optimiser.param_groups: g['lr'] = want['lr_argument']*step/want['warmup_steps']
        total,n,_ = sacap_xe()(model.train(), dict(batch[1]))
        near((total/n).item(), float(line.split(': ')[1]), 2e-3)
        optimiser.zero_grad()
        (total/n).backward()
        optimiser.step()
    now = to_public(model.net, buffers=False)
    for k,norm in want['final_param_norm'].items(): near(now[k].norm().item(), norm, 2e-3)

def test_generation(checkpoint):
    model,want = recorded(checkpoint),golden.load('generation')
    pictures = [golden.picture(f"test/{i['pk']}") for i in want['items']]
    vectors = torch.stack([golden.vectors('test')[i['pk']] for i in want['items']])
    soft,phrases = guide(vectors, model.memory, model.phrases, model.cfg)
    items = hard_items(model.lm.tokenizer, phrases, model.cfg)
    ids,mask,_ = public_rows(items, model.cfg)
    assert (ids.tolist(), mask.tolist())==([i['input_ids'] for i in want['items']], [i['attention_mask'] for i in want['items']])
    assert seen_positions(mask)[0].tolist()==want['position_ids_first_call_item0']+want['position_ids_second_call_item0']
    data = batch_of(items)|dict(soft=soft, features=model.tokens(pictures))
    for i,(hs,w) in enumerate(zip(beam_captions(model.net, data), want['items'])):
        assert (hs[0].ids+[13]*30)[:30]==w['new_tokens']
        near(hs[0].score, w['sequence_score'], 1e-4)
        alone = beam_captions(model.net, {k:x[i:i+1] for k,x in data.items()})[0]
        assert (alone[0].ids==hs[0].ids)==want['alone_equals_batched'][i]
    found = model.caption_features(data['features'], [i['pk'] for i in want['items']], vectors)
    assert [(c.image_id, c.text) for c in found]==[(i['pk'], i['caption']) for i in want['items']]

def test_cleanup():
    for case in golden.load('cleanup'): assert after_colon(case['decoded'])==case['caption']

def test_layout(checkpoint):
    want = golden.load('checkpoint_layout')['tensors']
    with torch.device('meta'): whole = {n:torch.empty(s) for n,s in want.items()}
    assert public_sizes(whole)[1]==dict(d=512, hidden=2048, k=10, width=768)
    assert set(to_public(recorded(checkpoint).net))=={n for n in want if not any(f'.h.{i}.' in n for i in range(2, 12))}

def test_inference_folder(checkpoint, tmp_path):
    names = golden.load('world')['test_images']
    top = tmp_path/'toy'
    (top/'test'/'test_images').mkdir(parents=True)
    for n in names: golden.picture(f'test/{n}').save(top/'test'/'test_images'/f'{n}.jpg', format='png')
    write_json(top/'refs.json', {n:['x'] for n in names})
    f,keys = golden.features()
    write_feature_dict(top/'test'/'test_image_global_feature_dict.pt', keys['test'], f['test'])
    write_feature_dict(top/'train'/'text_feature_dict.pt', keys['text'], f['text'])
    write_json(top/'test'/'test_image_hard_prompt_dict.json', golden.load('retrieval')['test_image'])
    where = checkpoint.parent
    caption_public(where, tmp_path, clip_encoder(golden.clip()), 'toy', 'toy', golden.tokenizer(), batch_size=128, heads=2, quiet=True)
    want = golden.load('inference_folder')
    for name,text in want.items():
        if name.endswith('.txt'): assert (where/name).read_text()==text
        else: assert read_json(where/name)|(dict(model_path='CKPT_FOLDER') if 'args' in name else {})==text

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    "A small captioner of the toy world in its folder, untrained"
    encoder,folder = load_vision('open_clip:toy/clip'),tmp_path_factory.mktemp('toy')/'run'
    texts = [f'a {c} {s}' for c in ('red', 'blue') for s in ('star', 'ring')]
    model = new_sacap(load_lm('toy/lm', '.'), encoder, make_store(encoder.clip, texts, 'm'), make_store(encoder.clip, texts, 'p'), default(k=2, hidden=16, hard_len=9, n_phrases=2, max_new=8, beam_size=2), name='open_clip:toy/clip').eval()
    model.save_pretrained(folder)
    return folder,model

PICTURES = [sample_scene(s) for s in (3, 11, 12)]

def test_the_one_door(saved, tmp_path):
    folder,model = saved
    for i,s in enumerate(PICTURES): render_scene(s, 64).save(tmp_path/f'{i}.png')
    again = load(folder, 'cpu')
    assert isinstance(again, SacapCaptioner) and again.memory.ids.tolist()==[0, 1, 2, 3]
    want = [c.text for c in model(tmp_path, quiet=True)]
    assert [c.text for c in again(tmp_path, batch_size=1, quiet=True)]==want
    assert cli.main(['caption', str(tmp_path), '--run', str(folder), '--out', str(tmp_path/'c.json'), '--device', 'cpu'])==0
    found = read_json(tmp_path/'c.json')
    assert [c['caption'] for c in found]==want and len(found[0]['extra']['phrases'])==2

def test_any_objective(saved):
    "Self-critical and CLIP-based objectives train it through `propose` and `logp` alone"
    _,model = saved
    features = model.tokens([render_scene(s, 64) for s in PICTURES[:2]])
    base = dict(features=features, rows=torch.arange(2), seeds=[1, 2], step=0)
    reward = lambda rows, texts, finished: np.array([[len(t) for t in row] for row in texts], float)/40
    for objective in (scst(reward, 3), dico(reward, model, k=2)):
        model.net.zero_grad()
        loss,n,_ = objective(model, dict(base))
        (loss/n).backward()
        grads = [p.grad for p in model.net.parameters() if p.grad is not None]
        assert grads and all(torch.isfinite(g).all() for g in grads)

def test_training_changes_no_frozen_part(saved):
    folder,_ = saved
    model = load(folder, 'cpu').train()
    before,memory = model.encoder.fingerprint,model.memory.features.clone()
    items = train_items(model.lm.tokenizer, ['a red star.', 'a blue ring.'], [['a red star'], []], model.cfg)
    data = model.guided(dict(features=model.tokens([render_scene(s, 64) for s in PICTURES[:2]]))|batch_of(items))
    optimiser,start = torch.optim.AdamW(model.net.parameters(), lr=1e-3),{k:p.detach().clone() for k,p in model.net.named_parameters()}
    total,n,_ = sacap_xe()(model, data)
    (total/n).backward()
    optimiser.step()
    assert [k for k,p in model.net.named_parameters() if torch.equal(p, start[k])]==[]
    assert model.encoder.fingerprint==before and torch.equal(model.memory.features, memory)

@pytest.mark.parametrize('what,say', [('lm/tokenizer.json', 'not complete'), ('config.json', 'no such file|holds no trained'), ('memory.safetensors', 'no such file'), ('phrases.json', None), ('cut', 'cut off or damaged'), ('shape', 'of another shape'), ('nan', 'NaN'), ('choice', 'known are plain'), ('mark', 'does not belong to this captioner')])
def test_damaged_folders(saved, tmp_path, what, say):
    "Each says what is wrong; a captioner without phrases says so when it is asked"
    folder = tmp_path/'run'
    shutil.copytree(saved[0], folder)
    weights = folder/'model.safetensors'
    if what=='cut': weights.write_bytes(weights.read_bytes()[:-500])
    elif what in ('shape', 'nan'):
        state = load_file(weights)
        state['mapper.fc1.bias'] = torch.zeros(3) if what=='shape' else torch.full_like(state['mapper.fc1.bias'], torch.nan)
        save_file(state, weights)
    elif what in ('choice', 'mark'): write_json(folder/'config.json', read_json(folder/'config.json')|(dict(cross='on') if what=='choice' else dict(pad=7)))
    else: (folder/what).unlink()
    if say is None:
        with pytest.raises(InputError, match='has no phrases'): load(folder, 'cpu')([render_scene(PICTURES[0], 64)], quiet=True)
    else:
        with pytest.raises(InputError, match=say): load(folder, 'cpu')
