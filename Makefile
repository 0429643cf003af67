# The one entry point for people, hooks and CI. Every target does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GHZ_VERSION := v0.121.0
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_PIN ?= uv.txt
BUILD_PIN ?= build.txt
IMPORTED := .cache/protos
BREAKING_AGAINST ?= $(shell git rev-parse --verify --quiet main >/dev/null && echo main || echo origin/main)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup generate new-context recorded-events lint types imports check unit test test-long up observe dashboards demo trace bench bench-quick bench-against bench-expiry bench-growth bench-search bench-long-streams capacity load dist sbom audit-deps tools clean-data

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create the virtual environment with the locked dependencies; every other target does so too

$(READY): VERSION hatch_build.py hatch_protos.py pyproject.toml uv.lock uv.txt generated/pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) must be Python 3.11 or later; choose another one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: Python's venv module is missing (on Debian: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) with the locked dependencies"; $(PYTHON) -m venv $(VENV); }
	@cmp -s $(UV_PIN) $(VENV)/uv.txt || $(MAKE) --no-print-directory pinned-uv
	@$(BIN)/uv sync --locked --inexact --quiet --all-extras
	@touch $@

# Builds of uv from source, which would need hashes of their own, are not taken.
.PHONY: pinned-uv
pinned-uv:
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps --only-binary :all: \
	  --require-hashes -r $(UV_PIN) 2>$(VENV)/uv.log || { cat $(VENV)/uv.log; \
	  if grep -q 'DO NOT MATCH' $(VENV)/uv.log; then echo "make: uv was not installed: its hash is not in $(UV_PIN)"; \
	  else echo "make: uv was not installed: see above"; fi; exit 1; }
	@cp $(UV_PIN) $(VENV)/uv.txt

# Protos that ours import: Google's from their wheel, buf's from a source distribution pinned by hash.
$(IMPORTED)/.ready: $(READY) buf-validate.txt
	@rm -rf $(IMPORTED) && mkdir -p $(IMPORTED)/google/type .cache/sdist
	@cp $$($(BIN)/python -c 'import google.type as t; print(list(t.__path__)[0])')/money.proto $(IMPORTED)/google/type/
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary protovalidate --require-hashes \
	  -r buf-validate.txt -d .cache/sdist
	@tar -xzf .cache/sdist/protovalidate-*.tar.gz -C $(IMPORTED) --strip-components=3 --wildcards '*/upstream/proto/buf'
	@touch $@

GENERATE = $(BIN)/python -m operations.generate protos $(1) $(IMPORTED)

generate: $(IMPORTED)/.ready ## generate the stubs in generated/ and the tables of docs/access.md from protos/
	@find generated -name '*_pb2*' -delete
	$(call GENERATE,generated)
	@touch generated/diptych/py.typed
	@$(BIN)/python -m devstack.describe_access

new-context: $(IMPORTED)/.ready ## write a small bounded context to build on: make new-context NAME=loyalty AGGREGATE=member
	@test "$(origin NAME)$(origin AGGREGATE)" = "command linecommand line" \
	  || { echo "make: NAME or AGGREGATE is missing: make new-context NAME=loyalty AGGREGATE=member"; exit 1; }
	@$(BIN)/python -m operations.new_context "$$NAME" "$$AGGREGATE"
	@$(call GENERATE,generated)
	@$(BIN)/python -m devstack.describe_access
	@$(BIN)/python -m tests.support.builders.recorded_events

recorded-events: $(READY) ## write the recorded bytes of new events; renew the domain events of the others
	@$(BIN)/python -m tests.support.builders.recorded_events

lint: $(IMPORTED)/.ready ## run ruff, the word list, buf lint and breaking, and compare generated/ with protos/
	ruff check .
	ruff format --check .
	@$(BIN)/python -m devstack.check_words
	buf lint
	buf format --diff --exit-code protos
	@$(MAKE) --no-print-directory breaking generated-matches

.PHONY: breaking generated-matches
# buf reads only tracked files of a git branch, so the branch's protos are copied beside the imported ones.
breaking: $(IMPORTED)/.ready
	@git rev-parse --verify --quiet $(BREAKING_AGAINST):protos >/dev/null || { echo "buf breaking: no $(BREAKING_AGAINST) to compare with"; exit 0; }; \
	rm -rf .cache/before && mkdir -p .cache/before/.cache && cp -R $(IMPORTED) .cache/before/.cache/ \
	&& git archive $(BREAKING_AGAINST) protos buf.yaml | tar -x -C .cache/before \
	&& buf breaking --against .cache/before && echo "buf breaking: nothing breaks since $(BREAKING_AGAINST)"

