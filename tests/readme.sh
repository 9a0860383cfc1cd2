#!/usr/bin/env bash
# Does what README.md says: every command of its `sh` blocks as pasted, in order, from a fresh clone of what is committed, in a
# bare Debian made for it (debootstrap) that has make, git, gcc and Rust and nothing else. Then it prints what each command
# took, and fails if one did. It has to run as root; nothing stays behind, and nothing of this machine is changed, but that
# debootstrap is installed and the packed Debian kept in the user's cache. Call it through `make try-readme`.
#
#   tests/readme.sh                as root in the bare Debian
#   tests/readme.sh --sudo         as a user who has a sudo that asks for no password
#   tests/readme.sh --minutes N    a command that takes longer is stopped and counts as done (60)
#   tests/readme.sh --without COMMAND   leaves a command out; may be given several times
#
# "Received" is what the network of the whole machine has received meanwhile. The bare Debian has this machine's network, so
# the ports 8080 to 8082 have to be free.
set -euo pipefail
say() { printf 'readme: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

suite=bookworm
mirror=http://deb.debian.org/debian
packages=make,git,gcc,libc6-dev,ca-certificates,sudo

# ---- in the bare Debian: the commands --------------------------------------------------------------------------------

# The logical lines of the `sh` blocks, one behind the other. Pasted is what is not only a comment.
commands_of() {
    awk '
        /^```sh$/ { inside = 1; next }
        /^```/ { inside = 0 }
        !inside { next }
        /\\$/ { sub(/\\$/, ""); held = held $0; next }
        { line = held $0; held = ""; gsub(/  +/, "  ", line) }
        line !~ /^ *(#.*)?$/ { print line }
    ' "$1"
}

received_bytes() { awk -F'[: ]+' '/:/ && $2 != "lo" { sum += $3 } END { printf "%d", sum }' /proc/net/dev; }
disk_mib() { du -sm --one-file-system --exclude=/opt/rust --exclude=/proc --exclude=/sys --exclude=/dev / 2>/dev/null | cut -f1; }
# CPU seconds of all processes in the namespace. What a process has collected of its children stands in its own line, and the
# first process of the namespace is this one, which collects orphans.
cpu_seconds() {
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' |
        awk -v ticks="$(getconf CLK_TCK)" '{ sum += $12 + $13 + $14 + $15 } END { printf "%.2f", sum / ticks }'
}

# outcome_of COMMAND STATUS OUTPUT: `ok`, or what is wrong.
outcome_of() {
    local wanted
    case $2 in
        0) ;;
        124) echo "ok, stopped after $minutes_max min"; return ;;
        *) echo "FAILED with status $2"; return ;;
    esac
    case $1 in
        curl\ *-i*)
            # A comment may begin with the status that is to be seen.
            wanted=$(sed -n 's/.*# \([1-5][0-9][0-9]\)\b.*/\1/p' <<<"$1")
            grep -qE "^HTTP/1.1 ${wanted:-2}" "$3" || { echo "FAILED: no status ${wanted:-2xx}"; return; }
            ;;
    esac
    echo ok
}

# Runs one command in this shell, so that what it sets is there for the next.
run_command() {
    local status=0 command=$1 seconds bytes mib cpu
    printf '\n$ %s\n' "$command"
    seconds=$EPOCHREALTIME bytes=$(received_bytes) mib=$(disk_mib) cpu=$(cpu_seconds)
    case $command in
        "make run"*)
            # It stays, as in a terminal of its own, and the next commands are for when it listens.
            (eval "exec $command") >"$output" 2>&1 &
            server=$!
            until grep -qs 'listens on' "$output"; do
                kill -0 $server 2>/dev/null || { status=1; break; }
                sleep 0.5
            done
            cat "$output"
            ;;
        make\ *)
            timeout --kill-after=30 "${minutes_max}m" bash -c "$command" >"$output" 2>&1 || status=$?
            tail -n 40 "$output"
            ;;
        *)
            # Not through a pipe: the command would then run in a shell of its own.
            eval "$command" >"$output" 2>&1 || status=$?
            head -c 2000 "$output"
            ;;
    esac
    outcome=$(outcome_of "$command" "$status" "$output")
    [ "${outcome%%[ ,]*}" = ok ] || failed=$((failed + 1))
    # What still runs counts when it ends. In the environment nobody takes the command's \n for a line end.
    command=${command%%  #*} awk -v from="$seconds" -v to="$EPOCHREALTIME" -v bytes_from="$bytes" -v bytes_to="$(received_bytes)" \
        -v mib_from="$mib" -v mib_to="$(disk_mib)" -v cpu_from="$cpu" -v cpu_to="$(cpu_seconds)" \
        -v outcome="$outcome" 'BEGIN {
            printf "%8.1f %8.1f %9.0f %8d  %s  [%s]\n",
                (to - from) / 60, (cpu_to - cpu_from) / 60, (bytes_to - bytes_from) / 1e6, mib_to - mib_from, ENVIRON["command"], outcome
        }' | tee -a "$report"
}

if [ "${1:-}" = --inside ]; then
    minutes_max=$2
    output=$(mktemp) report=$(mktemp)
    server="" failed=0
    mapfile -t commands </tmp/commands
    for command in "${commands[@]}"; do run_command "$command"; done
    if [ -n "$server" ]; then
        # Ctrl-C in its terminal; a shell gives what runs in its background no SIGINT.
        kill -TERM $server 2>/dev/null || true
        wait $server 2>/dev/null || true
    fi
    printf '\n minutes  CPU min  MB recvd  MiB disk  command\n'
    cat "$report"
    [ "${#commands[@]}" -gt 0 ] || die "README.md has no commands"
    echo "$((${#commands[@]} - failed)) passed, $failed failed"
    exit $((failed > 0))
