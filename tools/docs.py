"""HTML pages for all notebooks, and README.md from `nbs/index.ipynb`: nothing is run, nothing is fetched

    python tools/docs.py            # the pages, into _docs/, and README.md
    python tools/docs.py --readme   # README.md and its pictures only
"""
import ast, base64, html, json, posixpath, re, shutil, sys
from functools import partial
from io import BytesIO
from pathlib import Path
from nbdev.config import get_config

cfg = get_config()
ROOT,NBS = cfg.config_path,cfg.nbs_path
ORDER = 'core runs data models metrics rewards train zerocap opg dico sacap sracap report app tutorials experiments benchmarks'.split()
EXTRA = {'data/README.md':'data-and-weights.html', 'CONTRIBUTING.md':'contributing.html', 'CHANGELOG.md':'changelog.html'} # further pages
PICTURES = 'index_files'
MADE = '<!-- made from nbs/index.ipynb by tools/docs.py: change the notebook, not this file -->\n\n'

# ---- notebooks

def src(cell): return ''.join(cell['source'])

def directives(cell)->dict:
    "The `#| name value` lines on top of a code cell"
    if cell['cell_type']!='code': return {}
    top = re.match(r'(\s*#\|.*\n?)*', src(cell))[0]
    return {m[1]:m[2].strip() for m in re.finditer(r'^\s*#\|\s*(\w+):?[ \t]*(.*)$', top, re.M)}

def code_of(cell)->str: return re.sub(r'\A(\s*#\|.*\n?)*', '', src(cell)).rstrip()

def text_of(x)->str: return ''.join(x) if isinstance(x, list) else x

def has_tag(cell, tag:str)->bool: return tag in cell['metadata'].get('tags', [])

class Page:
    "A notebook: where its page goes, what it is called, which names it defines and which it imports"
    def __init__(self, path:Path):
        self.path,rel = path,path.relative_to(NBS)
        self.cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        stem = re.sub(r'^\d+[a-z]*_', '', path.stem)
        self.url = rel.with_name(stem+'.html').as_posix()
        self.group = rel.parts[0] if len(rel.parts)>1 else stem
        self.module = next((d['default_exp'] for d in map(directives, self.cells) if 'default_exp' in d), None)
        head = src(self.cells[0]).split('\n') if self.cells else []
        self.title = head[0].lstrip('# ') if head else stem
        self.about = next((x[1:].strip() for x in head if x.startswith('>')), '')
        self.names = {n:d for c in self.cells if is_exported(c) for n,d in defined(code_of(c))}
        self.imports = {n:m for c in self.cells if c['cell_type']=='code' for n,m in imported(code_of(c))}

def is_exported(cell)->bool: return bool({'export', 'exports'} & directives(cell).keys())

def tree(code:str):
    "Its statements; none where it is no plain Python"
    try: return ast.parse(code).body
    except SyntaxError: return []

def defined(code:str):
    "Public functions and classes, with the first line of their docstrings; a patched method as `Class.method`"
    for n in tree(code):
        if not isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or n.name.startswith('_'): continue
        patched = any('patch' in ast.unparse(d) for d in n.decorator_list)
        name = f'{ast.unparse(n.args.args[0].annotation)}.{n.name}' if patched and n.args.args[0].annotation else n.name
        yield name, (ast.get_docstring(n) or '').split('\n')[0]

def imported(code:str):
    "Names taken from this package, with the module they come from"
    for n in tree(code):
        if isinstance(n, ast.ImportFrom) and (n.module or '').startswith(cfg.lib_name+'.'):
            yield from ((a.asname or a.name, n.module.removeprefix(cfg.lib_name+'.')) for a in n.names)

def pages()->list[Page]:
    "Every notebook but the index, in the order of the house"
    paths = [p for p in NBS.rglob('*.ipynb') if p.name!=cfg.readme_nb and not any(x[0] in '._' for x in p.relative_to(NBS).parts)]
    place = lambda p: (ORDER.index(p.group) if p.group in ORDER else len(ORDER), p.group, p.path.name)
    return sorted(map(Page, paths), key=place)

# ---- README

def readme()->tuple[str, dict]:
    "The text of README.md, and the bytes of its pictures by path"
    parts,files = [],{}
    for cell in Page(NBS/cfg.readme_nb).cells:
        if cell['cell_type']=='markdown': parts.append(src(cell)); continue
        d = directives(cell)
        if 'hide' in d: continue
        if d.get('echo')!='false': parts.append(f'```python\n{code_of(cell)}\n```')
        parts += [_as_markdown(o, files) for o in cell.get('outputs', [])]
    return MADE+'\n\n'.join(p.strip() for p in parts if p.strip())+'\n', files

