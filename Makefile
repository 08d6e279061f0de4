# One command each: `make report`, `make test`, `make lab`, `make sample`. The first of them sets up .venv; `make clean` removes it.
# The first of these that is there, or uv's.
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell python$(version) -c 'import sys; print(sys.executable)' 2>/dev/null)) $(shell uv python find '>=3.11,<3.14' 2>/dev/null))
DATA ?= shop
OUT ?= reports/default
PARAMS ?=

BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL := 3
export TF_ENABLE_ONEDNN_OPTS := 0
# What Python compiles is kept, or every process of the tests would rewrite all of their asserts anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: report test lint lab sample extras pins clean

report: .venv/ready
	$(BIN)/shelfspace report --data "$(DATA)" --out "$(OUT)" $(foreach p,$(PARAMS),-p "$(p)")

# Two processes, each of which takes a file of tests at a time, in the order of tests/conftest.py.
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --cov=shelfspace --cov-report=term:skip-covered --cov-fail-under=90

# Ruff's checks and format, as pyproject.toml sets them; `.venv/bin/ruff format` mends the latter.
lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Opens the start page, rendered, beside the list of notebooks.
lab: .venv/ready
	@mkdir -p .venv/share/jupyter/lab/settings
	@cp notebooks/lab-settings.json .venv/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/README.md

# Render the report of the default shop anew, into reports/sample/, with its screenshots (needs chromium).
sample: .venv/ready
	$(BIN)/shelfspace report
	$(BIN)/python reports/sample/make.py reports/default

# Set up once, and again only when a pin or the package's own metadata changed.
.venv/ready: requirements.txt pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "Shelfspace needs Python 3.11, 3.12 or 3.13; say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# What the extras need as well: Airflow, Spark, matrix factorisation (about 1 GB). `make test` then tests these, too.
extras: .venv/extras
.venv/extras: requirements-all.txt .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-all.txt
	touch $@

# Resolve the pins anew from pyproject.toml (needs uv): one resolution of all extras, and of it what the report and its tests
# need. The files name no package host.
COMPILE = uv pip compile pyproject.toml --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
  --no-emit-find-links --quiet
pins:
	$(COMPILE) --all-extras --output-file requirements-all.txt
	$(COMPILE) --extra test --constraints requirements-all.txt --output-file requirements.txt
	sed -i.bak -E "s/^(tensorflow)-cpu==([0-9.]+).*/\1-cpu==\2 ; platform_machine == 'x86_64' and sys_platform != 'darwin'\n\1==\2 ; platform_machine != 'x86_64' or sys_platform == 'darwin'/" requirements*.txt
	rm requirements*.txt.bak

clean:
	rm -rf .venv
