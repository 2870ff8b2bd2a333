# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-plain check clean

demo: $(VENV)/installed
	$(BIN)/python -m cns_jax.train --config=configs/mini.py

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m slow

# a small part with ordinary operations of JAX and flax alone
test-plain: $(VENV)/installed-test
	CNS_JAX_COMPUTE_OPS=plain $(BIN)/python -m pytest -q tests/engine/test_step_laws.py

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test test-plain

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; say which with PYTHON=, e.g. make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# the stamps are older than setup.py when requirements may have changed
$(VENV)/installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info
