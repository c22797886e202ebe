# Two commands set everything up: `make run` and `make test`. Needs Python 3.11 or newer, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The pipeline alone, and what its developers need besides.
USER := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
KERNELS := $(VENV)/.installed-kernels

# Two processes; those tests stay together that share a server (tests/conftest.py).
PARALLEL ?= -n 2 --no-loadscope-reorder

.PHONY: run test test-all processors floors newest notebooks bench bench-numerics bench-speed bench-peers docs lint format clean

run: $(USER)
	$(BIN)/lntx run

test: $(DEV)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

test-all: $(KERNELS)
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# Proofs and canaries as on other processors. Bits may differ there; verdicts may not.
processors: $(DEV)
	$(BIN)/python benchmarks/processors.py

# lntx with the lowest and with the newest versions that pyproject.toml admits, and with another Python (make
# python-3.12), each in an environment of its own under .venvs. ARGS=--record keeps what worked in lntx/tried.json.
floors newest: $(DEV)
	$(BIN)/python benchmarks/versions.py $@ $(ARGS)

python-%: $(DEV)
	$(BIN)/python benchmarks/versions.py $* $(ARGS)

# notebooks/*.ipynb from the .py beside each, with its outputs.
notebooks: $(DEV)
	$(BIN)/python notebooks/execute.py

# The tables of docs/: numerics, tables, findings, performance. R is compared where it is installed: apt-get install
# r-base-core. Fewer rounds and rows take less time: make bench ROUNDS=1 ROWS=10000000 MOST=1000000.
ROUNDS ?= 5
ROWS ?= 100000000
MOST ?= 1000000000
bench: bench-numerics bench-speed

bench-numerics: $(BENCH)
	$(BIN)/python benchmarks/certified.py
	$(BIN)/python benchmarks/float32_sums.py
	$(BIN)/python benchmarks/false_alarms.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/findings

bench-speed: $(BENCH)
	$(BIN)/python benchmarks/frames.py --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.proof_models
	$(BIN)/python benchmarks/startup.py --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.service --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.rows --rounds $(ROUNDS) --rows $(ROWS)
	$(BIN)/python -m benchmarks.cost --most $(MOST) --into build/bench
	$(BIN)/python -m benchmarks.sweeps --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.cluster --rounds $(ROUNDS) --rows $(ROWS)
	$(BIN)/python -m benchmarks.gpu --rounds $(ROUNDS)

# The same work in other pipeline tools, each in an environment of its own under .venvs.
bench-peers: $(USER)
	$(BIN)/python -m benchmarks.peers $(ARGS)

# The site of docs/, into build/site.
docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/vague_names.py

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("lntx needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

# torch first, and at its tested version: left to the others, pip takes the newest build, with gigabytes of CUDA.
$(USER): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(DEV): $(USER)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,onnx]'
	touch $@

$(KERNELS): $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[kernels]'
	touch $@

$(BENCH): $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@
