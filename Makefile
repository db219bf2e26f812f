# make demo and make test start from nothing and are quick when nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED := $(VENV)/.installed

# Programs that a test starts, as COMMAND:APT-PACKAGE; one that is missing is installed by apt, and said so.
PROGRAMS := chromium:chromium redis-server:redis-server openssl:openssl

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak programs clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "zhiyin needs Python 3.11 or newer, and $(PYTHON) is %d.%d. Name another: make PYTHON=python3.11 ..." % v[:2])'
	@echo "installing into $(VENV): minutes the first time, seconds when requirements changed"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "  torch, the largest part"
	@$(PIP) torch
	@echo "  zhiyin and the rest"
	@$(PIP) -e '.[train,redis,scann,milvus,qdrant,s3,sign,sweep,dev]'
	@touch $@

demo: $(INSTALLED)  ## MovieLens-100K from log to HTTP answer, in a minute or two
	@$(BIN)/zhiyin demo

test: $(INSTALLED) programs  ## every test
	@$(BIN)/python -m pytest

check: $(INSTALLED)  ## format, lint, types, import layers, and that the docs are true
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/test_docs.py

format: $(INSTALLED)  ## let ruff write what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# index_tuning.py and trained_vectors.py go in steps, over hours: they say how themselves.
BENCHMARKS := $(filter-out $(addprefix benchmarks/,machine.py index_tuning.py trained_vectors.py),$(wildcard benchmarks/*.py))
bench: $(INSTALLED)  ## every benchmark; tables and JSON under benchmarks/results
	@for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

soak: $(INSTALLED)  ## kill publishing 440 times while a reader looks on; minutes
	$(BIN)/python benchmarks/soak/killed_publishes.py
	$(BIN)/python benchmarks/soak/killed_publishes.py --kills 40 --exporting

programs:
	@for one in $(PROGRAMS); do \
		command=$${one%%:*}; package=$${one##*:}; \
		if command -v $$command >/dev/null; then continue; fi; \
		if ! command -v apt-get >/dev/null; then \
			echo "the tests need $$command, which is not here: install it (Debian calls it $$package)" >&2; exit 1; \
		fi; \
		echo "the tests need $$command, which is not here: apt installs $$package"; \
		root=; test "$$(id -u)" = 0 || root=sudo; \
		$$root apt-get install -qq -y $$package >/dev/null 2>&1 || \
			{ $$root apt-get update -qq && $$root apt-get install -qq -y $$package >/dev/null; } || exit 1; \
	done

clean:  ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
