# Two commands do everything on a fresh machine with Python 3.11+ and a C++17 compiler: `make demo` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
# torch goes in first and pinned, so that no other package pulls in another build of it.
TORCH  ?= torch==2.13.0
# Extra pip arguments for torch alone, for example an --index-url with the CPU or CUDA build of your choice.
TORCH_PIP_ARGS ?=
# Engine libraries: cpu or gpu, never both in one environment.
ENGINES ?= cpu
PLAN   ?= plans/double-colored.plan
# What `make wheel` makes wheels for, as names or paths, and whether with CUDA kernels: AUTO (where nvcc is), ON or OFF.
WHEEL_PYTHONS ?= $(PYTHON)
CUDA   ?= AUTO

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip
# What the compiled part of the package is made from; Python files are used where they lie.
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc cmake -type f 2>/dev/null)

.PHONY: demo test test-all test-clang test-aarch64 lint format bench bench-imagenet bench-gpu wheel try-wheel docs release-check clean

demo: $(VENV)/.runtime
	$(BIN)/cgnrt sheet $(PLAN) -n 9 --seed 3 -o out/demo.png --force
	$(BIN)/cgnrt bench $(PLAN)

# Two processes share the test files, and torch computes on one core in each.
test: $(VENV)/.full
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.full $(VENV)/.extended $(VENV)-triton/.ready
	$(BIN)/python -m pytest -m "not gpu"

# The extension compiled by clang (Debian's `clang`), and the tests that face it.
test-clang: $(VENV)-clang/.ready
	$(VENV)-clang/bin/python -m pytest tests/ops tests/runtime/test_native.py tests/runtime/test_deep_*.py

# The extension cross-compiled for 64-bit ARM (Debian's g++-aarch64-linux-gnu), and the tests of the ops under QEMU
# (qemu-user-static), all but those that start processes.
test-aarch64: $(VENV)/.build
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/aarch64.py \
	  $(addprefix tests/ops/test_,bad_arguments.py compose.py exchange.py noise.py patch_grid.py place.py signatures.py)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh')
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh')

bench: $(VENV)/.full
	$(BIN)/python bench/ops.py
	$(BIN)/python bench/generator.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/stream.py
	$(BIN)/python bench/bank.py

# Some twenty minutes and 20 GB of memory: makes a random CGN of 256 px, exports it, and runs it by every peer.
bench-imagenet: $(VENV)/.full
	$(BIN)/python bench/imagenet.py

# With an NVIDIA GPU and nvcc: an environment of its own, then nine minutes (docs/performance.md). Where PyTorch for the GPU
# is installed already, `python bench/gpu/first.py` alone does.
bench-gpu:
	$(MAKE) VENV=$(VENV)-gpu ENGINES=gpu $(VENV)-gpu/.full
	$(VENV)-gpu/bin/python bench/gpu/first.py

# The sdist and a wheel for each of WHEEL_PYTHONS in dist/, repaired and named by auditwheel, checked for its members, size
# and licences. `make try-wheel` tries them in empty environments: the first steps of a new user.
wheel: $(VENV)/.wheel
	rm -f dist/cgnrt-*
	$(BIN)/python tools/wheels.py --output dist --cuda $(CUDA) --sdist $(WHEEL_PYTHONS)

try-wheel: $(BIN)/python
	$(BIN)/python tools/try_wheel.py $(addprefix --python ,$(WHEEL_PYTHONS)) dist/cgnrt-*.whl

# The documentation as a site, in site/. Without network; a broken link or a public name without a docstring is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# All that has to hold before a release (RELEASING.md). About an hour on two cores.
release-check: $(BIN)/python
	$(BIN)/python tools/release_check.py
	$(MAKE) lint
	$(MAKE) test-all
	$(MAKE) docs
	$(MAKE) wheel
	$(MAKE) try-wheel

clean:
	rm -rf $(VENV) $(VENV)-clang $(VENV)-gpu $(VENV)-triton build dist out site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"cgnrt: Python is {v[0]}.{v[1]}, expected 3.11 or newer. Run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade pip

# What builds the package lies in the environment itself, so that a second build compiles only what changed.
$(VENV)/.build: $(BIN)/python
	$(PIP) install -q 'scikit-build-core>=1.1' 'pybind11>=3.1' 'cmake>=3.26' ninja
	touch $@

# The runtime alone, with both CPU engine libraries and without torch.
$(VENV)/.runtime: $(VENV)/.build $(SOURCES)
	$(PIP) install -q --no-build-isolation -e '.[cpu]'
	touch $@

# Everything: training, export, tests.
$(VENV)/.full: $(VENV)/.build $(SOURCES)
	$(PIP) install -q '$(TORCH)' $(TORCH_PIP_ARGS)
	$(PIP) install -q --no-build-isolation -e '.[$(ENGINES),train,export,serve,test]'
	touch $(VENV)/.runtime $@

# What the extended tests need beside it, and Debian's chromium and chromium-driver.
$(VENV)/.extended: $(VENV)/.full
	$(PIP) install -q --no-build-isolation -e '.[ray,browser]' --group docs --group integrations --group notebooks
	touch $@

# A real Triton for its extended test (docs/triton.md). The wheel that brings the server wants numpy < 2.
$(VENV)-triton/.ready: $(SOURCES)
	SKBUILD_BUILD_DIR=build/triton SKBUILD_CMAKE_DEFINE=CGNRT_CUDA=OFF $(MAKE) VENV=$(VENV)-triton $(VENV)-triton/.runtime
	$(VENV)-triton/bin/python -m pip install -q nvidia-pytriton==0.7.0 prometheus-client
	touch $@

# cgnrt as clang compiles it, warnings as errors; all other packages are those of $(VENV).
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(VENV)-clang/.ready: $(VENV)/.full
	$(BIN)/python -m venv --without-pip $(VENV)-clang
	$(BIN)/python $(PURELIB) > "$$($(VENV)-clang/bin/python $(PURELIB))/packages.pth"
	CXX=clang++ SKBUILD_BUILD_DIR=build/clang SKBUILD_CMAKE_DEFINE='CGNRT_CUDA=OFF;CGNRT_WERROR=ON' \
	  $(PIP) --python $(VENV)-clang/bin/python install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.wheel: $(BIN)/python pyproject.toml
	$(PIP) install -q --group wheel
	touch $@

$(VENV)/.docs: $(VENV)/.full pyproject.toml
	$(PIP) install -q --group docs
	touch $@

$(VENV)/.dev: $(VENV)/.full
	$(PIP) install -q --no-build-isolation -e '.[dev]'
	touch $@
