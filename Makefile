# The commands of the project. `make demo` shows it, `make check` is the inner loop, `make test` is everything.

CARGO ?= cargo
# A fresh clone builds exactly what was tested.
LOCKED := --locked
# Tests and demo share one build: the release profile (docs/decisions/0008-tests-in-the-release-profile.md).
RELEASE := --release $(LOCKED)

export CARGO_TERM_PROGRESS_WHEN ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo check test soak bench build format-check clippy layers hygiene samples docs test-changed test-workspace install-tools install-peers

help: ## what each command does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

demo: ## the whole way of a call, on loopback, in a throw-away directory
	$(CARGO) run $(RELEASE) -- demo

check: format-check clippy layers hygiene test-changed ## the inner loop: format, lints, layers, tests of what changed

test: install-tools build format-check clippy layers hygiene samples docs test-workspace ## everything, both databases and real peers

# Minutes of each fuzz target in the long run.
SOAK_MINUTES ?= 10
soak: install-tools build ## the long counts: seeds, kills, calls, minutes of fuzzing
	TANDEM_SOAK=$(SOAK_MINUTES) .ci/with-postgres $(CARGO) test $(RELEASE) --workspace

bench: install-peers ## the figures, beside the peers, built for distribution (LTO); FIGURES="calls media" for some
	$(CARGO) build --profile dist $(LOCKED) --package tandem --package tandem-e2e
	$(CARGO) bench --profile dist $(LOCKED) --package tandem --package tandem-e2e --bench figures -- $(FIGURES)

install-peers: ## what the benches need from Debian beside that
	.ci/install bench

install-tools: ## what the tests need from Debian, without starting daemons
	.ci/install

build: ## all crates, and the binary that the end-to-end tests drive
	$(CARGO) build $(RELEASE) --workspace

format-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(RELEASE) --workspace --all-targets -- -D warnings

layers: ## each crate uses only what its layer and folder may
	$(CARGO) xtask layers

hygiene: ## no machine paths, no unfinished work, no fixed waits
	$(CARGO) xtask hygiene

samples: ## the sample configuration can be used
	$(CARGO) run --quiet $(RELEASE) -- config check --config deploy/tandem.toml

docs: ## the documentation of all items, private ones too
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc $(RELEASE) --workspace --no-deps --document-private-items

test-changed:
	@# End-to-end tests take minutes and belong to 'make test'.
	@crates=$$($(CARGO) xtask changed | grep -vx tandem-e2e | sed 's/^/--package /'); \
	if [ -z "$$crates" ]; then echo "no crate changed"; \
	else set -x; .ci/with-postgres $(CARGO) test $(RELEASE) $$crates; fi

test-workspace:
	.ci/with-postgres $(CARGO) test $(RELEASE) --workspace
