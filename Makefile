# Two commands on a bare machine (Python 3.11 or newer and make): `make demo` and `make test`.
# Both set up .venv by themselves; `make` alone lists everything.

PYTHON ?=
JOBS ?= 2
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
MUTATION_ARGS ?=
NO_SKIPS ?=

PY := .venv/bin/python
# Numerical libraries would otherwise start a thread per core in each of many processes.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
# Every process compiling our source anew would cost each of them half a second.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test check coverage mutation bench docs clean setup setup-test setup-mutation

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: setup ## run the bundled game's loop to three promotions; options in DEMO_ARGS="--promotions 1"
	@.venv/bin/gamekeeper demo $(DEMO_ARGS)

test: check ## check, then every test with coverage, then the coverage page
	@$(PY) -m tools.test_run --jobs $(JOBS) $(if $(NO_SKIPS),--no-skips) -- $(TEST_ARGS)
	@$(PY) -m tools.coverage_page --check

check: setup-test ## linters, types, import contracts, tidy rules
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo
	@$(PY) -m pytest tests/arch

coverage: setup-test ## render docs/COVERAGE.md from the last test run (runs the tests when they are out of date)
	@$(PY) -m tools.test_run --jobs $(JOBS) --if-needed
	@$(PY) -m tools.coverage_page

mutation: setup-mutation ## mutate one module, or all in turn, and record the scores; MUTATION_ARGS="--module job_reaper --minutes 10"
	@$(PY) -m tools.mutation $(MUTATION_ARGS)

bench: setup-test ## run the benchmarks; options in BENCH_ARGS
	@$(PY) -m tools.bench $(BENCH_ARGS)

docs: setup-test ## render the generated pages, run every example of the documentation, check its links and commands
	@$(PY) -m tools.reference_pages
	@$(PY) -m pytest tests/docs

clean: ## remove what the other targets made, .venv included
	rm -rf .venv build dist mutants .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@PYTHON="$(PYTHON)" sh tools/setup.sh run
setup-test:
	@PYTHON="$(PYTHON)" sh tools/setup.sh test
setup-mutation:
	@PYTHON="$(PYTHON)" sh tools/setup.sh mutation
