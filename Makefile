# Everything runs in .venv, which the first target creates from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Puts the environment's commands first for the tests, the notebooks and JupyterLab.
ENV := PATH="$(CURDIR)/$(BIN):$$PATH"

CACHE := _build/.jupyter_cache
NOTEBOOKS := $(shell find book -name '*.ipynb' -not -path '*/.*' -not -path '*/_build/*')
# A page that forces its execution ignores the cache, and runs while the pages are built.
CACHED_APPENDICES := $(shell grep -L 'execution_mode: force' book/appendix-*.md)
LIBRARY := $(shell find sharnn -type f -not -path '*/__pycache__/*')

.DEFAULT_GOAL := help
.PHONY: help setup test check book bench gpu paper lab format sync modules lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready $(VENV)/.text ## create .venv with everything in requirements.lock, and fetch text for the book

$(VENV)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
	  echo "sharnn needs Python 3.11 to 3.14, and $(PYTHON) is another: try make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV): the first time takes a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -r requirements.lock
	@touch $@

# An isolated build would download a setuptools that is not pinned.
$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Once, whether it succeeds or not: without it the book uses generated text, and the command can be
# repeated by hand.
$(VENV)/.text: | $(VENV)/.ready
	@$(ENV) sharnn data enwiki2016 > /dev/null || true
	@touch $@

test: check book ## check everything, build the book, and run all tests, including slow ones
	@$(ENV) pytest -m "" --numprocesses 2 --dist loadfile

check: setup ## check lint, format and types, and that notebooks have no outputs
	@$(ENV) ruff check --quiet
	@$(ENV) ruff format --check --quiet
	@$(ENV) mypy
	@$(if $(NOTEBOOKS),$(ENV) nbstripout --verify --extra-keys metadata.language_info $(NOTEBOOKS))

# Chapters run in parallel, each on one thread, because threads that share a busy core wait for
# each other. The C library keeps freed memory, as in `sharnn train` (see
# sharnn.device.keep_freed_memory). The build runs a failed chapter again and shows its error.
# The pages share the weights of the model in _config.yml (see sharnn.web.book), and figures with
# controls are drawn for each of their positions (see sharnn.notebook.Knobs).
KERNEL := OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647 \
	SHARNN_SHARED_MODEL=wiki-small SHARNN_KNOBS=pictures
book: setup _build/.library _build/.results ## run the notebooks and build the pages, strictly
	@# Rebuild the list of notebooks: a deleted chapter would stop the run. Cached results are kept.
	@echo y | $(ENV) jcache notebook --cache-path $(CACHE) clear --force > /dev/null
	@$(ENV) jcache notebook --cache-path $(CACHE) add $(wildcard book/[0-9]*.ipynb) > /dev/null
	@$(ENV) jcache notebook --cache-path $(CACHE) add --reader myst_nb_md $(CACHED_APPENDICES) > /dev/null
	@$(ENV) $(KERNEL) jcache project --cache-path $(CACHE) execute --executor local-parallel --timeout 600
	@# Pages of files that were removed or renamed. The rest is up to date, and stays.
	@find _build/html -maxdepth 1 -name '*.html' 2> /dev/null | while read -r page; do \
	  name=$$(basename "$$page" .html); \
	  test "$$name" = genindex -o "$$name" = search -o -e "book/$$name.md" -o -e "book/$$name.ipynb" || \
	    rm -f "$$page" "_build/html/_sources/$$name".* "_build/.doctrees/$$name.doctree"; done
	@$(ENV) $(KERNEL) jupyter-book build book/ -W --keep-going
	@test -f _build/html/index.html || { echo "The build wrote no pages."; exit 1; }

# The cache of executed notebooks depends only on their cells, so a changed library or another corpus
# empties it.
_build/.library: $(LIBRARY) requirements.lock $(wildcard data/enwik8 data/enwiki2016)
	@rm -rf $(CACHE)
	@mkdir -p _build
	@touch $@

# These pages read results that neither Sphinx nor the cache of executed notebooks tracks.
RESULT_PAGES := benchmarks first-gpu ledger 21-since-2019
_build/.results: $(wildcard benchmarks/*.json benchmarks/*.jsonl benchmarks/*.py benchmarks/gpu/*.py)
	@rm -f $(RESULT_PAGES:%=_build/.doctrees/%.doctree)
	@# A cache without this chapter, for example of a clone that was moved, is dropped.
	@test ! -d $(CACHE) || \
	  $(ENV) jcache notebook --cache-path $(CACHE) invalidate book/21-since-2019.ipynb > /dev/null 2>&1 || \
	  rm -rf $(CACHE)
	@mkdir -p _build
	@touch $@

bench: setup ## run the benchmarks, 2 hours: make bench ARGS="--data FILE"; --quick for a trial
	@$(ENV) python -m benchmarks $(ARGS)

gpu: setup ## check and measure everything on a GPU, in 7 to 20 minutes; without one, a trial with tiny models
	@$(ENV) python -m benchmarks gpu $(ARGS)

paper: setup ## train the paper's model on enwik8 and score it; needs a GPU; resumes if interrupted
	@$(ENV) sharnn paper $(ARGS)

lab: setup ## open the notebooks in JupyterLab
	@$(ENV) jupyter lab

format: setup ## format the code and apply ruff's fixes
	@$(ENV) ruff check --fix
	@$(ENV) ruff format

# JupyterLab saves the name and version of its kernel, and other programs another order of keys:
# nbstripout sorts the keys, and the last line carries their order over to the .md halves.
sync: setup ## update both halves of each chapter; the newer half wins
	@$(if $(NOTEBOOKS),$(ENV) jupytext --quiet --sync \
	  --update-metadata '{"kernelspec": {"display_name": "Python 3"}}' $(NOTEBOOKS))
	@$(if $(NOTEBOOKS),$(ENV) nbstripout --extra-keys metadata.language_info $(NOTEBOOKS))
	@$(if $(NOTEBOOKS),$(ENV) jupytext --quiet --to md:myst $(NOTEBOOKS))

modules: setup ## update the table of modules in CONTRIBUTING.md
	@$(ENV) python -m tests.module_table --write

lock: ## write requirements.lock with the newest versions
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check uv
	@echo "# Written by make lock from pyproject.toml and requirements.in." > requirements.lock
	@# torch itself requires the exact CUDA packages it needs.
	@.venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	  --fork-strategy fewest --no-header --no-annotate --no-emit-index-url \
	  pyproject.toml requirements.in | grep -vE '^(nvidia-|cuda-|triton=)' >> requirements.lock
	@rm -rf .venv-lock

clean: ## remove the environment, the built pages and all caches
	rm -rf $(VENV) .venv-lock _build build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
