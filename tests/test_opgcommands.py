"Each of the four commands in OPG's README starts the stage it means, with the switches it names, at tiny size"
import pytest
from caption_nb.app import cli
from caption_nb.app.opgcommands import COMMANDS, read_opg_command
from caption_nb.core import from_args, make_config, read_json
from caption_nb.data.table import Table
from caption_nb.data.toy import toy_world

THEIRS = {c.title:c for c in COMMANDS if c.theirs.startswith('python ')}
XE = [t for t,c in THEIRS.items() if '--scst=False' in c.theirs]
TINY = '--encoder pixels:48 --epochs 1 --batch-size 8 --lr 1e-3 --lm-layers 1 --lm-width 32 --lm-heads 2 --n-val 4 --max-len 12 --precision fp32 --device cpu'.split()
WANT = { # title -> fields of the run's config
    'mlp+gpt2 tuning': dict(mapper='mlp', tune_lm=True), 'trans+gpt2 frozen': dict(mapper='transformer', mapper_layers=6, tune_lm=False),
    'trans+gpt2 tuning': dict(mapper='transformer', mapper_layers=6, tune_lm=False)} # as its flags say

def words(title): return THEIRS[title].theirs.split()[2:]

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a small table of drawn pictures"
    tmp = tmp_path_factory.mktemp('opg')
    rows = toy_world(n_train=16).rows
    Table(rows.groupby('split', sort=False).head(16).reset_index(drop=True)).save(tmp/'table.csv')
    return tmp

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
    ours = from_args(Config, THEIRS[title].ours.split()[3:])
    same = {k for k in values if not (title=='trans+gpt2 tuning' and k=='tune_lm') and k!='run'}
    assert {k:getattr(theirs, k) for k in same}=={k:getattr(ours, k) for k in same}

@pytest.mark.parametrize('title', XE)
def test_first_stage(place, title, capsys):
    config,result = start(place, words(title), title.replace(' ', '-'), '--data', str(place/'table.csv'), *TINY)
    assert (config['system'], config['stage'], result['stage'])==('opg', 'xe', 'xe')
    want = WANT[title]|dict(mask='reference', threshold=.1, aux_loss=.1, seed=42, beam_size=1, epochs=1)
    assert {k:config[k] for k in want}==want
    err = capsys.readouterr().err
    assert '--scst: False means False here' in err
    assert ('which contradicts it' in err)==('--only_prefix' in words(title))

def test_second_stage_from_the_first(place):
    start(place, words('mlp+gpt2 tuning'), 'xe', '--data', str(place/'table.csv'), *TINY)
    theirs = [w.replace('$checkpoint_path$', str(place/'xe')) for w in words('CIDEr optimization stage')]
    config,result = start(place, theirs, 'scst', '--epochs', '1', '--device', 'cpu')
    assert (config['stage'], result['stage'])==('scst', 'scst')
    want = dict(run=str(place/'xe'), samples=5, baseline='greedy', max_len=20, batch_size=7, scale_lr=False, warmup=.1, seed=42, epochs=1)
    assert {k:config[k] for k in want}==want

def test_evaluation_of_both_stages(place):
    for run in ('xe', 'scst'):
        _,result = start(place, ['--eval', f'--checkpoint={place/run}', '--beam_size=2'], f'{run}-eval', '--device', 'cpu')
        assert result['stage']=='eval' and any(k.endswith('.CIDEr') for k in result)

def test_evaluation_alone(place):
    "A plain run of the first stage scored once more: the same captions"
    assert cli.main(['train', 'opg.xe', '--out', str(place/'plain'), '--data', str(place/'table.csv'), '--beam-size', '2', *TINY])==0
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
