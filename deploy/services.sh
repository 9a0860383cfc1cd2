#!/bin/sh
# Starts and stops real PostgreSQL, Redis and Apache Kafka on loopback, all data in one folder, for tests and for play.
#
#   deploy/services.sh start DIR   install what is missing (deploy/setup.sh), start all three, wait until each answers
#   deploy/services.sh start DIR --brokers 3 [--proxied]   the same with a cluster of three brokers and a controller
#   deploy/services.sh settings DIR   print what million-rps needs to use them, as export lines
#   deploy/services.sh env DIR     print these lines and those that the tests need
#   deploy/services.sh stop DIR    stop exactly what was started in DIR; harmless when nothing runs
#   deploy/services.sh clear DIR   stop, and delete what PostgreSQL and Kafka hold
#   deploy/services.sh pid DIR NAME      print a process id, for tests that inject faults
#   deploy/services.sh restart DIR NAME  start one again on its old port, after a test has stopped it
#   deploy/services.sh install     only install what is missing
#   deploy/services.sh missing     only print the names of the packages that are missing
#
# NAME is postgres, redis or kafka; of a cluster kafka-1, kafka-2, kafka-3 or kafka-controller.
#
# The first start takes free ports. Every later one in the same DIR has the same ports, and what PostgreSQL and Kafka held; of
# a port that somebody else has taken meanwhile it says which one it takes instead. Redis is a cache here and starts empty.
#
# Each also has doors that ask who is there: PostgreSQL takes TLS, and a password from the role in SECURED_USER; Kafka has
# listeners for SASL, for TLS, and one that is advertised at an address where nobody listens, for a proxy in between.
#
# The brokers of a cluster keep three replicas of each topic and confirm a write when two have it. The controller is a
# process of its own, which no test harms: two of three brokers may die, and what is tested is the replication of topics and
# not the quorum that says who leads them. With --proxied the brokers, too, are advertised to each other at addresses where
# nobody listens: without proxies there they do not reach each other.
#
# Nothing here is fit for production: open doors without passwords, brokers on one machine, small heaps.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kafka_version=4.1.0
kafka_jars=${KAFKA_JARS:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/million-rps/kafka-$kafka_version}
# Seconds that each service gets to become ready; a cold, busy machine needs about 20 for Kafka.
ready_timeout=${SERVICES_READY_TIMEOUT_SEC:-120}

