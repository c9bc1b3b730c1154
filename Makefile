# Hematovision: every target makes .venv by itself. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?= ../shared/data
export PATH := $(CURDIR)/$(BIN):$(PATH)
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test chaos lint format bench bench-model bench-federation bench-portal screenshots clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv with everything the product and its tests need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Hematovision needs Python 3.11 or newer; set PYTHON=/path/to/python3") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setup: installing pinned packages (about two minutes the first time)"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25'
	@$(BIN)/python -m pip install --quiet torch==2.13.0 torchvision==0.28.0 --constraint constraints.txt
	@$(BIN)/python -m pip install --quiet --editable '.[server,node,dev]' --constraint constraints.txt
	@touch $@

# Debian's chromium drives the browser tests and screenshots; poppler renders report pages in tests.
browser: ## install Debian's chromium and poppler where they are missing
	@command -v chromium >/dev/null && command -v pdftoppm >/dev/null || \
	  { echo "setup: installing chromium and poppler-utils from Debian"; \
	    if [ "$$(id -u)" = 0 ]; then S=; else S=sudo; fi; \
	    $$S apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$S apt-get install -y -qq chromium poppler-utils fonts-dejavu-core >/dev/null; }

demo: setup ## run the whole platform on this machine: make demo ARGS="--data ../shared/data"
	@$(BIN)/hematovision-demo $(ARGS)

test: setup browser ## run every test (about 20 minutes on 2 cores)
	@$(BIN)/python -m tests.run $(ARGS)

chaos: setup ## kill every process of a federation in turn (about half an hour); build/kill-table.jsonl says what happened
	@mkdir -p build
	@HEMATOVISION_CHAOS=1 HEMATOVISION_KILL_TABLE=$(CURDIR)/build/kill-table.jsonl PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -m chaos tests/chaos $(ARGS)

lint: setup ## format check, ruff, mypy strict, import rules, templates
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy
	@$(BIN)/djlint --lint --quiet portal/templates

format: setup ## rewrite the files as lint wants them
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup ## measure the loop; writes build/demo/results.json
	@$(BIN)/python -m tests.bench.loop --data $(DATA) $(ARGS)

bench-federation: setup ## measure what learning together is worth and costs: make bench-federation ARGS=--quick (at most an hour on 2 cores; resumable)
	@$(BIN)/python -m tests.bench.federation.run --data $(DATA) $(ARGS)

bench-model: setup ## train and measure the classifier: make bench-model ARGS=--quick (at most 45 minutes on 2 cores; resumable)
	@$(BIN)/python -m tests.bench.model.run --data $(DATA) $(ARGS)

bench-portal: setup browser ## measure how fast the portal is: make bench-portal ARGS=--quick (about five minutes; a whole run takes 20)
	@$(BIN)/python -m tests.bench.portal.run $(ARGS)

screenshots: setup browser ## a picture of every page into build/screenshots
	@$(BIN)/python -m tests.browser.screenshots $(ARGS)

clean: ## remove what the other targets made
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
