# `make help` lists the targets. Everything is set up by the targets that need it, and only once.
# PYTHON=… names the interpreter (3.11 or 3.12); otherwise the first fitting one is taken.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-chaos test-oracle bench-nnunet bench-sam bench-receive bench-segmentation check environment exporter lite-medsam image clean

VENV := .venv/bin
# tests wait more than they compute: one worker more than the two cores that they are written for
WORKERS ?= 3

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: ## the main job on real data: a CT goes in by C-STORE, two DICOM-SEG come out, compared; needs no root
	@deploy/environment.sh server triton
	@$(VENV)/python deploy/demo/demo.py

test: ## the whole test suite; as root on Debian or Ubuntu it installs the peers it talks to
	@tests/install_peers.sh
	@deploy/environment.sh server triton development tools exporter
	@$(MAKE) --no-print-directory check
	@$(VENV)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)
	@$(MAKE) --no-print-directory test-oracle

test-chaos: ## break things on purpose, many times over: what is lost by it, as a table; an hour and a half, as root
	@tests/install_peers.sh
	@deploy/environment.sh server triton development tools
	@CHAOS=full $(VENV)/python -m pytest --timeout 3600 $(or $(PYTEST),tests/chaos)

test-oracle: ## the tests that need torch and nnU-Net itself, in the exporter environment
	@deploy/environment.sh exporter
	@.exporter/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/oracle

bench-nnunet: ## nnU-Net's own predictor beside Limner: seconds, memory, labels; 30 minutes at most
	@deploy/environment.sh server triton exporter
	@$(VENV)/python -m benchmarks.nnunet $(BENCH)

bench-sam: ## LiteMedSAM in torch beside Limner: seconds a slice, milliseconds a prompt, memory; 10 minutes at most
	@deploy/environment.sh server triton exporter
	@$(VENV)/python -m benchmarks.sam $(BENCH)

bench-receive: ## Limner beside Orthanc, storescp and pynetdicom: objects a second by C-STORE; 10 minutes at most, as root
	@tests/install_peers.sh
	@deploy/environment.sh server development
	@$(VENV)/python -m benchmarks.receive $(BENCH)

bench-segmentation: ## dcmqi's itkimage2segimage beside Limner: seconds, bytes and memory of a SEG; 5 minutes at most
	@tests/install_peers.sh
	@deploy/environment.sh server development tools
	@$(VENV)/python -m benchmarks.segmentation $(BENCH)

check: ## style, types, import contracts and spelling
	@deploy/environment.sh server development
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/codespell

environment: ## set up .venv (the server) and .triton (the embedded Triton)
	@deploy/environment.sh server triton

exporter: ## set up .exporter (torch and nnU-Net), which `limner models` works with; the server needs none of it
	@deploy/environment.sh exporter

lite-medsam: ## put LiteMedSAM, a small promptable model with its real weights, into triton_models; needs no torch
	@deploy/environment.sh server
	@$(VENV)/python deploy/lite_medsam/lite_medsam.py

image: ## build the server's container image and send a study through a container of it; needs root, podman, buildah
	@deploy/environment.sh server
	@deploy/image/build.sh
	@deploy/image/smoke.sh

clean: ## remove what the other targets made, the environments too
	rm -rf triton_models/lite_medsam triton_models/lite_medsam_decoder .venv .triton .tools .exporter .demo .cache .image .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