say() { printf 'services: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- install ---------------------------------------------------------------------------------------------------------

postgres_bin() {
    for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        if [ -x "$folder/initdb" ]; then newest=$folder; fi
    done
    if [ -n "${newest:-}" ]; then echo "$newest"; return; fi
    if command -v initdb >/dev/null; then dirname "$(command -v initdb)"; return; fi
    return 1
}

missing_packages() {
    postgres_bin >/dev/null || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    command -v java >/dev/null || echo default-jre-headless
    command -v openssl >/dev/null || echo openssl
    # Maven only fetches the broker's jars: with the jars in place it is not needed.
    [ -f "$kafka_jars/complete" ] || command -v mvn >/dev/null || echo maven
}

install() {
    "$here/setup.sh" servers
    fetch_kafka
}

fetch_kafka() {
    [ ! -f "$kafka_jars/complete" ] || return 0
    say "fetching Apache Kafka $kafka_version into $kafka_jars (about 54 MB)"
    mkdir -p "$kafka_jars"
    # Into a folder of this process first: several runs may fetch at once.
    partial=$(mktemp -d "$kafka_jars/partial.XXXXXX")
    mvn --batch-mode --quiet -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$partial" \
        </dev/null >&2 || { rm -rf "$partial"; die "Maven could not fetch Kafka: is the network there, and a proxy set in ~/.m2/settings.xml where one is needed?"; }
    mv "$partial"/*.jar "$kafka_jars/"
    rm -rf "$partial"
    touch "$kafka_jars/complete"
}

# ---- small parts -----------------------------------------------------------------------------------------------------

# A TCP port of 127.0.0.1 that nobody listens on, and that no other service of this folder has. Ports below the
# range that the kernel gives to outgoing connections, so that none of those can take it before the service does.
free_port() {
    while :; do
        port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
        if ! is_taken "$port" && ! grep -qs "_port=$port$" "$dir/settings"; then
            echo "$port"
            return
        fi
    done
}

is_taken() { grep -qs "$(printf ':%04X' "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6; }

alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"; }

# pid_of NAME: the process that runs as NAME in this folder. A pid file may outlive its process and the kernel may give
# the number away again, so the start time has to fit too.
pid_of() {
    [ -f "$dir/$1.pid" ] || return 1
    read -r pid started < "$dir/$1.pid" || return 1
    alive "$pid" && [ "$(start_time "$pid")" = "$started" ] || return 1
    echo "$pid"
}

# Field 22 of /proc/PID/stat; the name in field 2 may hold spaces, so it is cut off first.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# launch NAME COMMAND...: runs it in a session of its own (so that Ctrl-C reaches only the script), log in NAME.log.
launch() {
    name=$1
    shift
    setsid "$@" </dev/null >>"$dir/$name.log" 2>&1 &
    echo "$! $(start_time $!)" > "$dir/$name.pid"
}

# await NAME COMMAND...: until the command succeeds, the process dies, or the time is over.
await() {
    name=$1
    shift
    tenths=0
    until "$@" >/dev/null 2>&1; do
        if ! pid_of "$name" >/dev/null; then
            tail -n 30 "$dir/$name.log" >&2
            die "$name ended before it was ready; its log is above and in $dir/$name.log"
        fi
        tenths=$((tenths + 2))
        if [ $tenths -gt $((ready_timeout * 10)) ]; then
            tail -n 30 "$dir/$name.log" >&2
            die "$name is not ready after $ready_timeout s; see $dir/$name.log"
        fi
        sleep 0.2
    done
}

value() { sed -n "s/^$1=//p" "$dir/settings"; }

# PostgreSQL refuses to run as root: there it runs as its own user, or as nobody. Where that user cannot enter the folder
# (a checkout below /root), it gets the one capability that lets it.
postgres_user() {
    if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}
drop_root() {
    if [ "$(id -u)" != 0 ]; then return; fi
    printf 'setpriv --reuid=%s --regid=%s --clear-groups' "$(id -u "$(postgres_user)")" "$(id -g "$(postgres_user)")"
    if ! setpriv --reuid="$(id -u "$(postgres_user)")" --clear-groups test -x "$dir"; then
        printf ' --inh-caps=+dac_override --ambient-caps=+dac_override'
    fi
}

# ---- certificates ----------------------------------------------------------------------------------------------------

secured_user=secured
secured_password=a-password-for-tests

# An authority of this folder, and a certificate that it signs for this machine. They are made anew when they end within a
# day.
prepare_certificates() {
    if openssl x509 -checkend 86400 -noout -in "$dir/tls/certificate.pem" >/dev/null 2>&1; then return; fi
    mkdir -p "$dir/tls"
    {
        new_key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        echo 'subjectAltName=DNS:localhost,IP:127.0.0.1' > "$dir/tls/names"
        # shellcheck disable=SC2086 # a list of options
        openssl req -x509 $new_key -days 30 -subj '/CN=an authority for tests' -keyout "$dir/tls/authority-key.pem" \
            -out "$dir/tls/authority.pem" &&
        openssl req $new_key -subj '/CN=localhost' -keyout "$dir/tls/key.pem" -out "$dir/tls/request.pem" &&
        openssl x509 -req -in "$dir/tls/request.pem" -CA "$dir/tls/authority.pem" -CAkey "$dir/tls/authority-key.pem" \
            -CAcreateserial -days 30 -extfile "$dir/tls/names" -out "$dir/tls/certificate.pem" &&
        cat "$dir/tls/key.pem" "$dir/tls/certificate.pem" > "$dir/tls/key-and-certificate.pem"
    } >"$dir/tls.log" 2>&1 || { cat "$dir/tls.log" >&2; die "openssl failed; its output is above"; }
}

# ---- the three services ----------------------------------------------------------------------------------------------

prepare_postgres() {
    mkdir -p "$dir/postgres" "$dir/socket"
    if [ "$(id -u)" = 0 ]; then chown "$(postgres_user)" "$dir/postgres" "$dir/socket"; fi
    chmod 700 "$dir/postgres"
    # shellcheck disable=SC2046 # a command prefix, to be split into words
    (cd "$dir/postgres" && $(drop_root) "$(postgres_bin)/initdb" --pgdata="$dir/postgres" --username=postgres \
        --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-instructions >"$dir/initdb.log" 2>&1) || {
        cat "$dir/initdb.log" >&2
        die "initdb failed; its output is above"
    }
    # The first line that fits decides.
    {
        echo "host all $secured_user 127.0.0.1/32 scram-sha-256"
        cat "$dir/postgres/pg_hba.conf"
    } > "$dir/pg_hba.conf"
    cat "$dir/pg_hba.conf" > "$dir/postgres/pg_hba.conf"
}

give_postgres_certificate() {
    cp "$dir/tls/certificate.pem" "$dir/tls/key.pem" "$dir/tls/authority.pem" "$dir/postgres/"
    # PostgreSQL takes no key that others may read.
    chmod 600 "$dir/postgres/key.pem"
    if [ "$(id -u)" = 0 ]; then chown "$(postgres_user)" "$dir/postgres/"*.pem; fi
}

create_secured_role() {
    ask_postgres "SELECT 1 FROM pg_roles WHERE rolname = '$secured_user'" | grep -q . ||
        ask_postgres "CREATE ROLE $secured_user LOGIN SUPERUSER PASSWORD '$secured_password'" >&2
}

# ask_postgres SQL: prints one line for each row
ask_postgres() {
    "$(postgres_bin)/psql" -h 127.0.0.1 -p "$(value postgres_port)" -U postgres -d postgres -qAt -v ON_ERROR_STOP=1 -c "$1"
}

start_postgres() {
    bin=$(postgres_bin)
    # Paths of unix sockets are limited to 107 bytes: with a long folder name there is TCP only.
    socket=$dir/socket
    if [ ${#socket} -gt 80 ]; then socket=; fi
    # After a kill -9 the number of the former server stays taken until the system has collected it, and PostgreSQL would
    # believe that it still runs.
    tenths=0
    while former=$(head -n 1 "$dir/postgres/postmaster.pid" 2>/dev/null) && grep -qs '^postgres$' "/proc/$former/comm"; do
        tenths=$((tenths + 1))
        [ $tenths -lt 100 ] || die "a server still uses $dir/postgres"
        sleep 0.1
    done
    # shellcheck disable=SC2046 # a command prefix, to be split into words
    (cd "$dir/postgres" && launch postgres $(drop_root) "$bin/postgres" -D "$dir/postgres" -c listen_addresses=127.0.0.1 \
        -p "$(value postgres_port)" -c unix_socket_directories="$socket" -c fsync=on -c synchronous_commit=on \
        -c max_connections=200 -c shared_buffers=128MB \
        -c ssl=on -c ssl_cert_file=certificate.pem -c ssl_key_file=key.pem -c ssl_ca_file=authority.pem)
    await postgres "$bin/pg_isready" -q -h 127.0.0.1 -p "$(value postgres_port)" -U postgres
}

start_redis() {
    mkdir -p "$dir/redis"
    launch redis redis-server --bind 127.0.0.1 --port "$(value redis_port)" --dir "$dir/redis" --save "" --appendonly no
    await redis redis-cli -h 127.0.0.1 -p "$(value redis_port)" ping
}

# The processes of Kafka, in the order in which they are started.
kafka_names() {
    if [ "$(value brokers)" = 3 ]; then echo kafka-controller kafka-1 kafka-2 kafka-3; else echo kafka; fi
}

configure_kafka() {
    cat > "$dir/log4j2.properties" <<'LOGGING'
status = warn
appender.console.type = Console
appender.console.name = STDOUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = STDOUT
LOGGING
    for name in $(kafka_names); do
        mkdir -p "$dir/$name"
        case $name in
            kafka) kafka_alone ;;
            kafka-controller) kafka_controller ;;
            *) kafka_broker "${name#kafka-}" ;;
        esac > "$dir/$name/server.properties"
    done
}

format_kafka() {
    cluster=$(kafka_java kafka.tools.StorageTool random-uuid 2>>"$dir/kafka.log" | tail -n 1)
    for name in $(kafka_names); do
        kafka_java kafka.tools.StorageTool format -t "$cluster" -c "$dir/$name/server.properties" \
            --add-scram "SCRAM-SHA-256=[name=$secured_user,password=$secured_password]" \
            --add-scram "SCRAM-SHA-512=[name=$secured_user,password=$secured_password]" >>"$dir/$name.log" 2>&1 || {
            tail -n 30 "$dir/$name.log" >&2
            die "formatting the storage of $name failed; its output is above"
        }
    done
}

# What every broker has. A broker looks for what is too old half a minute after its start and then every five minutes, unless it
# is told otherwise; a test of retention would lose its commands when that falls into it.
kafka_common() {
    cat <<PROPERTIES
controller.listener.names=CONTROLLER
num.partitions=16
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.initial.task.delay.ms=3600000
log.retention.check.interval.ms=3600000
PROPERTIES
}

kafka_alone() {
    kafka_common
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$(value kafka_controller_port)
listeners=$(kafka_listeners),PROXIED://127.0.0.1:$(value kafka_proxied_port),CONTROLLER://127.0.0.1:$(value kafka_controller_port)
advertised.listeners=$(kafka_listeners),PROXIED://127.0.0.1:$(value kafka_proxy_port)
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,SASL_TLS:SASL_SSL,CONTROLLER:PLAINTEXT
$(kafka_security)
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/kafka/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
PROPERTIES
}

kafka_controller() {
    cat <<PROPERTIES
process.roles=controller
node.id=100
controller.listener.names=CONTROLLER
controller.quorum.voters=100@127.0.0.1:$(value kafka_controller_port)
listeners=CONTROLLER://127.0.0.1:$(value kafka_controller_port)
listener.security.protocol.map=CONTROLLER:PLAINTEXT
log.dirs=$dir/kafka-controller/data
default.replication.factor=3
min.insync.replicas=2
broker.session.timeout.ms=6000
PROPERTIES
}

# A broker that says nothing for 6 s is taken for dead, and a replica that lags for 5 s is no longer waited for: less than
# Kafka's own 9 and 30 s, so that tests are done sooner.
kafka_broker() {
    kafka_common
    between=$(value "kafka_$1_between_port")
    advertised=$between
    if [ "$(value proxied)" = yes ]; then advertised=$(value "kafka_$1_between_proxy_port"); fi
    plain=PLAINTEXT://127.0.0.1:$(value "kafka_$1_port")
    cat <<PROPERTIES
process.roles=broker
node.id=$1
controller.quorum.voters=100@127.0.0.1:$(value kafka_controller_port)
listeners=$plain,PROXIED://127.0.0.1:$(value "kafka_$1_proxied_port"),BETWEEN://127.0.0.1:$between
advertised.listeners=$plain,PROXIED://127.0.0.1:$(value "kafka_$1_proxy_port"),BETWEEN://127.0.0.1:$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,BETWEEN:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BETWEEN
log.dirs=$dir/kafka-$1/data
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
replica.lag.time.max.ms=5000
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
}

kafka_listeners() {
    printf 'PLAINTEXT://127.0.0.1:%s,SASL://127.0.0.1:%s,' "$(value kafka_port)" "$(value kafka_sasl_port)"
    printf 'TLS://127.0.0.1:%s,SASL_TLS://127.0.0.1:%s' "$(value kafka_tls_port)" "$(value kafka_sasl_tls_port)"
}

kafka_security() {
    modules=org.apache.kafka.common.security
    for listener in sasl sasl_tls; do
        prefix=listener.name.$listener
        echo "$prefix.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
        echo "$prefix.plain.sasl.jaas.config=$modules.plain.PlainLoginModule required user_$secured_user=\"$secured_password\";"
        echo "$prefix.scram-sha-256.sasl.jaas.config=$modules.scram.ScramLoginModule required;"
        echo "$prefix.scram-sha-512.sasl.jaas.config=$modules.scram.ScramLoginModule required;"
    done
    for listener in tls sasl_tls; do
        echo "listener.name.$listener.ssl.keystore.type=PEM"
        echo "listener.name.$listener.ssl.keystore.location=$dir/tls/key-and-certificate.pem"
    done
}

kafka_java() {
    java -Xmx512m -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$kafka_jars/*" "$@"
}

start_kafka() { launch_kafka kafka -Xms512m -Xmx512m; await_kafka kafka "$(value kafka_port)"; }

# The cluster's processes start at the same time.
start_kafka_cluster() {
    launch_kafka_small kafka-controller 160
    for broker in 1 2 3; do launch_kafka_small kafka-$broker 256; done
    for broker in 1 2 3; do await_kafka kafka-$broker "$(value kafka_${broker}_port)"; done
}

# launch_kafka_small NAME HEAP_MB: one of several
launch_kafka_small() { launch_kafka "$1" -Xms"$2"m -Xmx"$2"m -XX:+UseSerialGC; }

# launch_kafka NAME OPTION...
launch_kafka() {
    name=$1
    shift
    launch "$name" java "$@" -XX:+ExitOnOutOfMemoryError \
        -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$kafka_jars/*" kafka.Kafka "$dir/$name/server.properties"
}

# await_kafka NAME PORT: the port opens before the broker serves; the tool's answer shows that it does.
await_kafka() {
    await "$1" is_taken "$2"
    await "$1" kafka_java org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$2" --list
}

# ---- commands --------------------------------------------------------------------------------------------------------

# All processes of this folder, as far as its settings say what they are.
names() { echo postgres redis; if [ -f "$dir/settings" ]; then kafka_names; else echo kafka; fi; }

all_run() {
    for name in $(names); do pid_of "$name" >/dev/null || return 1; done
}

# start BROKERS PROXIED
start() {
    if [ -f "$dir/prepared" ] && { [ "$(value brokers)" != "$1" ] || [ "$(value proxied)" != "$2" ]; }; then
        die "$dir was made with other options, and what it holds would be of no use (brokers=$(value brokers)," \
            "proxied=$(value proxied)). Delete it with: deploy/services.sh clear $dir; or take another folder"
    fi
    if all_run; then
        say "already running in $dir"
        return
    fi
    install
    stop
    # An interrupted or failed start leaves nothing running.
    # shellcheck disable=SC2154 # it is assigned where it is used
    trap 'status=$?; trap - EXIT; stop; exit $status' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [ ! -f "$dir/prepared" ]; then delete_all; choose_ports "$1" "$2"; else keep_ports; fi
    rm -f "$dir"/postgres.log "$dir"/redis.log "$dir"/kafka*.log
    chmod 755 "$dir"
    prepare_certificates
    configure_kafka
    if [ ! -f "$dir/prepared" ]; then
        prepare_postgres
        format_kafka
        # Only now is it worth keeping: what an interrupted start has left is made anew.
        touch "$dir/prepared"
    fi
    give_postgres_certificate
    start_postgres
    create_secured_role
    start_redis
    if [ "$1" = 3 ]; then start_kafka_cluster; else start_kafka; fi
    trap - EXIT INT TERM HUP
    say "PostgreSQL, Redis and Kafka run in $dir"
}

# What is in these folders belongs to this script; anything else in DIR is left alone.
delete_all() {
    rm -rf "$dir/postgres" "$dir/socket" "$dir/redis" "$dir/kafka" "$dir"/kafka-[123] "$dir/kafka-controller" "$dir/tls"
    rm -f "$dir"/postgres.log "$dir"/redis.log "$dir"/kafka*.log "$dir"/tls.log "$dir"/initdb.log "$dir/pg_hba.conf" \
        "$dir/log4j2.properties" "$dir/settings" "$dir/prepared"
}

# choose_ports BROKERS PROXIED
choose_ports() {
    printf 'brokers=%s\nproxied=%s\n' "$1" "$2" > "$dir/settings"
    for door in postgres redis kafka kafka_controller kafka_sasl kafka_tls kafka_sasl_tls kafka_proxied kafka_proxy; do
        echo "${door}_port=$(free_port)" >> "$dir/settings"
    done
    [ "$1" = 3 ] || return 0
    for broker in 1 2 3; do
        for door in "" _proxied _proxy _between _between_proxy; do
            echo "kafka_$broker${door}_port=$(free_port)" >> "$dir/settings"
        done
    done
}

# Nothing of this folder runs, so whoever listens at one of its ports is somebody else.
keep_ports() {
    while IFS='=' read -r name port; do
        case $name in *_port) is_taken "$port" || continue ;; *) continue ;; esac
        another=$(free_port)
        say "the port $port is taken by another program: ${name%_port} has $another from now on"
        sed "s/^$name=.*/$name=$another/" "$dir/settings" > "$dir/settings.new"
        mv "$dir/settings.new" "$dir/settings"
    done <<SETTINGS
$(cat "$dir/settings")
SETTINGS
}

# What million-rps needs.
print_settings() {
    for name in $(names); do
        pid_of "$name" >/dev/null || die "$name does not run in $dir; start it with: deploy/services.sh start $dir"
    done
    echo "export DATABASE_URL=postgres://postgres@127.0.0.1:$(value postgres_port)/postgres?sslmode=disable"
    echo "export REDIS_URL=redis://127.0.0.1:$(value redis_port)/0"
    case $(value brokers) in
        3) echo "export KAFKA_BROKERS=$(addresses port ,)" ;;
        *) echo "export KAFKA_BROKERS=127.0.0.1:$(value kafka_port)" ;;
    esac
}

