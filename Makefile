# Two commands: `make demo` (install, run every stage, name the report) and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
UV_VERSION := 0.13.9
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

.PHONY: demo test test-fast install check format bench ui lock real clean
.DEFAULT_GOAL := demo

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
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
	python -m pytest -m "not slow"

check: install
	ruff format --check .
	ruff check .
	mypy

format: install
	ruff format .
	ruff check --fix .

bench: install
	@for script in benchmarks/bench_*.py; do echo "== $$script"; python $$script || exit 1; done

ui: install
	@echo "http://127.0.0.1:5000"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} --host 127.0.0.1 --port 5000 --workers 1

# New pins after a change of pyproject.toml. No addresses in the file: only names, versions and hashes.
lock: install
	uv pip compile pyproject.toml --group dev --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --quiet -o requirements.lock

clean:
	rm -rf outputs data runs mlflow.db mlartifacts .locks
