# The recipes that people, CI and pre-commit run. `make demo` and `make test` do all the set-up themselves.
PYTHON ?= python3
BIN := .venv/bin
# onnxruntime and MLflow report usage to their makers unless they are told not to.
export ORT_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help demo test chaos soak lint format lock clean proofs up up-demo down logs images images-standin test-containers
.DEFAULT_GOAL := help

help:
	@echo "make demo [ARGS=...]   set up, then replay, train, score and alert on real servers (fraudstream demo --help)"
	@echo "make test [ARGS=...]   set up, then run the tests, two at a time (JOBS=0: one; ARGS go to pytest)"
	@echo "make proofs            set up, then the long tests: kills at chosen moments, planted defects (15 minutes)"
	@echo "make chaos [ARGS=...]  set up, then kill 200 workers and judge what came of it (fraudstream chaos --help)"
	@echo "make soak [ARGS=...]   set up, then score for 20 minutes at 60 % of the maximum (fraudstream bench soak --help)"
	@echo "make lint              set up, then format check, ruff, mypy, import contracts"
	@echo "make format            format the code"
	@echo "make lock              write the lock files anew (needs uv)"
	@echo "make up [SCORERS=3]    the whole system in containers (docs/containers.md); up-demo with traffic, down, logs"
	@echo "make test-containers   the same, started, broken, counted and taken down by a test"
	@echo "make clean             end the stack, remove .venv and the state folder"

demo: .venv/.runtime
	@$(BIN)/fraudstream demo $(ARGS)

# STACK=containers: the servers of the tests run in containers.
STACK ?= embedded
# Most tests wait for servers: two at a time, each on a stack of its own. JOBS=0: one, in this process.
JOBS ?= $(if $(filter containers,$(STACK)),0,2)
test: .venv/.dev
	@TEST_STACK=$(STACK) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

chaos: .venv/.runtime
	@$(BIN)/fraudstream chaos --kills 200 $(ARGS)

proofs: .venv/.dev
	@$(BIN)/python -m pytest -m proof --hypothesis-profile=exploring $(ARGS)

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

# Containers. IMAGES=standin takes what `make images-standin` builds instead of what would be pulled.
PROJECT ?= fraudstream
IMAGES ?= default
# As many scorers as the project has containers for, whether they run or not; the first time one.
OF_SCORERS = $(foreach l,project=$(PROJECT) service=scorer oneoff=False,--filter label=com.docker.compose.$l)
SCORERS ?= $(or $(filter-out 0,$(words $(shell docker ps --all --quiet $(OF_SCORERS) 2>/dev/null))),1)
# So long all services together may take to become ready; a ledger reads a long history first.
WAIT_S ?= 300
SECRETS_DIR ?= .secrets
MLFLOW_PORT ?= 5000
PROMETHEUS_PORT ?= 9090
GRAFANA_PORT ?= 3000
export SECRETS_DIR MLFLOW_PORT PROMETHEUS_PORT GRAFANA_PORT
STANDIN := $(filter standin,$(IMAGES))
# Grafana is in no package of Debian, so there is no stand-in of it.
PROFILES ?= core,$(if $(STANDIN),prometheus,observability)
COMMA := ,
PARTS = $(subst $(COMMA), ,$(PROFILES))
PORTS = MLFLOW_PORT $(if $(filter prometheus observability,$(PARTS)),PROMETHEUS_PORT) \
	$(if $(STANDIN),,$(if $(filter observability,$(PARTS)),GRAFANA_PORT))
ENV_FILES := $(if $(wildcard .env),--env-file .env) $(if $(STANDIN),--env-file deploy/standin/images.env)
COMPOSE = docker compose --project-name $(PROJECT) $(ENV_FILES)

up:
	@$(PYTHON) deploy/preflight.py --project $(PROJECT) --secrets $(SECRETS_DIR) \
		$(foreach port,$(PORTS),--port $(port)=$($(port)))
	@COMPOSE_PROFILES=$(PROFILES) $(COMPOSE) up --detach --wait --wait-timeout $(WAIT_S) --scale scorer=$(SCORERS) \
		$(if $(STANDIN),--no-build) $(ARGS) || failed=1; \
	$(PYTHON) deploy/keeper.py --project $(PROJECT) --lock $(SECRETS_DIR)/keeper-$(PROJECT).lock --detach; \
	$(PYTHON) deploy/afterwards.py --project $(PROJECT) --secrets $(SECRETS_DIR) $${failed:+--failed} \
		$(if $(filter GRAFANA_PORT,$(PORTS)),--grafana-port $(GRAFANA_PORT)); \
	exit $${failed:-0}

up-demo:
	@TRAIN_EVERY_S=$${TRAIN_EVERY_S:-600} $(MAKE) --no-print-directory up PROFILES=$(PROFILES),demo

down:
	@COMPOSE_PROFILES='*' $(COMPOSE) down --remove-orphans $(ARGS)

logs:
	@COMPOSE_PROFILES='*' $(COMPOSE) logs --follow --tail 50 $(ARGS)

images:
	COMPOSE_PROFILES='*' $(COMPOSE) build $(ARGS)

images-standin: .venv/.dev
	@$(BIN)/python -m deploy.standin.build

test-containers: .venv/.dev
	@$(BIN)/python -m pytest -m containers $(ARGS)

LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11
PEERS := benchmarks/peers/requirements
lock:
	$(LOCK) pyproject.toml --extra build --output-file requirements.lock
	$(LOCK) pyproject.toml --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) deploy/mlflow/requirements.in --constraint requirements.lock --output-file deploy/mlflow/requirements.lock
	sed -nE 's/^((numpy|onnxruntime)==.*) \\$$/\1/p' requirements.lock | $(LOCK) $(PEERS).in --constraint - --output-file $(PEERS).lock

clean:
	@if [ -x $(BIN)/fraudstream ]; then $(BIN)/fraudstream stack down; fi
	rm -rf .venv .fraudstream
