# Two commands for a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each of two workers has one half of the files, so that what a file sets up is set up once; who is done takes from the other.
SPREAD := -n 2 --dist worksteal
# A file's tests stay with one worker, since they share what costs most. By groups they do not: pytest 9.2 hides xdist 3.8's groups from it.
# Files of many tests come first.
BY_FILE := -n 2 --dist loadfile
# Two targets at a time, where the one waits or keeps one core busy; what each said comes when it ends (make 4 and later).
BESIDE := --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# A worker that leaves no bytecode compiles the tests and the packages anew, and so does every process that it starts.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo learn finetune docs test grid check gpu-check setup lint clean fast units ranks slurm

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

docs: setup  ## the documentation as a site, into site/: no warning is let through (docs/site.md)
	NO_MKDOCS_2_WARNING=1 DS_ACCELERATOR=cpu $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

check: setup  ## the fast subset
	$(MAKE) $(BESIDE) lint fast

test: setup  ## everything
	$(MAKE) $(BESIDE) lint units
	$(MAKE) $(BESIDE) ranks slurm

fast: setup
	$(BIN)/python -m pytest -q -m "not slow and not real and not ranks and not slurm and not grid" $(SPREAD)

units: setup
	$(BIN)/python -m pytest -q -m "not ranks and not slurm and not grid" $(SPREAD)

ranks: setup
	$(BIN)/python -m pytest -q -m "ranks and not slurm and not grid" $(BY_FILE)

slurm: setup
	$(BIN)/python -m pytest -q -m "slurm"

grid: setup  ## all of the grids of which `make test` runs a diagonal (docs/style.md; its time was not measured)
	$(BIN)/python -m pytest -q -m grid

gpu-check: setup  ## all that only a GPU can show, under 8 minutes on one card; writes gpu-check.md (docs/performance.md)
	$(BIN)/python -m tests.gpu --out gpu-check.md

clean:
	rm -rf runs report site .pytest_cache .ruff_cache .mypy_cache .hypothesis
