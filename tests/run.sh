#!/usr/bin/env bash
# Runs all tests and ends with one line that says how many: "N passed, N failed". Call it through `make test`.
#
# Everything is built first, in one go. Then the suites run in lanes (tests/lane.sh), by what they need:
#
#   attacks   needs the CPUs: it looks at how soon others are answered meanwhile, and at what a shard uses. Beside nothing else.
#   faults    mostly waits, for servers that come back and for deadlines, but a test may stop all servers. So each lane has a
#             PostgreSQL, a Redis and a Kafka of its own, and takes one test after the other from a queue that the lanes share.
#   cluster   waits as well; three brokers, which one test program has from its beginning to its end.
#   the rest  has no bound that a busy machine moves: one suite after the other, beside the faults. `seams` and `services` share
#             the servers of that lane and stop none.
#
# With MILLION_RPS_TEST=full the long forms of tests run, those that are marked as ignored too, and the fault suites come three
# times (`make test-full`). FAULT_LANES=N sets the number of lanes for `faults`.
# What a suite prints is shown when it has ended. Whatever way this script ends, nothing that it has started outlives it.
set -euo pipefail
cd "$(dirname "$0")/.."

# Memory that a lane for `faults` takes, its services and the processes of a test; and what the others take together.
lane_mib=1200 others_mib=4000
# More lanes than these do not end earlier on two CPUs: then they wait for each other.
lanes_max=3

work=$(mktemp -d "${TMPDIR:-/tmp}/million-rps-tests.XXXXXX")
# PostgreSQL does not run as root, and its folder is below.
chmod 755 "$work"
touch "$work/log" "$work/failed"
building=
lanes=()

# Lanes end what they have started when they are told to.
finish() {
    trap '' INT TERM HUP
    kill -TERM ${building:+"$building"} "${lanes[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# ---- building --------------------------------------------------------------------------------------------------------

# For the whole workspace, as clippy and `cargo doc`: of one package alone, dependencies would have other features and be built
# once more.
build() {
    cargo test --no-run --locked --workspace --features fault-injection --message-format=json-render-diagnostics \
        >"$work/built" </dev/null &
    building=$!
    wait "$building"
    building=
}

# The test programs that were built, a line each: name, folder of the package, path.
programs() {
    sed -nE '/"overflow_checks":[a-z]*,"test":true\}/s/.*"manifest_path":"([^"]*)\/Cargo.toml".*"src_path":"([^"]*)".*"executable":"([^"]*)".*/\1\t\2\t\3/p' \
        "$work/built" | awk -F '\t' -v OFS='\t' -v root="$PWD/" '
        {
            name = $2
            sub(root, "", name)
            if (sub(/^tests\//, "", name)) sub(/(\/main)?\.rs$/, "", name)
            print name, $1, $3
        }'
}

# program NAME
program() { awk -F '\t' -v name="$1" '$1 == name { print $3; found = 1 } END { exit !found }' "$work/programs"; }

# ---- queues ----------------------------------------------------------------------------------------------------------

times=1
long=()
if [ "${MILLION_RPS_TEST:-}" = full ]; then times=3 long=(--include-ignored); fi

# job NAME FOLDER PROGRAM ARGUMENT...: a line of a queue
job() { (IFS=$'\t' && printf '%s\n' "$*"); }

# Modules of `faults` with tests that take half a minute and more: they begin, so that none of them is what all wait for in the end.
slow='^(rest|broker|redis_limits|another_log)::'

# The names of the tests of `faults`: the long ones too, if they are wanted.
fault_tests() {
    local faults
    faults=$(program faults)
    "$faults" --list --format terse >"$work/all-faults"
    "$faults" --list --format terse --ignored >"$work/long-faults"
    if [ ${#long[@]} -gt 0 ]; then cp "$work/all-faults" "$work/wanted"; else
        grep -vxFf "$work/long-faults" "$work/all-faults" >"$work/wanted"; fi
    sed -n 's/: test$//p' "$work/wanted" | { grep -E "$slow" || true; }
    sed -n 's/: test$//p' "$work/wanted" | grep -vE "$slow"
}

fill_queues() {
    local name folder path test again
    programs >"$work/programs"
    while IFS=$'\t' read -r name folder path; do
        case $name in
            faults) ;;
            cluster) for ((again = 0; again < times; again++)); do job cluster "$folder" "$path" "${long[@]}"; done >"$work/cluster" ;;
            attacks) job "$name" "$folder" "$path" "${long[@]}" >"$work/alone" ;;
            *) job "$name" "$folder" "$path" "${long[@]}" >>"$work/rest" ;;
        esac
    done <"$work/programs"
    job "examples in the documentation" "$PWD" cargo test --locked --workspace --features fault-injection --doc >>"$work/rest"
    for ((again = 0; again < times; again++)); do
        fault_tests | while read -r test; do job "faults $test" "$PWD" "$(program faults)" "${long[@]}" --exact "$test"; done
    done >"$work/faults"
}

# As many lanes as there is memory for, one at least.
fault_lanes() {
    local available_mib lanes
    available_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    lanes=$(((available_mib - others_mib) / lane_mib))
    if ((lanes > lanes_max)); then lanes=$lanes_max; fi
    echo $((lanes > 1 ? lanes : 1))
}

# ---- lanes -----------------------------------------------------------------------------------------------------------

status=0
# lane QUEUE OPTION...: starts one beside the others.
lane() {
    tests/lane.sh "$work" "$@" &
    lanes+=($!)
}
await_lanes() {
    local lane
    for lane in "${lanes[@]}"; do wait "$lane" || status=1; done
    lanes=()
}

build
fill_queues
lane alone none
await_lanes
lane cluster --brokers 3 --proxied
lane rest
for ((number = ${FAULT_LANES:-$(fault_lanes)}; number > 0; number--)); do lane faults; done
await_lanes

# ---- account ---------------------------------------------------------------------------------------------------------

sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) sum += $(i - 1) } END { print sum + 0 }' "$work/log"; }
passed=$(sum passed)
failed=$(sum failed)
left=$(cat "$work"/alone "$work"/rest "$work"/cluster "$work"/faults | wc -l)
if [ "$left" -gt 0 ]; then
    echo "$left suites or tests did not run: a lane had no services." >&2
    status=1
fi
if [ "$status" = 0 ] && [ "$passed" = 0 ]; then
    echo "No test ran." >&2
    status=1
fi
if [ -s "$work/failed" ]; then
    echo "Failed, with all that they said above:"
    sed 's/^/  /' "$work/failed"
fi
finish
trap - EXIT
echo "$passed passed, $failed failed"
exit "$status"
