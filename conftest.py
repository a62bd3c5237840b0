"Collect notebooks: every cell that checks something is one pytest item"
import atexit, os, re, shutil, tempfile
import pytest
from execnb.shell import CaptureShell
from nbdev.config import get_config
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor

CHECK = re.compile(r'^\s*(assert\b|test_\w+\(|with\s+(expect_fail|ExceptionExpected|pytest\.raises))', re.M)

if 'CAPTION_NB_CACHE' not in os.environ: # tests leave the user's cache alone, and nothing behind
    os.environ['CAPTION_NB_CACHE'] = tempfile.mkdtemp(prefix='caption_nb-')
    atexit.register(shutil.rmtree, os.environ['CAPTION_NB_CACHE'], ignore_errors=True)

class CellError(Exception): pass

def pytest_addoption(parser):
    parser.addoption('--flags', default='', help='flags of `tst_flags` to run after all, such as "slow gpu"')

def pytest_collect_file(parent, file_path):
    if file_path.suffix=='.ipynb' and file_path.name[0] not in '_.': return Notebook.from_parent(parent, path=file_path)

class Notebook(pytest.File):
    "One notebook, run top to bottom in one shell, from its own folder"
    def collect(self):
        nb = NBProcessor(self.path, procs=FrontmatterProc, process=True).nb
        if str(getattr(nb,'frontmatter_',{}).get('skip_exec','')).lower()=='true': return
        skip = set(get_config().tst_flags.split()) - set(self.config.getoption('--flags').split())
        self.shell,self.todo,self.broken = None,list(nb.cells),None
        head = getattr(nb,'frontmatter_',{}).get('title','')
        for cell in nb.cells:
            d = getattr(cell, 'directives_', {}) or {}
            off = d.get('eval:', [''])[0].lower()=='false' or bool(skip & d.keys())
            cell.runs = cell.cell_type=='code' and not off and 'nbdev_export(' not in cell.source
            if cell.cell_type=='markdown':
                title = re.search(r'^#+ (.+)', cell.source, re.M)
                head = title[1].strip() if title else head
            elif cell.cell_type=='code' and not d.keys() & {'export','exports','exporti'} and CHECK.search(cell.source):
                yield Check.from_parent(self, name=f'{head} [{cell.id}]', cell=cell)
        yield Check.from_parent(self, name='to the end', cell=None)

    def run_until(self, last):
        "Run the cells not yet run, up to and including `last` (all of them if None)"
        if self.broken: pytest.skip(f'cell {self.broken} failed before')
        if self.shell is None: self.shell = CaptureShell(self.path, mpl_format=None)
        old,os.environ['IN_TEST'] = os.getcwd(),'1'
        os.chdir(self.path.parent)
        try:
            while self.todo:
                cell = self.todo.pop(0)
                if cell.runs:
                    self.shell.cell(cell)
                    if self.shell.exc:
                        self.broken = cell.id
                        raise CellError(self.shell.prettytb(fname=f'{self.path.name} cell {cell.id}'))
                if cell is last: return
        finally:
            os.chdir(old); os.environ.pop('IN_TEST', None)
            if not self.todo or self.broken: self.shell = None # let models and data go

class Check(pytest.Item):
    "Everything up to one checking cell"
    def __init__(self, *, cell, **kw):
        super().__init__(**kw)
        self.cell = cell
    def runtest(self):
        if self.cell is not None and not self.cell.runs: pytest.skip('flagged off')
        self.parent.run_until(self.cell)
    def repr_failure(self, excinfo): return str(excinfo.value) if excinfo.errisinstance(CellError) else super().repr_failure(excinfo)
    def reportinfo(self): return self.path, None, f'{self.path.name} {self.name}'

def pytest_unconfigure(config):
    tr = config.pluginmanager.get_plugin('terminalreporter')
    if tr is None or hasattr(config, 'workerinput'): return
    def n(*ks): return sum(len(tr.stats.get(k, [])) for k in ks)
    print(f"{n('passed')} passed, {n('failed','error')} failed, {n('skipped')} skipped")