def _as_markdown(output, files:dict)->str:
    "One output of a cell; a picture goes into `files`, its `text/plain` is what is read where it cannot be seen"
    data,plain = output.get('data', {}),text_of(output.get('data', {}).get('text/plain', output.get('text', '')))
    if 'image/png' in data:
        name = f'{PICTURES}/{len(files)+1}.png'
        files[name] = base64.b64decode(text_of(data['image/png']))
        return f'![{plain}]({name})'
    return text_of(data['text/markdown']) if 'text/markdown' in data else f'```\n{plain.rstrip()}\n```'

def write_readme():
    "Write README.md and its pictures, and remove pictures that it no longer has"
    text,files = readme()
    shutil.rmtree(ROOT/PICTURES, ignore_errors=True)
    for name,data in files.items():
        (ROOT/name).parent.mkdir(exist_ok=True)
        (ROOT/name).write_bytes(data)
    (ROOT/'README.md').write_text(text, encoding='utf-8', newline='\n')

# ---- pieces of a page

def markdown(text:str)->str:
    "Markdown to HTML, formulas as pictures, so that a page needs nothing from elsewhere"
    from nbconvert.filters.markdown_mistune import markdown2html_mistune
    out = markdown2html_mistune(_with_formulas(text))
    return re.sub(r'<table>.*?</table>', lambda m: '<div class="wide">'+m[0].replace('\\|', '|')+'</div>', out, flags=re.S)

CODE = re.compile(r'(```.*?```|`[^`\n]*`)', re.S)
TEX = re.compile(r'\$\$(?P<block>.+?)\$\$|(?<![\w$])\$(?P<line>[^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])', re.S)

def _with_formulas(text:str)->str:
    formula = lambda m: _formula(m['block'] or m['line'], bool(m['block']))
    return ''.join(part if i%2 else TEX.sub(formula, part) for i,part in enumerate(CODE.split(text)))

PLAIN_TEX = [(r'\\[bB]igg?[lr]?\s*([(\[])', r'\\left\1'), (r'\\[bB]igg?[lr]?\s*([)\]])', r'\\right\1'), (r'\\[bB]igg?[lr]?(?![a-z])', ''), (r'\\[lr]Vert', r'\\Vert'), (r'\\[td]frac', r'\\frac'), (r'\\frac\s*(\w)\s*(\w)', r'\\frac{\1}{\2}'),
             (r'\\le(?![a-z])', r'\\leq'), (r'\\ge(?![a-z])', r'\\geq'), (r'\s+', ' ')]

BLOCK_TEX = [(r'\\frac', r'\\dfrac'), (r'(\\(?:sum|prod)(?:_(?:\{[^}]*\}|\w))?)', r'\1\,')]

def _formula(tex:str, block:bool)->str:
    "A formula as an SVG picture inside the page; its TeX where matplotlib cannot set it"
    from matplotlib import rc_context
    from matplotlib.mathtext import math_to_image
    plain,f = tex.strip(),BytesIO()
    for a,b in PLAIN_TEX+BLOCK_TEX*block: plain = re.sub(a, b, plain)
    try:
        with rc_context({'mathtext.fontset':'cm', 'svg.hashsalt':'0'}): depth = math_to_image(f'${plain}$', f, format='svg', dpi=72)
    except ValueError:
        print(f'formula kept as TeX: {tex}', file=sys.stderr)
        return f'<code>{html.escape(tex)}</code>'
    svg = base64.b64encode(f.getvalue()).decode()
    size = float(re.search(rb'height="([\d.]+)pt"', f.getvalue())[1])/10
    img = f'<img class="tex" alt="{html.escape(tex, quote=True)}" style="height:{size:.2f}em;vertical-align:{-depth/10:.2f}em" src="data:image/svg+xml;base64,{svg}">'
    return f'\n\n<p class="tex">{img}</p>\n\n' if block else img

def coloured(code:str, kind:str='')->str:
    "Python source as HTML"
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    return highlight(code, PythonLexer(), HtmlFormatter(cssclass=f'code {kind}'.strip()))

ANSI = re.compile(r'\x1b\[[0-9;]*[A-Za-z]')

