# make demo   the main job on real data        make test   every test, lint and type check
# make bench  the tables in benchmarks/        make soak   long runs: fuzzing
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi') Cargo.toml Cargo.lock pyproject.toml
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: demo test lint test-rust test-python bench soak clean
.DELETE_ON_ERROR:

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	touch $@

$(VENV)/demo-packages: pyproject.toml $(VENV)/made
	$(BIN)/pip install --quiet --disable-pip-version-check 'maturin>=1.9,<2' --group demo
	touch $@

$(VENV)/test-packages: pyproject.toml $(VENV)/demo-packages
	$(BIN)/pip install --quiet --disable-pip-version-check --group test
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/pandas2 'pandas<3' pytz tzdata
	touch $@

# The extension, built for release and importable from $(VENV).
$(VENV)/extension: $(SOURCES) $(VENV)/demo-packages
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
	touch $@

demo: $(VENV)/extension
	@$(BIN)/python examples/flights.py

test: lint test-rust test-python

lint: $(VENV)/test-packages $(VENV)/extension
	cargo fmt --check
	cargo clippy --quiet --all-targets --features python -- -D warnings
	cargo clippy --quiet --all-targets -- -D warnings
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy --no-error-summary
	$(BIN)/stubtest --allowlist tests/typing/stubtest-allowlist --ignore-unused-allowlist framecache._framecache

test-rust:
ifeq ($(NEXTEST),yes)
	cargo nextest run --no-fail-fast
else
	cargo test --lib --tests
endif
	cargo test --doc --quiet

test-python: $(VENV)/test-packages $(VENV)/extension
	$(BIN)/pytest
	PYTHONPATH=$(VENV)/pandas2 $(BIN)/pytest tests/python/test_pandas.py
	PYTHONTRACEMALLOC=1 timeout --signal=ABRT 300 $(BIN)/python -X faulthandler -m pytest tests/python -k 'not hypothesis'

bench: $(VENV)/test-packages $(VENV)/extension
	cargo bench --quiet --bench frame
	cargo bench --quiet --bench weak_map
	cargo bench --quiet --bench crypto
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python LD_LIBRARY_PATH=$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))') \
		cargo bench --quiet --features python --bench alloc
	$(BIN)/python benchmarks/frame.py
	$(BIN)/python benchmarks/bytestorage.py
	$(BIN)/python benchmarks/compression.py
	$(BIN)/python benchmarks/arrow.py
	$(BIN)/python benchmarks/msgpack.py
	$(BIN)/python benchmarks/crypto.py

soak:
	cargo +nightly run --quiet --manifest-path fuzz/Cargo.toml --example seeds
	for target in $$(cargo +nightly fuzz list); do cargo +nightly fuzz run $$target -- -max_total_time=600 || exit 1; done

clean:
	rm -rf $(VENV) target fuzz/target
