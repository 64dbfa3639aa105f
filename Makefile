# What a person does with a checkout. `make` alone lists it.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The interpreter that the environment is made from: the first that is new enough.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; \
	done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Arguments for `run`, `test`, `test-long` and `bench`: make run ARGS="--prompt 'Hello'".
ARGS ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		awk -F '\t' '{ printf "  %-12s %s\n", $$1, $$2 }'

# --- environment --------------------------------------------------------------------------------
.PHONY: setup
setup: $(INSTALLED) ## make .venv and install everything; at once when nothing has changed

$(INSTALLED): requirements.lock requirements-pip.lock pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3"; \
		exit 1; }
	@"$(PYTHON)" scripts/setup.py $(VENV)
	@touch $@

.PHONY: lock
lock: ## pin newer releases of the dependencies (edits requirements*.lock)
	@"$(PYTHON)" scripts/lock.py --upgrade

# --- use ----------------------------------------------------------------------------------------
.PHONY: run
run: setup ## start a mesh of three nodes on this machine and ask it something
	@$(BIN)/meshslm demo $(ARGS)

# --- checks -------------------------------------------------------------------------------------
.PHONY: test
test: lint types floors ## all checks, then the tests
	@$(BIN)/pytest $(ARGS)

.PHONY: test-long
test-long: setup ## the tests that take minutes
	@$(BIN)/pytest -m long -o faulthandler_timeout=3600 $(ARGS)

.PHONY: lint
lint: setup ## style
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: setup ## types
	@$(BIN)/mypy

.PHONY: floors
floors: setup ## who may import whom
	@$(BIN)/lint-imports

.PHONY: format
format: setup ## lay the code out, and mend what can be mended by itself
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format

.PHONY: bench
bench: setup ## measure, and write docs/performance.md
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-engine
bench-engine: setup ## measure the engine alone, and llama.cpp's server if it is there (llama-server)
	@$(BIN)/python -m bench engine serving forms operations neighbour lifecycle $(ARGS)

.PHONY: llama-server
llama-server: ## compile llama.cpp's own server, for bench-engine; about 10 minutes, once
	@"$(PYTHON)" -m scripts.llama_server

.PHONY: bench-state
bench-state: setup ## measure shared documents and decisions: bytes, writes, restarts, new leaders
	@$(BIN)/python -m bench state consensus

.PHONY: bench-routing
bench-routing: setup ## measure choices, hops, recognised requests, placement, and answers that go on elsewhere
	@$(BIN)/python -m bench routing-decision hop routing-accuracy routing-cascade routing-placement routing-failover routing-failover-forms

.PHONY: bench-mesh
bench-mesh: setup ## measure how soon a mesh notices, simulated and as processes, and what it costs
	@$(BIN)/python -m bench mesh growth mesh-real bulk sim

# --- paperwork ----------------------------------------------------------------------------------
.PHONY: changelog
changelog: setup ## show what the next release would say
	@$(BIN)/towncrier build --draft

.PHONY: clean
clean: ## remove the environment and all caches (models and identities stay)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
