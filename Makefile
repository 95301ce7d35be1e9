# Shoal's commands. `make help` lists them; each is also `python -m training|export|server|benchmarks … --help`.
.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV ?= .venv
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
PY := $(VENV)/bin/python
INSTALL := requirements/install.sh $(VENV)
# Serving is few packages, and uv itself would be a fifth of their size.
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes

# What the user may set: make test JOBS=…, make train DATA=… NAME=… EPOCHS=…, make serve MODELS=… HTTP_PORT=… GRPC_PORT=…
DATA ?= digits
NAME ?= $(notdir $(patsubst %/,%,$(DATA)))
RUNS ?= runs
MODELS ?= models
RUN ?= latest
EPOCHS ?=
TRIALS ?=
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
WORK ?= build/demo
ARGS ?=
JOBS ?= 2

SERVE_STAMP := $(VENV)/.serve-installed
ALL_STAMP := $(VENV)/.all-installed
SOURCES := server training export benchmarks tests

.PHONY: help
help:  ## lists the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 22

# ---- set-up: the serving environment is a subset of the whole one, at the same versions ----

$(PY):
	@requirements/make-venv.sh $(VENV) "$(PYTHON)"

$(SERVE_STAMP): requirements/serve.txt | $(PY)
	@echo "installing what serving needs into $(VENV)"
	@$(PIP_INSTALL) -r requirements/serve.txt
	@touch $@

$(ALL_STAMP): requirements/all.txt requirements/tfserving.txt | $(PY)
	@echo "installing everything (TensorFlow too: about 2 GB) into $(VENV)"
	@$(INSTALL) -r requirements/all.txt
	@$(INSTALL) --no-deps -r requirements/tfserving.txt
	@touch $@ $(SERVE_STAMP)

CLIENTS_STAMP := .venv-clients/.installed

$(CLIENTS_STAMP): requirements/clients.txt
	@requirements/make-venv.sh .venv-clients "$(PYTHON)"
	@requirements/install.sh .venv-clients -r requirements/clients.txt
	@touch $@

.PHONY: setup
setup: $(ALL_STAMP)  ## installs everything into .venv

# ---- the product ----

.PHONY: serve
serve: $(SERVE_STAMP)  ## serves MODELS= on HTTP_PORT= and GRPC_PORT=
	@$(PY) -m server --models $(MODELS) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) $(ARGS)

.PHONY: train
train: $(ALL_STAMP)  ## trains on DATA= (digits or a folder) as NAME=
	@$(PY) -m training train --data $(DATA) --name $(NAME) --runs $(RUNS) $(if $(EPOCHS),--epochs $(EPOCHS)) $(ARGS)

.PHONY: validate
validate: $(ALL_STAMP)  ## looks DATA= over before training: corrupt files, duplicates, leaks between splits
	@$(PY) -m training validate --data $(DATA) $(ARGS)

.PHONY: tune
tune: $(ALL_STAMP)  ## searches for better settings by particle swarm: make tune DATA=… NAME=… TRIALS=24
	@$(PY) -m training tune --data $(DATA) --name $(NAME) --runs $(RUNS) $(if $(TRIALS),--trials $(TRIALS)) $(ARGS)

.PHONY: evaluate
evaluate: $(ALL_STAMP)  ## measures the newest run of NAME= on its test split
	@$(PY) -m training evaluate $(NAME)$(if $(filter-out latest,$(RUN)),/$(RUN)) --runs $(RUNS)

.PHONY: export
export: $(ALL_STAMP)  ## converts, quantizes and verifies the newest run of NAME= into MODELS=
	@$(PY) -m export create --name $(NAME) --run $(RUN) --runs $(RUNS) --models $(MODELS)

.PHONY: promote
promote: $(ALL_STAMP)  ## lets VERSION= of NAME= answer: at once, or by STEPS=10,50,100 EVERY=5m
	@$(PY) -m export promote $(NAME) $(VERSION) $(if $(STEPS),--steps $(STEPS) --every $(or $(EVERY),60s)) --models $(MODELS)

.PHONY: rollback
rollback: $(ALL_STAMP)  ## returns NAME= to what answered before
	@$(PY) -m export rollback $(NAME) --models $(MODELS)

.PHONY: explain
explain: $(ALL_STAMP)  ## draws what the newest run of NAME= rests its answers on
	@$(PY) -m training explain $(NAME)$(if $(filter-out latest,$(RUN)),/$(RUN)) --runs $(RUNS) $(ARGS)

