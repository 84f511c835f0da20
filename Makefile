# Everything runs in .venv, which the first target makes from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Commands that the tests, notebooks and JupyterLab start are those of the environment.
ENV := PATH="$(CURDIR)/$(BIN):$$PATH"

CACHE := _build/.jupyter_cache
NOTEBOOKS := $(shell find book -name '*.ipynb' -not -path '*/.*' -not -path '*/_build/*')
LIBRARY := $(shell find sharnn -type f -not -path '*/__pycache__/*')

.DEFAULT_GOAL := help
.PHONY: help setup test check book bench paper lab format sync lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make .venv with everything in requirements.lock

$(VENV)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sharnn needs Python 3.11 or newer, and $(PYTHON) is not: try make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV): the first time takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -r requirements.lock
	@touch $@

# Isolated builds would fetch a setuptools that is not pinned.
$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

test: check book ## check everything, build the book, and run all tests, slow ones too
	@$(ENV) pytest -m "" --numprocesses 2 --dist loadfile

check: setup ## lint, format, types, notebooks without outputs
	@$(ENV) ruff check --quiet
	@$(ENV) ruff format --check --quiet
	@$(ENV) mypy
	@$(if $(NOTEBOOKS),$(ENV) nbstripout --verify $(NOTEBOOKS))

# Chapters run side by side, each on one thread: threads that share a busy core wait for each other.
# One that fails is run again by the build, which shows the error.
book: setup _build/.library _build/.results ## run the notebooks and build the pages, strictly
	@# Its list is made anew, since one that names a chapter that is gone would stop the run. Results stay.
	@echo y | $(ENV) jcache notebook --cache-path $(CACHE) clear --force > /dev/null
	@$(ENV) jcache notebook --cache-path $(CACHE) add $(wildcard book/[0-9]*.ipynb) > /dev/null
	@$(ENV) OMP_NUM_THREADS=1 jcache project --cache-path $(CACHE) execute --executor local-parallel --timeout 600
	@$(ENV) OMP_NUM_THREADS=1 jupyter-book build book/ -W --keep-going
	@test -f _build/html/index.html || { echo "The build made no pages."; exit 1; }

# The cache of executed notebooks knows their cells only, so a changed library empties it.
_build/.library: $(LIBRARY) requirements.lock
	@rm -rf $(CACHE)
	@mkdir -p _build
	@touch $@

# The page of the benchmarks reads a file that Sphinx doesn't know of.
_build/.results: benchmarks/results.json
	@rm -f _build/.doctrees/benchmarks.doctree
	@mkdir -p _build
	@touch $@

bench: setup ## measure this machine, 2 hours: make bench ARGS="--data FILE"; --quick tests it
	@$(ENV) python -m benchmarks $(ARGS)

paper: setup ## train the paper's model on enwik8 and score it; needs a GPU; goes on where it was cut
	@$(ENV) sharnn paper $(ARGS)

lab: setup ## open the notebooks in JupyterLab
	@$(ENV) jupyter lab

format: setup ## format the code and mend what ruff can
	@$(ENV) ruff check --fix
	@$(ENV) ruff format

sync: setup ## bring both halves of each chapter in line; the newer half wins
	@$(if $(NOTEBOOKS),$(ENV) jupytext --sync $(NOTEBOOKS))
	@$(if $(NOTEBOOKS),$(ENV) nbstripout $(NOTEBOOKS))

lock: ## choose the newest versions anew and write requirements.lock
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check uv
	@echo "# Written by make lock from pyproject.toml and requirements.in." > requirements.lock
	@# torch names its own exact CUDA packages where it needs them.
	@.venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	  --fork-strategy fewest --no-header --no-annotate --no-emit-index-url \
	  pyproject.toml requirements.in | grep -vE '^(nvidia-|cuda-|triton=)' >> requirements.lock
	@rm -rf .venv-lock

clean: ## remove what make made: environment, pages, caches
	rm -rf $(VENV) .venv-lock _build build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