fi

# ---- on this machine: the bare Debian --------------------------------------------------------------------------------

cd "$(dirname "$0")/.."
user=root
minutes_max=60
without=()
while [ $# -gt 0 ]; do
    case $1 in
        --sudo) user=newcomer ;;
        --minutes) minutes_max=${2:?how many?}; shift ;;
        --without) without+=("${2:?which command?}"); shift ;;
        *) die "unknown option $1; the first lines of this script say what there is" ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || die "only root can make a bare Debian: sudo make try-readme"
for port in 8080 8081 8082; do
    if grep -qsE "$(printf ':%04X' $port) 0*:0000 0A" /proc/net/tcp /proc/net/tcp6; then
        die "the port $port is taken, which README.md uses; stop who listens there (ss -ltnp)"
    fi
done
command -v debootstrap >/dev/null || {
    command -v apt-get >/dev/null || die "debootstrap is missing; install it"
    apt-get install -y --no-install-recommends debootstrap >&2 ||
        { apt-get update >&2 && apt-get install -y --no-install-recommends debootstrap >&2; }
}
rust=$(rustc --print sysroot)

folder=$(mktemp -d /var/tmp/million-rps-readme.XXXXXX)
inside=
# What runs in the namespace ends with `unshare`, which itself takes no other signal.
finish() {
    set +e
    if [ -n "$inside" ]; then kill -KILL "$inside" 2>/dev/null; wait "$inside" 2>/dev/null; fi
    rm -rf --one-file-system "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
bare=$folder/bare
packed=${XDG_CACHE_HOME:-$HOME/.cache}/million-rps/debian-$suite.tar
if [ ! -f "$packed" ]; then
    say "making a bare Debian, kept as $packed (about 450 MB)"
    debootstrap --variant=minbase --include=$packages $suite "$bare" $mirror >"$folder/debootstrap.log" 2>&1 ||
        { tail -n 20 "$folder/debootstrap.log" >&2; die "debootstrap failed, its last lines are above"; }
    mkdir -p "$(dirname "$packed")"
    tar -C "$bare" -cf "$packed.partial" .
    mv "$packed.partial" "$packed"
else
    mkdir "$bare"
    tar -C "$bare" -xpf "$packed"
fi

# How this machine reaches the network: names, authorities that its owner trusts, mirrors, proxies.
cp /etc/resolv.conf "$bare/etc/resolv.conf"
cp -r /usr/local/share/ca-certificates "$bare/usr/local/share/" 2>/dev/null || true
chroot "$bare" update-ca-certificates >/dev/null 2>&1
if command -v apt-config >/dev/null; then apt-config dump Acquire >"$bare/etc/apt/apt.conf.d/90machine"; fi
home=/root
if [ $user != root ]; then
    home=/home/$user
    chroot "$bare" useradd --create-home --shell /bin/bash $user
    echo "$user ALL=(ALL) NOPASSWD: ALL" >"$bare/etc/sudoers.d/$user"
fi
for file in .cargo/config.toml .m2/settings.xml; do
    if [ -f "$HOME/$file" ]; then mkdir -p "$bare$home/${file%/*}"; cp "$HOME/$file" "$bare$home/$file"; fi
done
proxies=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [ -n "${!name:-}" ]; then proxies+=("$name=${!name}"); fi
done

git clone --quiet --no-local . "$bare$home/million-rps"
commands_of "$bare$home/million-rps/README.md" >"$folder/commands"
for command in "${without[@]}"; do
    awk -v left_out="$command" '{ bare = $0; sub(/  #.*/, "", bare); sub(/ +$/, "", bare) } bare != left_out' "$folder/commands" >"$folder/rest"
    cmp -s "$folder/rest" "$folder/commands" && die "README.md has no command: $command"
    mv "$folder/rest" "$folder/commands"
done
cp "$folder/commands" "$bare/tmp/commands"
cp tests/readme.sh "$bare/tmp/readme.sh"
chmod 644 "$bare/tmp/commands"
mkdir -p "$bare/opt/rust"
chroot "$bare" chown -R "$user" "$home"

# The processes have a namespace: whatever a command leaves running ends with it.
# shellcheck disable=SC2016 # for the shell in the namespace
enter='
    mount --make-rprivate / && mount --bind "$bare" "$bare" && mount -t proc proc "$bare/proc" && mount --rbind /dev "$bare/dev" &&
    mount --rbind /sys "$bare/sys" && mount --bind -o ro "$rust" "$bare/opt/rust" || exit 1
    exec chroot --userspec="$user:$user" "$bare" /usr/bin/env -i HOME="$home" USER="$user" TERM=dumb LANG=C.UTF-8 "$@" \
        bash -c "cd ~/million-rps && exec bash /tmp/readme.sh --inside $minutes_max"
'
path=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin
if [ $user = root ]; then path=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; fi
bare=$bare rust=$rust user=$user home=$home minutes_max=$minutes_max \
    unshare --mount --pid --fork --kill-child bash -c "$enter" enter PATH=$path "${proxies[@]}" &
inside=$!
status=0
wait "$inside" || status=$?
inside=
exit "$status"
