# make demo and make test each set up all they need in .venv and run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo docs docs-quick test test-slow test-oldest fuzz lint format clean

help:
	@echo "make demo         classify real photos of solar cells in three ways (about 5 minutes)"
	@echo "make docs         run the gallery and build the pages into docs/_build/html (many minutes)"
	@echo "make docs-quick   build the pages without running the gallery (a minute)"
	@echo "make test         run the tests"
	@echo "make test-slow    run the tests that take long"
	@echo "make test-oldest  run the tests with the oldest versions that pyproject.toml admits"
	@echo "make fuzz         fuzz the front door, the containers of X, labels and the loaders of files (about 20 minutes)"
	@echo "make lint         ruff, mypy, import-linter and codespell"
	@echo "make format       let ruff mend what it can"

# One stamp per extra of pyproject.toml: .venv/.demo says that [demo] is installed.
$(VENV)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m sktransfer demo

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -n docs docs/_build/html

docs-quick: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -n -D plot_gallery=0 docs docs/_build/html

TEST_PROCESSES ?= 2
test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# All lower bounds of pyproject.toml can be had from PyPI as wheels, for the oldest Python that it admits.
OLDEST := .venv-oldest
test-oldest:
	mkdir -p $(OLDEST)
	python3.11 tests/oldest.py > $(OLDEST)/constraints.txt
	PIP_CONSTRAINT=$(OLDEST)/constraints.txt $(MAKE) test VENV=$(OLDEST) PYTHON=python3.11

FUZZ_SECONDS ?= 300
fuzz: $(VENV)/.fuzz
	$(BIN)/python fuzz/seeds.py .fuzz
	$(BIN)/python fuzz/front_door.py .fuzz/front_door -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1000
	mkdir -p .fuzz/containers
	$(BIN)/python fuzz/containers.py .fuzz/containers -len_control=0 -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=2000
	mkdir -p .fuzz/labels
	$(BIN)/python fuzz/labels.py .fuzz/labels -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=2000
	$(BIN)/python fuzz/loaders.py .fuzz/loaders -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=4000

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

format: $(VENV)/.lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache .fuzz
	rm -rf docs/_build docs/_generated docs/auto_gallery docs/reference/generated
