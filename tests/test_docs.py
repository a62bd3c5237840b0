"README is what its notebook gives, every command in it is real, and the pages lead somewhere"
import ast, importlib, importlib.util, re, shlex, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
import pytest
from nbdev.config import get_config
from caption_nb.app import cli
from caption_nb.app.opgcommands import read_opg_command
from caption_nb.core import from_args
from caption_nb.runs import check_params

ROOT = get_config().config_path
TEXTS = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'data/README.md']
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)

def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT/'tools'/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

docs = tool('docs')
def text(name): return (ROOT/name).read_text(encoding='utf-8')
def blocks(name, kind): return [b for k,b in BLOCK.findall(text(name)) if k==kind]

def commands(name):
    "Words of each command line: those of shell blocks, and those that stand in back-ticks in the prose"
    lines = [l for b in blocks(name, 'bash') for l in b.split('\n')]
    lines += re.findall(r'(?<!`)`((?:capnb|make) [^`\n]+)`(?!`)', BLOCK.sub('', text(name)))
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]): words = words[1:]
        if words: yield words

CAPNB = [(f,w[1:]) for f in TEXTS for w in commands(f) if w[0]=='capnb']
MAKE = [(f,w[1:]) for f in TEXTS for w in commands(f) if w[0]=='make']
label = lambda x: ' '.join(x) if isinstance(x, list) else x

def links(name):
    "Targets of the links of a text, those of its pictures too"
    return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', BLOCK.sub('', text(name))))

def test_readme_is_what_its_notebook_gives():
    want,files = docs.readme()
    assert text('README.md')==want, 'run: python tools/docs.py --readme'
    there = {p.relative_to(ROOT).as_posix():p.read_bytes() for p in (ROOT/docs.PICTURES).glob('*')}
    assert there==files, 'run: python tools/docs.py --readme'

def test_readme_has_the_scores_of_the_reports():
    "The stored outputs of the index are what its cells give for the reports as they are committed"
    if subprocess.run(['git', 'status', '--porcelain', 'reports'], cwd=ROOT, capture_output=True, text=True).stdout: pytest.skip('reports/ has results that are not committed')
    from execnb.shell import CaptureShell
    shell,nbs = CaptureShell(mpl_format=None),get_config().nbs_path
    shell.run_cell(f'import os\nos.chdir({str(nbs)!r})')
    try: fresh = [shell.run(docs.code_of(c)) for c in docs.Page(nbs/'index.ipynb').cells if c['cell_type']=='code']
    finally: shell.run_cell(f'os.chdir({str(ROOT)!r})')
    words = lambda outs: [docs.text_of(o['data']['text/markdown']) for o in outs if 'text/markdown' in o.get('data', {})]
    stored = [c.get('outputs', []) for c in docs.Page(nbs/'index.ipynb').cells if c['cell_type']=='code']
    assert [words(o) for o in fresh]==[words(o) for o in stored], 'run: python tools/nb.py run nbs/index.ipynb && python tools/docs.py --readme'

@pytest.mark.parametrize('name', TEXTS)
def test_links_lead_somewhere(name):
    for target in links(name):
        if re.match(r'[a-z]+:', target): continue
        path,_,part = target.partition('#')
        place = (ROOT/name).parent/path if path else ROOT/name
        assert place.exists(), f'{name}: {target}'
        if part: assert part in {re.sub(r'[^\w -]', '', h).strip().lower().replace(' ', '-') for h in re.findall(r'^#+ (.+)', place.read_text(encoding='utf-8'), re.M)}, target

@pytest.mark.parametrize('name', TEXTS)
def test_files_that_are_named_exist(name):
    "Paths of this repository in commands and in back-ticks, such as `nbs/experiments/opg_xe.ipynb`"
    named = set(re.findall(r'(?<![\w./-])((?:nbs|tools|tests|\.github|\.ci|data/toy)/[\w./-]*[\w/])', text(name)))
    for p in named: assert (ROOT/p).exists() or p.startswith('data/toy/pictures') or re.search('[A-Z]{4}', p), f'{name}: {p}'

