# Every target works from a fresh clone: each one sets up first what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The Python 3.11 that makes the virtual environment; the second choice is for a pyenv shim that knows no 3.11.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo /usr/bin/python3.11)
PYTEST_ARGS ?=
# Processes that share the test files out among them; each has a lab of its own (2.5 GB of memory), as many tests wait for servers.
TEST_WORKERS ?= 2
BENCH_ARGS ?=
# Thousands of small queries, none twice: what the optimizing compiler makes of them is thrown away before it has paid.
TEST_TRINO_JVM_OPTIONS := -XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC -XX:MetaspaceSize=256M

WORKERS := $(if $(filter-out 1,$(TEST_WORKERS)),-n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder)

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# Named after the lock's content: another lock, or a sync that did not finish, and `make setup` syncs again.
SYNCED := $(VENV)/.synced-$(shell sha256sum requirements.lock | cut -c1-16)
SYNCING := $(VENV)/.syncing
# `lab up` looks again, so an emptied cache is no reason to look at every `make`.
FETCHED := $(VENV)/.fetched-$(shell cat lab/config.py lab/artifacts.py tools/system-packages | sha256sum | cut -c1-16)
INSTALLER := $(VENV)/.uv
COMPILE := pip compile requirements.txt requirements-dev.txt --generate-hashes --python-version 3.11 \
  --python-platform linux --custom-compile-command "make lock" --quiet

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

##@ The two commands that most people need
.PHONY: demo
demo: lab-up ## Set up, start the lab and run the DAGs once against it; the lab stays up
	$(BIN)/python -m lab demo

.PHONY: demo-migration
demo-migration: lab-up ## Move two tables into DynamoDB and Redis under traffic that never stops, with killed workers; fails if anything is lost
	$(BIN)/python -m lab migration

.PHONY: test
test: setup lint ## Set up, lint and run every test; starts the lab and stops it again if it was not up (TEST_WORKERS=1: one after the other)
	LABS=$(TEST_WORKERS) LAB_TRINO_JVM_OPTIONS='$(TEST_TRINO_JVM_OPTIONS)' tools/with-lab $(BIN)/python $(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

##@ Setting up
.PHONY: setup
setup: $(SYNCED) $(FETCHED) ## Install what is missing: Debian packages, .venv from requirements.lock, the lab's servers
	@:

# Made anew when its interpreter does not run, or when a sync was broken off: that may have left half a package behind.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && [ ! -e $(SYNCING) ] && echo sound),sound)
.PHONY: $(INSTALLER) $(SYNCED)
endif
$(INSTALLER):
	tools/system-packages $(PYTHON)
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("PYTHON=$(PYTHON) is Python " + sys.version.split()[0] + "; dbops needs 3.11: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	@awk '/^[a-z]/ {wanted = /^uv==/} wanted' requirements.lock >$(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@touch $@

$(SYNCED): $(INSTALLER)
	@touch $(SYNCING)
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@rm -f $(SYNCING) $(VENV)/.synced-*
	@touch $@

$(FETCHED): $(SYNCED)
	tools/system-packages $(PYTHON)
	$(BIN)/python -m lab setup
	@rm -f $(VENV)/.fetched-*
	@touch $@

.PHONY: clean
clean: ## Stop the lab and remove everything generated in the tree (downloads stay in the cache)
	if [ -x $(BIN)/python ]; then $(BIN)/python -m lab down; fi
	rm -rf .lab .airflow $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ The lab
.PHONY: lab-up
lab-up: setup ## Start the lab: MySQL 5.7 and 8.0, DynamoDB, Redis, Trino, simulated AWS; harmless when it is up
	$(BIN)/python -m lab up

.PHONY: lab-down
lab-down: $(SYNCED) ## Stop the lab; leaves no process behind
	$(BIN)/python -m lab down

.PHONY: lab-status
lab-status: $(SYNCED) ## Show the lab's services, ports and health
	$(BIN)/python -m lab status

##@ Working on the code
.PHONY: test-unit
test-unit: $(SYNCED) ## Run the tests that need no lab
	$(BIN)/python -m pytest -m "not lab" $(PYTEST_ARGS)

.PHONY: lint
lint: $(SYNCED) ## Check style, types, the doors between the rooms, forbidden words and docs/dags.md; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=plugins $(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_tree.py
	$(BIN)/python tools/dag_docs.py --check
	$(BIN)/python tools/spec_docs.py --check

.PHONY: format
format: $(SYNCED) ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: bench
bench: setup ## Measure side by side; starts the lab and stops it again if it was not up (BENCH_ARGS=...)
	tools/with-lab $(BIN)/python $(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: bench-tools
bench-tools: setup ## Only s3_archive against pt-archiver
	tools/with-lab $(BIN)/python $(BIN)/python -m bench archive $(BENCH_ARGS)

.PHONY: bench-readers
bench-readers: setup ## Only the ways to read a MySQL table
	tools/with-lab $(BIN)/python $(BIN)/python -m bench readers $(BENCH_ARGS)

.PHONY: bench-inventory
bench-inventory: setup ## Only the slow log reader against pt-query-digest, and the parser
	tools/with-lab $(BIN)/python $(BIN)/python -m bench inventory $(BENCH_ARGS)

.PHONY: bench-switchovers
bench-switchovers: setup ## Only the measured downtime of switchovers against the true one
	tools/with-lab $(BIN)/python $(BIN)/python -m bench switchovers $(BENCH_ARGS)

.PHONY: bench-backfill-redis
bench-backfill-redis: setup ## Only the backfill's writes to Redis against redis-benchmark
	tools/with-lab $(BIN)/python $(BIN)/python -m bench backfill-redis $(BENCH_ARGS)

.PHONY: bench-backfill
bench-backfill: setup ## Only the backfill's copy against conditional PutItems and against batch_writer
	tools/with-lab $(BIN)/python $(BIN)/python -m bench backfill $(BENCH_ARGS)

.PHONY: bench-scaling
bench-scaling: setup ## Only what the steps of a backfill cost, and what follows for many rows and tasks
	tools/with-lab $(BIN)/python $(BIN)/python -m bench scaling $(BENCH_ARGS)

.PHONY: bench-imports
bench-imports: $(SYNCED) ## Only the import time of the DAG files; needs no lab
	$(BIN)/python -m bench dag-import $(BENCH_ARGS)

.PHONY: docs
docs: $(SYNCED) ## Write docs/dags.md from the DAGs' doc_md, and what the code declares into docs/*.md
	$(BIN)/python tools/dag_docs.py
	$(BIN)/python tools/spec_docs.py

.PHONY: lock
lock: $(INSTALLER) ## Resolve requirements*.txt into requirements.lock, keeping the versions that still fit
	$(UV) $(COMPILE) --output-file requirements.lock

.PHONY: lock-check
lock-check: $(INSTALLER) ## Fail when requirements.lock does not follow from requirements*.txt (asks the package index)
	@cp requirements.lock $(VENV)/lock-check.txt
	@$(UV) $(COMPILE) --output-file $(VENV)/lock-check.txt
	@diff -u requirements.lock $(VENV)/lock-check.txt || { echo "requirements.lock is out of date: run make lock"; exit 1; }
