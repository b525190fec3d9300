# Everything a person or CI runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SWIFT ?= swift
RELEASE = $(SWIFT) build -c release --static-swift-stdlib
PREFIX ?= /usr/local
DESTDIR ?=
# Seconds each fuzz target runs in `make test` and by default in `make fuzz`.
FUZZ_SECONDS ?= 10
PROGRAMS := chunkgate chunkd chunkctl

.PHONY: help deps build release test demo bench fuzz lint install clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install from the distribution what is missing, create the user chunkd (root)
	@scripts/install-deps

build: deps ## debug build of everything, tests included
	$(SWIFT) build --build-tests

release: deps ## optimised build of the programs, with the Swift runtime linked in
	@for program in $(PROGRAMS); do $(RELEASE) --product "$$program"; done

test: build ## run every test and a short fuzz run; kernel tests need root and Linux 6.14
	@SWIFT="$(SWIFT)" scripts/run-tests
	@scripts/fuzz $(FUZZ_SECONDS)

demo: release ## one image from build to complete, on a real registry, with what happens shown
	@cluster/demo.sh

bench: release ## measure every figure beside its floor
	@Benchmarks/run

fuzz: deps ## fuzz every parser of foreign bytes, FUZZ_SECONDS each
	@scripts/fuzz $(FUZZ_SECONDS)

lint: ## formatting and style, strictly
	$(SWIFT) format lint --strict --configuration .swift-format -r Package.swift Sources Tests

install: release ## copy the programs to $(DESTDIR)$(PREFIX)/bin
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(foreach p,$(PROGRAMS),"$$($(SWIFT) build -c release --show-bin-path)/$(p)") "$(DESTDIR)$(PREFIX)/bin/"

clean: ## remove what builds, tests and benchmarks leave in the tree
	$(SWIFT) package clean
	rm -rf .build/fuzz Benchmarks/.work
