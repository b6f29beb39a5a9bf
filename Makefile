# What there is to do with Millstream's source. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEBUG := $(TARGET_DIR)/debug
WASM := wasm32-wasip2

# Every crate that becomes a component: the examples, and the plugins of tests and benchmark. What the
# benchmark builds of others is none, and not of this workspace.
PLUGIN_MANIFESTS := $(filter-out tests/bench/contenders/%,$(shell grep -ls '"cdylib"' plugins/*/Cargo.toml tests/*/*/Cargo.toml tests/*/*/*/Cargo.toml))
PLUGINS := $(foreach manifest,$(PLUGIN_MANIFESTS),-p $(shell sed -n '/^name *=/{s/^name *= *"\(.*\)".*/\1/p;q}' $(manifest)))

# The benchmark's events, how often each contender runs, which of them on which workloads, delays at
# which rates instead, and under which name the figures are kept:
# `make bench EVENTS=500000 RUNS=1`, `make bench WORKLOADS=q0,fan-out CONTENDERS=bound,millstream`,
# `make bench RATES=100,5000,half`, `make bench RECORD=laptop`.
EVENTS ?= 2000000
RUNS ?= 3
WORKLOADS ?=
CONTENDERS ?=
RATES ?=
RECORD ?=
# Of growth alone: which factors, all without it: `make growth FACTORS=partitions,lanes`.
FACTORS ?=
# Deploys under load on each broker and guarantee: `make deploys DEPLOYS=20`.
DEPLOYS ?= 100
# Seeds of the simulation: `make sim SEEDS=100000`.
SEEDS ?= 20000
# Executions of each target that is fuzzed: `make fuzz EXECUTIONS=100000`.
EXECUTIONS ?= 1000000
# Rounds of faults on a cluster, their seed, and one guarantee instead of all:
# `make faults ROUNDS=10 SEED=7 DELIVERY=exactly-once`.
ROUNDS ?=
SEED ?=
DELIVERY ?=
# How long a soak lasts: `make soak MINUTES=5`.
MINUTES ?= 30

.PHONY: help setup plugins build run test counts sim fuzz faults soak lint style bench growth waiting profile deploys wall clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

setup: ## check for the tools that are needed, and fetch the wasm target where it is missing
	@for tool in $(CARGO) rustup cc; do \
	  command -v $$tool >/dev/null || { \
	    echo "error: '$$tool' is missing. Needed are rustup (https://rustup.rs), a C compiler and make." >&2; exit 1; }; \
	done
	@rustup target list --installed | grep -qx $(WASM) || rustup target add $(WASM)

plugins: setup ## build the example plugins, and those of the tests, as components
	@test -n "$(PLUGINS)" || { echo "error: no plugin found below plugins/" >&2; exit 1; }
	$(CARGO) build --profile plugin --target $(WASM) $(PLUGINS)

build: setup ## build the runtime, for debugging
	$(CARGO) build --workspace --bin millstream

run: build plugins ## real events through two plugins on the embedded broker; needs nothing else
	@MILLSTREAM_BIN=$(DEBUG)/millstream bash config/quickstart.sh

lint: style ## formatting, dependencies, clippy for the host and for the plugins' target
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(if $(PLUGINS),$(CARGO) clippy --profile plugin --target $(WASM) $(PLUGINS) -- -D warnings)

style: setup
	$(CARGO) fmt --all --check
	@if $(CARGO) deny --version >/dev/null 2>&1; \
	then $(CARGO) deny check bans licenses sources; \
	else echo "*** LEFT OUT: cargo-deny is not installed; deny.toml was not checked" >&2; fi

# Clippy is the compiler here, as `cargo clippy` calls it: a check of its own would compile every
# dependency a second time, which takes a third of the whole.
test counts: export RUSTC_WORKSPACE_WRAPPER := clippy-driver
test counts: export CLIPPY_ARGS := -D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__

# The binary is built together with the tests: on its own it would be built from dependencies with
# other features, a second time.
test: style plugins ## every lint and test; those against a real Kafka where Java 17 and Maven are present
	$(CARGO) build --workspace --bins --tests
	MILLSTREAM_BIN=$(DEBUG)/millstream $(DEBUG)/kafka-for-tests $(CARGO) test --workspace

