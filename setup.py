"Packaging: everything is read from settings.ini, the one place where it stands"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cp = ConfigParser(delimiters=['='])
cp.read('settings.ini', encoding='utf-8')
cfg = cp['DEFAULT']
def words(key): return cfg.get(key, '').split()

# the toy world's weights travel inside the package, where `models.weights` finds them: data/toy/clip becomes caption_nb/weights/toy/clip
toy = [p.as_posix() for p in sorted(Path('data', 'toy').glob('*')) if p.is_dir() and p.name!='pictures']
weights = {p.replace('data', 'caption_nb.weights', 1).replace('/', '.'):p for p in toy}

setup(name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], license='Apache-2.0',
      author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], keywords=words('keywords'),
      long_description=Path('README.md').read_text(encoding='utf-8') if Path('README.md').exists() else '',
      long_description_content_type='text/markdown',
      packages=find_packages(include=['caption_nb', 'caption_nb.*'])+list(weights), package_dir=weights, package_data={k:['*'] for k in weights},
      include_package_data=True, python_requires='>='+cfg['min_python'], install_requires=words('requirements'),
      extras_require=dict(dev=words('dev_requirements'), sacap=words('sacap_requirements'), faiss=words('faiss_requirements'), ray=words('ray_requirements')),
      entry_points=dict(console_scripts=words('console_scripts'),
                        nbdev=[f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]),
      zip_safe=False)
