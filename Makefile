# Strongroom. `make demo` shows the main job on real parts; `make test` passes the tests. Both install what they need (`make deps`).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
SUITE ?=
SIZE ?=
CONNS ?=
PEER ?= openbao
DURABILITY ?= d2
FORMAT ?= table

.PHONY: help demo test bench campaign fmt lint deps kryoptic build

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

deps: ## install what the system lacks (Debian; needs root only when something is missing)
	@scripts/deps

# The whole workspace with all targets, always: a smaller selection would build the large dependencies once more with other features.
build: deps
	$(CARGO) build --workspace --locked

demo: build ## the main job, end to end, narrated; exit 0 only when every step held
	target/debug/demo

test: build kryoptic ## every test, on real servers and tokens, and the campaigns in their short form
	$(CARGO) fmt --all --check
	$(CARGO) test --workspace --locked
	target/debug/campaign --short all

kryoptic: build ## the HSM suite on a second vendor's token, and a vault on both vendors'
	@hsm/kryoptic/test.sh

campaign: build ## whole campaigns: SUITE=kill|power|flip|rotate|soak|all
	target/debug/campaign $(or $(SUITE),all)

BENCH_PROFILE := $(if $(filter d0,$(DURABILITY)),--profile bench-no-audit --features strongroom-bench/bench-no-audit,--release)
BENCH_BIN := target/$(if $(filter d0,$(DURABILITY)),bench-no-audit,release)/strongroom-bench

bench: deps ## beside OpenBao and the limits: SUITE= SIZE= CONNS= PEER=openbao|none DURABILITY=d0|d1|d2 FORMAT=table|json
	$(CARGO) build $(BENCH_PROFILE) --locked --package strongroomd --package strongroom-bench
	$(BENCH_BIN) \
	  $(if $(SUITE),--suite $(SUITE)) $(if $(SIZE),--size $(SIZE)) $(if $(CONNS),--conns $(CONNS)) \
	  --peer $(PEER) --durability $(DURABILITY) --format $(FORMAT)

fmt: ## format the code
	$(CARGO) fmt --all

lint: ## formatting, clippy without mercy, licences and bans
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "cargo-deny is not installed: licences and bans were NOT checked"; fi
