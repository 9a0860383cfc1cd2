#!/bin/sh
# Checks the crates of Cargo.lock: known advisories, licences, crates that are not wanted, sources. `make lint` runs it.
#
#   deploy/deny.sh              the whole check
#   deploy/deny.sh advisories   advisories alone, and so on: what follows goes to `cargo deny check`
#
# The advisory database of https://rustsec.org is fetched where that is possible (ADVISORIES=vendored leaves it), else the
# list in deploy/advisories.txt stands in for it: it holds what was known about our crates on the day that it names.
set -eu
cd "$(dirname "$0")/.."

database=https://github.com/RustSec/advisory-db
work=$PWD/target/advisories

say() { printf 'deny: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

if [ -x target/tools/bin/cargo-deny ]; then deny=target/tools/bin/cargo-deny; else deny=$(command -v cargo-deny) ||
    die "cargo-deny is missing: deploy/setup.sh lint builds it"; fi

# Writes the list as a repository of the form that cargo-deny reads.
make_repository() {
    rm -rf "$work/repository"
    mkdir -p "$work/repository"
    awk -F ' *[|] *' -v folder="$work/repository/crates" '
        function versions(text,    parts, count, at, list) {
            count = split(text, parts, / *; */)
            for (at = 1; at <= count; at++) if (parts[at] != "" && parts[at] != "-") list = list (list == "" ? "" : ", ") "\"" parts[at] "\""
            return list
        }
        /^#/ || /^[ \t]*$/ { next }
        NF < 5 || $1 !~ /^RUSTSEC-[0-9]+-[0-9]+$/ { print "advisories.txt, line " NR ": " $0 > "/dev/stderr"; failed = 1; next }
        {
            path = folder "/" $2
            system("mkdir -p " path)
            file = path "/" $1 ".md"
            print "```toml\n[advisory]\nid = \"" $1 "\"\npackage = \"" $2 "\"\ndate = \"" $3 "\"" > file
            if ($4 != "" && $4 != "-") print "informational = \"" $4 "\"" > file
            print "url = \"https://rustsec.org/advisories/" $1 ".html\"\n[versions]\npatched = [" versions($5) "]" > file
            print "unaffected = [" versions($6) "]\n```\n\n# " $2 ": see https://rustsec.org/advisories/" $1 ".html" > file
            close(file)
        }
        END { exit failed }' deploy/advisories.txt || die "deploy/advisories.txt cannot be read"
    git -C "$work/repository" init --quiet --initial-branch main
    git -C "$work/repository" add --all
    git -C "$work/repository" -c user.name=deny -c user.email=deny@localhost commit --quiet --message list
}

has_database() {
    [ "${ADVISORIES:-}" != vendored ] &&
        GIT_TERMINAL_PROMPT=0 timeout 30 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1
}

mkdir -p "$work"
if has_database; then
    databases=$work/fetched
else
    make_repository
    databases=$work/vendored
    # cargo-deny takes no path for an address, but it leaves fetching to git, which can be told where to go.
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$work/repository.insteadOf" GIT_CONFIG_VALUE_0="$database"
    rm -rf "$databases"
    say "the advisory database cannot be fetched: taking $(sed -n 's/^# .*\(As of [0-9-]*\).*/deploy\/advisories.txt, \1/p' deploy/advisories.txt)"
fi
{
    printf '# Made by deploy/deny.sh from deny.toml.\n'
    sed -e "s|^db-urls = .*|&\\ndb-path = \"$databases\"|" deny.toml
} >"$work/deny.toml"
exec "$deny" --log-level error --locked --config "$work/deny.toml" check --hide-inclusion-graph "$@"
