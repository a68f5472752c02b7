# Two commands: `make demo` runs the whole flow on real images, `make test` runs the tests. `make test-all` runs those
# of the optional parts too (Ray, OpenVINO, SMAC, MLflow, traces): what `make test` skipped because a library was missing,
# and the demo whole, of which `make test` runs a smaller one. `make test-amlb` runs those with the AutoML benchmark.
PYTHON ?= python3
PIP = .venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all test-amlb check clean

demo: .venv/.demo
	.venv/bin/ripieno demo

test: .venv/.test
	scripts/test

test-all: test .venv/.all
	scripts/test --only-skipped --numprocesses 0  # one Ray cluster at a time
	.venv/bin/ripieno demo --run "$$(mktemp -d)/demo-run"

test-amlb: .venv/.test  # RIPIENO_AMLB=FOLDER make test-amlb
	scripts/test -m amlb --numprocesses 0 tests/integrations

check: .venv/.test
	scripts/check

# a stamp an extra: a second run reuses the environment, a changed pyproject or constraint brings it up to date
.venv/.%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing ripieno[$*] into .venv (a minute or two the first time)"
	$(PIP) --editable ".[$*]"
	@touch $@

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ripieno needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv demo-run
