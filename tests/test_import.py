"Importing the package is quick because it loads nothing heavy"
import subprocess, sys

def loaded_by(line):
    code = f'import sys\n{line}\nprint([m for m in ("torch", "transformers", "open_clip", "timm", "pandas", "matplotlib") if m in sys.modules])'
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()

def test_import_loads_nothing(): assert loaded_by('import caption_nb')=='[]'
def test_core_loads_no_heavy_library(): assert loaded_by('import caption_nb.core')=='[]'
def test_metrics_and_readers_need_no_torch():
    assert 'torch' not in loaded_by('import caption_nb.metrics.scorecard, caption_nb.data.readers, caption_nb.data.toy')
def test_help_loads_no_torch(): assert 'torch' not in loaded_by('import caption_nb.app.cli')
