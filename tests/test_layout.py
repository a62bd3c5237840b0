"The tree is what it seems: a module per notebook, imports that only point down, and nothing generated that differs from its source"
import ast, json, re, shutil, subprocess, sys
from collections import Counter
from pathlib import Path
import pytest
from nbdev.config import get_config

cfg = get_config()
SHARED  = 'core runs data models metrics rewards train'.split()  # each may use itself and those before it
SYSTEMS = 'zerocap opg dico sacap sracap'.split()                # may use SHARED and themselves, never each other
TOP     = 'report app'.split()                                   # report reads run folders; app uses everything
NOT_IN_EXPORT = ('experiments', 'benchmarks', 'tutorials')

def notebooks(): return [p for p in cfg.nbs_path.rglob('*.ipynb') if not any(x[0] in '._' for x in p.relative_to(cfg.nbs_path).parts)]
def cells(path, kind='code'): return [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']==kind]
def exports(path): return next((m[1] for m in (re.match(r'#\|\s*default_exp\s+(\S+)', c) for c in cells(path)) if m), None)
def modules(): return {'.'.join(p.relative_to(cfg.lib_path).with_suffix('').parts):p for p in cfg.lib_path.rglob('*.py') if p.name[0]!='_'}

def parts_used(path):
    "First part of every name imported from our own package"
    base = ('caption_nb',)+path.relative_to(cfg.lib_path).parts[:-1]
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(n, ast.ImportFrom):
            full = base[:len(base)-n.level+1]+tuple((n.module or '').split('.')) if n.level else tuple(n.module.split('.'))
            name = full[1] if full[1:] and full[1] else n.names[0].name
            if full[0]=='caption_nb' and not name.startswith('__'): yield name

def allowed(own):
    if own in SHARED: return SHARED[:SHARED.index(own)+1]
    if own in SYSTEMS: return SHARED+[own]
    if own=='report': return SHARED+['report']
    return SHARED+SYSTEMS+TOP

def test_module_per_notebook():
    named = [e for e in map(exports, notebooks()) if e]
    twice = [m for m,k in Counter(named).items() if k>1]
    assert not twice, twice
    assert set(modules())==set(named)

def test_module_is_named_like_its_notebook():
    for p in notebooks():
        if (e := exports(p)) is None: continue
        stem = re.sub(r'^\d+[a-z]*_', '', p.stem)
        assert e=='.'.join((*p.relative_to(cfg.nbs_path).parts[:-1], stem)), (p.name, e)

def test_imports_point_down():
    for name,path in modules().items():
        used = set(parts_used(path))
        own = name.split('.')[0]
        assert used<=set(allowed(own)), (name, used-set(allowed(own)))

def test_report_knows_no_system():
    for name,path in modules().items():
        if name.split('.')[0]=='report': assert not set(parts_used(path)) & set(SYSTEMS+['app', 'train', 'rewards']), name

def test_folders_carry_no_numbers_and_experiments_export_nothing():
    for p in notebooks():
        parts = p.relative_to(cfg.nbs_path).parts
        assert not any(x[0].isdigit() for x in parts[:-1]), p
        if parts[0] in NOT_IN_EXPORT: assert exports(p) is None, p

def test_every_experiment_has_one_parameters_cell():
    for p in notebooks():
        if p.relative_to(cfg.nbs_path).parts[0] not in ('experiments', 'benchmarks'): continue
        tags = [c for c in json.loads(p.read_text(encoding='utf-8'))['cells'] if 'parameters' in c['metadata'].get('tags', [])]
        assert len(tags)==1, p

@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.name)
def test_notebook_is_in_shape(path):
    "The anatomy and the sizes that CONTRIBUTING asks for"
    assert path.stat().st_size<300_000, f'{path.stat().st_size//1000} KB, 300 at most'
    md,code = cells(path, 'markdown'),cells(path)
    title = md[0].split('\n') if md else ['']
    assert title[0].startswith('# ') and len(title)>2 and title[2].startswith('> '), 'a title, an empty line, one sentence behind >'
    assert not any(re.search(r'^\s*from \S+ import \*', c, re.M) for c in code), 'no star imports'
    outputs = [o for c in json.loads(path.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]
    assert not any(o['output_type']=='error' for o in outputs), 'a saved error'
    long = [c.count('\n')+1 for c in code if re.match(r'#\|\s*export', c) and not re.match(r'#\|\s*export\n@dataclass\n', c)]
    assert max(long, default=0)<=45, f'an exported cell of {max(long)} lines'

def test_export_and_clean_change_nothing(tmp_path):
    "What is committed is what the tools write"
    for name in ('nbs', 'caption_nb'): shutil.copytree(cfg.config_path/name, tmp_path/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'README.md'): shutil.copy(cfg.config_path/name, tmp_path/name)
    bin = Path(sys.executable).parent
    for cmd in ('nbdev_export', 'nbdev_clean'): subprocess.run([bin/cmd], cwd=tmp_path, check=True, capture_output=True)
    for part in ('caption_nb', 'nbs'):
        differ = [str(p.relative_to(tmp_path)) for p in (tmp_path/part).rglob('*') if p.suffix in ('.py', '.ipynb')
                  and p.read_bytes()!=(cfg.config_path/p.relative_to(tmp_path)).read_bytes()]
        assert not differ, f'run nbdev_export and nbdev_clean, then commit: {differ}'

def test_no_absolute_paths():
    "Nothing tracked names a folder of somebody's machine"
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=cfg.config_path, capture_output=True, text=True).stdout.split('\0')
    if tracked==['']: pytest.skip('not a git checkout')
    homes = re.compile(r'(?<![\w.~}$])/(?:%s)/\w+' % '|'.join(('ho'+'me', 'ro'+'ot', 'Us'+'ers', 'mn'+'t')))
    for name in filter(None, tracked):
        p = cfg.config_path/name
        if p.suffix in ('.py', '.md', '.ipynb', '.toml', '.ini', '.yml', '.json', '.html') and p.exists():
            found = homes.search(p.read_text(encoding='utf-8', errors='ignore'))
            assert not found, f'{name}: {found[0]}'
