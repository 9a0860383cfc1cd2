#!/bin/sh
# Looks for what the server does and /openapi.json does not say, with both I/O drivers: a linter of OpenAPI, then schemathesis with all
# its checks, valid and invalid data, and links from what was created. Both come from PyPI into target/tools/contract, of one version.
#
#     tests/contract/try.sh PROGRAM [EXAMPLES]     cases of each operation, 20 unless given
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
examples=${2:-20}
tools=$here/../../target/tools/contract

if [ ! -e "$tools/complete" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" --quiet install schemathesis==4.32.5 openapi-spec-validator==0.9.0
    touch "$tools/complete"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/million-rps-contract.XXXXXX")
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# It leaves files of its own where it runs.
cp "$here/schemathesis.toml" "$here/hooks.py" "$work/"
tools=$(cd "$tools" && pwd)
export JWT_SECRET=0123456789abcdef0123456789abcdef
for driver in epoll io_uring; do
    echo "contract: $driver"
    # One shard: what a connection has seen, the next one sees. A follower hears something each second.
    HTTP_HOST=127.0.0.1 HTTP_PORT=0 SHARDS=1 IO_DRIVER=$driver EVENTS_HEARTBEAT_SEC=1 DATA_DIR="$work/$driver" \
        "$program" >"$work/greeting" 2>"$work/log" &
    server=$!
    for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        MILLION_RPS_URL=$(sed -n '1s/^million-rps listens on \(http:[^ ]*[^/ ]\)\/*$/\1/p' "$work/greeting")
        if [ -n "$MILLION_RPS_URL" ] && curl -sf "$MILLION_RPS_URL/ready" >/dev/null; then break; fi
        kill -0 "$server" 2>/dev/null && [ "$second" != 20 ] || { cat "$work/log" >&2; exit 1; }
        sleep 1
    done
    MILLION_RPS_TOKEN=$("$program" token --sub me --ttl 24h)
    export MILLION_RPS_URL MILLION_RPS_TOKEN
    curl -sSf "$MILLION_RPS_URL/openapi.json" >"$work/openapi.json"
    "$tools/bin/openapi-spec-validator" "$work/openapi.json"
    # The stream of events has no end to wait for: tests/embedded/events.rs reads it.
    (cd "$work" && "$tools/bin/schemathesis" --config-file schemathesis.toml run "$MILLION_RPS_URL/openapi.json" \
        --exclude-operation-id followTodos --max-examples "$examples" --no-color)
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
done
