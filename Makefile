# Everything that is run by hand or in continuous integration. Needs Python 3.11 or newer and make.
#
#   make demo      install what the demo needs and run it
#   make test      lint, types and the quick tests (minutes)
#   make test-all  rule mutation, then every test, slow ones included
#   make bench     timings against other systems, one thread
#   make docs      run every example of the documentation
#   make gpu       what needs a GPU: tests, kernels, timings beside others, in 9 minutes; DRY=1: without one
#   make gpu-suite SHARD=1/4   a quarter of all tests on the GPU
#   make clean     remove the environment, builds and caches
#
# Variables: PYTHON (interpreter), TORCH (what `make bench` compares with), WORKERS (test processes);
# for make gpu: WHEELS (a folder of wheels to use), OUT (where results go), BUDGET (seconds), GPU_WORKERS
# (test processes), COMMIT (of a copy without history).

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
TORCH ?= torch==2.13.0
WORKERS ?= 2

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11; do \
    $$p -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)

# The CuPy extra that fits the driver, empty without one. The driver's library is asked first, since
# nvidia-smi is missing in many containers.
DRIVER = $(shell $(PYTHON) -I gpujac/backends/driver.py 2>/dev/null | grep . || \
    nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[A-Za-z ]* Version: *\([0-9]*\)\..*/\1/p')
CUDA = $(if $(filter 12,$(DRIVER)),cuda12,$(if $(filter 13 14 15,$(DRIVER)),cuda13))
CUPY = $(or $(CUDA),emulated)# one CuPy only: two of them would overwrite each other's files
DEMO := $(VENV)/stamp-demo$(if $(CUDA),-$(CUDA))
comma := ,

.PHONY: demo test test-all bench docs gpu gpu-suite clean

# One thread each: two test processes with two BLAS threads each would only get in their own way.
test test-all bench docs: export OMP_NUM_THREADS := 1
test test-all bench docs: export OPENBLAS_NUM_THREADS := 1
test test-all bench docs: export MKL_NUM_THREADS := 1

demo: $(DEMO)
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

# Nothing is fetched from a network here. The Python is PYTHON or the environment above, whichever has
# CuPy and the rest; with WHEELS=dir, PYTHON plus the wheels of that folder, unpacked into build/.
gpu:
	@$(gpu_python); $$run -m profiling.gpu $(if $(DRY),--dry) $(if $(OUT),--out '$(OUT)') \
	    $(if $(BUDGET),--budget $(BUDGET)) $(if $(GPU_WORKERS),--workers $(GPU_WORKERS))

gpu-suite:
	@$(if $(SHARD),,echo 'make gpu-suite: say which part, as in SHARD=1/4' >&2; exit 2)
	@$(gpu_python); $$run -m profiling.gpu_tests --shard $(SHARD) $(if $(DRY),--dry) \
	    $(if $(OUT),--out '$(OUT)') $(if $(GPU_WORKERS),--workers $(GPU_WORKERS))

GPU_SITE := build/gpu-site
GPU_NEEDS := cupy, optree, nvtx, tqdm, opt_einsum, array_api_compat, array_api_strict, hypothesis, pytest, scipy
export COMMIT

# Sets $$run to the Python command that has everything, or ends with the cure.
define gpu_python
set -e; run=; path=; \
if [ -n '$(WHEELS)' ]; then \
    ls '$(WHEELS)'/*.whl >/dev/null 2>&1 || { echo 'make: WHEELS=$(WHEELS) holds no .whl files' >&2; exit 2; }; \
    rm -rf $(GPU_SITE); \
    $(PYTHON) -m pip --disable-pip-version-check install --quiet --no-index --no-deps --no-compile \
        --no-cache-dir --target $(GPU_SITE) '$(WHEELS)'/*.whl; \
    path='$(CURDIR)/$(GPU_SITE):'; \
fi; \
export PYTHONPATH="$$path$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"; \
for p in '$(PYTHON)' $(PY); do \
    if $$p -c 'import $(GPU_NEEDS)' 2>/dev/null; then run=$$p; break; fi; \
done; \
[ -n "$$run" ] || { \
    why=$$('$(PYTHON)' -c 'import $(GPU_NEEDS)' 2>&1 | tail -n 1); \
    echo "make: no Python here has all that this needs ($(PYTHON): $$why)." \
         'Install it, name another (PYTHON=...), or give a folder of wheels (WHEELS=dir).' >&2; exit 2; }
endef

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/stamp-python:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	    echo "make: gpujac needs Python 3.11 or newer; found $$($(or $(PYTHON),python3) -V 2>&1)." \
	         "Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO): $(VENV)/stamp-python pyproject.toml
	@echo '$(if $(CUDA),an NVIDIA driver that runs CUDA $(DRIVER): CuPy comes along,$(if $(DRIVER),the NVIDIA \
	driver is too old for CuPy: NumPy alone,no NVIDIA driver found: NumPy alone))'
	$(PIP) --editable '.[plot$(if $(CUDA),$(comma)$(CUDA))]'
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-python pyproject.toml
	$(PIP) --editable '.[test,plot,$(CUPY)]'
	@touch $@

$(VENV)/stamp-docs: $(VENV)/stamp-python pyproject.toml
	$(PIP) --editable '.[docs,$(CUPY)]'
	@touch $@

# torch first and alone: the pin also takes a CPU build (2.13.0+cpu) where pip knows of one. pip's
# default wheel on Linux brings several GB of CUDA libraries, which no table here needs.
$(VENV)/stamp-bench: $(VENV)/stamp-python pyproject.toml
	$(PY) -c 'import torch' 2>/dev/null || $(PIP) '$(TORCH)'
	$(PIP) --editable '.[test,bench,$(CUPY)]'
	@touch $@
