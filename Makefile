# make book       render the book into _build/html (makes .venv first)
# make test       all that must hold before a commit: lint, unit tests, chapters, a strict build
# make lint       style, types of the core, spelling
# make unit       the fast unit tests
# make test-ui    the pages in a browser (Chromium) and the judge's server, in an environment of their own
# make fuzz       ten thousand random and damaged LoRA files
# make format     bring the code into its format
# make bench      time the merge at the size of SDXL
# make notebooks  write the .ipynb siblings of the chapters
# make ledger     write the values of a run into the ledger: make ledger SCALE=smoke CHAPTERS=02
# make cover      draw the cover
# make artefacts  make everything in data/ that is missing or out of date: hours; see data/README.md
# make clean      remove what was built; .venv stays

PYTHON ?= python3
SCALE ?= shoebox
CHAPTERS ?=
ARTEFACTS ?=

# In an environment of one's own (conda, an open venv): make book VENV=none
VENV ?= .venv
ifeq ($(VENV),none)
BIN :=
READY :=
else
BIN := $(VENV)/bin/
READY := $(VENV)/.installed
endif

.PHONY: book test lint unit chapters test-ui fuzz format bench notebooks ledger cover artefacts clean

# Small models gain nothing from a second thread, and two threads beside a busy core lose much: tests are two
# processes of one thread each.
ALONE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
TOGETHER := -n 2 --dist loadgroup

book: $(READY)
	$(BIN)python -m lorarar.cli book build --scale $(SCALE)

# pytest executes every chapter at scale smoke, once; the strict build renders those very runs.
test: lint
	$(ALONE) $(BIN)python -m pytest $(TOGETHER)
	$(BIN)python -m lorarar.cli book build --scale smoke --strict

chapters: $(READY)
	$(ALONE) $(BIN)python -m pytest $(TOGETHER) -m chapter
	$(BIN)python -m lorarar.cli book build --scale smoke --strict

lint: $(READY)
	$(BIN)python -m ruff check
	$(BIN)python -m ruff format --check
	$(BIN)python -m mypy
	$(BIN)python -m codespell_lib

unit: $(READY)
	$(ALONE) $(BIN)python -m pytest $(TOGETHER) -m "not chapter and not slow"

# Gradio wants older versions than the pinned ones, so that it stands apart.
test-ui:
	$(PYTHON) -m venv .venv-ui
	.venv-ui/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-ui.txt \
	    -e '.[test-ui]'
	$(ALONE) .venv-ui/bin/python -m pytest tests/test_ui.py tests/test_people_page.py tests/test_served.py \
	    tests/test_comfyui.py

fuzz: $(READY)
	$(BIN)python tests/fuzz.py

format: $(READY)
	$(BIN)python -m ruff check --fix
	$(BIN)python -m ruff format

bench: $(READY)
	$(BIN)python -m lorarar.cli bench

notebooks: $(READY)
	$(BIN)python -m lorarar.cli book notebooks

ledger: $(READY)
	$(BIN)python -m lorarar.cli book ledger --scale $(SCALE) $(CHAPTERS)

cover: $(READY)
	$(BIN)python -m lorarar.cli book cover

# For example: make artefacts ARTEFACTS="zoo -n", or ARTEFACTS="--config scale=sdxl gpus=1".
artefacts: $(READY)
	$(BIN)python -m snakemake -s data/Snakefile --cores all --rerun-incomplete $(ARTEFACTS)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"lorarar needs Python 3.11 to 3.13, not {v[0]}.{v[1]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]'
	touch $@

clean:
	rm -rf _build .jupyter_cache