def output_html(o)->str:
    "One output of a cell"
    data,plain = o.get('data', {}),ANSI.sub('', text_of(o.get('data', {}).get('text/plain', o.get('text', '')))).rstrip()
    if 'image/svg+xml' in data: return f'<div class="out">{text_of(data["image/svg+xml"])}</div>'
    for kind in ('image/png', 'image/jpeg'):
        if kind in data:
            alt = 'picture' if plain.startswith('<') else plain
            return f'<div class="out"><img alt="{html.escape(alt, quote=True)}" src="data:{kind};base64,{text_of(data[kind]).strip()}"></div>'
    if 'text/markdown' in data: return f'<div class="out">{markdown(text_of(data["text/markdown"]))}</div>'
    if 'text/html' in data: return f'<div class="out wide">{text_of(data["text/html"])}</div>'
    return f'<pre class="out">{html.escape(plain)}</pre>' if plain else ''

IMPORTS = '<details><summary>imports</summary>'

def code_html(cell, page:Page)->str:
    "A code cell: exported source marked as such and reachable by its names, imports folded away, hidden cells left out"
    d,code = directives(cell),code_of(cell)
    if 'hide' in d or not code: return ''
    outs = ''.join(map(output_html, cell.get('outputs', [])))
    if d.get('echo')=='false': return outs
    if all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree(code)) and tree(code):
        return f'{IMPORTS}{coloured(code)}<!-- imports --></details>'+outs
    if not {'export', 'exports', 'exporti'} & d.keys():
        return ('<p class="label">parameters</p>' if has_tag(cell, 'parameters') else '')+coloured(code)+outs
    marks = ''.join(f'<a id="{n}"></a>' for n,_ in defined(code))
    return f'{marks}<p class="label">in <code>{page.module}</code></p>'+coloured(code, 'export')+outs

def contents_html(page:Page)->str:
    "The public names of a module, each with its first line"
    rows = ''.join(f'<tr><td><a href="#{n}"><code>{n}</code></a></td><td>{html.escape(d)}</td></tr>' for n,d in page.names.items())
    return f'<details class="names"><summary>{cfg.lib_name}.{page.module}: {len(page.names)} names</summary><div class="wide"><table>{rows}</table></div></details>' if rows else ''

def linked(text:str, page:Page, modules:dict)->str:
    "Names in back-ticks that this notebook defines or imports, and modules, made links to where they are explained"
    def link(m):
        name = m[2].removesuffix('()').removeprefix(cfg.lib_name+'.')
        if name in page.names: return m[0] if m[1] else f'<a href="#{name}">{m[0]}</a>'
        to = modules.get(name) or modules.get(page.imports.get(name))
        if m[1] or to is None or to is page: return m[0]
        return f'<a href="{relative(to.url, page.url)}{"#"+name if name in to.names else ""}">{m[0]}</a>'
    return re.sub(r'(<a [^>]*>)?<code>([\w.]+(?:\(\))?)</code>', link, text)

def relative(url:str, here:str)->str: return posixpath.relpath(url, posixpath.dirname(here) or '.')

