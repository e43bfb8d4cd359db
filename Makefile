# `make demo` shows the method, `make test` checks it; both install what they need into .venv first.
#
# On Linux the default wheels of torch bring CUDA along (2 GB). Without a GPU, point PIP_EXTRA_INDEX_URL at
# PyTorch's index of CPU wheels before the first `make`: the pinned version is the same.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: once, some two minutes and 2 GB"
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: install
	$(BIN)/mirage demo

test: lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv build dist demo .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -prune -exec rm -rf {} +
