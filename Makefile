PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test slow-test style quality licences audit clean

quickstart: $(VENV)/.installed  ## train, measure and report a small model on synthetic music, without a download
	$(BIN)/python run_irmas.py recipes/quickstart.yaml

test: $(VENV)/.installed-tests  ## the fast test suite: no network, no GPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow-test: $(VENV)/.installed-tests  ## everything, the long tests too
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

style: $(VENV)/.installed-tests  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(VENV)/.installed-tests  ## fail where the code is not in the house style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

licences: $(VENV)/.installed  ## write docs/licences.md: the licence of every package that is installed
	$(BIN)/python docs/licences.py

audit: $(VENV)/.installed  ## ask PyPI for known vulnerabilities of the pinned versions (needs its JSON service)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.venv-audit/bin/pip-audit --requirement requirements.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) .venv-audit

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@
