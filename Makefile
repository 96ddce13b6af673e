# The two commands of the README: `make quickstart` and `make test`. Both need git, make and Python 3.11, nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev,models,train,safety,faces,sound,quality,captions,llm
COMMA := ,
STAMP := $(VENV)/.installed-$(subst $(COMMA),-,$(EXTRAS))
# uv comes from pip and stays inside the environment; it never fetches a Python of its own.
export UV_PYTHON_DOWNLOADS := never

.PHONY: install quickstart test test-slow nightly lint types format constraints clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { echo "dailies needs Python 3.11 or newer; set PYTHON=/path/to/it" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^uv==//p' constraints.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# A rendered world in; a curated, captioned dataset, a trained model and a sampled video out.
quickstart: $(STAMP)
	$(BIN)/dailies quickstart

# Two files of tests at a time, each on one thread: a training step's threads would wait for each other by spinning.
TEST_JOBS ?= 2
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n $(TEST_JOBS) --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

# Everything: what CI runs, then the slow tests that `make test` leaves out. About half an hour on two cores.
nightly: $(STAMP)
	.ci/run
	$(MAKE) test-slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pin what the extras resolve to today, as bare name==version lines. Accelerator libraries are left to torch's own pins.
constraints: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --all-extras --upgrade --python-version 3.11 --quiet \
	  --no-annotate --no-header --no-emit-index-url --output-file constraints.new
	grep -v -E '^(nvidia-|cuda-|triton)' constraints.new | sed 's/ ;.*//' > constraints.txt && rm constraints.new
	$(BIN)/uv --version | sed 's/^uv \([0-9.]*\).*/uv==\1/' >> constraints.txt

clean:
	rm -rf $(VENV) quickstart build dist *.egg-info
