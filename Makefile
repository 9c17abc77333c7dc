# Two commands: `make demo` (install, run every stage, name the report) and `make test`.
# The first of these that starts and is of a version that the lock serves; PYTHON=/path/to/python takes another.
SERVED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c '$(SERVED)' 2> /dev/null && echo $$p && break; done)
VENV := .venv
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
PROFILE ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# One compute thread per process: stages and trials set their own count from params.yaml.
export OMP_NUM_THREADS := 1
# The libraries come without bytecode, and every process that may not keep it compiles them anew: half of its start.
unexport PYTHONDONTWRITEBYTECODE
# A copy without git, such as a zip: DVC is told so, in the configuration of this machine.
WITHOUT_GIT := test -e .git || git rev-parse --git-dir > /dev/null 2>&1 || test -e .dvc/config.local \
	|| printf '[core]\n    no_scm = true\n' > .dvc/config.local
WARM := import torch._dynamo, ray.tune, transformers.models.albert.modeling_albert, scipy.stats, matplotlib.figure; \
	from pipeline.attacks.library import import_textattack; import_textattack()

.PHONY: demo test test-fast test-cluster fuzz install check format nightly audit evidence bench ui tracking-server lock clean test-docs docs
.DEFAULT_GOAL := demo

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SERVED)' || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet uv==$(UV_VERSION)
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements.lock
	@touch $@
	@# Compiles what training and attacks import, on the other core, while data is prepared.
	@$(VENV)/bin/python -c "$(WARM)" > /dev/null 2>&1 &

demo: install
ifneq ($(PROFILE),)
	@python -m pipeline profile $(PROFILE)
endif
	@$(WITHOUT_GIT)
	dvc repro
	@echo "Report: $(CURDIR)/outputs/report/index.html"
	@echo "Runs:   make ui   (MLflow on http://127.0.0.1:5000)"

test: install
	python -m pytest

# Without what is marked slow: two minutes.
test-fast: install
	python -m pytest -m "not slow and not cluster"

# Clusters of several nodes, lost nodes and soaks: half an hour.
test-cluster: install
	python -m pytest -m cluster

# The guides' blocks, in a folder of a reader's own; those that train and those on a cluster too: minutes.
test-docs: install
	python -m pytest -m "" tests/test_guides.py tests/test_docs.py tests/test_written_commands.py tests/test_extending.py

check: install
	ruff format --check .
	ruff check .
	mypy
	actionlint .github/workflows/*.yml
	zizmor --offline --quiet .github
	hadolint Dockerfile

format: install
	ruff format .
	ruff check --fix .

# Wrong inputs by the thousand; a finding is a fault.
fuzz: install
	python -m tools.fuzz

# The pages of docs/ as a site in site/: a warning is an error, links are checked, nothing is fetched.
docs: install
	rm -rf site
	python -m sphinx --builder html --fail-on-warning --keep-going --quiet --doctree-dir site/.doctrees docs site
	python -m tools.check_site site
	@echo "Pages: $(CURDIR)/site/index.html"

# What the nightly workflow runs: takes what a DVC remote has, runs what changed, compares with docs/PROFILE-metrics.json.
nightly: install
	python -m tools.nightly $(or $(PROFILE),demo)

# Known vulnerabilities of the packages of the lock; asks PyPI about each.
audit: install
	uv tool run --quiet pip-audit==$(PIP_AUDIT_VERSION) --strict --disable-pip --require-hashes -r requirements.lock

# Draws the results of a profile again from its stored traces (docs/evidence/PROFILE), without a model.
evidence: install
	python -m tools.evidence $(PROFILE)

bench: install
	@for script in benchmarks/bench_*.py; do echo "== $$script"; python $$script || exit 1; done

UI_PORT ?= 5000
ui: install
	@python -m pipeline ui --port $(UI_PORT)

# MLflow for several folders and machines, such as ARGS="--postgres --artifacts s3://bucket/runs"; docs/tracking-server.md.
tracking-server: install
	python -m pipeline tracking-server $(ARGS)

# New pins after a change of pyproject.toml; UPGRADE=1 raises the others too. One version of a package for every Python
# (`fewest`). No addresses in the file: only names, versions, markers and hashes.
lock: install
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url --no-header --quiet $(if $(UPGRADE),--upgrade) -o requirements.lock

# What runs made; of data/ only what `prepare` made.
clean:
	@for manifest in data/*/manifest.json; do [ -f "$$manifest" ] && rm -rf "$$(dirname "$$manifest")"; done; true
	rm -rf outputs runs mlflow.db mlartifacts .locks
