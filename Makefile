# Everything here works from a fresh clone with Python 3.11, make and pip; the environment is made on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
DEMO_PROMPT ?= Tell me a story about a fox.

.PHONY: demo test test-all lint format bench bench-cpu docs docs-check site clean

demo: $(READY)  ## Run an inferlet on the shipped model, through a daemon of its own.
	@PIE_HOME="$(CURDIR)/build/demo" $(BIN)/pie run inferlets/chat --prompt "$(DEMO_PROMPT)" --summary; \
	status=$$?; PIE_HOME="$(CURDIR)/build/demo" $(BIN)/pie stop; \
	[ $$status -ne 0 ] || echo "To have \`pie\` in this shell: source $(BIN)/activate" >&2; exit $$status

test: $(READY)  ## The whole suite that CI runs; budgets in docs/testing.md.
	$(BIN)/python -m pytest

test-all:  ## The README's commands in a fresh clone with empty caches; then the suite. Takes longer.
	.ci/fresh-clone

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || (echo "hint: make format" >&2; exit 1)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(READY)  ## Launch latency, throughput and the tax; minutes, on a quiet machine.
	$(BIN)/python benches/launch.py
	$(BIN)/python benches/pie_bench.py tput --via both

bench-cpu: $(READY)  ## Pie and every peer that benches/README.md has set up, in turns, and one table; about half an hour.
	mkdir -p build
	$(BIN)/python benches/compare.py --json-out build/bench-cpu.json $(BENCH_OPTIONS)

docs: $(READY)  ## Write the pages that come from the code.
	$(BIN)/python docs/generate.py

docs-check: $(READY)
	$(BIN)/python docs/generate.py --check

# torch first and by the constraints file: a plain `torch` may bring gigabytes of GPU libraries.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pie needs Python 3.11 or newer; found " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); this takes some minutes, once."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[engine,dev]"
	touch $(READY)

site: $(READY)  ## The documentation as web pages, in build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