def retarget(body:str, source:str, url:str, known:dict)->str:
    "Links to files of the repository, relative to the file `source`, made links between pages; what has no page is found at the repository's address"
    def fix(m):
        target,_,part = html.unescape(m[1]).partition('#')
        if not target or re.match(r'[a-z]+:', target): return m[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        to = relative(known[place], url) if place in known else f'{cfg.git_url}/blob/{cfg.branch}/{place}'
        return f'href="{html.escape(to)}{"#"+part if part else ""}"'
    return re.sub(r'href="([^"]*)"', fix, body)

# ---- the frame

STYLE = '''
:root{--line:#dfe3e8;--soft:#f6f7f9;--ink:#1f2328;--dim:#5b6570;--link:#0b5cad;--mark:#2f7d5b}
*{box-sizing:border-box}
html{scroll-padding-top:3.5rem}
body{margin:0;color:var(--ink);background:#fff;font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:break-word}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
header{position:sticky;top:0;z-index:2;display:flex;gap:1rem;align-items:center;padding:.5rem 1rem;background:#fff;border-bottom:1px solid var(--line)}
header a{font-weight:700;color:var(--ink)}header label{margin-left:auto;padding:.25rem .75rem;border:1px solid var(--line);border-radius:6px;cursor:pointer}
#menu{position:absolute;opacity:0}#menu:focus-visible+header label{outline:2px solid var(--link)}
nav{display:none;padding:.5rem 1rem 1rem;font-size:15px;background:var(--soft);border-bottom:1px solid var(--line)}#menu:checked~nav{display:block}
nav p{margin:1rem 0 .2rem;font-size:13px;font-weight:700;color:var(--dim)}
nav ul{margin:0;padding:0;list-style:none}nav ul ul{padding-left:.9rem;font-size:13.5px;border-left:2px solid var(--line)}
nav li a{display:block;padding:.2rem 0}nav .here>a{font-weight:700;color:var(--ink)}
main{max-width:66rem;margin:0 auto;padding:1rem 1rem 3rem;min-width:0}main>p,main>ul,main>ol,main>blockquote,main>.out>p{max-width:48rem}
h1{margin:.6rem 0;font-size:1.9rem;line-height:1.2}h2{margin:2.4rem 0 .6rem;padding-top:.6rem;font-size:1.4rem;line-height:1.25;border-top:1px solid var(--line)}h3{margin:1.8rem 0 .5rem;font-size:1.1rem}
h1+blockquote{margin:0 0 1.2rem;padding:0;border:0;font-size:1.1rem;color:var(--dim)}blockquote{margin:1rem 0;padding-left:1rem;border-left:4px solid var(--line)}
.anchor-link{margin-left:.4rem;color:transparent}:hover>.anchor-link{color:var(--dim)}
code,pre{font:13.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
:not(pre)>code{padding:.1em .3em;background:var(--soft);border-radius:4px}a>code{color:var(--link)}
pre{margin:.7rem 0;padding:.7rem .9rem;overflow-x:auto;background:var(--soft);border-radius:6px}
.code pre{border-left:3px solid var(--line)}.export pre{border-left-color:var(--mark)}
pre.out{background:none;padding-top:0;padding-bottom:0}.out{margin:.7rem 0;overflow-x:auto}.out>*:first-child{margin-top:0}
.label{margin:1rem 0 -.4rem;font-size:12.5px;color:var(--mark)}.label code{padding:0;background:none;font-size:12.5px;color:inherit}
details{margin:.7rem 0}summary{cursor:pointer;color:var(--dim);font-size:14px}.names td{border:0;padding:.15rem .8rem .15rem 0;vertical-align:top}
img{max-width:100%;height:auto}img.tex{max-width:none}p.tex{margin:1.2rem 0;text-align:center;overflow-x:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14.5px;font-variant-numeric:tabular-nums}th,td{padding:.35rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
.dataframe th,.dataframe td{font-size:13.5px;border-left:0;border-right:0}.dataframe{border:0}
footer{display:flex;gap:1rem;justify-content:space-between;margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);font-size:14.5px}
[id]{scroll-margin-top:3.5rem}
@media(max-width:40rem){table{font-size:13.5px}th,td{padding:.3rem .4rem}h1{font-size:1.6rem}}
@media(min-width:64rem){header{display:none}html{scroll-padding-top:1rem}[id]{scroll-margin-top:1rem}
 body{display:grid;grid-template-columns:17rem minmax(0,1fr)}nav,#menu:checked~nav{display:block;position:sticky;top:0;height:100vh;overflow-y:auto;border:0;border-right:1px solid var(--line)}
 main{width:100%;padding:1.5rem 2.5rem 4rem}}
@media print{header,nav,footer,.anchor-link{display:none!important}body{display:block}pre{white-space:pre-wrap}}
'''

def style()->str:
    "All of the pages' looks"
    from pygments.formatters import HtmlFormatter
    colours = HtmlFormatter(style='xcode', cssclass='code').get_style_defs('.code')
    return STYLE+'\n'.join(x for x in colours.split('\n') if 'background' not in x and 'line-height' not in x)

def sections(body:str)->str:
    "Links to the second-level headings of a page"
    items = [(m[1], re.sub(r'<a class="anchor-link".*?</a>|<[^>]*>', '', m[2])) for m in re.finditer(r'<h2 id="([^"]*)">(.*?)</h2>', body, re.S)]
    return '<ul>'+''.join(f'<li><a href="#{i}">{t}</a></li>' for i,t in items)+'</ul>' if items else ''

def nav_html(here:str, entries:list, inner:str)->str:
    "The list of all pages, `(group, title, url)`, the present one opened"
    out,last = [],None
    for group,title,url in entries:
        if group!=last: out.append(f'{"</ul>" if last is not None else ""}{f"<p>{group}</p>" if group else ""}<ul>')
        last = group
        mark = ' class="here"' if url==here else ''
        out.append(f'<li{mark}><a href="{relative(url, here)}">{html.escape(title)}</a>{inner if url==here else ""}</li>')
    return '<nav aria-label="pages">'+''.join(out)+'</ul></nav>'

def frame(title:str, about:str, here:str, body:str, entries:list)->str:
    "One whole page"
    urls = [u for g,_,u in entries if g!='reports']
    i = urls.index(here) if here in urls else -1
    titles = {u:t for _,t,u in entries}
    link = lambda u,a,b: f'<a href="{relative(u, here)}">{a}{html.escape(titles[u])}{b}</a>'
    before = link(urls[i-1], '← ', '') if i>0 else '<span></span>'
    after = link(urls[i+1], '', ' →') if 0<=i<len(urls)-1 else '<span></span>'
    name = title if title==cfg.title else f'{title} · {cfg.title}'
    return f'''<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(name)}</title><meta name="description" content="{html.escape(about, quote=True)}"><link rel="icon" href="data:,"><style>{style()}</style></head>
<body><input type="checkbox" id="menu" aria-label="list of pages"><header><a href="{relative('index.html', here)}">{cfg.title}</a><label for="menu">pages</label></header>
{nav_html(here, entries, sections(body))}
<main>{body}<footer>{before}{after}</footer></main></body>
</html>
'''

def notebook_html(page:Page, modules:dict)->str:
    "The cells of a notebook"
    done,out = False,[]
    for cell in page.cells:
        if cell['cell_type']=='markdown': out.append(linked(markdown(src(cell)), page, modules))
        elif cell['cell_type']=='code': out.append(code_html(cell, page))
        if not done: out.append(contents_html(page)); done = True
    return '\n'.join(x for x in out if x).replace(f'<!-- imports --></details>\n{IMPORTS}', '') # one fold for neighbours

def reports()->list[tuple]:
    "World and file of each report that is there"
    return [(p.parent.name, p) for p in sorted((ROOT/'reports').glob('*/index.html'))]

def build(out:Path, only:str=''):
    "All pages below `out`; `only` limits the notebooks to those whose page's address contains it"
    index,nbs = Page(NBS/cfg.readme_nb),pages()
    modules = {p.module:p for p in nbs if p.module}
    extra = {f:(u, re.sub(r'\W+', ' ', Path(u).stem).capitalize()) for f,u in EXTRA.items() if (ROOT/f).exists()}
    entries = [('', 'Home', 'index.html'), *(('', title, u) for u,title in extra.values()),
               *(('reports', w, f'reports/{w}/index.html') for w,_ in reports()),
               *((p.group if '/' in p.url else 'foundations', p.title.removeprefix(p.group+'.'), p.url) for p in nbs)]
    known = {f:u for f,(u,_) in extra.items()}|{p.path.relative_to(ROOT).as_posix():p.url for p in nbs}|{'README.md':'index.html', 'nbs/index.ipynb':'index.html'}
    known |= {f'reports/{w}/{n}':f'reports/{w}/index.html' for w,_ in reports() for n in ('index.html', 'index.md')}
    write = partial(_write, Path(out), known=known, entries=entries)
    if not only: shutil.rmtree(out, ignore_errors=True)
    write('index.html', index.title, index.about, notebook_html(index, modules), 'README.md')
    for p in nbs:
        if only in p.url: write(p.url, p.title, p.about, notebook_html(p, modules), p.path.relative_to(ROOT).as_posix())
    for f,(u,title) in extra.items(): write(u, title, '', markdown((ROOT/f).read_text(encoding='utf-8')), f)
    for w,p in reports():
        (Path(out)/'reports'/w).mkdir(parents=True, exist_ok=True)
        shutil.copy(p, Path(out)/'reports'/w/'index.html')

def _write(out:Path, url:str, title:str, about:str, body:str, source:str, known:dict, entries:list):
    (out/url).parent.mkdir(parents=True, exist_ok=True)
    (out/url).write_text(frame(title, about, url, retarget(body, source, url, known), entries), encoding='utf-8', newline='\n')

if __name__ == '__main__':
    if sys.argv[1:] not in ([], ['--readme']): raise SystemExit('usage: docs.py [--readme]')
    write_readme()
    if not sys.argv[1:]:
        build(cfg.doc_path)
        print(f'{len(pages())+1} notebooks in {cfg.doc_path}')
