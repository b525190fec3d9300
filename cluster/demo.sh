#!/usr/bin/env bash
# chunkd on three nodes, from an image's build to its graduation, on real parts: network namespaces, Debian's
# docker-registry with TLS and a password, chunkgate, chunkd as an unprivileged user, chunkctl. `make demo` runs it;
# root, Linux 6.14 or later.
#
# Everything it makes is in a directory of its own under /var/tmp (CHUNKD_DEMO_DIR chooses another place) and in
# namespaces of its own, and is removed at the end: also after a failure, and after Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=cluster/lib.sh
. cluster/lib.sh

# ------------------------------------------------------------------------------------------------ saying and cleaning
step_number=0
started_at=$(date +%s)
step() {
    step_number=$((step_number + 1))
    printf '\n%2d. %s   [%ss]\n' "$step_number" "$*" "$(($(date +%s) - started_at))"
}
show() { sed 's/^/      /'; }
mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }

work=
jobs=()
cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    case $status in 0 | 130 | 143) ;; *) show_logs ;; esac
    # Readers before the nodes that serve them.
    for job in "${jobs[@]}"; do end_tree "$job"; done
    if [ -n "$work" ]; then
        CHUNKD_CLUSTER_DIR=$CLUSTER cluster/down
        rm -rf --one-file-system "$work"
    fi
    exit "$status"
}
end_tree() {
    local child children=()
    { read -ra children <"/proc/$1/task/$1/children"; } 2>/dev/null || true
    for child in "${children[@]}"; do end_tree "$child"; done
    kill "$1" 2>/dev/null || true
}
show_logs() {
    for log in "$CLUSTER"/registry.log "$CLUSTER"/n[0-9]*/{gate,agent}.log; do
        [ -s "$log" ] || continue
        printf '\n--- last lines of %s\n' "${log#"$CLUSTER/"}" >&2
        tail -n 10 "$log" >&2
    done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# everywhere COMMAND…: the command with each node's number, on all nodes at the same moment; then what each printed.
# Not in a pipeline: cleanup has to know the jobs.
everywhere() {
    local node job status=0
    for node in 1 2 3; do
        "$@" "$node" >"$work/output-$node" 2>&1 &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || status=1; done
    jobs=()
    for node in 1 2 3; do sed "s/^/node $node: /" "$work/output-$node" | show; done
    return "$status"
}
# number NODE FILTER: a number of the node's statistics.
number() { control "$1" stat -o json | jq "$2"; }
target() { echo "$(node_directory "$1")/mnt"; }
# Bytes of the blob that the registry sent to a node: combined log format, where 200 and 206 are answers with it.
logged() {
    awk -v address="$(node_address "$1")" -v path="/v2/demo/tree/blobs/$blob" \
        '$1 == address && $6 == "\"GET" && $7 == path && ($9 == 200 || $9 == 206) { sum += $10 }
         END { printf "%.0f\n", sum }' "$CLUSTER/registry.log"
}

# ------------------------------------------------------------------------------------------------------- requirements
[ "$(id -u)" = 0 ] || fail "needs root: it makes network namespaces, marks files and mounts. Run: sudo make demo"
release=$(uname -r)
IFS=. read -r major minor _ <<<"$release"
minor=${minor%%[!0-9]*}
[ "$major" -gt 6 ] || { [ "$major" = 6 ] && [ "$minor" -ge 14 ]; } ||
    fail "Linux $release has no pre-content events: 6.14 or later is needed"
[ ! -e "$CURRENT" ] || fail "a cluster is up on this machine: CHUNKD_CLUSTER_DIR=$(<"$CURRENT") cluster/down ends it"

PROGRAMS=$(programs_directory)
parent=${CHUNKD_DEMO_DIR:-/var/tmp}
forget_settings
work=$(mktemp -d "$parent/chunkd-demo-XXXXXX")
chmod 755 "$work"
CLUSTER=$work/cluster
mkdir "$work/tree"
image=$REGISTRY/demo/tree:1

# ------------------------------------------------------------------------------------------------------------ cluster
step "A registry with TLS and a password, and three nodes, each in a network namespace with its own address and state"
CHUNKD_CLUSTER_DIR=$CLUSTER CHUNKD_PROGRAMS=$PROGRAMS CHUNKD_REGISTRY_TLS=1 cluster/up 3
mkdir "$(target 1)" "$(target 2)" "$(target 3)"
# Sockets a process has that are in the tables of the network families.
network_sockets() {
    local inodes
    inodes=$(find "/proc/$1/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | tr -dc '0-9\n')
    [ -n "$inodes" ] || { echo 0; return; }
    cat "/proc/$1/net/"{tcp,tcp6,udp,udp6,raw,packet,netlink} 2>/dev/null | grep -cwF "$inodes" || true
}
capabilities() { awk '/^Uid|^CapEff/ {printf "%s %s   ", $1, $2}' "/proc/$1/status"; }
gate=$(<"$CLUSTER/n1/gate.pid")
agent=$(<"$CLUSTER/n1/agent.pid")
child=$(cat "/proc/$gate/task/$gate/children")
say "node 1: chunkgate pid $gate and its child ${child% }: root;" \
    "network sockets: $(network_sockets "$gate") and $(network_sockets "${child% }")"
say "node 1: chunkd    pid $agent: $(capabilities "$agent")"
control 1 peers | awk '{printf "%-8s %-6s %-5s %s\n", $1, $2, $3, $4}' | show

# -------------------------------------------------------------------------------------------------------------- image
step "A real tree: what /usr/share and /usr/lib hold, some thousand files"
# Whole directories until there are enough files: every machine has these, and no two the same.
for source in /usr/share/perl /usr/share/python3 /usr/lib/git-core /usr/share/zoneinfo /usr/share/doc \
    /usr/lib/python3* /usr/share/locale /usr/share/man /usr/share/vim; do
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
control 1 image build "$work/tree" "$image" | show
control 1 image inspect "$image" | show

# -------------------------------------------------------------------------------------------------------------- mount
step "chunkctl mount on all three nodes at the same moment: at once, nothing but metadata fetched"
mount_image() { control "$1" mount "$image" "$(target "$1")"; }
everywhere mount_image || fail "the image cannot be mounted"
for node in 1 2 3; do
    [ "$(find "$(target "$node")" -type f | wc -l)" = "$files" ] || fail "node $node does not see $files files"
    [ "$(number "$node" .bytesFetched)" = 0 ] || fail "node $node has fetched data already"
done
say "find sees all $files files on each; bytes of data fetched so far: 0, 0 and 0"
blob=$(control 1 stat -o json | jq -r '.images[0].blobs | max_by(.rawBytes).digest')
stored=$(stat -c %s "$CLUSTER/registry/docker/registry/v2/blobs/sha256/${blob:7:2}/${blob:7}/data")
# What the log has of the blob by now is its table of frames, and no chunk.
tables=(0 "$(logged 1)" "$(logged 2)" "$(logged 3)")

# --------------------------------------------------------------------------------------------------------------- read
step "Reading a part on all nodes: one directory, 4 KiB in the middle of the large file, and running a program"
read_part() {
    local mounted
    mounted=$(target "$1")
    find "$mounted/usr" -type f -size +0 | sort | sed -n '1,300p' | tr '\n' '\0' | xargs -0 cat >/dev/null
    dd if="$mounted/data/weights" of=/dev/null bs=4096 count=1 skip=8000 status=none
    "$mounted/busybox" echo "busybox runs from the mount"
}
everywhere read_part || fail "a part cannot be read"
control 1 stat | show
for node in 1 2 3; do
    resident=$(number "$node" '.images[0].blobs | map(.residentChunks) | add')
    chunks=$(number "$node" '.images[0].blobs | map(.chunks) | add')
    [ "$resident" -lt "$chunks" ] || fail "node $node fetched everything, though only a part was read"
    say "node $node: $resident of $chunks chunks are here; the rest has not been fetched"
done

step "Reading all of it on all nodes at once, and comparing it with the tree"
compare_content() { diff -r --no-dereference "$work/tree" "$(target "$1")"; }
everywhere compare_content || fail "a mount differs from the tree"
list_metadata() { (cd "$1" && find . -not -type d -printf '%P %M %U %G %s %T@ %l\n' | sort); }
compare_metadata() { cmp "$work/metadata" <(list_metadata "$(target "$1")"); }
list_metadata "$work/tree" >"$work/metadata"
everywhere compare_metadata || fail "the metadata of a mount differs"
say "every byte, mode, owner, time and link is the tree's, on every node"

# ------------------------------------------------------------------------------------------------------------ sources
step "chunkctl peers and chunkctl stat on each node: what came from peers, what from the registry"
for node in 1 2 3; do
    printf '\n'
    control "$node" peers | show
    control "$node" stat | sed -n '/^offload/p; /^SOURCE/,/^$/p' | grep . | show
done

step "The registry's own access log, beside what the nodes say"
from() { number "$1" "[.sources[] | select(.source | startswith(\"$2\")) | .bytes] | add // 0"; }
# Requests for ranges that a node gave up because a peer was faster. What was on its way then is in the log only:
# at most what the sockets and the registry hold, 16 MiB each.
cancelled() {
    in_namespace "$PREFIX-n$1" curl -sf "http://$(node_address "$1"):4711/metrics" |
        awk '/^chunkd_registry_requests_total\{.*result="cancelled"/ { sum += $NF } END { print sum + 0 }'
}
# The log has a line when an answer is over, which may be a moment after its last byte has come.
agrees() {
    local surplus=$(($(logged "$1") - tables[$1] - $(from "$1" registry)))
    [ "$surplus" -ge 0 ] && [ "$surplus" -le $(($(cancelled "$1") << 24)) ]
}
total=0
for node in 1 2 3; do
    fetched=$(from "$node" registry)
    until_true 5 "node $node says $fetched bytes, the registry's log $(logged "$node") - ${tables[node]}" agrees "$node"
    sent=$(($(logged "$node") - tables[node]))
    total=$((total + sent))
    say "node $node: from peers $(mib "$(from "$node" peer)"), from the registry $fetched bytes;" \
        "the log: $sent bytes to $(node_address "$node"), $(cancelled "$node") requests cancelled"
done
say "three nodes have read the image; the registry gave $(mib "$total") of a blob of $(mib "$stored"):" \
    "$(awk "BEGIN { printf \"%.2f\", $total / $stored }") copies"
[ "$total" -lt $((stored * 3 / 2)) ] || fail "more than one and a half copies came from the registry"

# --------------------------------------------------------------------------------------------------------- graduation
step "The blob is complete: it graduates, and no process of ours is on its read path any more"
graduated() { [ "$(number "$1" .graduatedBlobs)" -ge 1 ]; }
for node in 1 2 3; do until_true 30 "the blob has not graduated on node $node" graduated "$node"; done
for node in 1 2 3; do
    events=$(number "$node" .reads.events)
    echo 3 >/proc/sys/vm/drop_caches
    cat "$(target "$node")/data/weights" >/dev/null
    [ "$(number "$node" .reads.events)" = "$events" ] || fail "a graduated blob still raises events on node $node"
    [ "$(number "$node" .integrity.selfEvents)" = 0 ] || fail "chunkgate of node $node raised events itself"
    say "node $node: 64 MiB read again from disk with the caches dropped: 0 events ($events before and after)"
done

step "Cleaning up"
for node in 1 2 3; do control "$node" umount "$(target "$node")" | show; done
say "unmounted; stopping the nodes and the registry"
CHUNKD_CLUSTER_DIR=$CLUSTER cluster/down
printf '\ndemo: done in %s seconds\n' "$(($(date +%s) - started_at))"
