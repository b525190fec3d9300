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

# Where a host install puts things; units have to be where systemd looks for them.
BINDIR = $(PREFIX)/bin
DATADIR = $(PREFIX)/share
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
SYSCONFDIR ?= /etc
IMAGE ?= .build/image/chunkd

.PHONY: help deps build release test demo bench bench-cluster bench-containers simulate fuzz lint \
	chart units image try-host install uninstall clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install from the distribution what is missing, create the user chunkd (root)
	@scripts/install-deps

build: deps ## debug build of everything, tests included
	$(SWIFT) build --build-tests

release: deps ## optimised build of the programs, with the Swift runtime linked in
	@for program in $(PROGRAMS); do $(RELEASE) --product "$$program"; done

test: build ## run every test and a short fuzz run; kernel tests need root and Linux 6.14
	@SWIFT="$(SWIFT)" scripts/run-tests
	@scripts/fuzz $(FUZZ_SECONDS)
	@scripts/check-chart
	@scripts/check-units

demo: release ## three nodes and a registry: one image from build to complete, with what happens shown
	@cluster/demo.sh

bench: release ## measure every figure beside its floor
	@Benchmarks/run

bench-cluster: release ## measure eight real nodes, and the peer server and client beside nginx and curl (root)
	@$(RELEASE) --product peerbench
	@Benchmarks/cluster/run

bench-containers: release ## measure containers on chunkd's snapshotter beside containerd's overlayfs (root)
	@Benchmarks/containers/run

simulate: deps ## simulate up to 10,000 nodes with the agent's own state machines
	@$(RELEASE) --product chunksim
	@Benchmarks/simulate

fuzz: deps ## fuzz every parser of foreign bytes, FUZZ_SECONDS each
	@scripts/fuzz $(FUZZ_SECONDS)

lint: ## formatting and style, strictly
	$(SWIFT) format lint --strict --configuration .swift-format -r Package.swift Sources Tests

chart: deps ## render the Helm chart, check it, its alerts and its dashboard
	@scripts/check-chart

units: ## check the systemd units
	@scripts/check-units

image: release ## container image as an OCI layout in $(IMAGE), built twice and tried (root)
	@cluster/image/build "$$($(SWIFT) build -c release --show-bin-path)" "$(IMAGE)"
	@cluster/image/check "$$($(SWIFT) build -c release --show-bin-path)" "$(IMAGE)"

try-host: image ## host install and the chart's way onto a node, under a systemd of their own (root)
	@cluster/systemd/try "$$($(SWIFT) build -c release --show-bin-path)" "$(IMAGE)"

install: release ## programs, systemd units, completions and documents to $(DESTDIR)$(PREFIX)
	@BINDIR="$(BINDIR)" DATADIR="$(DATADIR)" UNITDIR="$(UNITDIR)" SYSUSERSDIR="$(SYSUSERSDIR)" \
		TMPFILESDIR="$(TMPFILESDIR)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" \
		scripts/install install "$$($(SWIFT) build -c release --show-bin-path)"

uninstall: ## remove what install put there; configuration and state stay
	@BINDIR="$(BINDIR)" DATADIR="$(DATADIR)" UNITDIR="$(UNITDIR)" SYSUSERSDIR="$(SYSUSERSDIR)" \
		TMPFILESDIR="$(TMPFILESDIR)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" scripts/install uninstall

clean: ## remove what builds, tests and benchmarks leave in the tree
	$(SWIFT) package clean
	rm -rf .build/fuzz Benchmarks/.work
