# `make demo` trains and measures, `make test` checks. All first make .venv from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

PYTEST := $(BIN)/python -m pytest
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo quick test test-all test-pythons bench torture fuzz lint format docs docs-quick wheel-check clean

demo: $(READY)
	$(BIN)/iwae train --dataset mnist --model iwae --k 5 --schedule quick --run-dir results/demo

# Under a minute on two free cores: what computes, and no process, page or download.
QUICK := tests/test_bounds.py tests/io tests/data/test_data_formats.py tests/data/test_data_own.py \
	tests/estimators/test_objective.py tests/models/test_distributions.py \
	tests/training/test_optim.py tests/cli/test_original.py
quick: $(READY)
	$(PYTEST) -n 2 --dist loadfile -m "not slow and not torture" $(QUICK)

test: $(READY)
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not torture"

test-all: $(READY)
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not torture"

# Half an hour: an environment for every Python that is there, with the newest and with the lowest releases.
test-pythons: $(READY)
	$(BIN)/python tests/pythons.py

# An hour or so on two free cores: processes are killed 200 times and more, disks fill up, permissions go.
torture: $(READY)
	$(PYTEST) -n 2 --dist load -m torture

# A quarter of an hour; rewrites the tables of docs/speed.md. PyTorch comes into an environment of its own.
bench: $(VENV)-bench/.installed
	$(VENV)-bench/bin/python -m benchmarks

$(VENV)-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	@echo "Installing PyTorch beside iwae into $(VENV)-bench ..."
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python $(PIP) -c constraints.txt -e . -r benchmarks/requirements.txt
	touch $@

# Ten minutes for each reader, one after the other: READERS="npz mat" for some, SECONDS=60 for less.
READERS ?= $$($(BIN)/python -c 'from fuzz.readers import READERS; print(*READERS)')
SECONDS ?= 600
fuzz: $(READY)
	$(BIN)/python $(PIP) -r fuzz/requirements.txt
	for reader in $(READERS); do $(BIN)/python -m fuzz $$reader -max_total_time=$(SECONDS) || exit 1; done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation into site/: `docs` executes the notebooks, `docs-quick` does not.
docs: $(VENV)-docs/.installed
	DOCS_EXECUTE=true $(VENV)-docs/bin/mkdocs build --strict

docs-quick: $(VENV)-docs/.installed
	$(VENV)-docs/bin/mkdocs build --strict

$(VENV)-docs/.installed: pyproject.toml constraints.txt docs/requirements.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python $(PIP) -c constraints.txt -r docs/requirements.txt -e ".[report]"
	touch $@

# Builds the wheel, installs it without any extra into an environment of its own, and works with it elsewhere.
wheel-check: $(READY)
	$(PYTEST) -m slow tests/test_wheel.py

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-docs site dist

$(READY): pyproject.toml constraints.txt
	@echo "Installing pinned versions into $(VENV) (a minute or two) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e ".[dev]"
	touch $@
