# make help lists what is here.
GOLANGCI = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help build test race lint fuzz bench ci

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

fuzz: ## each fuzz target for a short time (FUZZTIME, default 10s)
	./.ci/fuzz $(or $(FUZZTIME),10s)

bench: ## Go benchmarks with allocations
	go test -run '^$$' -bench . -benchmem ./wire/... ./store/... ./broker/... ./processor/...

ci: ## what the automatic checks run
	bash .ci/run