# The same, and for tests: where to find the processes, the Java tools, and the other doors.
print_env() {
    print_settings
    echo "export SERVICES_DIR=$dir"
    echo "export KAFKA_JARS=$kafka_jars"
    echo "export SECURED_USER=$secured_user"
    echo "export SECURED_PASSWORD=$secured_password"
    echo "export TLS_DIR=$dir/tls"
    if [ "$(value brokers)" = 3 ]; then print_env_of_cluster; else print_env_of_broker; fi
}

print_env_of_broker() {
    # The doors that ask who is there.
    echo "export KAFKA_SASL_BROKERS=127.0.0.1:$(value kafka_sasl_port)"
    echo "export KAFKA_TLS_BROKERS=127.0.0.1:$(value kafka_tls_port)"
    echo "export KAFKA_SASL_TLS_BROKERS=127.0.0.1:$(value kafka_sasl_tls_port)"
    # A proxy that listens at the first and connects to the second stands between the broker and its clients.
    echo "export KAFKA_PROXY_ADDRESS=127.0.0.1:$(value kafka_proxy_port)"
    echo "export KAFKA_PROXY_TARGET=127.0.0.1:$(value kafka_proxied_port)"
}

print_env_of_cluster() {
    # Proxies that listen at the first and connect to the second stand between each broker and its clients, or the other
    # brokers. In the order of the brokers.
    echo "export KAFKA_PROXY_ADDRESSES=$(addresses proxy_port ,)"
    echo "export KAFKA_PROXY_TARGETS=$(addresses proxied_port ,)"
    if [ "$(value proxied)" = yes ]; then
        echo "export KAFKA_BETWEEN_ADDRESSES=$(addresses between_proxy_port ,)"
        echo "export KAFKA_BETWEEN_TARGETS=$(addresses between_port ,)"
    fi
}

