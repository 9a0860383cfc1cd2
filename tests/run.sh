#!/usr/bin/env bash
# Runs all tests and ends with one line that says how many: "N passed, N failed". Call it through `make test`.
#
# Where deploy/services.sh exists, it starts real PostgreSQL, Redis and Kafka for the tests, in a folder of their own, and
# always stops them: first with one broker for all suites, then with three for the suite `cluster`. With MILLION_RPS_TEST=full
# the long forms of tests run, those that are marked as ignored too, and the fault suites come three times (`make test-full`).
# Whatever way this script ends, no process that it or a test has started outlives it: tests run in a process group of their
# own, and that group is empty at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp "${TMPDIR:-/tmp}/million-rps-test-log.XXXXXX")
services_dir=
group=

# run COMMAND...: in a process group of its own, so that all of it can be ended together. Job control (-m) makes the group;
# waiting in the background lets a signal reach the traps below at once.
run() {
    set -m
    "$@" </dev/null &
    set +m
    group=$!
    local status=0
    wait "$group" || status=$?
    return "$status"
}

group_is_alive() { [ -n "$group" ] && kill -0 -- "-$group" 2>/dev/null; }

# The processes of the group get two seconds to end by themselves; succeeds when they did.
group_has_ended() {
    local tenths
    for ((tenths = 0; tenths < 20; tenths++)); do
        group_is_alive || return 0
        sleep 0.1
    done
    return 1
}

end_group() {
    if group_is_alive; then kill -TERM -- "-$group" 2>/dev/null || true; fi
    if ! group_has_ended; then kill -KILL -- "-$group" 2>/dev/null || true; fi
    group=
}

finish() {
    trap '' INT TERM HUP
    end_group
    stop_services
    rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# start_services OPTION...: in a fresh folder, instead of those that run. Never the services that the caller's own settings
# name: tests write and delete.
start_services() {
    unset DATABASE_URL REDIS_URL KAFKA_BROKERS
    [ -x deploy/services.sh ] || return 0
    stop_services
    services_dir=$(mktemp -d "${TMPDIR:-/tmp}/million-rps-test-services.XXXXXX")
    run deploy/services.sh start "$services_dir" "$@"
    eval "$(deploy/services.sh env "$services_dir")"
}

stop_services() {
    if [ -n "$services_dir" ]; then
        deploy/services.sh stop "$services_dir" || true
        rm -rf "$services_dir"
        services_dir=
    fi
}

# Everything goes to the log; what stands out (results, failures, panics) also goes to the screen. The tests write to a file
# and not to a pipe: a process that outlives its test would keep a pipe open, and the end would never come.
run_tests() {
    local seen tests display status=0
    seen=$(wc -l <"$log")
    cargo test --locked --features fault-injection --no-fail-fast "$@" >>"$log" &
    tests=$!
    tail -n "+$((seen + 1))" --sleep-interval=0.2 --pid="$tests" -f "$log" |
        { grep --line-buffered -vE '^(test .* \.\.\. ok|running [0-9]+ tests?|)$' || true; } &
    display=$!
    wait "$tests" || status=$?
    wait "$display"
    return "$status"
}
status=0
# A run of tests, and what it has left.
test_run() {
    run run_tests "$@" || status=$?
    if ! group_has_ended; then
        echo "These processes have outlived the tests that started them, and are ended now:" >&2
        ps -e -o pgid=,pid=,args= | awk -v group="$group" '$1 == group' >&2
        end_group
        status=1
    fi
}

times=1
# Long tests are marked as ignored.
long=()
if [ "${MILLION_RPS_TEST:-}" = full ]; then times=3 long=(-- --include-ignored); fi
start_services
test_run --workspace "${long[@]}"
for ((again = 1; again < times; again++)); do test_run --test faults "${long[@]}"; done
if [ -n "$services_dir" ]; then
    start_services --brokers 3 --proxied
    for ((again = 0; again < times; again++)); do test_run --test cluster "${long[@]}"; done
fi
sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) sum += $(i - 1) } END { print sum + 0 }' "$log"; }
passed=$(sum passed)
failed=$(sum failed)
if [ "$status" = 0 ] && [ "$passed" = 0 ]; then
    echo "No test ran." >&2
    status=1
fi
finish
trap - EXIT
echo "$passed passed, $failed failed"
exit "$status"
