# What the scripts that run inside of the machines share.
set -euo pipefail

repository=/var/lib/pgbackrest
config=/etc/pgbackrest/pgbackrest.conf
boundary='-- '

say() {
    printf '%s %s\n' "$1" "${*:2}"
}

# Runs a command that has to succeed; what it printed is shown otherwise.
expect() {
    local text=$1 output
    shift
    if output=$("$@" 2>&1); then
        say ok "$text"
    else
        say FAILED "$text: status $?: $output"
        journalctl --no-pager -u repohostd -n 40 -o cat || true
        exit 1
    fi
}

# Runs a command that has to fail.
refuse() {
    local text=$1 output
    shift
    if output=$("$@" 2>&1); then
        say FAILED "$text: it succeeded: $output"
        exit 1
    fi
    say ok "$text"
}

# Waits until a command succeeds, a minute at most.
eventually() {
    local i
    for ((i = 0; i < 600; i++)); do
        "$@" && return
        read -rt 0.1 <> <(:) || true
    done
    return 1
}

is() {
    [[ $1 == "$2" ]] || {
        printf "it is '%s', not '%s'\n" "$1" "$2"
        return 1
    }
}

property() {
    systemctl show repohostd.service --property="$1" --value
}

# Whether the journal of the service has such a line since the mark.
logged() {
    journalctl --sync
    journalctl --no-pager -u repohostd -o cat --since "$mark" | grep -qF -- "$1"
}

# A line that nothing before it is looked at.
set_mark() {
    mark=$(date '+%Y-%m-%d %H:%M:%S.%N')
}

# The processes of the service's workers.
workers() {
    pgrep -f -P "$(property MainPID)" serve-worker
}

# Has two workers serve: the second one is started for the client that comes while the first has a connection.
two_workers() {
    local connection
    exec {connection}<>/dev/tcp/localhost/8432
    push || return
    exec {connection}>&-
    is "$(workers | wc -l)" 2
}

# Whether none of these processes is there any more.
are_gone() {
    ! ps -o pid= -p "${*}" | grep -q .
}

# Configures a server for one stanza; the owner of the service is the first argument.
configure() {
    local owner=$1
    mkdir -p /etc/pgbackrest/cert
    cp /material/{ca.crt,server.crt,server.key} /etc/pgbackrest/cert/
    chown -R "$owner:" /etc/pgbackrest/cert
    chmod 0600 /etc/pgbackrest/cert/server.key
    cat >$config <<CONF
[global]
repo1-path=$repository
repo1-retention-full=1
start-fast=y
tls-server-address=*
tls-server-cert-file=/etc/pgbackrest/cert/server.crt
tls-server-key-file=/etc/pgbackrest/cert/server.key
tls-server-ca-file=/etc/pgbackrest/cert/ca.crt
tls-server-auth=client=main
log-level-console=info

[main]
pg1-path=/cluster
CONF
    printf '[global]\nrelease=%s\n' "$RELEASE" >/etc/pgbackrest/repohostd.conf
    chmod 0644 $config /etc/pgbackrest/repohostd.conf
}

# A PostgreSQL host of its own, as far as a client can tell.
make_client() {
    getent passwd postgres >/dev/null || useradd --system --user-group postgres
    rm -rf /client
    mkdir -p /client/{log,lock,spool,wal}
    cp /material/{ca.crt,client.crt,client.key} /client/
    chmod 0600 /client/client.key
    cat >/client/pgbackrest.conf <<CONF
[global]
repo1-host=localhost
repo1-host-type=tls
repo1-host-ca-file=/client/ca.crt
repo1-host-cert-file=/client/client.crt
repo1-host-key-file=/client/client.key
lock-path=/client/lock
log-path=/client/log
spool-path=/client/spool
io-timeout=10
log-level-console=info

[main]
pg1-path=/cluster
pg1-socket-path=/client
CONF
    cp -a /material/cluster /cluster
    chmod -R u=rwX,go= /cluster
    chown -R postgres: /client /cluster
    echo 0 >/client/segment
}

# A program of PostgreSQL, as postgres.
postgresql() {
    (cd /client && setpriv --reuid postgres --regid postgres --clear-groups \
        env LD_LIBRARY_PATH=/material/lib "$POSTGRESQL/bin/$1" "${@:2}")
}

# Starts a cluster of the client, which archives by the server; its data directory is the argument.
start_cluster() {
    cat >>"$1/postgresql.auto.conf" <<CONF
archive_mode=on
archive_command='env -u LD_LIBRARY_PATH $PGBACKREST --config=/client/pgbackrest.conf --stanza=main --pg1-path=$1 archive-push %p'
listen_addresses=''
unix_socket_directories='/client'
jit=off
CONF
    postgresql pg_ctl --silent --wait --pgdata="$1" --log=/client/log/postgresql.log start
}

sql() {
    postgresql psql --no-psqlrc --tuples-only --no-align --host=/client --dbname=postgres --command="$1"
}

client() {
    cd /cluster
    setpriv --reuid postgres --regid postgres --clear-groups "$PGBACKREST" --config=/client/pgbackrest.conf --stanza=main "$@"
}

# Pushes one more WAL segment, none that a cluster will come to. Their number is in a file, because this is
# called in subshells.
push() {
    local number name
    number=$(($(cat /client/segment) + 1))
    echo "$number" >/client/segment
    name=$(printf '00000001000000FF%08X' "$number")
    install -o postgres -m 0600 /material/cluster/pg_wal/000000010000000000000001 "/client/wal/$name"
    client archive-push "/client/wal/$name" || return
    test -s "$(sed -n 's/^repo1-path=//p' $config)/archive/main/15-1/00000001000000FF/$name"*
}

# A pgbackrest command on the repository host, which shares the lock directory with the server.
on_host() {
    local owner=$1
    shift
    setpriv --reuid "$owner" --regid "$owner" --clear-groups "$PGBACKREST" --config=/host.conf --stanza=main "$@"
}

# The repository host's own view: a copy of the cluster that its user may read.
make_host() {
    local owner=$1
    rm -rf /host-cluster
    cp -a /material/cluster /host-cluster
    chown -R "$owner:" /host-cluster
    chmod -R u=rwX,go= /host-cluster
    sed '/^pg1-/d; /^tls-server/d; s|^\[main\]$|&\npg1-path=/host-cluster|' $config >/host.conf
    chmod 0644 /host.conf
}
