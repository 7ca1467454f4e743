# The recipes that people, CI and pre-commit run. `make demo` and `make test` do all the set-up themselves.
PYTHON ?= python3
BIN := .venv/bin
# onnxruntime and MLflow report usage to their makers unless they are told not to.
export ORT_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help demo test chaos soak lint format lock clean proofs
.DEFAULT_GOAL := help

help:
	@echo "make demo [ARGS=...]   set up, then replay, train, score and alert on real servers (fraudstream demo --help)"
	@echo "make test [ARGS=...]   set up, then run the tests (ARGS go to pytest)"
	@echo "make proofs            set up, then the long tests: kills at chosen moments, planted defects (15 minutes)"
	@echo "make chaos [ARGS=...]  set up, then kill 200 workers and judge what came of it (fraudstream chaos --help)"
	@echo "make soak [ARGS=...]   set up, then score for 20 minutes at 60 % of the maximum (fraudstream bench soak --help)"
	@echo "make lint              set up, then format check, ruff, mypy, import contracts"
	@echo "make format            format the code"
	@echo "make lock              write the lock files anew (needs uv)"
	@echo "make clean             end the stack, remove .venv and the state folder"

demo: .venv/.runtime
	@$(BIN)/fraudstream demo $(ARGS)

test: .venv/.dev
	@$(BIN)/python -m pytest $(ARGS)

chaos: .venv/.runtime
	@$(BIN)/fraudstream chaos --kills 200 $(ARGS)

proofs: .venv/.dev
	@$(BIN)/python -m pytest -m proof $(ARGS)

soak: .venv/.runtime
	@$(BIN)/fraudstream bench soak $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The environment of a folder that was moved, or whose Python is gone, is set up anew.
USABLE := $(shell [ -x $(BIN)/python ] && [ "$$(cat .venv/.place 2>/dev/null)" = "$$(pwd -P)" ] && echo yes)
STALE := $(if $(USABLE),,stale)
.PHONY: stale

# The stamps are written last: an interrupted installation starts again where it stopped.
.venv/.runtime: requirements.lock pyproject.toml deploy/install.sh $(STALE)
	@sh deploy/install.sh "$(PYTHON)" requirements.lock
	@touch $@

.venv/.dev: requirements-dev.lock pyproject.toml deploy/install.sh $(STALE)
	@sh deploy/install.sh "$(PYTHON)" requirements-dev.lock
	@touch .venv/.runtime $@

LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11
PEERS := benchmarks/peers/requirements
lock:
	$(LOCK) pyproject.toml --extra build --output-file requirements.lock
	$(LOCK) pyproject.toml --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock
	sed -nE 's/^((numpy|onnxruntime)==.*) \\$$/\1/p' requirements.lock | $(LOCK) $(PEERS).in --constraint - --output-file $(PEERS).lock

clean:
	@if [ -x $(BIN)/fraudstream ]; then $(BIN)/fraudstream stack down; fi
	rm -rf .venv .fraudstream
