# `make` lists the targets. `make test` and `make demo` need nothing but Python 3.11 on the machine.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install check format test fuzz demo dist image-cpu image-gpu image-test mms mms-test endpoint-test toolkit-test sabotage-test bench clean

# The environment that the targets use; ENV=build/wheel is one with the built wheel (CI).
ENV ?= .venv
BIN := $(ENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Where torch's CPU build is taken from when pip's own settings do not offer one (see `torch` below).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Further arguments for pytest: make test ARGS='-k routes -x'
ARGS ?=
# `docker build`, or a wrapper of it where one lies beside the repository (machines without Docker Hub)
DOCKER_BUILD ?= $(or $(abspath $(wildcard ../shared/tools/docker-build.sh)),docker build)
FRAMEWORKS ?= xgboost,sklearn,pytorch,sagemaker
# mms: images with AWS's Multi Model Server and Java, tagged mmekit:cpu-mms and mmekit:gpu-mms
ENGINE ?= native
TAG = $(if $(filter mms,$(ENGINE)),-mms)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' container/mmekit/__init__.py)

# The first Python 3.11 that can make an environment (Debian's own lacks ensurepip; pyenv's shim may refuse).
FIND_PYTHON = for p in python3.11 $$HOME/.pyenv/versions/3.11*/bin/python /usr/local/bin/python3.11 /usr/bin/python3.11 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && exit; \
	done; echo 'make: no Python 3.11 with ensurepip found; install it (python3.11 and python3.11-venv)' >&2; exit 1

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install: $(ENV)/.installed ## .venv with the package (editable), all frameworks and the development tools

# PyPI's torch for Linux brings 3 GB of CUDA libraries. The CPU build ("+cpu") comes from pip's own
# settings where they have one, else from PyTorch's index, and torch alone is taken from there.
.venv/.installed: setup.py pyproject.toml constraints.txt
	test -x .venv/bin/python || { python=$$($(FIND_PYTHON)) && $$python -m venv .venv; }
	$(PIP) install --quiet --constraint constraints.txt --upgrade pip setuptools
	torch=$$(sed -n 's/^torch==//p' constraints.txt); \
	$(PIP) install --quiet --no-deps "torch==$$torch+cpu" 2>/dev/null || \
	$(PIP) install --quiet --no-deps --index-url $(TORCH_INDEX) "torch==$$torch" || \
	echo "no CPU build of torch $$torch found: PyPI's follows"
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[all,dev]'
	.venv/bin/python -m compileall -q container handlers endpoint toolkit
	touch $@

# The built wheel in an environment of its own, which borrows frameworks and tools from .venv by a .pth
# line: that makes its packages importable but not the editable install (a .pth in there is not read).
build/wheel/.installed: .venv/.installed $(shell find container handlers endpoint toolkit -name '*.py')
	rm -rf build/wheel dist
	$(MAKE) dist ENV=.venv
	.venv/bin/python -m venv --without-pip build/wheel
	.venv/bin/python -m pip --disable-pip-version-check --python build/wheel/bin/python install --quiet --no-deps dist/mmekit-*.whl
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$(build/wheel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tools.pth"
	touch $@

# The real Multi Model Server, which brings the top-level name mms and so cannot stand in .venv. By a .pth
# file it borrows .venv's frameworks and tools (written first: pip then installs none of them twice) and
# reads mmekit from the source folders.
build/mms/.installed: .venv/.installed setup.py constraints.txt
	rm -rf build/mms
	.venv/bin/python -m venv build/mms
	{ .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; \
	printf '%s\n' $(CURDIR)/container $(CURDIR)/handlers; } \
		>"$$(build/mms/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mmekit.pth"
	build/mms/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		multi-model-server sagemaker-inference retrying
	touch $@

mms: build/mms/.installed ## build/mms: the real Multi Model Server, for mms-test and bench
	@java -version >/dev/null 2>&1 || { echo 'make: Multi Model Server needs Java: apt-get install openjdk-17-jre-headless' >&2; exit 1; }

# Amazon's SageMaker Python SDK, which drives the local endpoint in tests. Each major version has an
# environment of its own: both are named sagemaker, need different versions of sagemaker-core, and have pins
# that .venv does not meet. Nothing is borrowed, so they run with the boto3 that their users get.
#
# Of version 3 only sagemaker-core is there: it has the resources (Model, EndpointConfig, Endpoint.invoke) and
# is all of the SDK that knows multi-model endpoints. sagemaker is now a name without code, taken for its
# version; its other parts (sagemaker-serve, -train, -mlops) would bring MLflow, PyArrow and more.
build/sdk%/.installed: constraints-sdk%.txt | .venv/.installed
	rm -rf $(@D)
	.venv/bin/python -m venv --without-pip $(@D)
	.venv/bin/python -m pip --disable-pip-version-check --python $(@D)/bin/python install --quiet --no-deps --requirement $<
	touch $@

check: $(ENV)/.installed ## format, lint, types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

format: $(ENV)/.installed ## rewrite the sources as `make check` wants them
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

test: $(ENV)/.installed ## the tests that need no container engine, Java or AWS's clients
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(ENV)/.installed ## the property tests with new examples; `make test` has the same each time
	$(BIN)/python -m pytest -m 'hypothesis and not image' --hypothesis-profile=new $(ARGS)

demo: $(ENV)/.installed ## three models trained, served, compared with their frameworks
	$(BIN)/python examples/demo/demo.py

dist: $(ENV)/.installed ## wheel and source archive in dist/
	$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@ls dist

image-cpu: ## the CPU image, mmekit:cpu; FRAMEWORKS=xgboost,sklearn for a smaller one
	$(DOCKER_BUILD) -f Dockerfile.cpu --build-arg FRAMEWORKS=$(FRAMEWORKS) --build-arg ENGINE=$(ENGINE) --build-arg VERSION=$(VERSION) --build-arg TORCH_INDEX=$(TORCH_INDEX) -t mmekit:cpu$(TAG) .

image-gpu: ## the GPU image, mmekit:gpu
	$(DOCKER_BUILD) -f Dockerfile.gpu --build-arg FRAMEWORKS=$(FRAMEWORKS) --build-arg ENGINE=$(ENGINE) --build-arg VERSION=$(VERSION) -t mmekit:gpu$(TAG) .

image-test: $(ENV)/.installed ## builds the images and tests them with docker run; fails without an engine
	MMEKIT_IMAGE_TEST=$${MMEKIT_IMAGE_TEST:-required} MMEKIT_DOCKER_BUILD='$(DOCKER_BUILD)' $(BIN)/python -m pytest -m image tests/image $(ARGS)

mms-test: mms $(ENV)/.installed ## the same exchanges with mmekit and with the real Multi Model Server
	$(BIN)/python -m pytest -m mms $(ARGS)

endpoint-test: build/sdk2/.installed build/sdk3/.installed $(ENV)/.installed ## the local endpoint, with boto3, the AWS CLI and SageMaker's SDK 2 and 3
	MMEKIT_ENDPOINT_TEST=$${MMEKIT_ENDPOINT_TEST:-required} $(BIN)/python -m pytest -m endpoint tests/endpoint $(ARGS)

toolkit-test: $(ENV)/.installed ## contract kit, deploy and operations, against moto, the local endpoint and a real S3 server
	$(BIN)/python -m pytest -m toolkit tests/toolkit $(ARGS)

sabotage-test: $(ENV)/.installed ## the contract kit on every sabotaged server; toolkit-test has one for each clause
	MMEKIT_SABOTAGES=all $(BIN)/python -m pytest -m toolkit tests/toolkit/contract/test_sabotage.py $(ARGS)

bench: build/wheel/.installed build/mms/.installed ## the figures of docs/performance.md
	build/wheel/bin/python -m benchmarks $(ARGS)

clean: ## removes what the targets made, .venv included
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
