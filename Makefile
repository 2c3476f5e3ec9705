# make demo   the main job on real data        make test   every test, lint and type check
# make bench  the tables in benchmarks/        make soak   long runs: processes, fuzzing
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi') Cargo.toml Cargo.lock pyproject.toml
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
# What a program that embeds the interpreter is linked with.
LIBPYTHON = $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
# The fuzz target that embeds one.
EMBEDDED := msgpack

.PHONY: demo test lint test-rust redis-server test-python bench soak clean
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
	$(BIN)/ty check --quiet
	if command -v node >/dev/null; then $(BIN)/pyright; else echo "pyright is not run: it needs node"; fi
	$(BIN)/stubtest --allowlist tests/typing/stubtest-allowlist --ignore-unused-allowlist framecache._framecache

test-rust: $(VENV)/made
ifeq ($(NEXTEST),yes)
	cargo nextest run --no-fail-fast
else
	cargo test --lib --tests
endif
	cargo test --doc --quiet
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python LD_LIBRARY_PATH=$(LIBPYTHON) \
		cargo test --quiet --features python --lib -- codec::json cpython call

# A server for tests/python/test_redis_*.py; where it cannot be had, they say so and are skipped, and fail on CI.
redis-server:
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && apt-get install -qy redis-server; } || \
		echo 'redis-server is missing: tests/python/test_redis_*.py cannot run (Debian: apt-get install redis-server)'

test-python: $(VENV)/test-packages $(VENV)/extension redis-server
	$(BIN)/pytest
	PYTHONPATH=$(VENV)/pandas2 $(BIN)/pytest tests/python/test_pandas.py
	PYTHONTRACEMALLOC=1 timeout --signal=ABRT 1800 $(BIN)/python -X faulthandler -m pytest tests/python -k 'not hypothesis' \
		--ignore tests/python/test_store_processes.py --ignore tests/python/test_store_syscalls.py \
		--ignore tests/python/test_redis_history.py --ignore tests/python/test_redis_cluster_faults.py

bench: $(VENV)/test-packages $(VENV)/extension
	cargo bench --quiet --bench frame
	cargo bench --quiet --bench weak_map
	cargo bench --quiet --bench l1
	cargo bench --quiet --bench crypto
	cargo bench --quiet --bench memory
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python LD_LIBRARY_PATH=$(LIBPYTHON) \
		cargo bench --quiet --features python --bench alloc
	$(BIN)/python -m benchmarks.frame
	$(BIN)/python -m benchmarks.bytestorage
	$(BIN)/python -m benchmarks.compression
	$(BIN)/python -m benchmarks.arrow
	$(BIN)/python -m benchmarks.msgpack
	$(BIN)/python -m benchmarks.store large
	$(BIN)/python -m benchmarks.hits
	$(BIN)/python -m benchmarks.hit_ratio
	$(BIN)/python -m benchmarks.json
	$(BIN)/python -m benchmarks.json --fresh
	$(BIN)/python -m benchmarks.crypto
	$(BIN)/python -m benchmarks.remote
	$(BIN)/python -m benchmarks.stream

soak: $(VENV)/test-packages $(VENV)/extension
	FRAMECACHE_SOAK_SECONDS=300 $(BIN)/pytest tests/python/test_store_processes.py tests/python/test_redis_history.py
	$(BIN)/python fuzz/json_differential.py 600
	cargo +nightly run --quiet --manifest-path fuzz/Cargo.toml --example seeds
	for target in $$(cargo +nightly fuzz list | grep -vx $(EMBEDDED)); do \
		cargo +nightly fuzz run $$target -- -max_total_time=600 || exit 1; done
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python LD_LIBRARY_PATH=$(LIBPYTHON) PYTHONPATH=$(wildcard $(CURDIR)/$(VENV)/lib/python3*/site-packages) \
		PYTHONHOME=$(shell $(PYTHON) -c 'import sys; print(sys.base_prefix)') ASAN_OPTIONS=detect_leaks=0 \
		cargo +nightly fuzz run --features python $(EMBEDDED) -- -max_total_time=600 -max_len=4096

clean:
	rm -rf $(VENV) target fuzz/target
