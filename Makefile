# Two commands do everything on a fresh machine:
#   make demo    environment, install, distil the embedded recipe, and where to look
#   make test    environment, install, lint, types, tests, in two processes (WORKERS=8: in eight)
# And `make docs` renders the pages under docs/ to site/.
# Both can be run again at once: what is installed is not installed again.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.test-installed
DOCS_STAMP := $(VENV)/.docs-installed

.PHONY: demo test install lint types docs clean

# On the CPU, in two processes with half of the recipe's pictures each: the same run up to rounding, in
# 0.7 of one process' time. They take no GPU, of which there may be only one.
demo: $(STAMP)
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node 2 \
		-m distillkit run recipes/nitro_shapes.yaml --set run.batch=8

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)
	$(BIN)/mypy

docs: $(DOCS_STAMP)
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict --clean

install: $(TEST_STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		torch hatchling editables
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --editable .
	$(BIN)/distillkit schema -o recipes/recipe.schema.json > /dev/null
	touch $@

$(TEST_STAMP): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --editable '.[dev,lora,datasets,8bit,ui]'
	touch $@

$(DOCS_STAMP): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
