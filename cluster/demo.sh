#!/usr/bin/env bash
# chunkd on one node, from an image's build to its graduation, on real parts: Debian's docker-registry with TLS and a
# password, chunkgate, chunkd as an unprivileged user, chunkctl. `make demo` runs it; root, Linux 6.14 or later.
#
# Everything it makes is in a directory of its own under /var/tmp (CHUNKD_DEMO_DIR chooses another place) on ports of
# its own on 127.0.0.1, and is removed at the end: also after a failure, and after Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

# ------------------------------------------------------------------------------------------------ saying and cleaning
step_number=0
started_at=$(date +%s)
say() { printf '   %s\n' "$*"; }
step() {
    step_number=$((step_number + 1))
    printf '\n%2d. %s   [%ss]\n' "$step_number" "$*" "$(($(date +%s) - started_at))"
}
fail() {
    printf '\ndemo: %s\n' "$*" >&2
    exit 1
}
show() { sed 's/^/      /'; }

work=
pids=()
mounted=
cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    case $status in 0 | 130 | 143) ;; *) show_logs ;; esac
    if [ -n "$mounted" ]; then umount "$mounted" 2>/dev/null || umount -l "$mounted" 2>/dev/null || true; fi
    # Last started, first stopped: the gate goes after its only client.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do stop "${pids[i]}"; done
    if [ -n "$work" ]; then
        # What is still mounted beneath belongs to a gate that had to be killed.
        awk -v top="$work/" 'index($5, top) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r target; do
            umount -l "$target" || true
        done
        rm -rf --one-file-system "$work"
    fi
    exit "$status"
}
# Ends a process that this script started: SIGTERM, and SIGKILL (with its children) after five seconds.
stop() {
    local pid=$1 children
    kill -0 "$pid" 2>/dev/null || return 0
    children=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    # shellcheck disable=SC2086  # a list of numbers
    kill -9 "$pid" $children 2>/dev/null || true
}
show_logs() {
    for log in registry gate agent; do
        [ -s "$work/$log.log" ] || continue
        printf '\n--- last lines of %s.log\n' "$log" >&2
        tail -n 15 "$work/$log.log" >&2
    done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

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

# ------------------------------------------------------------------------------------------------------- requirements
[ "$(id -u)" = 0 ] || fail "needs root: it marks files and mounts. Run: sudo make demo"
release=$(uname -r)
IFS=. read -r major minor _ <<<"$release"
minor=${minor%%[!0-9]*}
[ "$major" -gt 6 ] || { [ "$major" = 6 ] && [ "$minor" -ge 14 ]; } ||
    fail "Linux $release has no pre-content events: 6.14 or later is needed"

programs=${CHUNKD_PROGRAMS:-$(swift build -c release --show-bin-path)}
parent=${CHUNKD_DEMO_DIR:-/var/tmp}
# The programs read CHUNKD_ variables as settings, and the demonstration has settings of its own.
unset "${!CHUNKD_@}"
for program in chunkgate chunkd chunkctl; do
    [ -x "$programs/$program" ] || fail "$programs/$program is not built: run make release"
done

work=$(mktemp -d "$parent/chunkd-demo-XXXXXX")
chmod 755 "$work"
mkdir "$work/registry" "$work/state" "$work/tree" "$work/mnt" "$work/tls"

free_port() {
    # The kernel's choice; the listener that asked for it is gone when this returns.
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
registry_port=$(free_port)
metrics_port=$(free_port)
registry=127.0.0.1:$registry_port
image=$registry/demo/tree:1
user=demo
password=$(openssl rand -hex 12)

# ----------------------------------------------------------------------------------------------------------- registry
step "A registry with TLS and a password: docker-registry on $registry"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=chunkd demo CA" \
    -keyout "$work/tls/ca.key" -out "$work/tls/ca.crt" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=127.0.0.1" \
    -keyout "$work/tls/server.key" -out "$work/tls/server.csr" 2>/dev/null
openssl x509 -req -in "$work/tls/server.csr" -CA "$work/tls/ca.crt" -CAkey "$work/tls/ca.key" -CAcreateserial \
    -days 2 -extfile <(echo "subjectAltName=IP:127.0.0.1") -out "$work/tls/server.crt" 2>/dev/null
htpasswd -nbB -C 5 "$user" "$password" >"$work/htpasswd"
cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http:
  addr: $registry
  secret: $(openssl rand -hex 12)
  tls: {certificate: $work/tls/server.crt, key: $work/tls/server.key}
auth:
  htpasswd: {realm: demo, path: $work/htpasswd}
YAML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
pids+=($!)
until_true 20 "the registry does not answer" \
    curl -sf --cacert "$work/tls/ca.crt" -u "$user:$password" "https://$registry/v2/"
say "it answers, with a certificate of a CA made just now"

# -------------------------------------------------------------------------------------------------- chunkgate, chunkd
step "chunkgate (root, no network) and chunkd (user chunkd, no capabilities)"
(umask 077 && printf '%s\n' "$password" >"$work/password")
chown chunkd "$work/password"
cat >"$work/config.yaml" <<YAML
stateDir: $work/state
runDir: $work/run
metrics: {address: "127.0.0.1:$metrics_port"}
# Off, so that what the demonstration shows is what was read and nothing else.
hydrate: {enabled: false}
registries:
  "$registry":
    caFile: $work/tls/ca.crt
    username: $user
    passwordFile: $work/password
YAML
control() { "$programs/chunkctl" "$@" --config "$work/config.yaml"; }

# chunkgate reads no file; its options come from the configuration.
options=$(control gate-options)
read -ra gate_options <<<"$options"
"$programs/chunkgate" "${gate_options[@]}" >"$work/gate.log" 2>&1 &
pids+=($!)
gate=$!
until_true 20 "chunkgate does not start" test -S "$work/run/gate.sock"
"$programs/chunkd" --config "$work/config.yaml" >"$work/agent.log" 2>&1 &
pids+=($!)
agent=$!
connected() { control stat -o json | jq -e .gateConnected; }
until_true 20 "chunkd does not reach chunkgate" connected
# Sockets a process has that are in the tables of the network families.
network_sockets() {
    local inodes
    inodes=$(find "/proc/$1/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | tr -dc '0-9\n')
    [ -n "$inodes" ] || { echo 0; return; }
    cat "/proc/$1/net/"{tcp,tcp6,udp,udp6,raw,packet,netlink} 2>/dev/null | grep -cwF "$inodes" || true
}
child=$(cat "/proc/$gate/task/$gate/children")
say "chunkgate  pid $gate and its child ${child% }; network sockets: $(network_sockets "$gate") and $(network_sockets "${child% }")"
say "chunkd     pid $agent   $(awk '/^Uid|^CapEff/ {printf "%s %s   ", $1, $2}' "/proc/$agent/status")"

# -------------------------------------------------------------------------------------------------------------- image
step "A real tree: what /usr/share and /usr/lib hold, some thousand files"
# Whole directories until there are enough files: every machine has these, and no two the same.
for source in /usr/share/perl /usr/share/python3 /usr/lib/git-core /usr/share/zoneinfo /usr/share/doc /usr/lib/python3* \
    /usr/share/locale /usr/share/man /usr/share/vim; do
    [ -d "$source" ] || continue
    mkdir -p "$work/tree$(dirname "$source")"
    cp -a "$source" "$work/tree$source"
    [ "$(find "$work/tree" -type f | wc -l)" -lt 4000 ] || break
done
# And one large file, as models and data sets have.
mkdir -p "$work/tree/data"
head -c 67108864 /dev/urandom >"$work/tree/data/weights"
cp /bin/busybox "$work/tree/busybox"
files=$(find "$work/tree" -type f | wc -l)
say "$files files, $(du -sh --apparent-size "$work/tree" | cut -f1)"

step "chunkctl image build TREE $image"
control image build "$work/tree" "$image" | show
control image inspect "$image" | show

# --------------------------------------------------------------------------------------------------------------- read
step "chunkctl mount: at once, nothing but metadata fetched"
control mount "$image" "$work/mnt" | show
mounted=$work/mnt
number() { control stat -o json | jq "$1"; }
[ "$(find "$mounted" -type f | wc -l)" = "$files" ] || fail "the mount does not hold $files files"
say "find sees all $files files; fetched so far: $(number .bytesFetched) bytes of data"

step "Reading a part: one directory, 4 KiB in the middle of the large file, and running a program"
part=$(find "$mounted/usr" -type f -size +0 | sed -n '1,300p')
tr '\n' '\0' <<<"$part" | xargs -0 cat >/dev/null
dd if="$mounted/data/weights" of=/dev/null bs=4096 count=1 skip=8000 status=none
say "$("$mounted/busybox" echo "busybox runs from the mount")"
control stat | show
resident=$(number '.images[0].blobs | map(.residentChunks) | add')
chunks=$(number '.images[0].blobs | map(.chunks) | add')
[ "$resident" -lt "$chunks" ] || fail "everything was fetched, though only a part was read"
say "$resident of $chunks chunks are here; the rest has not been fetched"

step "Reading all of it, and comparing it with the tree"
diff -r --no-dereference "$work/tree" "$mounted" || fail "the mount differs from the tree"
compare_metadata() { (cd "$1" && find . -printf '%P %M %U %G %s %T@ %l\n' | grep -v '^ ' | sort); }
cmp <(compare_metadata "$work/tree" | awk '$2 !~ /^d/') <(compare_metadata "$mounted" | awk '$2 !~ /^d/') ||
    fail "the metadata differs"
say "every byte, mode, owner, time and link is the tree's"
control stat | show

step "The blob is complete: it graduates, and no process of ours is on its read path any more"
graduated() { [ "$(number .graduatedBlobs)" -ge 1 ]; }
until_true 30 "the blob has not graduated" graduated
events=$(number .reads.events)
echo 3 >/proc/sys/vm/drop_caches
cat "$mounted/data/weights" >/dev/null
[ "$(number .reads.events)" = "$events" ] || fail "a graduated blob still raises events"
say "64 MiB read again from disk with the caches dropped: 0 events ($events before and after)"
[ "$(number .integrity.selfEvents)" = 0 ] || fail "chunkgate raised events itself"

step "Cleaning up"
control umount "$mounted" | show
mounted=
say "unmounted; stopping chunkd, chunkgate and the registry"
printf '\ndemo: done in %s seconds\n' "$(($(date +%s) - started_at))"
