"Each of the four commands in OPG's README, and ours for it, starts the stage it means with the published settings, at tiny size"
import pytest
from caption_nb.app import cli
from caption_nb.app.opgcommands import COMMANDS, read_opg_command
from caption_nb.core import from_args, make_config, read_json
from caption_nb.data.table import Table
from caption_nb.data.toy import toy_world
from caption_nb.models.lm import small_gpt2, train_tokenizer
from caption_nb.opg.published import PRESETS, load_preset

THEIRS = {c.title:c for c in COMMANDS if c.theirs.startswith('python ')}
XE = [t for t,c in THEIRS.items() if '--scst=False' in c.theirs]
TINY = '--encoder pixels:48 --lm LM --steps 2 --batch-size 8 --n-val 4 --n-test 4 --max-len 12 --precision fp32 --device cpu'
KEPT = 'stop feature_norm mask aux_loss captions augment views warmup schedule weight_decay decay_all beta2 eps clip ema seed'.split() # of a preset, whatever is tiny
WANT = { # title -> fields of the run's config
    'mlp+gpt2 tuning': dict(mapper='mlp', tune_lm=True), 'trans+gpt2 frozen': dict(mapper='transformer', mapper_layers=6, tune_lm=False),
    'trans+gpt2 tuning': dict(mapper='transformer', mapper_layers=6, tune_lm=False)} # as its flags say

def words(title): return THEIRS[title].theirs.split()[2:]

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a small table of drawn pictures"
    tmp = tmp_path_factory.mktemp('opg')
    rows = toy_world(n_train=16).rows
    some = Table(rows.groupby('split', sort=False).head(16).reset_index(drop=True))
    some.save(tmp/'table.csv')
    tok = train_tokenizer([c for cs in some.rows.captions for c in cs], 300)
    small_gpt2(tok, layers=1, width=32, heads=2, n_positions=48, seed=0).gpt.save_pretrained(tmp/'lm')
    tok.save_pretrained(tmp/'lm')
    return tmp

def tiny(place): return TINY.replace('LM', str(place/'lm')).split()

def start(place, theirs, out, *ours):
    "Run a command of the original as the program does"
    assert cli.main(['opg', *theirs, '--output_dir', str(place/out), '--', *ours])==0
    return read_json(place/out/'config.json'), read_json(place/out/'result.json')

def test_there_are_four():
    assert list(THEIRS)==XE+['CIDEr optimization stage'] and len(XE)==3

@pytest.mark.parametrize('title', THEIRS)
def test_values_are_fields_of_the_stage(title):
    "Theirs and ours give the same config"
    stage,values,_ = read_opg_command(THEIRS[title].theirs, title)
    Config,_ = cli.STAGES[stage]()
    theirs = make_config(Config, values, title)
    preset,options = cli.take_preset(stage, THEIRS[title].ours.split()[3:])
    ours = from_args(Config, options, default=preset)
    own = {'data', 'encoder', 'run'}|({'tune_lm'} if title=='trans+gpt2 tuning' else set()) # named by the user; followed as the flag has it
    assert [k for k in vars(ours) if k not in own and getattr(theirs, k)!=getattr(ours, k)]==[]

@pytest.mark.parametrize('title', XE)
def test_first_stage(place, title, capsys):
    config,result = start(place, words(title), title.replace(' ', '-'), '--data', str(place/'table.csv'), *tiny(place))
    assert (config['system'], config['stage'], result['stage'])==('opg', 'xe', 'xe')
    want = WANT[title]|dict(mask='reference', threshold=.1, aux_loss=.1, seed=42, beam_size=1, epochs=50)
    want |= {k:getattr(load_preset('opg.xe', 'published_mlp'), k) for k in KEPT}
    assert {k:config[k] for k in want}==want
    err = capsys.readouterr().err
    assert '--scst: False means False here' in err
    assert ('which contradicts it' in err)==('--only_prefix' in words(title))

def train(place, line, out, *more):
    "Run a command of ours as it stands, its places filled in; the config of the run"
    there = {'COCO':str(place/'table.csv'), 'xvlm:FILE':'pixels:48', 'cuda:0':'cpu', 'RUN':str(place/'xe')}
    assert cli.main([*(there.get(w, w) for w in line.split()[1:]), *more, '--out', str(place/out)])==0
    assert read_json(place/out/'result.json')['stage']==read_json(place/out/'config.json')['stage']
    return read_json(place/out/'config.json')

