#!/usr/bin/env bash
# Works off a queue of test programs for tests/run.sh, one after the other, beside other lanes that may share the queue.
#
#   tests/lane.sh FOLDER QUEUE none           FOLDER: where run.sh keeps its files; QUEUE: one of them
#   tests/lane.sh FOLDER QUEUE [OPTION...]    with services of its own: deploy/services.sh start gets the options
#
# A line of the queue: a name for people, the folder to run in, the program, its arguments, with tabs between them. What a
# program prints is shown when it has ended: all of it when it failed, else what tells something.
#
# Whatever way the lane ends, no process that it or a test has started outlives it: a test program runs in a process group of
# its own, and that group is empty at the end. The lane fails when a program failed or left a process behind.
set -euo pipefail
work=$1 queue=$1/$2
shift 2
services_dir=
group=
output=$(mktemp "$work/output.XXXXXX")

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
    if [ -n "$services_dir" ]; then
        deploy/services.sh stop "$services_dir" || true
        rm -rf "$services_dir"
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Never the services that the caller's own settings name: tests write and delete.
unset DATABASE_URL REDIS_URL KAFKA_BROKERS
if [ "${1:-}" != none ]; then
    # A JVM that lives for minutes does not earn back what its second compiler and its parallel collector cost.
    export JDK_JAVA_OPTIONS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    services_dir=$(mktemp -d "$work/services.XXXXXX")
    run deploy/services.sh start "$services_dir" "$@" >"$output" 2>&1 || { cat "$output"; exit 1; }
    eval "$(deploy/services.sh env "$services_dir")"
fi

# take_job: sets `name`, `folder` and `command` by the next line of the queue; fails when none is left.
take_job() {
    local line
    line=$(flock "$work/lock" sh -c 'head -n 1 "$1" && sed -i 1d "$1"' take "$queue")
    [ -n "$line" ] || return 1
    IFS=$'\t' read -r -a command <<<"$line"
    name=${command[0]} folder=${command[1]}
    command=("${command[@]:2}")
}

# Tests write to a file and not to a pipe: a process that outlives its test would keep a pipe open, and the end would never
# come.
run_job() {
    local status=0 begin=$SECONDS verdict=ok
    # shellcheck disable=SC2016 # for the shell in the group
    run sh -c 'cd "$1" && shift && exec "$@"' job "$folder" "${command[@]}" >"$output" 2>&1 || status=$?
    if ! group_has_ended; then
        {
            echo "These processes have outlived the tests that started them, and are ended now:"
            ps -e -o pgid=,pid=,args= | awk -v group="$group" '$1 == group'
        } >>"$output"
        end_group
        status=1
    fi
    [ "$status" = 0 ] || verdict=FAILED
    (
        # One lane writes at a time.
        flock 8
        printf '%-6s %4d s  %s\n' "$verdict" $((SECONDS - begin)) "$name"
        if [ "$status" = 0 ]; then
            grep -vE '^(test .* \.\.\. (ok|ignored.*)|running [0-9]+ tests?|test result: ok\..*|)$' "$output" || true
        else
            cat "$output"
            echo "$name" >>"$work/failed"
        fi
        cat "$output" >>"$work/log"
    ) 8>"$work/lock"
    return "$status"
}

status=0
while take_job; do run_job || status=1; done
exit "$status"
