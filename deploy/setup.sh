#!/bin/sh
# Checks for what the commands of the Makefile need and installs what is missing: on Debian and Ubuntu, as root or with a
# sudo that asks for no password. Elsewhere it prints the command to type, and fails.
#
#   deploy/setup.sh build       Rust and a C compiler, all that the embedded server needs; curl, to try it
#   deploy/setup.sh services    what PostgreSQL, Kafka and Redis add to the build: a C++ compiler and OpenSSL's headers
#   deploy/setup.sh servers     PostgreSQL, Redis, and what Kafka needs, for deploy/services.sh
#   deploy/setup.sh test        what the tests use: the attacker slowhttptest, the pooler pgbouncer, the proxy nginx, clients in
#                               Python, Node and Java; the browser Chromium; curl and xz for deploy/corpora.sh
#   deploy/setup.sh load        the load generator wrk
#   deploy/setup.sh lint        rustfmt, clippy and cargo-deny, which is built once (three minutes of CPU time)
#   deploy/setup.sh bench       wrk, the load generator oha, which is built once (ten minutes of CPU time), and the servers that
#                               the benches compare with, of which centrifugo is built once, too (as long); what cannot be
#                               installed of these is only said: the benches leave it out and tell so
#
# Several names may be given at once; what is missing for all of them comes in one list. Nothing is touched when nothing is
# missing.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---- what each purpose needs: fills `missing` with names of Debian packages, `useful` with what nothing fails without ---

check_build() {
    check_rust
    # Nothing is built with it; the lines that the server prints to be tried are for it.
    has curl || useful="curl ca-certificates"
    # SQLite and the allocator are C that is compiled with the program. A compiler without the C library's headers is of
    # no use, so try one.
    echo '#include <stdlib.h>' | cc -fsyntax-only -x c - 2>/dev/null || missing="$missing build-essential"
}

check_services() {
    # The configure script of librdkafka cuts paths at blanks.
    case ${CARGO_TARGET_DIR:-$root/target} in
        *[[:space:]]*)
            die "Kafka's client cannot be built in a folder with a blank in its path: move the clone, or set CARGO_TARGET_DIR" \
                "to a folder without one (the embedded server, \`make run\`, builds anywhere)" ;;
    esac
    # librdkafka's configure insists on a C++ compiler and runs make.
    { has c++ && has make; } || missing="$missing build-essential"
    { has pkg-config && pkg-config --exists openssl; } || missing="$missing pkg-config libssl-dev"
}

check_servers() {
    for package in $("$root/deploy/services.sh" missing); do missing="$missing $package"; done
}

check_test() {
    # Debian keeps it in sbin, which is not in everybody's PATH.
    PATH=$PATH:/usr/sbin has pgbouncer || missing="$missing pgbouncer"
    has slowhttptest || missing="$missing slowhttptest"
    has curl || missing="$missing curl ca-certificates"
    # Clients and a proxy whose uploads are refused. Java runs a client from its source, for which it needs its compiler.
    has javac || missing="$missing default-jdk-headless"
    has python3 || missing="$missing python3"
    has node || missing="$missing nodejs"
    PATH=$PATH:/usr/sbin:/sbin has nginx || missing="$missing nginx-light"
    # tests/page/browser.rs knows its names elsewhere.
    { has chromium || has chromium-browser || has google-chrome || has google-chrome-stable; } || missing="$missing chromium"
    has xz || missing="$missing xz-utils"
    has go || say "without Go 1.21 or later \`make test-full\` does not try the move from the original: https://go.dev/dl"
    # tests/run.sh names the processes that outlive a test.
    has ps || missing="$missing procps"
}

check_load() {
    has wrk || missing="$missing wrk"
}

check_bench() {
    check_load
    # Program and package.
    for pair in nginx=nginx-light h2o=h2o haproxy=haproxy varnishd=varnish redis-server=redis-server; do
        # Debian keeps some in sbin, which is not in everybody's PATH.
        PATH=$PATH:/usr/sbin:/sbin has "${pair%%=*}" || optional="$optional ${pair#*=}"
    done
    [ -x "$root/target/tools/bin/oha" ] || has oha || wants_oha=yes
    [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || optional="$optional libnginx-mod-nchan"
    if has go; then
        [ -x "$root/target/tools/bin/centrifugo" ] || has centrifugo || wants_centrifugo=yes
    else
        say "without Go 1.25 or later the benches leave out programs in Go, Mercure and Centrifugo: https://go.dev/dl"
    fi
}

# Looks at dependencies; of one version, so that the same lock file gets the same answer. Not optimised, which is most of its
# build: it runs for seconds all the same.
install_deny() {
    say "building cargo-deny in target/tools, once: about three minutes of CPU time"
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug cargo-deny --version 0.20.2 --locked --root "$root/target/tools" --target-dir "$root/target/tools/build-deny" >&2 ||
        die "cargo-deny could not be built; its messages are above"
    rm -rf "$root/target/tools/build-deny"
}

install_oha() {
    say "building oha in target/tools, once: about ten minutes of CPU time"
    cargo install oha --locked --root "$root/target/tools" --target-dir "$root/target/tools/build" >&2 ||
        say "oha could not be built: there will be no latencies at fixed rates"
    rm -rf "$root/target/tools/build"
}

install_centrifugo() {
    say "building centrifugo in target/tools, once: about ten minutes of CPU time"
    GOBIN="$root/target/tools/bin" go install github.com/centrifugal/centrifugo/v6@v6.9.1 >&2 ||
        say "centrifugo could not be built: the benches leave it out"
}

# The lowest Rust that Cargo.toml allows, such as 1.89.
rust_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1; }

