# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153  # names that the scripts which source this set or use
# Common to up, down, exec, demo and the scenarios: a cluster of nodes in network namespaces on this machine. Sourced.
#
#   switch   namespace chunkd-sw: the bridge; 10.77.0.0/24
#   registry namespace chunkd-reg: docker-registry on 10.77.0.2:5000, access log in registry.log
#   node N   namespace chunkd-nN: 10.77.0.(10+N), chunkgate and chunkd with state, sockets and certificate of their own
#
# Everything is beneath CHUNKD_CLUSTER_DIR (default: that of the cluster that is up, /var/tmp/chunkd-cluster for a new
# one): pids, so that `down` ends exactly what `up` began. One cluster at a time; /run/chunkd-cluster says where it is.

CURRENT=/run/chunkd-cluster
CLUSTER=${CHUNKD_CLUSTER_DIR:-$(cat "$CURRENT" 2>/dev/null || echo /var/tmp/chunkd-cluster)}
PREFIX=chunkd
NETWORK=10.77.0
REGISTRY=$NETWORK.2:5000
REGISTRY_USER=demo
PEER_PORT=4710
TRUST_DOMAIN=demo.local

say() { printf '   %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The programs read CHUNKD_ variables as settings, and these scripts have variables of their own.
forget_settings() { unset "${!CHUNKD_@}"; }

# until_true SECONDS WHAT COMMAND…: waits for a condition, with a bound.
until_true() {
    local limit=$1 what=$2 deadline
    shift 2
    deadline=$(($(date +%s) + limit))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$deadline" ] || fail "$what: not within $limit seconds"
        sleep 0.1
    done
}

programs_directory() {
    local programs=${CHUNKD_PROGRAMS:-}
    if [ -z "$programs" ] && [ -r "$CLUSTER/programs" ]; then programs=$(<"$CLUSTER/programs"); fi
    echo "${programs:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && swift build -c release --show-bin-path)}"
}

node_address() { echo "$NETWORK.$((10 + $1))"; }
node_directory() { echo "$CLUSTER/n$1"; }
node_count() { cat "$CLUSTER/nodes"; }

# in_namespace NAME COMMAND…: in a network namespace, with the mounts of this one (ip netns exec would hide /sys).
in_namespace() { nsenter --net="/run/netns/$1" -- "${@:2}"; }
# The same in the background, as `started` below; the pid is the program's, since nsenter becomes it.
started_in() { started "$1" nsenter --net="/run/netns/$2" -- "${@:3}"; }
control() { in_namespace "$PREFIX-n$1" "$PROGRAMS/chunkctl" "${@:2}" --config "$(node_directory "$1")/config.yaml"; }

# started NAME COMMAND…: a process in the background, its output in NAME.log, its pid in NAME.pid, beneath $CLUSTER.
started() {
    local name=$1
    shift
    "$@" </dev/null >>"$CLUSTER/$name.log" 2>&1 &
    echo $! >"$CLUSTER/$name.pid"
}

# stop NAME [SIGNAL]: ends a process of `started` and its children: SIGTERM, and SIGKILL after five seconds.
stop() {
    local file=$CLUSTER/$1.pid pid children
    [ -r "$file" ] || return 0
    pid=$(<"$file")
    rm -f "$file"
    kill -0 "$pid" 2>/dev/null || return 0
    children=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
    kill -"${2:-TERM}" "$pid" 2>/dev/null || true
    for _ in $(seq 500); do
        runs "$pid" || return 0
        sleep 0.01
    done
    # shellcheck disable=SC2086  # a list of numbers
    kill -9 "$pid" $children 2>/dev/null || true
}

# runs PID: whether the process is there and has not ended; whose child it is may be slow to notice.
runs() {
    local state
    state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1)
    # The first thread may have ended before the others, which still have files open.
    [[ -n $state ]] && [[ $state != Z || $(ls "/proc/$1/task" 2>/dev/null | wc -l) -gt 1 ]]
}

# start_time PID: when the process began, in ticks since boot; empty if there is none. Pids are used again, these are not.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# is_dead DIRECTORY: nobody needs the cluster there any more: its owner is gone, or all of its processes are.
is_dead() {
    local file
    if [ -r "$1/owner" ]; then
        local pid began
        read -r pid began <"$1/owner"
        [ "$(start_time "$pid")" != "$began" ]
        return
    fi
    for file in "$1"/*.pid "$1"/n*/*.pid; do
        [ ! -r "$file" ] || ! kill -0 "$(<"$file")" 2>/dev/null || return 1
    done
}

# ----------------------------------------------------------------------------------------------------------- registry
# make_registry [TLS]: its configuration; with TLS an authority and a certificate made for it, and a password.
make_registry() {
    local tls=$CLUSTER/registry-tls access='' settings='plainHTTP: true' password
    mkdir -p "$CLUSTER/registry"
    if [ -n "${1:-}" ]; then
        mkdir "$tls"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=registry CA" \
            -keyout "$tls/ca.key" -out "$tls/ca.crt" 2>/dev/null
        openssl req -newkey rsa:2048 -nodes -subj "/CN=$NETWORK.2" \
            -keyout "$tls/server.key" -out "$tls/server.csr" 2>/dev/null
        openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial -days 2 \
            -extfile <(echo "subjectAltName=IP:$NETWORK.2") -out "$tls/server.crt" 2>/dev/null
        password=$(openssl rand -hex 12)
        (umask 077 && printf '%s\n' "$password" >"$tls/password")
        chown chunkd "$tls/password"
        htpasswd -inB -C 5 "$REGISTRY_USER" <<<"$password" >"$tls/htpasswd"
        access="auth: {htpasswd: {realm: cluster, path: $tls/htpasswd}}"
        settings="caFile: $tls/ca.crt, username: $REGISTRY_USER, passwordFile: $tls/password"
    fi
    cat >"$CLUSTER/registry.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $CLUSTER/registry}}
http:
  addr: "$REGISTRY"
  secret: cluster
  ${1:+tls: {certificate: $tls/server.crt, key: $tls/server.key\}}
$access
YAML
    # What a node needs to know of it.
    echo "  \"$REGISTRY\": {$settings}" >"$CLUSTER/registry-settings"
}

