# What README and CI call. Needs make and Python 3.10 or newer, nothing else:
# everything is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs
ARGS ?=

BIN := $(VENV)/bin
# run directories of CIFAR-10 by pattern, with commas between them
runs = $$(ls -d $(WORKDIR)/cifar10_$(1) | paste -sd,)
SOURCES := setup.cfg pyproject.toml

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart study-cifar10 study figures models device-arm64
.PHONY: bench bench-accuracy bench-overhead bench-measures bench-tflite bench-sweep
.PHONY: test fuzz kill lint audit docs clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' Makefile \
	  | awk -F '|' '{ printf "make %-14s %s\n", $$1, $$2 }'
	@echo "ARGS=... is passed on to the command of a study or of pytest."

quickstart: $(VENV)/installed ## float and quantized twins on the digits, a report
	$(BIN)/qgen-sweep --config=quickstart --workdir=$(WORKDIR) $(ARGS)

study-cifar10: $(VENV)/installed ## the same for networks-in-network on CIFAR-10
	$(BIN)/qgen-sweep --config=cifar10_nin --workdir=$(WORKDIR) $(ARGS)

study: $(VENV)/installed ## 256 models on CIFAR-10, the paper's claims; hours
	$(BIN)/qgen-sweep --config=sweep_cifar10_nin --workdir=$(WORKDIR) $(ARGS)

figures: $(VENV)/installed ## train what docs/theory.md shows, on CIFAR-10, and draw it
	for config in resnet18 resnet50 mobilenet_v2; do \
	  $(BIN)/qgen-train --config=cifar10_$$config --workdir=$(WORKDIR) \
	    || exit 1; \
	  for bits in 8 4 2; do \
	    $(BIN)/qgen-train --config=cifar10_$$config --workdir=$(WORKDIR) \
	      --config.quantization.weight_bits=$$bits \
	      --config.quantization.activation_bits=8 || exit 1; \
	  done; \
	done
	$(BIN)/qgen-figure --kind=bin_width --output=docs/figures/bin_width.svg \
	  --run_dirs=$(call runs,resnet18-w*),$(call \
	  runs,resnet50-w*),$(call runs,mobilenet_v2-w*)
	$(BIN)/qgen-figure --kind=landscape --output=docs/figures/landscape.svg \
	  --num_points=13 --span=0.5 --num_examples=512 \
	  --run_dirs=$(call runs,resnet18-*)
	$(BIN)/qgen-figure --kind=predicted_rise --num_examples=512 \
	  --output=docs/figures/predicted_rise.svg \
	  --run_dirs=$(call runs,resnet18-float-*)

models: $(VENV)/installed ## quantize, train, export and verify the model zoo
	$(BIN)/python -m benchmarks.model_zoo --output=docs/models.md $(ARGS)

device-arm64: $(VENV)/installed ## run a bundle on emulated 64-bit Arm
	$(BIN)/qgen-train --config=quickstart --workdir=$(WORKDIR) \
	  --config.quantization.weight_bits=4 \
	  --config.quantization.activation_bits=8
	$(BIN)/python -m benchmarks.device_arm64 \
	  --folder=$(WORKDIR)/device-arm64 \
	  --run_dir=$$(ls -d $(WORKDIR)/quickstart-w4a8-* | tail -1) $(ARGS)

bench: $(VENV)/installed ## every benchmark, one table in docs/benchmarks.md
	$(BIN)/python -m benchmarks.all --folder=$(WORKDIR)/benchmarks \
	  --output=docs/benchmarks.md $(ARGS)

bench-accuracy: $(VENV)/installed ## accuracy of twins and of tfmot's default
	$(BIN)/python -m benchmarks.qat_accuracy --config=cifar10_resnet20 \
	  --workdir=$(WORKDIR) $(ARGS)

bench-overhead: $(VENV)/installed ## time of a training step over a float one
	$(BIN)/python -m benchmarks.qat_overhead $(ARGS)

bench-measures: $(VENV)/installed ## time of measures over straightforward ones
	$(BIN)/qgen-train --config=cifar10_nin --workdir=$(WORKDIR)
	$(BIN)/python -m benchmarks.measures \
	  --run_dir=$(call runs,nin-float-*) $(ARGS)

bench-tflite: $(VENV)/installed ## throughput of files over the runtime's own
	$(BIN)/python -m benchmarks.tflite_throughput $(ARGS)

bench-sweep: $(VENV)/installed ## how sweeps scale
	$(BIN)/python -m benchmarks.sweep_scaling $(ARGS)

fuzz: $(VENV)/installed-test ## damage configs, runs, records and .tflite files
	$(BIN)/python -m tests.fuzz --inputs=5000 $(ARGS)

kill: $(VENV)/installed-test ## kill commands at random moments, for long
	$(BIN)/python -m tests.faults.kill --kills=30 $(ARGS)

test: $(VENV)/installed-test ## run the tests, two at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/installed-test ## check style, security and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/created ## known vulnerabilities of the pinned dependencies
	$(BIN)/python -m pip install -qq 'pip-audit>=2.10,<3'
	$(BIN)/pip-audit --strict --no-deps --disable-pip \
	  --requirement constraints.txt $(ARGS)

docs: $(VENV)/installed-test ## build the API reference into build/api
	$(BIN)/python -m sphinx -W --keep-going -q docs/api build/api

clean: ## remove the environment and the caches; runs are kept
	rm -rf $(VENV) build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an interrupted installation is done again.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	  || { echo "qgen_tf needs Python 3.10 to 3.13, but $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo missing): run make with" \
	    "PYTHON=/path/to/python3.11 or the like." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	touch $@

$(VENV)/installed: $(VENV)/created $(SOURCES)
	$(BIN)/python -m pip install -qq --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install -qq --editable '.[test]'
	touch $@
