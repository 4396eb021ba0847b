# One or two lines a target; anything longer is a program in tools/ or bench/.
# Tools are pinned in tools/go.mod and built on first use.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash -o pipefail

GO       := go
TOOL     := $(GO) tool -modfile=tools/go.mod
VERSION  := $(shell git describe --tags --dirty 2>/dev/null)
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
RESULTS  := .cache/test
GOTEST   := $(TOOL) gotestsum --format pkgname --format-hide-empty-pkg
UNIT     = $$($(GO) list ./... | grep -v '/integration')
FUZZTIME := 30s
CHAOS    := $(GO) test -tags chaos -count=1 -timeout 0 -v -run TestChaos ./integration/chaos -args -ledger $(CURDIR)/docs/ledger.tsv
MODE     := at_least_once,exactly_once
PLAN     := kills
SEED     := 1
SEEDS    := 3
FOR      := 10m
N        := 2000
FIRST    := 0
RECORDS  := 5000000
KILLS    := 60

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: build ## See it work; needs no Kafka
	bin/seriatim demo

build: ## Build bin/seriatim for this machine
	$(BUILD) -o bin/seriatim ./cmd/seriatim

build-all: bin/seriatim-linux-amd64 bin/seriatim-linux-arm64 bin/seriatim-darwin-amd64 bin/seriatim-darwin-arm64 ## Build for every platform
bin/seriatim-%: FORCE
	GOOS=$(word 1,$(subst -, ,$*)) GOARCH=$(word 2,$(subst -, ,$*)) $(BUILD) -o $@ ./cmd/seriatim

test: test-unit test-virtual test-node test-integration test-chaos ## Run every test (under 15 minutes on 2 cores)

test-unit: | $(RESULTS)
	$(GOTEST) --jsonfile $(RESULTS)/unit.json -- -race -shuffle=on -timeout 5m $(UNIT)
	$(GOTEST) --jsonfile $(RESULTS)/explore.json -- -timeout 5m ./internal/explore # not built with -race

# Rebalances in virtual time. The race detector itself crashes there now and then (golang/go#78156): only then, and
# if no test has failed, they run once more.
VIRTUAL := $(GOTEST) --jsonfile $(RESULTS)/virtual.json -- -race -shuffle=on -timeout 15m -tags synctests ./processor/...
test-virtual: | $(RESULTS)
	$(VIRTUAL) || { ! grep -q '"Action":"fail".*"Test"' $(RESULTS)/virtual.json && \
		grep -q '"Output":"SIGSEGV: \|ThreadSanitizer: CHECK failed' $(RESULTS)/virtual.json && $(VIRTUAL); }

test-node: | $(RESULTS)
	cd sdk/node && node --test --test-timeout=60000 --test-reporter=spec --test-reporter-destination=stdout --test-reporter=tap --test-reporter-destination=$(CURDIR)/$(RESULTS)/node.tap test/*.test.js

test-integration: | $(RESULTS) # the built binary on a real Kafka
	$(GOTEST) --jsonfile $(RESULTS)/integration.json -- -count=1 -parallel 4 -timeout 15m ./integration/...

test-chaos: | $(RESULTS) # a short run of kills on three nodes, in both deliveries
	$(GOTEST) --jsonfile $(RESULTS)/chaos.json -- -tags chaos -count=1 -timeout 15m -run TestChaos ./integration/chaos -args -plan kills -for 25s

lint: ## Check style, mistakes, formatting and go.mod
	$(TOOL) golangci-lint run ./...
	$(TOOL) golangci-lint fmt --diff
	$(GO) vet -tags synctests ./...
	$(GO) mod tidy -diff
	cd bench && $(GO) vet ./... && $(GO) mod tidy -diff

fmt: ## Format the Go code
	$(TOOL) golangci-lint fmt

bench: ## Measure speed, latency, cost and growth, on a real Kafka: BENCH='-only pass'; BARS=1 only what has a bar
	cd bench && $(GO) run . $(if $(BARS),-bars) $(BENCH)

bench-quick: ## Measure a selection in three minutes
	cd bench && $(GO) run . -quick -o ''

soak: ## Measure memory with a head stuck for FOR (10m)
	cd bench && $(GO) run . soak -for $(FOR)

hanging: ## Measure latency with a worker that hangs now and then
	cd bench && $(GO) run . hanging

plans: ## Run N (2000) random plans of rebalances and faults in virtual time, from seed FIRST (any)
	@cd processor && set -- $$(awk -F '[ (]' '/^func Test/ {f = $$2} /plans\(t,/ {print f}' *_test.go) && tests="$$*" && \
	nice $(GO) test -tags synctests -timeout $$(($(N) + 600))s -run "^($${tests// /|})$$" -plans $$((($(N) + $$# - 1) / $$#)) -seed $(FIRST) | \
	awk '/^plans:/ {n += $$2; red += $$(NF-1)} {print; fflush()} END {print n+0 " plans, " red+0 " red"; exit !n || red}'

chaos chaos-all: FOR := 60s
chaos: ## Break instances and brokers by PLAN (kills, ...; all) for FOR (60s), MODE, SEED
	$(CHAOS) -mode $(MODE) -plan $(PLAN) -seed $(SEED) -for $(FOR)

chaos-all: ## All plans in both modes with seeds 1 to SEEDS (3)
	$(CHAOS) -mode at_least_once,exactly_once -plan all -seed 1-$(SEEDS) -for $(FOR)

proof-kfake: ## Kill KILLS (60) members while RECORDS (5000000) pass, on a broker in the process
	@cd processor && nice $(GO) test -timeout 0 -run '^TestKills$$' -v -records $(RECORDS) -kills $(KILLS) | grep -v '^=== '

seeded: ## Make every seeded mistake: each must turn a test red
	$(GO) test -tags seededbugs -timeout 15m -count=1 -v -run TestEveryBugIsCaught ./internal/seeded -update

fuzz: ## Fuzz every target for FUZZTIME (30s)
	@set -e; grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' * | sed 's|/[^/]*:func | |' | sort -u | while read -r dir target; do \
		echo "$$dir $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$dir"; done

clean: ## Remove what was built
	rm -rf bin .cache

$(RESULTS):
	@mkdir -p $@

FORCE:
.PHONY: help demo build build-all test test-unit test-virtual test-node test-integration test-chaos lint fmt bench bench-quick soak hanging plans chaos chaos-all fuzz clean FORCE