registry_answers() {
    if [ -d "$CLUSTER/registry-tls" ]; then
        # The password by way of a file: arguments can be seen by everybody.
        in_namespace "$PREFIX-reg" curl -sf --cacert "$CLUSTER/registry-tls/ca.crt" "https://$REGISTRY/v2/" \
            -K <(printf 'user = "%s:%s"' "$REGISTRY_USER" "$(<"$CLUSTER/registry-tls/password")")
    else
        in_namespace "$PREFIX-reg" curl -sf "http://$REGISTRY/v2/"
    fi
}
start_registry() {
    started_in registry "$PREFIX-reg" docker-registry serve "$CLUSTER/registry.yml"
    until_true 20 "the registry does not answer" registry_answers
}

# -------------------------------------------------------------------------------------------------------------- nodes
start_gate() {
    local options
    read -ra options <<<"$(control "$1" gate-options)"
    started "n$1/gate" "$PROGRAMS/chunkgate" "${options[@]}"
    until_true 20 "chunkgate of node $1 does not start" test -S "$(node_directory "$1")/run/gate.sock"
}

connected() { control "$1" stat -o json | jq -e .gateConnected; }
begin_agent() { started_in "n$1/agent" "$PREFIX-n$1" "$PROGRAMS/chunkd" --config "$(node_directory "$1")/config.yaml"; }
await_agent() { until_true 20 "chunkd of node $1 does not reach chunkgate" connected "$1"; }
start_agent() {
    begin_agent "$1"
    await_agent "$1"
}

# --------------------------------------------------------------------------------------------------------- containerd
containerd_directory() { echo "$(node_directory "$1")/containerd"; }

# Shims of a node's containerd: they are its children no more, but name its socket.
shims() {
    local socket file words
    socket=$(containerd_directory "$1")/containerd.sock
    for file in /proc/[0-9]*/cmdline; do
        mapfile -d '' words 2>/dev/null <"$file" || continue
        [[ ${words[0]:-} = *containerd-shim* && " ${words[*]} " = *" -address $socket "* ]] || continue
        file=${file%/cmdline}
        echo "${file##*/}"
    done
}
no_shims() { [ -z "$(shims "$1")" ]; }

# Ends a node's containerd, its containers and their shims, and takes away what they leave outside its directory.
stop_containerd() {
    local directory bundle shim
    directory=$(containerd_directory "$1")
    [ -d "$directory" ] || return 0
    stop "n$1/containerd"
    for shim in $(shims "$1"); do
        # A container's first process is a child of its shim, and the others end with that.
        # shellcheck disable=SC2046  # a list of numbers
        kill -9 "$shim" $(cat "/proc/$shim/task/"*/children 2>/dev/null) 2>/dev/null || true
    done
    until_true 10 "shims of node $1 do not end" no_shims "$1"
    unmount_beneath "$directory"
    for bundle in "$directory"/state/io.containerd.runtime.v2.task/*/*; do
        [ -d "$bundle" ] || continue
        remove_traces "${bundle##*/}" "$bundle"
    done
}
# remove_traces CONTAINER BUNDLE: its shim's socket, and its control groups, once the kernel has let go of its processes.
remove_traces() {
    local address group fifo
    address=$(cat "$2/address" 2>/dev/null || true)
    [ -z "$address" ] || rm -f "${address#unix://}"
    for group in /sys/fs/cgroup/*/*/"$1"; do
        [ ! -d "$group" ] || until_true 5 "$group is not empty" rmdir "$group"
    done
    # runc's and the fifos are where ctr has them.
    for fifo in /run/containerd/fifo/*/"$1"-stdout; do
        [ ! -e "$fifo" ] || rm -rf "${fifo%/*}"
    done
    rm -rf --one-file-system "$2" /run/containerd/runc/*/"$1"
}

# unmount_beneath DIRECTORY [CONDITION]: all that is mounted there, innermost first, or what the condition (awk) is true of.
unmount_beneath() {
    awk -v top="$1/" "index(\$5, top) == 1 ${2:-} {print \$5}" /proc/self/mountinfo | sort -r |
        while read -r target; do umount "$target" 2>/dev/null || umount -l "$target" || true; done
}

# Nodes that node $1 sees alive, itself included.
alive() { control "$1" peers -o json | jq '[.peers[] | select(.state == "alive" or .state == "self")] | length'; }
sees() { [ "$(alive "$1")" = "$2" ]; }

# -------------------------------------------------------------------------------------------------------------- links
# limit_link NAMESPACE RATE|off: both ways: what leaves the namespace here, what enters it at its port of the bridge.
limit_link() {
    local name=$1 rate=$2 port=v${1#"$PREFIX-"}
    if [ "$rate" = off ]; then
        tc -n "$name" qdisc del dev eth0 root 2>/dev/null || true
        tc -n "$PREFIX-sw" qdisc del dev "$port" root 2>/dev/null || true
    else
        tc -n "$name" qdisc replace dev eth0 root tbf rate "$rate" burst 256kb latency 100ms
        tc -n "$PREFIX-sw" qdisc replace dev "$port" root tbf rate "$rate" burst 256kb latency 100ms
    fi
}
