# The front door. CMake does the work (see CMakePresets.json); this only says the few words people type.
PRESET ?= release
PREFIX ?= /usr/local
ARGS ?=

.PHONY: build demo fuzz test test-long test-gpu bench-gpu bench-peers install format clean help

build:
	@scripts/install_deps.sh
	@configured=$$(cmake --preset $(PRESET) 2>&1) || { echo "$$configured" >&2; exit 1; }
	@cmake --build --preset $(PRESET)

demo: build
	@python3 scripts/demo.py

test:
	@scripts/install_deps.sh test
	@scripts/fetch_model.sh >/dev/null || true
	@.venv/bin/python scripts/run_tests.py $(ARGS)

# Hours, not minutes: 20,000 cases of `fastattn check`, the fuzzers with many more tries, and planted errors that the
# checker has to find.
test-long:
	@scripts/install_deps.sh test
	@scripts/fetch_model.sh >/dev/null || true
	@.venv/bin/python scripts/run_tests.py --long $(ARGS)

# What reads model files, fed with damaged ones: FUZZ_SECONDS for each reader.
FUZZ_SECONDS ?= 60
fuzz:
	@scripts/install_deps.sh test
	@scripts/fuzz.sh $(FUZZ_SECONDS)

test-gpu: build
	@scripts/test_gpu.sh

bench-gpu: build
	@mkdir -p build/bench-gpu
	@python3 -c 'import torch, matplotlib' 2>/dev/null || { echo "bench-gpu: python3 lacks torch or matplotlib" >&2; exit 1; }
	@PYTHONPATH=python FASTATTENTION_LIBRARY=$(CURDIR)/build/lib/libfastattention.so python3 bench/bench_gpu.py all \
	  --json build/bench-gpu/rows.json $(ARGS)
	@python3 bench/plot_gpu.py build/bench-gpu/rows.json build/bench-gpu/prefill.png

bench-peers: build
	@python3 bench/peers/run_peers.py --json build/bench-peers/rows.json --table build/bench-peers/table.md \
	  --plot build/bench-peers/ratios.png $(ARGS)

install: build
	@cmake --install build --prefix $(PREFIX)

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	@rm -rf build

help:
	@echo "make            build build/bin/fastattn and build/lib/libfastattention.so (PRESET=debug|asan|clang|tsan|aarch64)"
	@echo "make demo       a language model answering through this library, then attention timed"
	@echo "make test       everything, on gcc, clang, the sanitizers and an emulated Arm; ends with 'N passed, N failed'"
	@echo "make test-long  the same with 20,000 checked cases"
	@echo "make fuzz       the readers of model files, fed with damaged ones (FUZZ_SECONDS=60 for each)"
	@echo "make test-gpu   every kernel for NVIDIA GPUs on this machine's GPU"
	@echo "make bench-gpu  those kernels beside PyTorch's, in a table and a plot (needs torch)"
	@echo "make bench-peers beside other CPU libraries, which it fetches, 9 GB (ARGS=--quick: a third of the grid)"
	@echo "make install    to PREFIX (/usr/local)"
	@echo "make clean      remove build/"
