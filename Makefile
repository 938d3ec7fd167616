# Everything that is run by hand or in continuous integration. Needs Python 3.11 or newer and make.
#
#   make demo      install what the demo needs and run it
#   make test      lint, types and the quick tests (minutes)
#   make test-all  rule mutation, then every test, slow ones included
#   make bench     timings against other systems, one thread
#   make docs      run every example of the documentation
#   make gpu       the checks that need a GPU
#   make clean     remove the environment, builds and caches
#
# Variables: PYTHON (interpreter), TORCH (what `make bench` compares with), WORKERS (test processes).

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
TORCH ?= torch==2.13.0
WORKERS ?= 2

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11; do \
    $$p -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)

# The CuPy extra that fits the driver, empty without one.
DRIVER = $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[A-Za-z ]* Version: *\([0-9]*\)\..*/\1/p')
CUDA = $(if $(filter 12,$(DRIVER)),$(comma)cuda12,$(if $(filter 13 14,$(DRIVER)),$(comma)cuda13))
comma := ,

.PHONY: demo test test-all bench docs gpu clean

# One thread each: two test processes with two BLAS threads each would only get in their own way.
test test-all bench docs: export OMP_NUM_THREADS := 1
test test-all bench docs: export OPENBLAS_NUM_THREADS := 1
test test-all bench docs: export MKL_NUM_THREADS := 1

demo: $(VENV)/stamp-demo
	$(PY) -m gpujac demo

test: $(VENV)/stamp-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PY) -m pytest -q -n $(WORKERS) -m "not slow"

# pytest comes last, so that its closing line ends the output.
test-all: $(VENV)/stamp-test
	$(PY) -m tests.mutation
	$(PY) -m pytest -q -n $(WORKERS) --hypothesis-profile=long

bench: $(VENV)/stamp-bench
	$(PY) -m profiling.bench

docs: $(VENV)/stamp-docs
	$(PY) docs/how_it_works.py
	$(PY) -m pytest -q --doctest-glob='*.md' docs README.md

gpu: $(VENV)/stamp-demo
	@$(PY) -c 'import cupy; cupy.cuda.runtime.getDevice()' 2>/dev/null \
	    || { echo 'make gpu: no CuPy or no CUDA device here, so nothing was checked.'; exit 1; }
	@test -f profiling/gpu.py \
	    || { echo 'make gpu: the tests on CuPy are not written yet, so nothing was checked.'; exit 1; }
	$(PY) -m profiling.gpu

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/stamp-python:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	    echo "make: gpujac needs Python 3.11 or newer; found $$($(or $(PYTHON),python3) -V 2>&1)." \
	         "Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/stamp-demo: $(VENV)/stamp-python pyproject.toml
	$(PIP) --editable '.[plot$(CUDA)]'
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-python pyproject.toml
	$(PIP) --editable '.[test,plot]'
	@touch $@

$(VENV)/stamp-docs: $(VENV)/stamp-python pyproject.toml
	$(PIP) --editable '.[docs]'
	@touch $@

# torch first and alone: the pin also takes a CPU build (2.13.0+cpu) where pip knows of one. pip's
# default wheel on Linux brings several GB of CUDA libraries, which no table here needs.
$(VENV)/stamp-bench: $(VENV)/stamp-python pyproject.toml
	$(PY) -c 'import torch' 2>/dev/null || $(PIP) '$(TORCH)'
	$(PIP) --editable '.[test,bench]'
	@touch $@
