# `make demo` trains and measures, `make test` checks. Both first make .venv from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test test-all bench torture fuzz lint format clean

demo: $(READY)
	$(BIN)/iwae train --dataset mnist --model iwae --k 5 --schedule quick --run-dir results/demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not torture"

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not torture"

# An hour or so on two free cores: processes are killed 200 times and more, disks fill up, permissions go.
torture: $(READY)
	$(BIN)/python -m pytest -n 2 --dist load -m torture

# A quarter of an hour; rewrites the tables of docs/speed.md. PyTorch comes into an environment of its own.
bench: $(VENV)-bench/.installed
	$(VENV)-bench/bin/python -m benchmarks

$(VENV)-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	@echo "Installing PyTorch beside iwae into $(VENV)-bench ..."
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r benchmarks/requirements.txt
	touch $@

# Ten minutes for each reader, one after the other: READERS="npz mat" for some, SECONDS=60 for less.
READERS ?= $$($(BIN)/python -c 'from fuzz.readers import READERS; print(*READERS)')
SECONDS ?= 600
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r fuzz/requirements.txt
	for reader in $(READERS); do $(BIN)/python -m fuzz $$reader -max_total_time=$(SECONDS) || exit 1; done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-bench

$(READY): pyproject.toml constraints.txt
	@echo "Installing pinned versions into $(VENV) (a minute or two) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
