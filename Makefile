# The commands of a user (compare, test) and of a contributor (setup, format). Everything is kept in .venv and .tools.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Thousands of real processes on a busy host: a test that fails is tried once more, and the summary names it as RERUN.
RETRY := --reruns 1 -rfEsxXwR
SETUP := pyproject.toml tools/bootstrap.py src/anyvirt/images/debian.py

.PHONY: help compare setup test test-all lint format clean

help:
	@echo "make compare    measure every engine that works here side by side"
	@echo "make test       lint, types and the test suite"
	@echo "make test-all   the same with the slow tests"
	@echo "make setup      a virtual environment with all the tools"
	@echo "make format     put the code into the project's format"
	@echo "make clean      remove everything that was made here"

compare: $(VENV)/.report
	$(BIN)/anyvirt compare

$(VENV)/.report: $(SETUP)
	$(PYTHON) tools/bootstrap.py $(VENV) report
	@touch $@

$(VENV)/.test: $(SETUP)
	$(PYTHON) tools/bootstrap.py $(VENV) test
	@touch $@ $(VENV)/.report

setup: $(VENV)/.test

test: setup lint
	$(PYTHON) tools/system_packages.py
	$(BIN)/pytest $(RETRY) -m "not slow"

test-all: setup lint
	$(PYTHON) tools/system_packages.py
	$(BIN)/pytest $(RETRY)

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .tools dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
