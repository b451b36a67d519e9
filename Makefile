# The targets that people and CI rely on. Everything runs in .venv, made from the locked requirements.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/.cluster/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)

.PHONY: help venv lock generate lint unit integration e2e test test-soak chaos test-examples corpus corpus-report bench bench-serving bench-controller cluster-up cluster-down cluster-status images chart demo clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

venv: $(STAMP) ## Make the Python environment for development

lock: $(STAMP) ## Resolve the requirements anew
	$(BIN)/python -m tests.tools.lock

generate: $(STAMP) ## Make the generated files anew: CRD, the chart's copy, capabilities, reference docs
	$(BIN)/python -m tests.tools.generate

lint: $(STAMP) ## Format check, linters, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.tools.generate --check

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit

test: $(STAMP) ## Lint, unit, integration and end-to-end tests, with a summary
	$(BIN)/python -m tests.tools.run_tests

test-soak: $(STAMP) ## The long forms of the tests
	$(BIN)/python -m tests.tools.run_tests --soak

chaos: $(STAMP) ## Disturb the operator by seeds and compare how its models end (SEEDS=1000, FIRST=0)
	$(BIN)/python -m tests.chaos --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0)

test-examples: $(STAMP) ## Deploy every example to the cluster and compare its answers; make its model anew
	$(BIN)/python -m pytest tests/e2e tests/examples -m examples

corpus: $(STAMP) ## Fetch the models of strangers that the soak tests examine (about 700 MB)
	$(BIN)/python -m tests.corpus fetch

corpus-report: $(STAMP) ## Compare the product with ONNX Runtime for all of them and write the figures down (half an hour)
	$(BIN)/python -m tests.corpus examine --output docs/corpus.md

bench: $(STAMP) ## Measure, as ratios against a baseline in the same run
	$(BIN)/python -m benchmarks

bench-serving: $(STAMP) ## Measure scoring beside KServe and MLServer (needs wrk and h2load; half an hour)
	$(BIN)/python -m benchmarks.serving --output docs/benchmarks-serving.md

bench-controller: $(STAMP) ## Measure the controller beside a raw client (no cluster needed; an hour or more)
	$(BIN)/python -m benchmarks.controller --output docs/benchmarks-controller.md

cluster-up: $(STAMP) ## Start a real local Kubernetes (kubeconfig: .cluster/kubeconfig)
	$(BIN)/python -m tests.cluster up

cluster-down: $(STAMP) ## Stop it and remove everything it added
	$(BIN)/python -m tests.cluster down

images: $(STAMP) ## Build the images and load them into the local cluster
	$(BIN)/python -m tests.cluster images

chart: $(STAMP) ## Package the chart into dist/, to the same bytes each time
	$(BIN)/python -m tests.tools.package_chart

demo: $(STAMP) ## From nothing to scored predictions (CONTEXT=name uses a cluster of your own)
	$(BIN)/python -m examples.demo $(if $(CONTEXT),--context $(CONTEXT))
