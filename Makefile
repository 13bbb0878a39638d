# The two commands that a newcomer needs are `make table2` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
# The lock holds the exact files for x86-64 Linux and Python 3.11, each with its sha256, and the
# project is installed beside them alone; elsewhere pip resolves the ranges.
LOCKED := $(shell $(PYTHON) -c "import platform as p, sys; \
  print('x86_64-Linux-3.11' == f'{p.machine()}-{p.system()}-{sys.version_info[0]}.{sys.version_info[1]}')")
ALONE := $(if $(filter True,$(LOCKED)),--no-deps)

.PHONY: table2 tables report test lint test-slurm test-kills reproduction docs bench bench-scale clean

# on a terminal bars of finished jobs; each job's own progress is in its log below results/
SNAKEMAKE = if [ -t 1 ]; then set -- --logger rich; fi; $(BIN)/snakemake --cores $(CORES)

table2: $(VENV)/installed
	@$(SNAKEMAKE) results/table2.csv "$$@"
	@cat results/table2.md

tables: $(VENV)/installed
	@$(SNAKEMAKE) "$$@"
	@cat results/table?.md

# one page with all tables and figures of the default preset, or of another:
# make report CONFIG=config/smoke.yaml
report: $(VENV)/installed
	@$(SNAKEMAKE) report $(if $(CONFIG),--configfile $(CONFIG)) --forcerun provenance \
	  --report report.html --report-after-run --report-stylesheet workflow/report/style.css "$$@"

test: lint
	$(BIN)/pytest -n auto --dist loadfile

# everything that reads the code without running it; the pre-commit hook calls this too
lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/lint-imports
	$(BIN)/mypy

# each stage's job killed a hundred times, at any moment; see docs/architecture.md
test-kills: $(VENV)/installed
	KILLS=100 $(BIN)/pytest -s tests/test_checkpoints.py -k killed_job

# the workflow through a real SLURM on this machine, as root on Debian or Ubuntu; else it is skipped
test-slurm: $(VENV)/installed
	$(BIN)/pytest -rs tests/slurm

# docs/reproduction's tables and figures again, from the scores that are committed there
reproduction: $(VENV)/installed
	$(BIN)/python scripts/reproduction.py build
	$(BIN)/python scripts/deviation.py draw

# the documentation as a website in site/; search wants a server: python -m http.server -d site.
# The variable silences a banner of the theme's, not a warning about this site.
docs: $(VENV)/installed-docs
	$(BIN)/python scripts/plugin_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(VENV)/installed
	$(BIN)/python benchmarks/bench.py

bench-scale: $(VENV)/installed
	$(BIN)/python benchmarks/scale.py

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(if $(ALONE),$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock)
	$(BIN)/pip install --quiet $(ALONE) --editable ".[test,slurm]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) results site report.html .snakemake .import_linter_cache
