# `make demo` shows the method, `make test` checks it; both install what they need into .venv first.
#
# On Linux the default wheels of torch bring CUDA along (2 GB). Without a GPU, point PIP_EXTRA_INDEX_URL at
# PyTorch's index of CPU wheels before the first `make`: the pinned version is the same.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo explore test lint clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: once, some two minutes and 1.5 GB"
	$(PIP) --editable '.[explore]'
	@touch $@

.venv/installed-test: .venv/installed
	@echo "Installing what the tests need: once, a minute and 1 GB"
	$(PIP) --editable '.[test]'
	@touch $@

demo: install
	$(BIN)/mirage demo

explore: install
	$(BIN)/mirage explore

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv build dist demo .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -prune -exec rm -rf {} +