# addresses DOOR SEPARATOR: of the three brokers
addresses() {
    for broker in 1 2 3; do
        [ $broker = 1 ] || printf '%s' "$2"
        printf '127.0.0.1:%s' "$(value "kafka_${broker}_$1")"
    done
}

stop() {
    # A broker says goodbye to the controller, which therefore ends last.
    end kafka kafka-1 kafka-2 kafka-3 redis postgres
    end kafka-controller
}

# end NAME...: all get the signal first, so that they end at the same time. SIGINT is PostgreSQL's fast shutdown: with
# SIGTERM it would wait for its clients. A frozen process (SIGSTOP, by a test) has to be woken to see it.
end() {
    for name in "$@"; do
        if pid=$(pid_of "$name"); then
            if [ "$name" = postgres ]; then kill -INT "$pid" || true; else kill -TERM "$pid" || true; fi
            kill -CONT "$pid" 2>/dev/null || true
        fi
    done
    tenths=0
    for name in "$@"; do
        while pid=$(pid_of "$name"); do
            tenths=$((tenths + 1))
            if [ $tenths -ge 100 ]; then
                say "$name does not end by itself after 10 s: killing it"
                kill -KILL "$pid" 2>/dev/null || true
            fi
            sleep 0.1
        done
        rm -f "$dir/$name.pid"
    done
}