.PHONY: compare
compare: $(ALL_STAMP)  ## trains several models on DATA=: ARGS="--models cnn,mlp --seeds 3"
	@$(PY) -m training compare --data $(DATA) --name $(NAME) --runs $(RUNS) $(if $(EPOCHS),--epochs $(EPOCHS)) $(ARGS)

.PHONY: demo
demo: $(ALL_STAMP)  ## the whole way on embedded data: train, export, serve, classify
	@$(PY) -m benchmarks demo --work $(WORK)

.PHONY: bench
bench: $(ALL_STAMP)  ## 100 locust users by HTTP and by gRPC: no failure, p99 < 200 ms
	@$(PY) -m benchmarks locust --models $(MODELS) --out benchmarks/results/locust.json $(ARGS)

.PHONY: bench-classify-many
bench-classify-many: $(ALL_STAMP)  ## 5,000 single pictures by the client package, as a share of the peak by raw stubs
	@$(PY) -m benchmarks classify-many --models $(MODELS) --out benchmarks/results/classify-many.json $(ARGS)

.PHONY: bench-perf-analyzer
bench-perf-analyzer: $(ALL_STAMP)  ## Triton's own load generator by HTTP and gRPC: no failure (Debian's libb64-0d)
	@$(PY) -m benchmarks perf-analyzer --models $(MODELS) --out benchmarks/results/perf-analyzer.json $(ARGS)

PEER_ENVIRONMENTS := peers peers-triton peers-ray peers-mlserver

$(PEER_ENVIRONMENTS:%=.venv-%/.installed): .venv-%/.installed: requirements/%.txt
	@requirements/make-venv.sh .venv-$* "$(PYTHON)"
	@requirements/install.sh .venv-$* -r requirements/$*.txt
	@touch $@

# One that cannot be installed is left out, and the result says why.
.PHONY: peer-environments
peer-environments: $(ALL_STAMP)
	@for name in $$($(PY) -m benchmarks peers --environments --peers "$(PEERS)"); do \
		$(MAKE) --no-print-directory --silent .venv-$$name/.installed || echo "$$name: not installed"; done

.PHONY: bench-peers
bench-peers: peer-environments  ## one image a request by other servers and by ours, by turns: PEERS=mosec,triton (all)
	@$(PY) -m benchmarks peers --peers "$(PEERS)" --models $(MODELS) --out benchmarks/results/peers.json $(ARGS)

.PHONY: bench-full
bench-full: peer-environments  ## every figure of docs/performance.md (two hours; goes on where it was cut off)
	@$(PY) -m benchmarks full --models $(MODELS) $(if $(PHOTOS),--photos $(PHOTOS)) $(ARGS)

.PHONY: bench-gate
bench-gate: $(ALL_STAMP)  ## is a request dearer than when it was last accepted? ARGS=--accept makes today's the one to compare with
	@$(PY) -m benchmarks gate --models $(MODELS) $(ARGS)

BENCHES := poisson half-load footprint growth
.PHONY: $(BENCHES:%=bench-%)
$(BENCHES:%=bench-%): bench-%: $(ALL_STAMP)
	@$(PY) -m benchmarks $* --models $(MODELS) --out benchmarks/results/$*.json $(ARGS)

.PHONY: bench-photos
bench-photos: $(ALL_STAMP)  ## photographs in PHOTOS= to MobileNetV2: decode, resize and infer, beside the limit and mosec
	@$(PY) -m benchmarks photos --photos $(PHOTOS) --out benchmarks/results/photos.json $(ARGS)

.PHONY: bench-limit
bench-limit: $(ALL_STAMP)  ## what is left of the bare engine's speed with the server around it
	@$(PY) -m benchmarks limit --models $(MODELS) --out benchmarks/results/limit.json $(ARGS)

.PHONY: bench-stages
bench-stages: $(ALL_STAMP)  ## where each microsecond of a request goes: PNG upload, binary tensor, gRPC
	@$(PY) -m benchmarks stages --models $(MODELS) --out benchmarks/results/stages.json $(ARGS)

RESILIENCE := idle overload reloads stops crashes balance
.PHONY: bench-resilience $(RESILIENCE:%=bench-%)
bench-resilience: $(RESILIENCE:%=bench-%)  ## the serving core's figures: overload, reloads, stops, crashes, balance

