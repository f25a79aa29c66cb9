# Two commands do everything on a fresh machine: `make run` and `make test`. Each works first, and alone.

PYTHON ?= python3
BIN := .venv/bin
RUNTIME := .venv/.installed
DEV := .venv/.installed-dev
PYTEST := $(BIN)/python -m pytest --timeout 300
INTEROP_PYTHON := .venv-interop/bin/python
INTEROP := .venv-interop/.installed
TORCH ?= 2.8.0
OTHER_PYTHON := .venv-torch-$(TORCH)/bin/python
OTHER := .venv-torch-$(TORCH)/.installed
OTHER_TESTS := $(addprefix tests/pipeline/test_,gradients.py peak_memory.py ranks.py recording.py probe.py torch_versions.py) tests/workload/test_user_model.py
EMULATED_PYTHON := .venv-emulated/bin/python
EMULATED_INSTALLED := .venv-emulated/.installed
EMULATED := .venv-emulated/.built

# constraints.txt also holds for the build backend, which pip installs apart; newer versions of pip read the second name.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all check bench fuzz guide pictures test-gpu test-torch test-emulated interop dist clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-13s %s\n", $$1, $$2 }'

setup: $(DEV)  ## make .venv and install autotune with what the tests need

run: $(RUNTIME)  ## tune 48 layers in 4 stages on whatever is here; writes report.json
	$(BIN)/autotune run --layers 48 --stages 4

# Tests that compare times run first, one by one; the others, whole files at a time, in WORKERS processes beside each other:
# in more than there are cores where none is slow, because many of these wait.
WORKERS ?= 2
define run_tests
	failed=0; \
	$(PYTEST) tests -m "alone$(1)" || failed=1; \
	$(PYTEST) tests -m "not alone$(1)" -n $(WORKERS) --dist loadfile --no-loadscope-reorder || failed=1; \
	exit $$failed
endef

test: WORKERS = 3
test: $(DEV)  ## run the tests but the slow ones; those that need a GPU are skipped where there is none
	$(call run_tests, and not slow)

test-all: $(DEV)  ## run all tests: also whole runs over several hosts, in launchers, killed, and with faults
	$(call run_tests)

check: $(DEV)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict autotune

bench: $(DEV)  ## model and search against published figures, waiting ranks, real runs
	$(BIN)/python -m tests.bench

fuzz: $(DEV)  ## 100,000 files that are wrong in some way, for the parsers of all that is read
	$(BIN)/python -m tests.fuzz

guide: $(DEV)  ## make the guide's pages on options, schemas and exit codes again, from the code
	$(BIN)/python -m tests.guide.reference

pictures: $(DEV)  ## make the pictures in the README again, from a real run
	$(BIN)/python -m tests.pictures

test-gpu: $(DEV)  ## only the tests that need a GPU
	$(PYTEST) tests/gpu -rs

test-torch: $(OTHER)  ## pipelines, gradients and memory under another torch: make test-torch TORCH=2.8.0; up to 7 GB
	$(OTHER_PYTHON) -m pytest --timeout 600 $(OTHER_TESTS)

test-emulated: $(EMULATED)  ## the CUDA path on emulated GPUs: needs g++ and 6 GB, most of it torch's CUDA build
	$(EMULATED_PYTHON) -m pytest --timeout 900 tests/emulated

interop: $(INTEROP)  ## read what autotune export writes with the launchers' own code
	$(INTEROP_PYTHON) -m pytest --timeout 300 -rs tests/interop

dist: $(DEV)  ## build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

clean:  ## remove .venv and all other .venv-*, caches and what runs have written here
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis dist .autotune report.json report.html profile.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and at its exact version, so that nothing else can make pip look for another build of it.
$(RUNTIME): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(DEV): $(RUNTIME)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

# Launchers pin versions that contradict each other and the runtime's, and some ask for gigabytes that only a GPU needs:
# they have an environment of their own, in which each is installed with no more than its own reading of settings takes.
$(INTEROP): pyproject.toml constraints.txt tests/interop/requirements.txt
	$(PYTHON) -m venv .venv-interop
	$(INTEROP_PYTHON) -m pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(INTEROP_PYTHON) -m pip install --quiet -e '.[dev]'
	$(INTEROP_PYTHON) -m pip install --quiet --no-deps -r tests/interop/requirements.txt
	$(INTEROP_PYTHON) -m pip install --quiet --no-deps --target .venv-interop/torchtitan-0.2 torchtitan==0.2.2
	touch $@

# Another version of torch decides what it needs of other packages: the constraints do not hold for those. Where pip is
# offered no CPU build of that version, this is a CUDA build, of several gigabytes.
$(OTHER): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-torch-$(TORCH)
	grep -vE '^(torch|sympy|setuptools|networkx|fsspec|filelock)==' constraints.txt > .venv-torch-$(TORCH)/constraints.txt
	env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT $(OTHER_PYTHON) -m pip install --quiet --no-cache-dir torch==$(TORCH)
	env -u PIP_BUILD_CONSTRAINT PIP_CONSTRAINT=.venv-torch-$(TORCH)/constraints.txt $(OTHER_PYTHON) -m pip install --quiet -e . pytest pytest-timeout hypothesis
	touch $@

# torch's CUDA build of the same version. A configuration of pip may offer the CPU build, which would win: none is read.
# nvidia-cuda-crt, nvidia-cuda-cccl: headers that those of torch and of the CUDA runtime include.
$(EMULATED_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-emulated
	env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
		$(EMULATED_PYTHON) -m pip install --quiet --no-cache-dir torch==$$(sed -n 's/^torch==//p' constraints.txt) 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*'
	$(EMULATED_PYTHON) -m pip install --quiet -e '.[dev]'
	touch $@

$(EMULATED): $(EMULATED_INSTALLED) $(wildcard tests/emulated/cuda/* tests/emulated/plugin/*) tests/emulated/build.py
	$(EMULATED_PYTHON) -m tests.emulated.build
	touch $@
