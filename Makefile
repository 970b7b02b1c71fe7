# make demo    set everything up and run the main job on the embedded model, offline once the packages are in
# make test    set everything up and run the tests
# make check   ruff, mypy --strict, import contracts, tests
# make test-all  the slow tests too; their table of trials goes into docs/reliability.md
# make bench   every benchmark, peers measured in the same run
#
# Each target makes the environment it needs once; a second run installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PEERS := $(VENV)-peers

.PHONY: demo test test-all check lint types contracts bench clean
.DEFAULT_GOAL := test

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sightline needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What a user gets from `pip install 'sightline[train]'`.
$(VENV)/.train: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --quiet --constraint constraints.txt --editable '.[train]'
	@touch $@

# Everything the tests, the linters and the reports need on top.
$(VENV)/.dev: $(VENV)/.train
	$(PIP) install --quiet --quiet --constraint constraints.txt --editable '.[train,gold,report,query,dev]'
	@touch $@

# Rivals and parsers that the benchmarks compare with, in an environment of their own.
$(PEERS)/.made: $(VENV)/.dev benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --quiet --requirement benchmarks/peers.txt --editable '.[train,gold,report,query]'
	@touch $@

demo: $(VENV)/.train
	$(BIN)/sightline demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --reliability docs/reliability.md $(ARGS)

check: lint types contracts test

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

bench: $(PEERS)/.made
	$(PEERS)/bin/python benchmarks/run_all.py $(ARGS)

clean:
	rm -rf $(VENV) $(PEERS) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
