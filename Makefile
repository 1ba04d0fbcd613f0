# `make` alone lists the targets. Everything is installed into .venv in this folder; nothing outside it is touched.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOCK := requirements/$(shell uname -s | tr A-Z a-z)-$(shell uname -m).txt
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# Test processes: one a core, at most four, since each of them imports torch; so each computes on one thread.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ "$$n" -lt 4 ] && echo "$$n" || echo 4)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-avx2 test-slow test-faults lint lock audit bench bench-full clean

help:  ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## install everything into .venv (2 to 5 minutes, 6.5 GB; a second time only what changed)

# The stamp comes last: whatever was interrupted is gone through again, and pip skips what is there.
$(STAMP): $(wildcard $(LOCK)) requirements/torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "seenet needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1); try: make setup PYTHON=python3.11" >&2; exit 1; }
	@[ -f $(LOCK) ] || { echo "there is no $(LOCK) for this machine; install by hand: pip install -e '.[dev]'" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@echo "[1/3] torch and torchvision (about 2 minutes)"
	@$(PIP) install -qq -r requirements/torch.txt
	@echo "[2/3] the packages of $(LOCK) (about 2 minutes)"
	@$(PIP) install -qq --require-hashes --no-deps --only-binary :all: -r $(LOCK)
	@echo "[3/3] seenet itself, editable"
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## set up, then pictures, training and a report in demo/ (3 to 8 minutes)
	@$(BIN)/seenet demo --out demo

test: lint  ## lint, then the quick tests
	@$(PYTEST) --dist loadfile -m "not slow"

# Kernels differ by processor: what passes with AVX-512 has failed without, and the other way round.
test-avx2: $(STAMP)  ## the tests of gradients and faster forms, as a processor with AVX2 alone computes
	@ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) --dist worksteal tests/model/fast tests/model/test_depthwise.py tests/training/test_precision.py

test-slow: $(STAMP)  ## the tests that take longer
	@$(PYTEST) --dist worksteal -m slow

test-faults: $(STAMP)  ## kills, full disks, hostile files by the hundred; goes on where it was stopped (ONLY=C TRIES=3 AGAIN=1 TABLE=1)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --only "$(ONLY)" $(if $(TRIES),--tries $(TRIES)) $(if $(AGAIN),--again) $(if $(TABLE),--table docs/faults)

lint: $(STAMP)  ## ruff, mypy, and the direction of imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

lock:  ## resolve pyproject.toml and requirements/*.in anew (UPGRADE=1: newest versions)
	@PYTHON=$(PYTHON) UPGRADE=$(UPGRADE) requirements/compile

audit: $(STAMP)  ## known vulnerabilities of what is locked
	@$(BIN)/python requirements/audit.py $(LOCK)

# Interrupted, either goes on where it was; the page is docs/performance.md.
bench: $(STAMP)  ## speed and memory beside DeepLabv3 and DeepLabv3+, every line with its bar (45 minutes, on an idle machine)
	@$(BIN)/python -m benchmarks.run --minutes 40
	@$(BIN)/python -m benchmarks.page

bench-full: $(STAMP)  ## the same with all sizes and runtimes, and growth (hours)
	@$(BIN)/python -m benchmarks.run --full
	@$(BIN)/python -m benchmarks.page

clean:  ## remove caches, build output and demo/ (the environment and runs stay)
	@rm -rf build dist demo src/*.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