@pytest.mark.parametrize('title', XE)
def test_our_side_of_the_first_stage(place, title):
    config = train(place, THEIRS[title].ours, 'ours-'+title.replace(' ', '-'), *tiny(place))
    want = {k:getattr(load_preset('opg.xe', THEIRS[title].ours.split()[4]), k) for k in ['mapper', 'tune_lm', *KEPT]}
    assert {k:config[k] for k in want}==want
    assert (config['mapper'], config['tune_lm'])==(title.split('+')[0].replace('trans', 'transformer'), 'frozen' not in title)

@pytest.mark.parametrize('name', [n for n in PRESETS['opg.xe'] if n.startswith('default')])
def test_the_repaired_first_stage(place, name):
    config = train(place, f'capnb train opg.xe --preset {name} --data COCO', name, *tiny(place))
    want = {k:getattr(load_preset('opg.xe', name), k) for k in ['mapper', 'tune_lm', *KEPT]}
    assert {k:config[k] for k in want}==want and config['mask']=='soft'

def test_second_stage_from_the_first(place):
    start(place, words('mlp+gpt2 tuning'), 'xe', '--data', str(place/'table.csv'), *tiny(place))
    theirs = [w.replace('$checkpoint_path$', str(place/'xe')) for w in words('CIDEr optimization stage')]
    config,result = start(place, theirs, 'scst', '--steps', '2', '--device', 'cpu')
    assert (config['stage'], result['stage'])==('scst', 'scst')
    want = dict(run=str(place/'xe'), samples=5, baseline='greedy', max_len=20, batch_size=7, scale_lr=False, warmup=.1, seed=42, steps=2,
                unfinished='stopped', dropout=True, eos_only_if_stopped=False, decay_by_name=True, clip=0., views=0, precision='fp32')
    assert {k:config[k] for k in want}==want
    ours = train(place, THEIRS['CIDEr optimization stage'].ours, 'ours-scst', '--steps', '2', '--device', 'cpu')
    assert ours==config
    for name in PRESETS['opg.scst']: assert config.keys()>=vars(load_preset('opg.scst', name)).keys()
    assert train(place, 'capnb train opg.scst --preset default --run RUN', 'default-scst', '--steps', '1', '--batch-size', '8', '--device', 'cpu')['baseline']=='sample'

def test_a_checkpoint_of_the_original_is_no_run(place, capsys):
    (place/'x.pt').write_bytes(b'')
    for theirs in (['--scst=True'], ['--eval']):
        assert cli.main(['opg', *theirs, f'--checkpoint={place/"x.pt"}', '--output_dir', str(place/'no')])==1
        assert f'capnb train opg.published --file {place/"x.pt"}' in capsys.readouterr().err

def test_evaluation_of_both_stages(place):
    for run in ('xe', 'scst'):
        _,result = start(place, ['--eval', f'--checkpoint={place/run}', '--beam_size=2'], f'{run}-eval', '--device', 'cpu')
        assert result['stage']=='eval' and any(k.endswith('.CIDEr') for k in result)

def test_evaluation_alone(place):
    "A plain run of the first stage scored once more: the same captions"
    assert cli.main(['train', 'opg.xe', '--out', str(place/'plain'), '--data', str(place/'table.csv'), '--beam-size', '2', *tiny(place)])==0
    config,result = start(place, ['--eval', f'--checkpoint={place/"plain"}', '--beam_size=2'], 'plain-eval', '--device', 'cpu')
    first = read_json(place/'plain'/'result.json')
    scores = {k:v for k,v in first.items() if k.endswith('.CIDEr')}
    assert scores and scores=={k:v for k,v in result.items() if k.endswith('.CIDEr')}
    assert read_json(place/'plain'/'captions.json')==read_json(place/'plain-eval'/'captions.json')

def test_evaluation_on_other_data(place):
    "Data without a training split, as nocaps is"
    rows = toy_world(n_train=16).rows
    some = Table(rows[rows.split=='test'].head(3).assign(split='val')[['image_id', 'path', 'split', 'captions']].reset_index(drop=True))
    some.save(place/'other.csv')
    _,result = start(place, ['--eval', f'--checkpoint={place/"plain"}'], 'other-eval', '--device', 'cpu', '--data', str(place/'other.csv'))
    assert (result['val.n'], result['world'])==(3, 'other.csv')
    assert [c['image_id'] for c in read_json(place/'other-eval'/'captions.json')]==list(some.rows.image_id)
