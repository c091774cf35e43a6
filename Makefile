# What a person does here. `make help` lists it.
SHELL := bash
.DEFAULT_GOAL := help
CARGO ?= cargo

help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /  make \1\t/' | expand -t 20

tools: ## install the real parts that tests and demo run (mongods, control plane) into a cache
	@scripts/tools.sh

demo: ## the main job on real databases: clone, accidents, cutover, comparison (KEEP=1 leaves it up)
	@scripts/tools.sh mongod control-plane flights
	$(CARGO) build --bin clustersync --example demo
	@$(CARGO) run -q --example demo

test: ## run all tests, on real mongods and a real control plane
	@scripts/tools.sh mongod mongod-6.0.5 control-plane helm kubeconform schemas promtool
	$(CARGO) test --all-targets

e2e: ## image, chart and pods on a real node (root), or on the cluster that E2E_KUBECONFIG names (see CONTRIBUTING)
	@scripts/e2e.sh

soak: ## random workloads with kills, over server versions and fallbacks (MINUTES=n, default 12; ROW=n SEED=n to replay)
	@scripts/tools.sh mongod mongod-6.0.5
	$(CARGO) test --test engine -- --ignored --nocapture soak::

# Not in one go: the program would be built with what only tests turn on in its dependencies.
BUILD_BENCH = $(CARGO) build --release --bin clustersync && $(CARGO) build --release --example bench

bench: ## the engine against bare programs, written to docs/benchmarks.md (ROWS=a,b ROUNDS=n; default: all, 5 rounds)
	@scripts/tools.sh mongod
	$(BUILD_BENCH)
	@ROWS=$(ROWS) ROUNDS=$(ROUNDS) $(CARGO) run -q --release --example bench

guard: ## small ratios of the same kind, which fail on a clear regression
	@scripts/tools.sh mongod
	$(BUILD_BENCH)
	@$(CARGO) run -q --release --example bench -- guard

image: ## write the operator's image as an OCI archive, without a container engine: target/image/clustersync.tar
	$(CARGO) build --release --bin clustersync
	@scripts/image.py $${CARGO_TARGET_DIR:-target}/release/clustersync target/image/clustersync.tar

lint: ## format, lints as errors, generated files up to date
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	scripts/generate.sh --check

generate: ## write generated files anew: CRD, install.yaml
	scripts/generate.sh

.PHONY: help tools demo test e2e soak bench guard image lint generate
