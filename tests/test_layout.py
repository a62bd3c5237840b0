"The tree is what it seems: a module per notebook, and imports that only point down"
import ast, json, re
from collections import Counter
from nbdev.config import get_config

cfg = get_config()
SHARED  = 'core data models rewards train metrics'.split()    # each may use itself and those before it
SYSTEMS = 'zerocap opg dico sacap sracap'.split()             # may use SHARED and themselves

def named(): # module names that notebooks claim
    nbs = (p for p in cfg.nbs_path.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    cells = (''.join(c['source']) for p in nbs for c in json.loads(p.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code')
    return [m[1] for m in (re.match(r'#\|\s*default_exp\s+(\S+)', c) for c in cells) if m]

def modules(): # module names that exist
    return {'.'.join(p.relative_to(cfg.lib_path).with_suffix('').parts):p for p in cfg.lib_path.rglob('*.py') if p.name[0]!='_'}

def parts_used(path): # first part of every name imported from our own package
    base = ('caption_nb',)+path.relative_to(cfg.lib_path).parts[:-1]
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(n, ast.ImportFrom):
            full = base[:len(base)-n.level+1]+tuple((n.module or '').split('.')) if n.level else tuple(n.module.split('.'))
            if full[0]=='caption_nb': yield full[1] or n.names[0].name

def test_module_per_notebook():
    twice = [m for m,k in Counter(named()).items() if k>1]
    assert not twice, twice
    assert set(modules())==set(named())

def test_imports_point_down():
    for name,path in modules().items():
        own = name.split('.')[0]
        allowed = SHARED[:SHARED.index(own)+1] if own in SHARED else SHARED+[own]
        assert set(parts_used(path)) <= set(allowed), (name, set(parts_used(path))-set(allowed))
