# `make help` says what there is. Each command works in a fresh clone: it checks for what it needs and installs it where it
# can (deploy/setup.sh).
.DEFAULT_GOAL := help
.NOTPARALLEL:
SECONDS ?= 600
.PHONY: help run build test test-quick test-full soak lint bench bench-full bench-build setup services services-stop \
	services-clear settings routes contract try-readme sanitize

# The server without PostgreSQL, Kafka and Redis needs no C++ compiler, so `make run` builds them in only when DATABASE_URL
# asks for them, in the environment or in .env. It builds with the profile `quick`: see Cargo.toml.
uses_services = [ -n "$$DATABASE_URL" ] || grep -qsE '^[[:space:]]*(export[[:space:]]+)?DATABASE_URL=.' .env

services_dir = target/services

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ gsub(/\$$\$$/, "$$"); printf "%-22s %s\n", $$1, $$2 }'

run: ## build and start the server on port 8080; without settings it needs no service
	@if $(uses_services); then deploy/setup.sh build services; else deploy/setup.sh build; fi
	@if $(uses_services); then features=; else features=--no-default-features; fi; \
	exec cargo run --profile quick --locked $$features

build: ## build the server for production, with everything: target/release/million-rps
	@deploy/setup.sh build services
	cargo build --release --locked

test: ## run all tests; the last line says how many passed and failed
	@deploy/setup.sh build services servers test
	@deploy/corpora.sh
	@exec tests/run.sh

test-quick: ## the two-minute check: unit tests, documents, and the embedded server over its wire; needs no service
	@deploy/setup.sh build
	cargo test --locked --quiet --no-fail-fast --no-default-features --features fault-injection \
		-p million-rps -p reactor --lib --test docs --test embedded

test-full: ## the same with the long forms of tests, and the fault suites three times in a row
	@MILLION_RPS_TEST=full $(MAKE) test

# AddressSanitizer is not stable in rustc, but every toolchain has it; RUSTC_BOOTSTRAP lets the stable one use it. Leaks are not
# looked for: that needs ptrace, which containers forbid.
sanitize: ## run the reactor's and the product's unit tests under AddressSanitizer; builds into target/sanitize
	@deploy/setup.sh build
	RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address --cfg address_sanitizer' ASAN_OPTIONS=detect_leaks=0 \
		CARGO_TARGET_DIR=target/sanitize cargo test --locked --no-fail-fast --no-default-features --features fault-injection \
		-p reactor -p million-rps --lib --target $$(rustc -vV | sed -n 's/^host: //p')

contract: ## try /openapi.json on both I/O drivers with a linter and schemathesis (EXAMPLES=20 of each operation)
	@deploy/setup.sh build
	cargo build --profile quick --locked --no-default-features
	tests/contract/try.sh target/quick/million-rps $${EXAMPLES:-20}

soak: ## everything at once for ten minutes (SECONDS=600): memory must not grow, nobody who behaves sees an error
	@deploy/setup.sh build services bench
	cargo test --release --locked --test soak -- $(SECONDS)

lint: ## check format, clippy, documentation and dependencies, with and without the services; any warning fails
	@deploy/setup.sh build services lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet --features fault-injection -- -D warnings
	cargo clippy --workspace --all-targets --locked --quiet --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	deploy/deny.sh

services: ## start real PostgreSQL, Redis and Kafka to play with; use it as: eval "$$(make services)"
	@deploy/services.sh start $(services_dir) >&2
	@deploy/services.sh settings $(services_dir)

services-stop: ## stop them; ports, rows and topics stay in target/services for the next start
	@deploy/services.sh stop $(services_dir)

services-clear: ## stop them, and delete what they hold
	@deploy/services.sh clear $(services_dir)

# The page is made also when a bound does not hold; the command fails then.
run_bench = failed=; \
	for part in $(1); do target/release/million-rps-bench $$part || failed="$$failed $${part%% *}"; done; \
	target/release/million-rps-bench report && if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

bench: bench-build ## measure reads and events in about twelve minutes, and make docs/benchmarks.md of it; wants a quiet machine
	@$(call run_bench,read ceiling write-cost list-memory \
		'events --followers 10000 --rates 100 --only million-rps --only floor --runs 3')

bench-full: bench-build ## measure everything, about two hours: all rivals, loads, latencies, shards, writes and memory
	@$(call run_bench,'read --plan full' ceiling mixed latency shards write-cost list-memory \
		ready accept tuning apply 'visible --half-rate' overload attack 'events --runs 2')

bench-build:
	@deploy/setup.sh build services bench
	@# Others' crates may fail to build: what is there is measured.
	cargo build --release --locked --keep-going -p million-rps-bench --features rivals || \
		cargo build --release --locked -p million-rps-bench

# What takes minutes to build, lint and the benches get when they run.
setup: ## install the packages that running, building, testing, the services and the loads need
	@deploy/setup.sh build services servers test load
	@deploy/corpora.sh

try-readme: ## run every command of README.md in a bare Debian of its own (root), and print what each takes
	@exec tests/readme.sh

settings: ## write the settings into README.md and .env.example again, after a change of src/config/table.rs
	@mkdir -p target
	@cargo run --locked --quiet --no-default-features -- config --markdown > target/settings.md
	@sed -i -e '/^<!-- settings/,/^<!-- end of settings/{/^<!--/!d}' -e '/^<!-- settings/r target/settings.md' README.md
	@cargo run --locked --quiet --no-default-features -- config --env-example > target/settings.env
	@mv target/settings.env .env.example

routes: ## write the table of calls into README.md again, after a change of src/http/route/
	@mkdir -p target
	@cargo run --locked --quiet --no-default-features -- config --routes > target/routes.md
	@sed -i -e '/^<!-- routes/,/^<!-- end of routes/{/^<!--/!d}' -e '/^<!-- routes/r target/routes.md' README.md
