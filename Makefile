# What people type: up, test, build, check, bench. Each sets up what it needs, inside the checkout.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV := .venv
PY := $(VENV)/bin/python
SITE ?= ./site
# Every tool keeps what it makes inside the checkout.
export PATH := $(CURDIR)/$(VENV)/node:$(PATH)
export CARGO_TARGET_DIR := $(CURDIR)/target
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
WEB_SOURCES := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print)
NATIVE := src/moim/_native.abi3.so
WEB := src/moim/portal/static/index.html

.PHONY: up build test check bench interop conformance fuzz format clean native help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: build ## set up what is missing, make a demo site in ./site, run it
	@exec $(VENV)/bin/moim up --site $(SITE) --demo

build: $(VENV)/ready $(NATIVE) $(WEB) ## set up everything that `make up` needs, without starting

$(VENV)/ready: requirements/run.txt requirements/node.txt scripts/setup pyproject.toml
	@scripts/setup run

$(NATIVE): $(VENV)/ready $(RUST_SOURCES)
	@echo "== building moim._native (Rust, release; several minutes the first time)"
	@$(VENV)/bin/maturin develop --release --locked --skip-install
	@touch $@

$(WEB): $(WEB_SOURCES)
	@echo "== building the web app"
	@cd web && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund; } && npm run build
	@touch $@

native: ## build moim._native again
	@rm -f $(NATIVE) && $(MAKE) $(NATIVE)

$(VENV)/ready-dev: $(VENV)/ready requirements/dev.txt
	@scripts/setup dev

$(VENV)/ready-test: $(VENV)/ready-dev scripts/setup
	@scripts/setup test

test: build $(VENV)/ready-test ## install what the tests need, then run all of them
	@scripts/test

check: build $(VENV)/ready-dev ## format, lint, types, import rules, clippy, stubs
	@scripts/check

interop: build $(VENV)/ready-test ## Prosody, ejabberd and clients on hosts of their own, in network namespaces (six minutes)
	@scripts/setup interop
	@$(PY) -m pytest -m lab tests/interop

conformance: build $(VENV)/ready-test ## conformance suites of others against Moim, Prosody and ejabberd (needs Java)
	@scripts/setup conformance
	@PYTHONPATH=.:tests:tests/support $(PY) -m interop.conformance

bench: build $(VENV)/ready-test ## Moim beside Prosody, ejabberd and coturn, measured in one run
	@$(PY) -m bench

TIME ?= 60
fuzz: build $(VENV)/ready-dev ## rubbish for everything that reads what strangers write, for TIME minutes (60)
	@scripts/fuzz $(TIME)

format: $(VENV)/ready-dev ## format Python, Rust and TypeScript
	@$(VENV)/bin/ruff check --fix src tests bench; $(VENV)/bin/ruff format src tests bench
	@cargo fmt --all

clean: ## remove what was built; the site stays
	rm -rf $(VENV) target web/node_modules src/moim/portal/static $(NATIVE)