$(RESILIENCE:%=bench-%): bench-%: $(ALL_STAMP)
	@$(PY) -m benchmarks $* --models $(MODELS) --out benchmarks/results/$*.json $(ARGS)

# ---- operations ----

.PHONY: docker-test
docker-test: $(ALL_STAMP)  ## builds the images and runs the stack: TLS, tokens, train, export, a killed replica (needs Docker)
	@$(PY) -m tests.docker $(ARGS)

.PHONY: smoke
smoke: $(SERVE_STAMP)  ## is the server at URL= fit? ready, its own examples, errors and p99 under a steady rate
	@$(PY) -m benchmarks.smoke $(URL) $(ARGS)

.PHONY: release-check
release-check: test docker-test  ## what a release has to pass: VERSION= is in pyproject.toml and the changelog, tests, stack
	@deploy/release-check.sh "$(VERSION)" "$(PY)"

.PHONY: audit
audit: $(ALL_STAMP)  ## looks the locked packages up among known vulnerabilities (network needed)
	@$(VENV)/bin/uv tool run pip-audit --require-hashes --disable-pip -r requirements/serve.txt
	@$(VENV)/bin/uv tool run pip-audit --require-hashes --disable-pip -r requirements/train.txt

# ---- checks ----

.PHONY: test
test: check $(CLIENTS_STAMP)  ## sets up everything, runs all checks and tests
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

.PHONY: check
check: $(ALL_STAMP)  ## lint, format, types, import contract, generated code; never writes
	@$(PY) -m ruff check $(SOURCES) notebooks
	@$(PY) -m ruff format --check --quiet $(SOURCES) notebooks
	@$(PY) -m mypy --num-workers 2 $(SOURCES)
	@$(VENV)/bin/lint-imports --no-cache
	@$(VENV)/bin/hadolint --config .hadolint.yaml Dockerfile.serve Dockerfile.train deploy/proxy/Dockerfile
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@PATH="$(abspath $(VENV))/bin:$$PATH" protos/generate.sh --check
	@$(PY) -m ruff check clients/python
	@$(PY) -m ruff format --check --quiet clients/python
	@cd clients/python && $(abspath $(PY)) -m mypy --config-file pyproject.toml
	@PATH="$(abspath $(VENV))/bin:$$PATH" clients/python/generate.sh --check

.PHONY: monitoring-test
monitoring-test: $(ALL_STAMP)  ## Debian's Prometheus scrapes a server: alerts fire and clear, the dashboard's queries answer (two minutes)
	@# each file by its name: of a folder and a file in it, pytest takes the folder alone, and with it no live_*.py
	@$(PY) -m pytest tests/monitoring/test_*.py tests/monitoring/live_prometheus.py $(ARGS)

.PHONY: fuzz-http
fuzz-http: $(ALL_STAMP)  ## 20,000 right and wrong requests from /openapi.json to a real server: no 5xx, each answer as documented
	@$(PY) -m tests.wire.fuzz_http $(ARGS)

.PHONY: stubs
stubs: $(ALL_STAMP)  ## runs every command of docs/clients.md for the languages whose tools are installed
	@PYTHON=$(PY) clients/check-stubs.sh

.PHONY: mutants
mutants: $(ALL_STAMP)  ## mutation run over the batcher (half an hour; survivors are explained in docs/architecture/batcher.md)
	@$(VENV)/bin/mutmut run --max-children 2
	@$(VENV)/bin/mutmut results

.PHONY: fix
fix: $(ALL_STAMP)  ## formats and fixes what can be fixed by itself
	@$(PY) -m ruff check --fix $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

.PHONY: proto
proto: $(ALL_STAMP)  ## generates protos/*_pb2* anew
	@PATH="$(abspath $(VENV))/bin:$$PATH" protos/generate.sh
	@PATH="$(abspath $(VENV))/bin:$$PATH" clients/python/generate.sh

.PHONY: requirements
requirements: $(ALL_STAMP)  ## compiles requirements/*.txt from pyproject.toml (UPGRADE=1: newest versions)
	@$(PY) requirements/compile.py $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean:  ## removes caches and what the demo made; keeps .venv, runs and models
	@rm -rf clients/typescript/dist clients/typescript/node_modules build .mypy_cache .ruff_cache .pytest_cache .hypothesis mutants
