# Two commands for a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each of two workers has one half of the files, so that what a file sets up is set up once; who is done takes from the other.
SPREAD := -n 2 --dist worksteal
# A file's tests stay with one worker, since they share what costs most. By groups they do not: pytest 9.2 hides xdist 3.8's groups from it.
# Files of many tests come first; Slurm's in the order of their names, by which the long ones are not the last.
BY_FILE := -n 2 --dist loadfile

# A worker that leaves no bytecode compiles the tests and the packages anew, and so does every process that it starts.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo learn finetune test grid check setup lint clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

setup: $(VENV)/.ready

demo: setup  ## pre-train gimp on the built-in demo cohort
	. $(BIN)/activate && deepspeed launch/pretrain.py --method gimp

learn: setup  ## every method that is pre-trained against its random start: three demo runs each, then probes (four minutes a method, or more)
	$(BIN)/python launch/learn.py

finetune: setup  ## pre-train mgi on the demo cohort, fine-tune it and its random start on two tasks, compare (docs/finetune.md)
	. $(BIN)/activate && deepspeed launch/pretrain.py --method mgi out=runs/mgi
	. $(BIN)/activate && python launch/sweep.py configs/sweep/demo.yaml --out runs/demo
	. $(BIN)/activate && python launch/compare.py runs/demo --out report

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

check: lint  ## the fast subset
	$(BIN)/python -m pytest -q -m "not slow and not real and not ranks and not slurm and not grid" $(SPREAD)

test: lint  ## everything
	$(BIN)/python -m pytest -q -m "not ranks and not slurm and not grid" $(SPREAD)
	$(BIN)/python -m pytest -q -m "ranks and not slurm and not grid" $(BY_FILE)
	$(BIN)/python -m pytest -q -m "slurm" $(BY_FILE) --no-loadscope-reorder

grid: setup  ## all of the grids of which `make test` runs a diagonal (docs/style.md; its time was not measured)
	$(BIN)/python -m pytest -q -m grid

clean:
	rm -rf runs report .pytest_cache .ruff_cache .mypy_cache .hypothesis
