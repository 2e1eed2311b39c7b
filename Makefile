# Every target says what it does after ##; `make` alone lists them.
SHELL := /bin/sh
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# These wait more than they compute.
PARALLEL := -n 4 --dist worksteal
SERVERS := -n 2 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help run test test-setup unit bench profile check format schema clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## set up and run the quickstart (FLAGS="--kubeconfig FILE --docker HOST --listen HOST:PORT")
	@python3 scripts/quickstart.py $(FLAGS)

test: test-setup ## set up everything, real servers included, and run every suite
	@failed=0; \
	$(PYTEST) tests/unit tests/contract $(PARALLEL) $(ARGS) || failed=1; \
	$(PYTEST) tests --ignore tests/unit --ignore tests/contract $(SERVERS) $(ARGS) || failed=1; \
	exit $$failed

test-setup: dev ## install or build what the tests need (etcd, kube-apiserver, dockerd, ...)
	$(PY) -m tests.kit.servers

unit: dev ## run the suites that need no server (unit and contract)
	$(PYTEST) tests/unit tests/contract $(PARALLEL) $(ARGS)

bench: dev ## measure against references: table, bench.json, pictures (BENCH="read wait", ARGS="--quick --compare OLD.json")
	$(PY) -m tests.bench $(ARGS) $(BENCH)

profile: dev ## sample the running daemon under a bench's load with py-spy (BENCH=read)
	$(PY) -m tests.bench.profile $(ARGS) $(BENCH)

check: dev ## ruff, mypy --strict, import layers, file sizes
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	$(PY) scripts/check_sizes.py

format: dev ## rewrite the code as ruff formats it
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

schema: dev ## write config/schema.json anew
	.venv/bin/envbridge schema > config/schema.json

clean: ## remove what the targets made in this folder
	rm -rf .venv quickstart .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build/bench

.PHONY: dev
dev:
	@scripts/venv.sh dev
