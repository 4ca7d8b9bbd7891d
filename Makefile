# make help lists what is here.
GOLANGCI = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help build test race lint fuzz bench figures ci

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the binary as ./stint
	go build -o stint ./cmd/stint

test: ## all tests, real processes included (a few minutes)
	go test ./...

race: ## the packages under the race detector (needs a C compiler)
	go test -race ./wire/... ./store/... ./broker/... ./processor/... ./cmd/... ./examples/...

lint: ## vet and the linters, import arrows included
	go vet ./...
	$(GOLANGCI) run ./...

fuzz: ## each fuzz target for a number of inputs or a time (FUZZTIME, default 20000x)
	./.ci/fuzz $(or $(FUZZTIME),20000x)

HOT = ./wire ./store/bolt ./broker/queue ./broker ./processor
BENCHSTAT = go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

bench: ## Go benchmarks of the hot parts with allocations, compared with docs/figures/go.txt
	go test -run '^$$' -bench . -benchmem -benchtime 200ms -count 6 $(HOT) | grep -E "^(goos|goarch|pkg|cpu|Bench)" >bench.txt
	$(BENCHSTAT) docs/figures/go.txt bench.txt

figures: build ## measure throughput and memory against the backlog and draw it (needs 10 GB of disk, 5 minutes)
	go run ./docs/figures -stint ./stint -out docs/figures

ci: ## what the automatic checks run
	bash .ci/run