# at_least HAVE WANTED: compares major.minor.
at_least() {
    [ "${1%%.*}" -gt "${2%%.*}" ] && return
    [ "${1%%.*}" -eq "${2%%.*}" ] || return 1
    have_rest=${1#*.}
    wanted_rest=${2#*.}
    [ "${have_rest%%.*}" -ge "${wanted_rest%%.*}" ]
}

# Sets `rust_problem` where Rust is missing or too old. A toolchain is a choice for all of a person's projects, and
# distributions' are often too old: it is said, after the packages, and not installed.
check_rust() {
    wanted=$(rust_wanted)
    how="get it with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    if ! has cargo; then
        rust_problem="Rust $wanted or later is needed, and there is no cargo in PATH; $how"
        return
    fi
    found=$(cd "$root" && cargo --version | cut -d' ' -f2)
    at_least "$found" "$wanted" ||
        rust_problem="Rust $wanted or later is needed, this is $found; $(has rustup && echo 'update it with: rustup update stable' || echo "$how")"
}

check_lint() {
    check_rust
    [ -z "$rust_problem" ] || return 0
    for component in rustfmt clippy; do
        case $component in rustfmt) tool=fmt ;; clippy) tool=clippy ;; esac
        if (cd "$root" && cargo "$tool" --version) >/dev/null 2>&1; then continue; fi
        has rustup || die "$component is missing; install it the way that Rust came onto this machine"
        say "installing $component"
        (cd "$root" && rustup component add $component) >&2
    done
    has git || missing="$missing git"
    [ -x "$root/target/tools/bin/cargo-deny" ] || has cargo-deny || wants_deny=yes
}

# ---- installing ------------------------------------------------------------------------------------------------------

# give_up WORDS: about packages that are left to the person, who hears of Rust at the same time.
give_up() {
    [ -z "$rust_problem" ] || say "$rust_problem"
    die "$1"
}

# Sets `as_root` to what stands before a command that root has to run; fails where there is no way.
find_root() {
    if [ "$(id -u)" = 0 ]; then as_root=; return; fi
    as_root="sudo -n"
    has sudo && sudo -n true 2>/dev/null
}

# install_packages PACKAGE...
install_packages() {
    if ! has apt-get; then
        give_up "these are missing, by their names in Debian and Ubuntu: $*. Install what your system calls so"
    fi
    find_root || \
        give_up "these are missing: $*. Install them with: sudo apt-get install $*"
    say "installing $*"
    log=$(mktemp)
    # The lists of a fresh machine are empty, and those of an old one name packages that are gone: update and try again.
    if apt_install "$@" >"$log" 2>&1 || { $as_root apt-get update >>"$log" 2>&1 && apt_install "$@" >>"$log" 2>&1; }; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get failed, its last lines are above. Install by hand: $*"
    fi
}

apt_install() {
    # Packages of servers would start services of their own: policy-rc.d says no to that, unless the machine has a policy.
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then policy=; else printf '#!/bin/sh\nexit 101\n' | $as_root install -m 755 /dev/stdin $policy; fi
    outcome=0
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null || outcome=$?
    [ -z "$policy" ] || $as_root rm -f $policy
    return $outcome
}

# ---- main ------------------------------------------------------------------------------------------------------------

if [ $# = 0 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
missing=
useful=
optional=
wants_oha=
wants_centrifugo=
wants_deny=
rust_problem=
for purpose in "$@"; do
    case $purpose in
        build | services | servers | test | load | lint | bench) "check_$purpose" ;;
        *) die "unknown purpose $purpose; there are: build, services, servers, test, load, lint, bench" ;;
    esac
done
if [ -n "$useful" ] && [ -z "$missing" ] && ! { has apt-get && find_root; }; then
    say "going on without $useful, with which you can try what is built"
    useful=
fi
# shellcheck disable=SC2046,SC2086 # lists of package names
if [ -n "$missing$useful" ]; then install_packages $(printf '%s\n' $missing $useful | sort -u); fi
[ -z "$rust_problem" ] || die "$rust_problem"
for package in $optional; do
    (install_packages "$package") || say "going on without $package"
done
[ -z "$wants_deny" ] || install_deny
[ -z "$wants_oha" ] || install_oha
[ -z "$wants_centrifugo" ] || install_centrifugo
