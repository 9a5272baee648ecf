# What a person types; CI types the same. See README.md and docs/testing.md.

GO       ?= go
BIN      := bin
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LINT     := $(BIN)/golangci-lint
LINT_VERSION := v2.15.0

.PHONY: build image deploy demo test test-all check files fmt vet lint race laws arch one-cpu scripts cache-check figures bench bench-full setup clean

build: $(BIN)/fbuild

# Static and without cgo: the one binary runs on any Linux and re-executes
# itself as its helpers.
$(BIN)/fbuild: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $@ ./cmd/fbuild
FORCE:

# fbuild's own image, built by fbuild, as an OCI layout in bin/image; with
# IMAGE_ARGS="-t REF --push" or "-t REF --load" wherever you like. See deploy/.
image: build
	./deploy/image $(BIN)/fbuild $(or $(IMAGE_ARGS),-t fbuild:$(VERSION) -o type=oci,tar=false,dest=$(BIN)/image)

# Compile fbuild and build a real image from a real multi-stage Dockerfile.
demo: build
	./demo/run $(BIN)/fbuild

# Prove that it works: unit and law tests, then every real input once, as this
# user (and, where this user is root, as an ordinary user as well).
test: build
	$(GO) test ./...
	FBUILD=$(abspath $(BIN)/fbuild) $(GO) test -count=1 -timeout 30m -tags integration ./integration/...

# The whole product of inputs, users and recorders.
test-all: build
	FBUILD=$(abspath $(BIN)/fbuild) FBUILD_MATRIX=all $(GO) test -count=1 -timeout 90m -tags integration -v ./integration/...

check: files fmt vet lint race laws one-cpu deploy scripts cache-check

# The repository holds sources: nothing that was built, nothing over 1 MB.
files:
	@out=$$(git ls-files -z | xargs -0 find 2>/dev/null -maxdepth 0 -size +1000k); test -z "$$out" || { echo "too large to commit:"; echo "$$out"; exit 1; }

fmt:
	@out=$$(gofmt -s -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt -s would change:"; echo "$$out"; exit 1; }

vet:
	$(GO) vet -tags integration ./...

lint: $(LINT)
	$(LINT) run --allow-parallel-runners ./...

$(LINT):
	GOBIN=$(abspath $(BIN)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

# What takes a rule away and must see a wrong image, random programs, compressing the same
# bytes again and again, and laws that start hundreds of processes: many runs of one thing,
# which the race detector would only make slow (a process of a binary with it costs 50 ms and
# more). Something else of each runs with it all the same; these run without.
SLOW := ^(TestEveryRuleIsNeeded|TestLawsOff|TestRandomSteps|TestFramesDoNotShow|TestSpoiledFrames|TestEncodersForget|TestFrameKeysDiffer|TestStargzVerifies|TestRatio|TestRecompress|TestDiffThenApply|TestApplyIndex$(\
	)|TestSeekableIsALayer|TestContentsThatChange|TestChunkedTable|TestHostileChunks|TestEdgesAreOneMember|TestTableIsTheLayer$(\
	)|TestQuestions|TestQuestionsAfterEviction|TestTracesAreComplete|TestRequests|TestArenas|TestRandomWritesStayInPlace|TestLogIsBounded|TestChangesAreTheDifference$(\
	)|TestListFitsItsReader|TestDocOfEmptyEntries|TestCacheLies|TestFuseAndWalkAgree|TestOverlayAgrees)$$
# These have no server and no goroutines to speak of: one-cpu runs them.
PLAIN := ^(TestWalkLaws|TestOverlayLaws)$$

# These start no goroutines, or none that share anything: laws runs them, plain.
SEQUENTIAL := bench|cmd|dockerfile|fetch|trace|tree|internal/(arch|outfile|reexec)

# -vet=off: vet and lint have looked at all of it.
race:
	$(GO) test -race -vet=off -skip '$(SLOW)|$(PLAIN)' $$($(GO) list ./... | grep -vE '/($(SEQUENTIAL))(/|$$)')

laws:
	$(GO) test -count=1 -vet=off -run '$(SLOW)' ./fusefs ./build ./oci/layer
	$(GO) test -count=1 -vet=off $$($(GO) list ./... | grep -E '/($(SEQUENTIAL))(/|$$)')

# The deadlocks of a file server on one processor show here.
one-cpu:
	GOMAXPROCS=1 taskset -c 0 $(GO) test -count=1 -vet=off -run 'Laws|Posix|Process|Late|Still|Abort|Panic|Fails|Programs|Unmounted' ./fusefs
	GOMAXPROCS=1 taskset -c 0 $(GO) test -count=1 -vet=off ./snapshot/... ./exec/... ./internal/recorder/...

# The files to start from, held to their published schemas; a module of its own, so
# that fbuild's dependencies stay few.
deploy:
	cd deploy/check && $(GO) test -count=1 ./...

scripts: build
	FBUILD=$(abspath $(BIN)/fbuild) $(GO) test -count=1 -vet=off -timeout 30m -tags integration ./integration/...

# The scripts in which something is found by trace, once more, with every such result made and compared.
TRACED := build_copy|build_dockerfile|context_add|copy_chmod|copy_exclude|copy_link|copy_parents|explain_steps|run_mount_secret
cache-check: build
	FBUILD_CACHE_CHECK=1 FBUILD=$(abspath $(BIN)/fbuild) $(GO) test -count=1 -vet=off -timeout 30m -tags integration -run 'TestScript$$/./^($(TRACED))$$' ./integration

# Measure; the figures of docs/figures.md come from here.
figures: build
	./bench/run figures -fbuild $(BIN)/fbuild

# Measure beside other builders, in under five minutes and in at most ninety: see
# docs/benchmarks.md. BENCH_FLAGS=-budget=25m takes the most valuable cells first.
bench: build
	./bench/run run -profile quick -fbuild $(BIN)/fbuild $(BENCH_FLAGS)
bench-full: build
	./bench/run run -profile full -fbuild $(BIN)/fbuild $(BENCH_FLAGS)

# What the tests need beside Go, on Debian.
setup:
	./.ci/setup

clean:
	rm -rf $(BIN) demo/out
