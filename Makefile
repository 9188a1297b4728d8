# `make up` needs Python 3.11 to 3.13 and nothing else; every target sets up what it needs.
# Variables: MODEL, ENGINE, PORT (of `up`), PYTHON, ACCELERATOR, TORCH_INDEX (of the installation).
SHELL := bash
.DEFAULT_GOAL := help
bin := .venv/bin
check test sim chart-test sbom test-cluster test-slow faults faults-core bench bench-parsers bench-journal observe observe-down scaling-plot generate lock: export PATH := $(CURDIR)/$(bin):$(PATH)

.PHONY: help install dev up down check test sim chart-test sbom test-cluster test-slow faults faults-core bench bench-parsers bench-journal observe observe-down scaling-plot generate lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target text; do printf '  make %-12s %s\n' "$$target" "$$text"; done

install:
	@deploy/install

dev:
	@deploy/install --dev

up: install ## install, then bring up a model, Ray, Valkey and the gateway on this machine
	@$(bin)/headrace up $(if $(MODEL),--model '$(MODEL)') $(if $(ENGINE),--engine '$(ENGINE)') $(if $(PORT),--port '$(PORT)')

down: ## stop exactly what `make up` started
	@if [ -x $(bin)/headrace ]; then $(bin)/headrace down; else echo "nothing is installed, so nothing runs"; fi

observe: install ## a Prometheus beside `make up`, with rules and alerts; Ctrl-C stops it, DETACH=1 lets it run
	@deploy/prometheus
	@python -m deploy.observability.observe $(if $(DETACH),--detach)

observe-down: ## stop exactly what `make observe` started
	@if [ -x $(bin)/python ]; then python -m deploy.observability.observe --down; else echo "nothing is installed, so nothing runs"; fi

check: dev ## lint, types, import rules, generated code
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	deploy/generate --check
	python -m deploy.chart all --check
	python -m deploy.observability --check

test: dev ## unit and contract tests, simulated worlds, faults, the real engine, the whole stack, the chart's pods, two Ray nodes
	pytest tests/unit tests/contract tests/integration tests/hostile
	pytest -m "not slow" tests/images
	pytest tests/sim
	pytest -m "faults and not slow" tests/faults
	pytest -m "engine and not slow" tests/engine
	deploy/prometheus
	pytest tests/chart tests/observability
	pytest -m cluster tests/system
	pytest -m cluster tests/pods
	pytest -m "cluster and not slow" tests/cluster

sbom: dev ## what is in each image, as CycloneDX JSON in build/sbom, out of the locks
	python -m deploy.images.sbom

chart-test: dev ## the Helm chart by the real helm: rendered, judged, installed on an API server
	deploy/prometheus
	pytest -q tests/chart tests/observability

test-cluster: dev ## the last of these alone; it says whether it could make network namespaces
	pytest -s -m "cluster and not slow" tests/cluster

sim: dev ## SEEDS worlds of gateways and faults on a virtual clock, 10000 by itself; FIRST_SEED begins elsewhere
	$(if $(SEEDS),SEEDS=$(SEEDS)) $(if $(FIRST_SEED),FIRST_SEED=$(FIRST_SEED)) pytest -q tests/sim

test-slow: dev ## pipeline parallel, and every way in which a replica on two nodes can lose a part
	pytest -s -m slow tests/engine tests/cluster tests/images

faults: export FAULT_FINDINGS := $(CURDIR)/faults.jsonl
faults: export FAULT_CANCELS := 2000
faults: dev ## kill, freeze and cut off everything there is, and write what held into tests/faults/TABLE.md
	@rm -f $(FAULT_FINDINGS)
	pytest -p no:randomly -m faults tests/faults
	python -m tests.faults.table $(FAULT_FINDINGS) --keep

faults-core: dev ## the same without real Ray, real vLLM and the long waits
	pytest -m "faults and not slow" tests/faults

bench: dev ## vLLM alone, vLLM's server and Headrace on one model, as a table
	python -m tests.load.bench

bench-parsers: dev ## what reading an answer costs, as a table
	python -m tests.load.parsers

bench-journal: dev ## what keeping turns in Redis costs the gateway, as a table
	python -m tests.load.journal

scaling-plot: dev ## a simulated day of each autoscaling law, as a table and a plot
	python -m tests.load.scaling

generate: dev ## regenerate the gRPC code, and what of the chart is generated
	deploy/generate
	python -m deploy.chart all
	python -m deploy.observability

# The CPU build of torch is needed to resolve, though torch-cpu.txt pins it by hand.
torch_at := $(if $(PIP_FIND_LINKS),--find-links '$(PIP_FIND_LINKS)',--extra-index-url '$(or $(TORCH_INDEX),https://download.pytorch.org/whl/cpu)')
compile := uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-header --no-annotate
lock: dev ## resolve the requirement locks again
	cd deploy/requirements && $(compile) ../../pyproject.toml cpu.in --override overrides.txt $(torch_at) --no-emit-package torch -o cpu.txt
	cd deploy/requirements && $(compile) ../../pyproject.toml gpu.in --override overrides.txt -o gpu.txt
	cd deploy/requirements && $(compile) ../../pyproject.toml -c cpu.txt -o gateway.txt
	cd deploy/requirements && $(compile) ../../pyproject.toml engine.in -c gpu.txt -o engine.txt
	cd deploy/requirements && $(compile) dev.in -o dev.txt
	cd deploy/requirements && $(compile) --no-deps chart.in -o chart.txt
	@! grep -nE '^ *--(find-links|index|extra-index)|://' deploy/requirements/{cpu,gpu,gateway,engine,dev,chart}.txt
