# The two commands that a newcomer needs are `make table2` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
# The lock holds exact versions for x86-64 Linux and Python 3.11; elsewhere pip resolves the ranges.
LOCKED := $(shell $(PYTHON) -c "import platform as p, sys; \
  print('x86_64-Linux-3.11' == f'{p.machine()}-{p.system()}-{sys.version_info[0]}.{sys.version_info[1]}')")
REQUIREMENTS := $(if $(filter True,$(LOCKED)),-r requirements.lock,)

.PHONY: table2 tables test test-kills lint clean

# on a terminal bars of finished jobs; each job's own progress is in its log below results/
SNAKEMAKE = if [ -t 1 ]; then set -- --logger rich; fi; $(BIN)/snakemake --cores $(CORES)

table2: $(VENV)/installed
	@$(SNAKEMAKE) results/table2.csv "$$@"
	@cat results/table2.md

tables: $(VENV)/installed
	@$(SNAKEMAKE) "$$@"
	@cat results/table?.md

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/pytest

# each stage's job killed a hundred times, at any moment; see docs/architecture.md
test-kills: $(VENV)/installed
	KILLS=100 $(BIN)/pytest -s tests/test_checkpoints.py -k killed_job

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(REQUIREMENTS) --editable ".[test,slurm]"
	touch $@

clean:
	rm -rf $(VENV) results .snakemake
