# Two commands: `make run` shows the main job, `make test` passes the tests. Both set up all they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEB := monitor/server/web

.PHONY: run test quick unit check docs web audit bench soak gpu clean

run: $(READY)
	$(BIN)/outrider demo

test: $(READY)
	$(BIN)/python -m tests.servers
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/unit -m "not slow and not kafka and not postgres and not gpu"

unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit

check: $(READY) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

# The script of the page. The built bundle is committed: only a change of its sources needs node.
web:
	cd $(WEB) && npm ci --ignore-scripts && npm run check && npm test && npm run build

audit: $(READY)
	.ci/audit

bench: $(READY)
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

soak: $(READY)
	$(BIN)/python -m tests.servers
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "long or not long" --timeout=3600
	$(BIN)/python -m tests.simulation --database sqlite --seeds 20
	$(BIN)/python -m tests.simulation --database postgresql --seeds 20
	$(BIN)/python -m tests.faults.soak --database sqlite --kills 100 --freezes 0
	$(BIN)/python -m tests.faults.soak --database postgresql --kills 100 --freezes 30

gpu: $(READY)
	$(BIN)/python -m pytest -m gpu tests/oracle tests/unit
	$(BIN)/python benchmarks/scoring.py --device cuda

# uv keeps installed packages that satisfy a requirement, such as a CPU build of torch in $(VENV).
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[test,dev,docs,parquet,pandas,page,apprise]'
	touch $@

clean:
	rm -rf $(VENV) dist build