command=${1:-}
if [ -n "${2:-}" ]; then
    mkdir -p "$2"
    dir=$(cd "$2" && pwd)
elif [ "$command" != install ] && [ "$command" != missing ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
case $command in
    install) install ;;
    missing) missing_packages ;;
    start)
        shift 2
        brokers=1
        proxied=no
        while [ $# -gt 0 ]; do
            case $1 in
                --brokers) brokers=${2:-}; [ $# -lt 2 ] || shift ;;
                --proxied) proxied=yes ;;
                *) die "unknown option $1" ;;
            esac
            shift
        done
        case $brokers in 1 | 3) ;; *) die "--brokers is 1 or 3" ;; esac
        start "$brokers" $proxied
        ;;
    settings) print_settings ;;
    env) print_env ;;
    stop) stop ;;
    clear) stop; delete_all ;;
    pid) pid_of "${3:?which service?}" || die "$3 does not run in $dir" ;;
    restart)
        name=${3:?which service?}
        case " $(names | tr '\n' ' ') " in *" $name "*) ;; *) die "there is no $name in $dir, only: $(names | tr '\n' ' ')" ;; esac
        pid_of "$name" >/dev/null && die "$name still runs"
        case $name in
            kafka-controller) launch_kafka_small "$name" 160 ;;
            kafka-*) launch_kafka_small "$name" 256; await_kafka "$name" "$(value "kafka_${name#kafka-}_port")" ;;
            *) "start_$name" ;;
        esac
        ;;
    *) die "unknown command $command" ;;
esac