generated-matches: $(IMPORTED)/.ready
	@find generated -depth -type d \( -name __pycache__ -exec rm -r {} \; -o -empty -delete \) # of removed packages
	@rm -rf .cache/generated && mkdir -p .cache/generated && $(call GENERATE,.cache/generated) \
	&& diff -r -q -x '*.toml' -x '*.md' -x py.typed -x __pycache__ -x '*.egg-info' .cache/generated generated \
	&& echo "generated/ matches protos/" || { echo "generated/ does not match protos/: run make generate"; exit 1; }

types: $(READY) ## run mypy --strict
	mypy

imports: $(READY) ## check the import contracts
	lint-imports

check: lint types imports ## run lint, types and imports

unit: $(READY) ## run the tests that need no servers, in seconds
	pytest -q tests/unit

# Four processes for two cores, because tests often wait for a server.
SPREAD := -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(READY) ## run the suite on real servers, in four processes
	pytest -q $(SPREAD)

test-long: $(IMPORTED)/.ready ## run more rounds, seeds and longer outages of the fault tests
	pytest -q $(SPREAD) -m long -o faulthandler_timeout=1200

up: $(READY) ## run the local stack until Ctrl-C; data stays in .diptych/; TLS=1 for certificates and TLS
	@exec $(BIN)/python devstack/child_exec.py $$PPID 15 - $(CURDIR)/$(BIN)/devstack up $(if $(TLS),--tls)

observe: $(READY) ## run the local stack with Prometheus, Alertmanager and a trace viewer until Ctrl-C
	@exec $(BIN)/python devstack/child_exec.py $$PPID 15 - $(CURDIR)/$(BIN)/devstack observe $(if $(TLS),--tls)

dashboards: $(READY) ## write the Grafana dashboards in deploy/observability/
	@$(BIN)/python -m deploy.observability.dashboards

demo: $(READY) ## show orders from placing to fulfilment on a stack of its own
	@exec $(BIN)/python -m devstack.demo $(if $(TLS),--tls)

trace: $(READY) ## print the trace of an order on a stack of its own (docs/traces.md)
	@exec $(BIN)/python -m tests.support.harness.traced_orders

bench-growth: $(READY) ## run the bench at 10,000 to 1,000,000 orders, and with a stream of a million events
	@$(BENCH) bench.growth

bench-expiry: $(READY) ## how long after its deadline a held seat is back; half a minute
	@exec $(BIN)/python -m bench.expiry

bench-search: $(READY) ## measure searches over 100,000 products, and others beside them; four minutes, needs Go
	@exec $(BIN)/python -m bench.search

bench-long-streams: $(READY) ## command streams of up to a million events that have to be folded; two minutes, needs Go
	@exec $(BIN)/python -m bench.long_streams

BENCH = $(BIN)/uv sync --locked --inexact --quiet --all-extras --group bench && exec $(BIN)/python -m

bench: $(READY) ## measure the system against ceilings of the same run; twenty minutes, needs Go
	@$(BENCH) bench

bench-quick: $(READY) ## measure the same with fewer and shorter rounds; five minutes, needs Go
	@$(BENCH) bench --quick

bench-against: $(READY) ## measure this version and another one in turns: make bench-against REV=v1.0; needs Go
	@test -n "$(REV)" || { echo "make: REV is missing: make bench-against REV=v1.0"; exit 1; }
	@$(BENCH) bench.against "$(REV)" $(GROUPS)

capacity: $(READY) ## measure the bytes that an order takes in each store
	@exec $(BIN)/python -m bench.capacity

SCENARIO ?= mixed
load: $(READY) ## run ghz against the local stack: make load SCENARIO=mixed DURATION=10s
	@exec $(BIN)/python -m bench.load_test "$(SCENARIO)" --duration "$(DURATION)"

DIST ?= dist
dist: $(IMPORTED)/.ready ## build the wheels of the stubs, the client and the servers in dist/
	@rm -f $(DIST)/diptych*.whl
	@$(BIN)/uv build --all-packages --wheel --quiet --out-dir $(DIST) \
	  --build-constraints $(BUILD_PIN) --require-hashes
	@ls $(DIST)/*.whl

sbom: $(READY) ## write the CycloneDX SBOM of a release in dist/
	@$(BIN)/python -m deploy.supply_chain.sbom $(DIST)/diptych-$$(cat VERSION).cdx.json

audit-deps: $(READY) ## look the locked dependencies up among known vulnerabilities: make audit-deps AUDIT="--ignore-vuln ID"
	@$(BIN)/python -m deploy.supply_chain.audit $(AUDIT)

include stubs/stubs.mk

tools: ## install ghz, for load tests; needs Go
	@command -v go >/dev/null || { echo "make: ghz needs Go 1.23 or later; install Go first"; exit 1; }
	GOBIN=$(CURDIR)/$(BIN) go install github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION)

clean-data: ## remove the local stack's data
	rm -rf .diptych
