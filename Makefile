# Targets for people and for CI. `make help` lists them.
SHELL := /bin/bash
GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
GOTESTSUM := $(TOOL) gotestsum
PKGS ?= ./...
TESTFLAGS ?=
RACE ?= -race

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the binary into bin/flowfabric
	$(GO) build -o bin/flowfabric ./cmd/flowfabric

.PHONY: demo
demo: ## Index this repository on the embedded store, with a killed worker and retries
	$(GO) run ./cmd/flowfabric demo

.PHONY: services
services: ## Install the servers that tests need
	@./.ci/services

.PHONY: test
test: services ## Run every test with the race detector (RACE= without it)
	@./.ci/compiler
	CGO_ENABLED=$(if $(RACE),1,0) $(GOTESTSUM) --format pkgname --hide-summary=skipped -- $(RACE) -timeout 15m $(TESTFLAGS) $(PKGS)

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, golangci-lint and govulncheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) golangci-lint run ./...
	@./.ci/vulncheck

.PHONY: bench
bench: services ## Go benchmarks, then the bench scenarios on a fresh SQLite file and a fresh Valkey
	$(GO) test -run '^$$' -bench . -benchmem ./...
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(GO) run ./cmd/flowfabric bench submit-claim-complete --store "sqlite:$$dir/bench.db" --tasks 10000 --workers 16 --payload 4096 && \
	$(GO) run ./cmd/flowfabric bench latency --store "sqlite:$$dir/latency.db"

.PHONY: soak
soak: services ## The model tests and the fuzz tests for a long time
	$(GO) test -timeout 0 -run Conformance ./sqlstore/sqlite -rapid.checks=20000 -rapid.steps=200
	$(GO) test -timeout 0 -run 'ConformanceStandalone/model' ./valkey -rapid.checks=20000 -rapid.steps=200
	@for target in $$(grep -rlE '^func Fuzz' --include '*_test.go' . | xargs -n1 dirname | sort -u); do \
		for fuzz in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$target/*_test.go | sed 's/func //'); do \
			$(GO) test -run '^$$' -fuzz "^$$fuzz$$" -fuzztime 5m $$target || exit 1; done; done

.PHONY: docs
docs: ## Write the generated parts of docs/
	$(GO) generate ./...