# `--workspace` everywhere: a package alone is built from dependencies with other features, anew.
counts: setup ## how many instructions an event costs, compared; COST_RECORD=1 records them anew
	$(CARGO) test --workspace --test counts

sim: setup ## more seeds of the simulation (SEEDS=)
	SEEDS=$(SEEDS) $(CARGO) test --workspace --test seeds

# Optimized, with the checks of a debug build: an overflow is a find.
fuzz: export CARGO_PROFILE_DEV_OPT_LEVEL := 3
fuzz: setup ## what comes from outside, mutated, a million times each (EXECUTIONS=)
	FUZZ_EXECUTIONS=$(EXECUTIONS) $(CARGO) test --workspace --test fuzz -- --nocapture --test-threads 1

faults: plugins ## the long tests of faults, on the embedded broker and on Kafka (ROUNDS=, SEED=, DELIVERY=)
	$(CARGO) build --workspace --bins --tests
	MILLSTREAM_BIN=$(DEBUG)/millstream $(CARGO) test --workspace --test kill -- --ignored
	FAULT_ROUNDS=$(ROUNDS) FAULT_SEED=$(SEED) FAULT_DELIVERY=$(DELIVERY) MILLSTREAM_BIN=$(DEBUG)/millstream $(DEBUG)/kafka-for-tests $(CARGO) test --workspace --test whole -- --ignored --nocapture --skip soak::

soak: plugins ## many minutes of order lines and trouble: does anything grow? (MINUTES=, 3 at least)
	$(CARGO) build --workspace --bins --tests
	SOAK_MINUTES=$(MINUTES) MILLSTREAM_BIN=$(DEBUG)/millstream $(CARGO) test --workspace --test whole soak:: -- --ignored --nocapture

bench: plugins ## Millstream beside a bare loop, Kafka Streams, Redpanda Connect and Python (EVENTS=, RUNS=, WORKLOADS=, CONTENDERS=, RATES=, RECORD=)
	$(CARGO) build --release -p millstream -p millstream-bench
	$(TARGET_DIR)/release/millstream-bench --events $(EVENTS) --runs $(RUNS) $(if $(WORKLOADS),--workloads $(WORKLOADS)) $(if $(CONTENDERS),--contenders $(CONTENDERS)) $(if $(RATES),--latency $(RATES)) $(if $(RECORD),--record $(RECORD))

# Their own sizes unless EVENTS or RUNS are set on the command line.
asked = $(if $(filter-out file,$(origin $1)),$2 $($1))

growth: plugins ## what an event costs as partitions, backlog, consumers, lanes grow (EVENTS=, RUNS=, FACTORS=, RECORD=)
	$(CARGO) build --release -p millstream -p millstream-bench
	$(TARGET_DIR)/release/millstream-bench growth $(call asked,EVENTS,--events) $(call asked,RUNS,--runs) $(if $(FACTORS),--factors $(FACTORS)) $(if $(RECORD),--record $(RECORD))

waiting: plugins ## order by key with a plugin that waits for another service (EVENTS=, RUNS=, RECORD=)
	$(CARGO) build --release -p millstream -p millstream-bench
	$(TARGET_DIR)/release/millstream-bench waiting $(call asked,EVENTS,--events) $(call asked,RUNS,--runs) $(if $(RECORD),--record $(RECORD))

profile: plugins ## where the time of an event goes: tables, and flame graphs in target/profile (EVENTS=)
	$(CARGO) build --release -p millstream -p millstream-bench
	$(TARGET_DIR)/release/millstream-bench --events $(EVENTS) --contenders millstream,exactly-once --profile $(TARGET_DIR)/profile

deploys: plugins ## what a deploy each second costs the events that flow, on both brokers (DEPLOYS=)
	$(CARGO) build --release -p millstream -p millstream-bench
	$(TARGET_DIR)/release/millstream-bench deploys --deploys $(DEPLOYS)

wall: plugins ## what the sandbox costs, and what plugins that misbehave cost their neighbours
	$(CARGO) build --release -p millstream -p millstream-bench
	$(TARGET_DIR)/release/millstream-bench spinning
	$(CARGO) run --release -p millstream-sandbox-tests --example neighbours
	$(CARGO) run --release -p millstream-sandbox-tests --example wall

clean: ## remove all that was built
	$(CARGO) clean
