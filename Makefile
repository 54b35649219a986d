PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Further options of pip install. For a CPU-only torch both torch and torchaudio must come from PyTorch's own index, since
# torchaudio from the package index needs CUDA's libraries (not tried by the project's tests):
#   make quickstart PIP_OPTIONS="--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple"
PIP_OPTIONS ?=
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_OPTIONS)

.PHONY: quickstart test slow-test style quality lock licences audit clean

quickstart: $(VENV)/.installed  ## train, measure and report a small model on synthetic music, without a download of data
	@echo "Training a small AST on synthesised music and measuring it: about a minute and a half on two cores."
	$(BIN)/irmas quickstart

test: $(VENV)/.installed-tests  ## the fast test suite: no network, no GPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow-test: $(VENV)/.installed-tests  ## every test, the long ones too
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

style: $(VENV)/.installed-tests  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(VENV)/.installed-tests  ## fail where the code is not in the house style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lock: pyproject.toml requirements.txt  ## renew requirements.lock: the exact versions of everything that is installed
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --disable-pip-version-check pip-tools==7.6.2
	.venv-lock/bin/pip-compile --quiet --extra catalogue --extra onnx --extra test --strip-extras --allow-unsafe --no-emit-find-links \
		--no-emit-index-url --output-file requirements.lock pyproject.toml
	rm -rf .venv-lock

licences: $(VENV)/.installed  ## write docs/licences.md: the licence of every installed package
	$(BIN)/python docs/licences.py

audit:  ## ask PyPI for known vulnerabilities of the locked versions (needs its JSON service)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.venv-audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

clean:  ## remove the environments
	rm -rf $(VENV) .venv-lock .venv-audit

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing $$(grep -c '==' requirements.lock) packages into $(VENV): about 6 GB, most of it CUDA libraries, and about two minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP_INSTALL) --requirement requirements.lock
	$(PIP_INSTALL) --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	touch $@
