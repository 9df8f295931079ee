# The one entry to everything that is done with this project. `make` alone tells what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
STEP := scripts/step
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export HUBBUB_GATEWAY ?= $(TARGET)/debug/hubbub-gateway
# How long each fuzz target runs.
FUZZ_SECONDS ?= 20
# How long the soak is.
MINUTES ?= 60
# What `make run`, `make bench`, `make microbench` and `make soak` add to the command line, as in: make run ARGS='--nats nats://127.0.0.1:4222'
ARGS ?=

##@ Use

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
# With rooms from elsewhere the variable is set to nothing, and that counts as not set.
run: export HUBBUB_ROOMS ?= $(if $(findstring --policies,$(ARGS))$(findstring --rooms,$(ARGS)),,manifests/examples/rooms.yaml)
run: export HUBBUB_LISTEN ?= 127.0.0.1:8080
run: export HUBBUB_ADMIN_LISTEN ?= 127.0.0.1:9090
# No load balancer here has to learn of a drain, and a few members may all go at once.
run: export HUBBUB_DRAIN_SETTLE ?= 0s
run: export HUBBUB_DRAIN_WINDOW ?= 1s
run: ## Build the gateway and serve the example rooms on http://localhost:8080 (needs only Rust)
	@$(CARGO) run --locked --package hubbub-gateway -- $(ARGS)

.PHONY: run-traced
run-traced: ## The same with a Jaeger that shows every handshake, message and end (built by Go once: 4 minutes)
	@$(STEP) "build" $(CARGO) build --locked --package hubbub-gateway
	@scripts/run-traced $(ARGS)

.PHONY: build
build: ## Build every crate and its tests (development profile)
	@# With the tests, because libraries are built with other features for them: so nothing is built twice.
	@$(STEP) "build" $(CARGO) build --locked --workspace --bins --tests

.PHONY: cluster
cluster: ## A Kubernetes control plane for hand use, and how to reach it (built once: a quarter of an hour)
	@$(STEP) "control plane" scripts/cluster up

.PHONY: cluster-down
cluster-down: ## End what `make cluster` and `make cluster-run` started, and remove all that it stored
	@scripts/cluster down
	@scripts/cluster-run down

.PHONY: image
image: ## The image, as an OCI archive, of what cargo builds here (users take docker build instead)
	@$(STEP) "image" scripts/image build localhost/hubbub:local $(TARGET)/image/hubbub.tar
	@echo "$(TARGET)/image/hubbub.tar"

.PHONY: cluster-run
cluster-run: ## A cluster of two real nodes with the product and Jaeger in it, and the addresses to open (needs root)
	@scripts/cluster-run up

##@ Test

.PHONY: test
test: prerequisites check deny sbom unit integration soak-short conformance-core browser chart e2e fuzz ## All that CI runs: every check and every test
	@echo "all checks and tests have passed"

.PHONY: check
check: ## Fast checks: format, lints, documentation, scripts, rules between crates, the threat model's tests
	@$(STEP) "format" $(CARGO) fmt --all --check
	@$(STEP) "format of the peers" $(CARGO) fmt --check --manifest-path bench/peers/axum/Cargo.toml
	@$(STEP) "lints" $(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(STEP) "documentation" env RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	@$(STEP) "scripts" scripts/check-scripts
	@$(STEP) "dependency rules" scripts/check-dependencies
	@$(STEP) "tests of the threat model" scripts/check-threats

.PHONY: deny
deny: ## Licences, sources and banned crates of what we depend on (cargo-deny, built once: a few minutes)
	@$(STEP) "licences, sources, banned crates" scripts/deny bans licenses sources
	@$(STEP) "advisories, if their database can be reached" scripts/deny advisories-if-reachable

.PHONY: sbom
sbom: ## What the image's programs are made of, as CycloneDX (cargo-cyclonedx, built once: a minute)
	@$(STEP) "software bills of materials" scripts/sbom $(TARGET)/sbom $$(uname -m)-unknown-linux-gnu

.PHONY: advisories
advisories: ## Known security advisories against what we depend on (fetches the advisory database)
	@$(STEP) "advisories" scripts/deny advisories

.PHONY: unit
unit: ## Unit tests, the examples in the documentation, and the micro-benchmarks once each
	@$(STEP) "unit tests" $(CARGO) test --locked --workspace --lib --bins
	@$(STEP) "examples in the documentation" $(CARGO) test --locked --workspace --doc
	@$(STEP) "micro-benchmarks, each once" $(CARGO) test --locked --workspace --bench '*'
	@$(STEP) "unit tests of the conformance runner" python3 -m unittest discover -s scripts/conformance
	@$(STEP) "unit tests of the benchmarks' page" python3 -m unittest discover -s bench

.PHONY: integration
integration: ## Integration tests: real clients, a real nats-server, a real Kubernetes control plane, a bad network
	@$(STEP) "control plane" scripts/control-plane
	@$(STEP) "integration tests" scripts/integration-tests

.PHONY: soak
soak: ## All that can happen to two gateways, again and again, and whether they keep anything of it: MINUTES (60)
	@$(STEP) "soak, $(MINUTES) minutes" bench/soak --minutes $(MINUTES) $(ARGS)

.PHONY: soak-short
soak-short: build ## The same for five minutes, with the binaries of the development profile
	@$(STEP) "soak, 5 minutes" bench/soak --minutes 5 --profile dev --no-build

.PHONY: browser
browser: build ## The room's page in a real Chromium
	@$(STEP) "browser tests" scripts/browser-tests

.PHONY: chart
chart: ## The chart: lints, what is generated from it, its rendering, and what a real API server says of it
	@$(STEP) "generated manifests" scripts/manifests --check
	@$(STEP) "chart" scripts/chart-tests

.PHONY: e2e
e2e: ## The whole product on a real cluster, with real containers (needs root, or KUBECONFIG)
	@$(STEP) "end-to-end tests" scripts/e2e-tests

.PHONY: conformance
conformance: build ## The Autobahn testsuite: core over both buses, and the limits
	@$(STEP) "conformance" scripts/conformance/run core core-nats limits

.PHONY: conformance-core
conformance-core: build
	@$(STEP) "conformance, core" scripts/conformance/run core core-nats

.PHONY: fuzz
fuzz: ## The fuzz targets, FUZZ_SECONDS each (20)
	@$(STEP) "fuzz targets, $(FUZZ_SECONDS) s each" scripts/fuzz-tests $(FUZZ_SECONDS) --release

##@ Work

.PHONY: fmt
fmt: ## Format the Rust sources
	@$(CARGO) fmt --all

.PHONY: manifests
manifests: ## Write anew what is generated: the definition of ChatRoom, the chart's README, install.yaml
	@$(STEP) "generated manifests" scripts/manifests

.PHONY: bench
bench: ## Measure all beside its peers (hours; wants a quiet machine); minutes with ARGS='--only a50,lb --servers ours,floor'
	@$(STEP) "benchmarks" bench/run $(ARGS)

.PHONY: microbench
microbench: ## Time the hot paths one by one: codec, write path of a shard, origins, policies (minutes)
	@$(CARGO) bench --locked --package hubbub-api --package hubbub-websocket --package hubbub-gateway --bench '*' -- $(ARGS)

.PHONY: prerequisites
prerequisites: ## See to what the tests need; installs Debian's packages if it may
	@$(STEP) "prerequisites" scripts/prerequisites

.PHONY: clean
clean: ## Remove what was built here (the cache outside the work tree stays: see scripts/lib.sh)
	@$(CARGO) clean
	@rm -rf conformance-report tests/browser/node_modules
