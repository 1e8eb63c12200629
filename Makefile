# One command per wish. A clone, Python 3.11 to 3.13 and make are enough: everything else is installed into .venv.
#
#   make run      train on the embedded sample        make lint     style, types and import rules
#   make test     check everything                    make bench    measure, beside what is compared
#   make install  prepare .venv only                  make docs     build the site, execute its code blocks
#   make clean    remove what was built               make help     print these lines
#
# PYTHON=python3.12      another interpreter for .venv
# RUN_ARGS="--seed 1"    more flags of `trainkit run`
# TEST_ARGS="-k resume"  more flags of pytest
# WORKERS=4              test processes (default: one per core)

PYTHON ?= python3
WORKERS ?= auto
RUN_ARGS ?=
TEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# The marks of what is done. They lie in .venv, so that removing it is enough to start again.
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
DOCUMENTED := $(VENV)/.documented
PLUGINS := $(patsubst %/pyproject.toml,%,$(sort $(wildcard plugins/*/*/pyproject.toml)))
PROJECTS := core/pyproject.toml cli/pyproject.toml $(PLUGINS:=/pyproject.toml) pyproject.toml
# A plugin that went away leaves no newer file behind: compare with the folders of the last installation.
BEFORE := $(shell cat $(INSTALLED) 2>/dev/null)
GONE := $(filter-out $(PLUGINS),$(BEFORE))
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -n $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install run test lint bench docs clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

$(CREATED):
	@command -v $(PYTHON) >/dev/null || { echo "make: no '$(PYTHON)' found; name a Python 3.11 to 3.13, as in: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "make: trainkit needs Python 3.11 to 3.13 and '$(PYTHON)' is $$($(PYTHON) --version 2>&1); name another, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "make: creating $(VENV) ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# The build tools come first, because --no-build-isolation lets the editable builds use the pinned ones.
$(INSTALLED): $(CREATED) constraints.txt $(PROJECTS) $(if $(GONE),FORCE)
	@echo "make: installing trainkit with $(words $(PLUGINS)) plugins; the first time this loads PyTorch and takes minutes"
	@$(if $(GONE),$(PIP) uninstall --yes $(subst /,-,$(patsubst plugins/%,trainkit-%,$(GONE))))
	@$(PIP) install --constraint constraints.txt hatchling editables
	@$(PIP) install --constraint constraints.txt --no-build-isolation torch==2.13.0 \
		$(foreach folder,core cli $(PLUGINS),--editable $(folder)) --editable '.[test]'
	@echo "$(PLUGINS)" > $@

FORCE:

install: $(INSTALLED)

run: install
	@$(BIN)/trainkit run $(RUN_ARGS)

lint: install
	@echo "make: style (ruff)"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "make: 'make format' would lay these files out" >&2; exit 1; }
	@echo "make: types (mypy --strict on core and cli)"
	@$(BIN)/mypy
	@echo "make: import contracts (import-linter)"
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tests/test_rules.py

.PHONY: format
format: install
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format .

test: lint
	@echo "make: tests (pytest)"
	@$(PYTEST) $(TEST_ARGS)

$(DOCUMENTED): $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[docs]'
	@touch $@

docs: install $(DOCUMENTED)
	@echo "make: building the site (mkdocs)"
	@$(BIN)/python docs/generate.py check
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "make: executing the code blocks of README and docs"
	@$(PYTEST) -m docs $(TEST_ARGS)

bench: install
	@for file in tests/benchmarks/bench_*.py; do echo "make: $$file"; $(BIN)/python "$$file" || exit 1; done

clean:
	@rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "make: removed .venv, caches and built files; runs/ is kept"
