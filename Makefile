# make demo | test | photos DATA=... | docs | lab | clean
# An active virtual environment is used as it is; otherwise .venv is made, once.
PYTHON ?= python3
VENV   := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
PY     := $(VENV)/bin/python
CAPNB  := $(VENV)/bin/capnb
STAMP  := $(VENV)/.caption_nb-installed

# real photographs and files for the tests that want them; those tests are skipped where it is not set
ifneq ($(wildcard ../shared/data),)
export CAPNB_SHARED ?= $(abspath ../shared)
endif
export PYTHONUTF8 = 1

DATA      ?=
BACKBONE  ?= $(wildcard $(DATA)/../mobilenet_v2/model.safetensors)
EXTRA     ?= $(wildcard $(DATA)/../flickr30k_text/trainval_captions.json)

.PHONY: demo test photos docs lab clean install
.DEFAULT_GOAL := demo

install: $(STAMP)

$(STAMP): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3,11))' || { echo "caption_nb needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(STAMP)
	$(CAPNB) run nbs/experiments/opg_xe.ipynb --params nbs/experiments/params/demo.yml --out reports/toy/opg/xe
	$(CAPNB) report reports/toy --images data/toy/pictures/A64-0

test: $(STAMP)
	$(PY) -m pyflakes caption_nb
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $${TEST_JOBS:-2} --dist loadfile

photos: $(STAMP)
	@test -n "$(DATA)" -a -n "$(BACKBONE)" || { echo "say where the photographs are, and the weights of a convolutional network that looks at them: make photos DATA=path/to/flickr8k BACKBONE=path/to/model.safetensors [EXTRA=captions.json]"; exit 2; }
	$(CAPNB) run nbs/experiments/opg_xe.ipynb --params nbs/experiments/params/photos.yml --out reports/photos/opg/xe \
	  -p data "$(DATA)" -p encoder "scales:224+352/4@$(BACKBONE)" -p extra_text "$(EXTRA)"
	$(CAPNB) run nbs/experiments/opg_consensus.ipynb -p run reports/photos/opg/xe -p show_pictures False -p neighbours 0 -p samples 48 -p beam_size 5 --out reports/photos/opg/mbr
	$(CAPNB) run nbs/experiments/opg_consensus.ipynb -p run reports/photos/opg/xe -p show_pictures False --out reports/photos/opg/consensus
	$(CAPNB) run nbs/experiments/opg_scst.ipynb --params nbs/experiments/params/scst_photos.yml -p run reports/photos/opg/xe --out reports/photos/opg/scst
	$(CAPNB) report reports/photos
	$(CAPNB) report reports/photos --images "$(DATA)/images" --out reports/photos/local --private

docs: $(STAMP)
	$(PY) tools/docs.py

lab: $(STAMP)
	$(VENV)/bin/jupyter lab nbs

clean:
	rm -rf _docs _proc build dist *.egg-info .pytest_cache reports/toy/*/*/state
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