@pytest.mark.parametrize('name,words', CAPNB, ids=label)
def test_capnb_commands_are_real(name, words):
    "The command is parsed as the program parses it; nothing is run"
    command,*rest = words
    assert command in cli.ABOUT, f'{name}: capnb {command}'
    with redirect_stdout(StringIO()),redirect_stderr(StringIO()) as err:
        try: parse(command, rest)
        except SystemExit as e: assert e.code==0, f'{name}: capnb {" ".join(words)}\n{err.getvalue()}'

def parse(command, rest):
    "Do what the program does, up to the work itself"
    if command in cli.WITH_ARGS:
        if rest: from_args((cli.caption_form(rest) if command=='caption' else cli.WITH_ARGS[command])[0], rest)
    elif command=='train' and rest:
        preset,options = cli.take_preset(rest[0], cli.take_option(rest[1:], 'out', '')[1])
        from_args(cli.STAGES[rest[0]]()[0], options, default=preset)
    elif command=='prepare' and rest:
        what,*rest = [' '.join(rest[:2]), *rest[2:]] if rest[0]=='sacap' else rest
        preset,options = cli.take_step_preset(what, cli.take_option(rest, 'out', '')[1])
        from_args(cli.PREPARED[what]()[0], options, default=preset)
    elif command=='opg': read_opg_command(rest[:rest.index('--')] if '--' in rest else rest)
    elif command in ('run', 'sweep') and rest:
        params,rest = cli.take_params(rest)
        for option in ['out']+['jobs']*(command=='sweep'): _,rest = cli.take_option(rest, option, '')
        check_params(cli._notebook(rest, command)[0], params)

@pytest.mark.parametrize('name,words', MAKE, ids=label)
def test_make_targets_are_real(name, words):
    makefile = text('Makefile')
    for w in words:
        if '=' in w: assert re.search(rf'^{w.split("=")[0]}\s*[:?]?=', makefile, re.M), f'{name}: make {w}'
        else: assert re.search(rf'^{w}:', makefile, re.M), f'{name}: make {w}'

def test_python_in_readme_imports_what_exists():
    for block in blocks('README.md', 'python'):
        for n in ast.parse(block).body:
            if isinstance(n, ast.ImportFrom):
                module = importlib.import_module(n.module)
                for a in n.names: assert hasattr(module, a.name), f'{n.module}.{a.name}'

def test_commands_of_contributing_exist():
    "Programs in the shell blocks are those of the environment or of this repository"
    own = {'capnb', 'make', 'python', 'pip', '.'}
    for words in commands('CONTRIBUTING.md'): assert words[0] in own or (Path(sys.executable).parent/words[0]).exists(), words

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    docs.build(out)
    return out

def test_every_notebook_has_a_page_in_order(site):
    nbs = [p for p in get_config().nbs_path.rglob('*.ipynb') if not any(x[0] in '._' for x in p.relative_to(get_config().nbs_path).parts)]
    urls = [p.url for p in docs.pages()]
    assert len(set(urls))==len(nbs)-1
    for u in ['index.html', *urls]: assert (site/u).exists(), u
    listed = re.findall(r'href="([^"#]+)"', re.search(r'<nav.*?</nav>', (site/'index.html').read_text(encoding='utf-8'), re.S)[0])
    assert [u for u in listed if u in urls]==urls
    groups = list(dict.fromkeys(p.group for p in docs.pages()))
    assert groups==sorted(groups, key=docs.ORDER.index)

def test_pages_are_whole_and_their_links_meet(site):
    "Nothing is fetched from elsewhere, and each link between pages has its end"
    own = [p for p in site.rglob('*.html') if 'reports' not in p.relative_to(site).parts]
    ids = {p.resolve():set(re.findall(r'\bid="([^"]+)"', p.read_text(encoding='utf-8'))) for p in own}
    for p in own:
        page = p.read_text(encoding='utf-8')
        assert not re.search(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(?!data:)', page), p
        assert 'width=device-width' in page, p
        for target in re.findall(r'<a [^>]*href="([^"]*)"', page):
            path,_,part = target.partition('#')
            if re.match(r'[a-z]+:', target): continue
            end = (p.parent/path).resolve() if path else p.resolve()
            assert end.exists(), f'{p.name}: {target}'
            if part and end in ids: assert part in ids[end], f'{p.name}: {target}'
