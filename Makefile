# Every target says what it does as it runs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.NOTPARALLEL:

# What may be set on the command line, e.g. `make up PORT=9000`.
DATA ?= ./atoll-data#         the platform's state: database, logs, token
PORT ?= 8470#                 where `make up` listens, on the loopback address
PYTHON ?=#                    interpreter of the environment; empty: Debian's own, else the first that is new enough
PYTEST_ARGS ?= -n 2#          e.g. PYTEST_ARGS="tests/store -x"
BENCH_ARGS ?=#                e.g. BENCH_ARGS="submissions"

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:
SAY := @printf '==> %s\n'
# Python to check: folders that are there.
CODE := $(wildcard src tests scripts bench examples)

export PYTHON

.PHONY: help up install test lint format bench chaos demo-sites chaos-sites screenshots docs lock engines clean

help: ## list the targets
	@echo 'Atoll: make TARGET [NAME=value]'
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

up: $(VENV)/.server ## install what the platform needs and run it here: DATA=./atoll-data PORT=8470
	@scripts/how-to-try '$(strip $(DATA))' '$(strip $(PORT))'
	$(SAY) 'starting Atoll in the foreground; Ctrl-C stops it and leaves running jobs running'
	@exec $(BIN)/atoll up --data '$(strip $(DATA))' --port '$(strip $(PORT))'

install: $(VENV)/.dev ## the environment with everything that the checks need, in .venv

test: engines $(VENV)/.dev lint ## install all that is needed, check the code, run every test: PYTEST_ARGS=...
	$(SAY) 'tests'
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev ## ruff, mypy and the direction of imports
	$(SAY) 'ruff: style and likely bugs'
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check --diff $(CODE)
	$(SAY) 'mypy: types, strict'
	@$(BIN)/mypy $(filter-out examples,$(CODE))
	$(SAY) 'import-linter: imports run one way'
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## sort imports and lay the code out
	$(SAY) 'formatting'
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: engines $(VENV)/.dev ## the benchmarks: a table with medians: BENCH_ARGS=...
	$(SAY) 'benchmarks'
	@$(BIN)/python -m bench $(BENCH_ARGS)

chaos: engines $(VENV)/.dev ## kill, pause and cut off a running platform, at full size: PYTEST_ARGS=...
	$(SAY) 'chaos tests at full size; this takes a while'
	@$(BIN)/python -m pytest -m chaos --full-size --ignore=tests/chaos/test_sites.py $(PYTEST_ARGS)

demo-sites: engines $(VENV)/.dev ## 500 jobs over several real sites that come and go; a picture in demo-sites/
	$(SAY) 'several sites on this machine, and 500 jobs over all of them'
	@$(BIN)/python -m bench.demo_sites

chaos-sites: engines $(VENV)/.dev ## 30 minutes of random faults at real sites: PYTEST_ARGS=...
	$(SAY) 'random faults at sites, for 30 minutes'
	@$(BIN)/python -m pytest tests/chaos/test_sites.py --full-size -s $(PYTEST_ARGS)

screenshots: engines $(VENV)/.dev ## the README's pictures anew, of a demonstration, into docs/screenshots/
	$(SAY) 'four pictures of a demonstration into docs/screenshots/'
	@$(BIN)/python -m bench.screenshots

docs: $(VENV)/.dev ## the documentation as pages, in site/
	$(SAY) 'documentation into site/'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean
	@echo 'open site/index.html'

lock: ## pin the requirements again; LOCK_ARGS=--upgrade takes newer versions
	$(SAY) 'pinning requirements/*.txt'
	@scripts/lock $(LOCK_ARGS)

engines: ## the real engines that the tests run, by apt-get
	$(SAY) 'engines for the tests'
	@scripts/install-engines

clean: ## remove what the other targets made; the platform's data stays
	$(SAY) 'removing environments, caches and built pages'
	@rm -rf $(VENV) site dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests scripts $(wildcard bench examples) -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an environment is brought up to date when a list of requirements, or what the package says of itself, changes.
$(VENV)/.server: requirements/server.txt pyproject.toml scripts/make-venv
	$(SAY) 'installing what the platform needs into $(VENV) (pinned, with hashes)'
	@scripts/make-venv $(VENV)
	@$(PIP_INSTALL) -r requirements/server.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	$(SAY) 'installing what the checks need into $(VENV) (pinned, with hashes)'
	@$(PIP_INSTALL) -r requirements/dev.txt
	@touch $@
