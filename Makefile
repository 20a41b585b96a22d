# `make` lists what there is. Everything is installed into .venv, from requirements/*.lock with hashes; what the
# benchmarks compare with, into .venv-bench.
# Another interpreter: `make demo PYTHON=python3.13` (.venv is rebuilt when its Python version changes).

# Without PYTHON, an existing .venv keeps the interpreter that it was made with.
ifndef PYTHON
PYTHON := $(shell .venv/bin/python -c "" 2>/dev/null && echo .venv/bin/python || echo python3)
endif
VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])" 2>/dev/null)
BIN := .venv/bin

# Stamps: a step is repeated only when the files that it depends on have changed. They lie in .venv, so that removing
# it removes them; the first one carries the Python version, so that another version starts afresh.
MADE := .venv/.made-by-python-$(VERSION)
BASE := .venv/.base-installed
DEV := .venv/.dev-installed
BENCH_MADE := .venv-bench/.made-by-python-$(VERSION)
BENCH := .venv-bench/.bench-installed
# a worker for each core; the tests of one file share what they prepare
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BENCH_PYTHON := .venv-bench/bin/python
BENCH_PIP := $(BENCH_PYTHON) -m pip --disable-pip-version-check --quiet
QUICKLY := $(if $(filter yes,$(QUICK)),--quick)
comma := ,
A_LOOK := $(if $(filter yes,$(QUICK)),--networks 64-32-10 --rules sgd --batch 1$(comma)32$(comma)1024)
A_FEW := $(if $(filter yes,$(QUICK)),--rounds 1 --peers torch$(comma)sklearn)
LARGE_TORCH := $(if $(filter yes,$(LARGE)),--large)

# On CI a test that lacks one of these fails instead of being skipped. The CPU build of PyTorch that fits a test
# machine is for Python 3.11 only (scripts/install_torch.py).
REQUIRED_ON_CI := browser,ray$(if $(filter 3.11,$(VERSION)),$(shell printf ',')torch)
ifeq ($(CI),true)
BACKBEAT_REQUIRE ?= $(REQUIRED_ON_CI)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint types slow reliability bench browser torch lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(DEV) ## make .venv with all that running, testing and checking need

demo: $(BASE) ## compare cadences on the embedded handwritten digits
	$(BIN)/backbeat compare

test: $(DEV) ## run the tests
	$(PYTEST)

check: lint types browser torch ## all that CI runs: format, lint, types, tests, no slower updates
	BACKBEAT_REQUIRE="$(BACKBEAT_REQUIRE)" $(PYTEST)
	$(BIN)/python bench/guard.py

format: $(DEV) ## rewrite the files in the house format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: $(DEV) ## look at format and style, change nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV) ## check the types
	$(BIN)/pyright --pythonpath $(BIN)/python

slow: $(DEV) ## run the tests that the default run leaves out
	$(PYTEST) -m slow

reliability: $(DEV) ## kill, damage and starve runs, and write what came of it into docs/reliability.md
	$(BIN)/python scripts/reliability.py

bench: $(BENCH) ## measure against named peers on this machine: hours, goes on where it was cut off (QUICK=yes: a look)
	$(BENCH_PYTHON) bench/updates.py $(QUICKLY)
	$(BENCH_PYTHON) bench/against.py --out bench/results/against.jsonl $(A_LOOK)
	$(BENCH_PYTHON) bench/start.py $(A_FEW)
	$(BENCH_PYTHON) bench/target.py $(A_FEW) $(if $(A_FEW),--data digits)
ifneq ($(QUICK),yes)
	$(BENCH_PYTHON) bench/search.py
	$(BENCH_PYTHON) bench/growth.py
	$(BENCH_PYTHON) bench/sweep.py
	$(BENCH_PYTHON) bench/memory.py
	$(BENCH_PYTHON) bench/stream.py
	$(BENCH_PYTHON) bench/noise.py
	$(BENCH_PYTHON) bench/deterministic.py
	$(BENCH_PYTHON) bench/scale.py
	$(BENCH_PYTHON) bench/checkpoints.py
	$(BENCH_PYTHON) bench/watch.py --long
	$(BENCH_PYTHON) bench/follow.py
	$(BENCH_PYTHON) bench/advice.py
endif

browser: ## install Debian's chromium for the tests of the pages, where that is possible
	@sh scripts/install_chromium.sh

torch: $(DEV) ## install PyTorch for the tests of its adapter, where a CPU build is to be had (LARGE=yes: any build)
	@$(BIN)/python scripts/install_torch.py $(LARGE_TORCH)

# One resolution for every platform and Python version. No host name and no path gets into the files. Versions stay as
# they are where they still fit; `make lock UPGRADE=yes` takes the newest.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	$(if $(filter yes,$(UPGRADE)),--upgrade) pyproject.toml
COMPILE_ONNX := $(subst pyproject.toml,--group onnx --no-deps --constraints requirements/dev.lock,$(COMPILE))
COMPILE_BENCH := $(COMPILE) --group bench --constraints requirements/dev.lock --excludes requirements/bench.excludes
lock: $(DEV) ## write requirements/*.lock anew from pyproject.toml
	$(COMPILE) --group build --output-file requirements/base.lock
	$(COMPILE) --group dev --constraints requirements/base.lock --output-file requirements/dev.lock
	$(COMPILE_ONNX) --output-file requirements/onnx.lock
	$(COMPILE_BENCH) --output-file requirements/bench.lock

clean: ## remove .venv and everything else that is made
	rm -rf .venv .venv-bench build dist .pytest_cache .ruff_cache .hypothesis
	find src tests bench scripts -name __pycache__ -prune -exec rm -rf {} +

$(MADE) $(BENCH_MADE):
	@test -n "$(VERSION)" || { echo "$(PYTHON) was not found or does not run; name a Python of 3.11 or newer: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "$(PYTHON) is Python $(VERSION), and backbeat needs 3.11 or newer; name another: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	@touch $@

# --no-build-isolation: the build tool is in the lock too, so that nothing unlocked is fetched.
$(BASE): $(MADE) requirements/base.lock pyproject.toml
	$(PIP) install --require-hashes --requirement requirements/base.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(BASE) requirements/dev.lock requirements/onnx.lock
	$(PIP) install --require-hashes --requirement requirements/dev.lock
	$(PIP) install --require-hashes --no-deps --requirement requirements/onnx.lock
	@touch $@

# --no-deps: the lock is whole but for PyTorch and what only that needs, which are installed last.
$(BENCH): $(BENCH_MADE) requirements/bench.lock pyproject.toml scripts/install_torch.py
	$(BENCH_PIP) install --require-hashes --no-deps --requirement requirements/bench.lock
	$(BENCH_PIP) install --no-deps --no-build-isolation --editable .
	$(BENCH_PYTHON) scripts/install_torch.py $(LARGE_TORCH)
	@touch $@
