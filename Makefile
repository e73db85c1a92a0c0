# Everything here starts its own throwaway servers with dev/stack, unless KAFKA_BROKERS, DATABASE_URL or REDIS_URL name
# others.

.DEFAULT_GOAL := help
.PHONY: help demo test screenshots race bench versus stages flame poison flat backlogs tune watched million chaos freeze lint up down clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole job on throwaway servers with generated events, then a report
	dev/stack deps
	cargo build --release --locked
	@export CONTENTFLOW_STACK_DIR=target/demo-stack; \
	  dev/stack run -- "$${CARGO_TARGET_DIR:-target}/release/contentflow" demo; \
	  code=$$?; rm -rf target/demo-stack; exit $$code

test: ## all tests, against real servers
	dev/stack deps tests
	dev/stack run -- cargo test --workspace --locked

screenshots: ## the pictures of the page in docs/images, made by its test (with the font Inter where it is installed: fonts-inter)
	dev/stack deps tests
	dev/stack run -- env SCREENSHOTS="$(CURDIR)/docs/images" cargo test --locked --test journey the_page_shows -- --nocapture

race: ## readers and writers of cached drafts in 100,000 drawn orders (RACES=, SEED=)
	dev/stack deps
	dev/stack run -- env RACES="$${RACES:-100000}" cargo test --locked --test journey f7_readers -- --nocapture

bench: ## throughput of the pipeline
	dev/stack deps
	dev/stack run -- cargo bench --locked --bench pipeline

versus: ## this build beside others of the program: a run, two replays and 1,000 events/s of each in turn (OTHERS=path,path, BENCH_ONLY=latency, BENCH_RUNS=)
	dev/stack deps
	BENCH_ONLY=versus,$(BENCH_ONLY) OTHERS=$(OTHERS) dev/stack run -- cargo bench --locked --bench pipeline

stages: ## the pure stages one by one, on one thread
	cargo bench --locked --bench stages

flame: ## where the CPU time of a run and of a replay goes: the flame graphs in docs/images (wants perf and inferno)
	dev/stack deps
	dev/flame

poison: ## throughput where the database refuses some of the rows, beside a clean run
	dev/stack deps
	BENCH_ONLY=poison BENCH_EVENTS=$${BENCH_EVENTS:-200000} dev/stack run -- cargo bench --locked --bench pipeline

flat: ## one process for many events: rate, memory, table size as they go by (FLAT_EVENTS=, BENCH_TABLE= its storage parameters)
	dev/stack deps
	BENCH_ONLY=flat dev/stack run -- cargo bench --locked --bench pipeline

backlogs: ## the most memory that a run takes, whatever it has to catch up with (BENCH_EVENTS=)
	dev/stack deps
	BENCH_ONLY=backlogs BENCH_EVENTS=$${BENCH_EVENTS:-600000} dev/stack run -- cargo bench --locked --bench pipeline

tune: ## how close the search of `contentflow tune` comes to the best of its grid (BENCH_EVENTS=, BENCH_RUNS= searches, TUNE= its flags)
	dev/stack deps
	BENCH_ONLY=tune BENCH_EVENTS=$${BENCH_EVENTS:-400000} dev/stack run -- cargo bench --locked --bench pipeline

watched: ## throughput with the page and the metrics looked at each second, beside none of it (BENCH_EVENTS=, BENCH_RUNS=)
	dev/stack deps
	BENCH_ONLY=watched BENCH_RUNS=$${BENCH_RUNS:-7} dev/stack run -- cargo bench --locked --bench pipeline

chaos: ## two instances while everything around them fails, then the proof (DURATION= seconds of faults, SEED=)
	dev/stack deps
	DURATION=$(DURATION) SEED=$(SEED) cargo test --locked --test chaos

freeze: ## each server frozen for a minute under load: memory, rebalances, how soon the work goes on (DURATION=, SEED=)
	dev/stack deps
	CHAOS_MODE=freeze DURATION=$(DURATION) SEED=$(SEED) cargo test --locked --test chaos

lint: ## format, clippy, the documentation's links, licences and sources of the dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked
	cargo deny --locked check bans licenses sources

million: ## a million events against a fold over the topic, also with kill -9 ten times (EVENTS=, KILLS=, SEED=)
	dev/stack deps
	dev/stack run -- cargo bench --locked --bench million

up: ## start the servers and leave them running
	dev/stack up

down: ## stop them and delete their data
	dev/stack down

clean: ## stop the servers, delete everything that was built
	dev/stack down
	cargo clean
	rm -rf target
