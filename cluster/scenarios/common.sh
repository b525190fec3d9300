# shellcheck shell=bash
# What every scenario begins with. Sourced with the scenario's arguments.
#
# A scenario acts on the cluster that is up and returns at once; calling it again replaces what it did before. Places are
# nodes' numbers and `registry`, several with commas; `all` is all nodes.

# shellcheck source=cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# The comment at the top of a script is its help.
help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }
usage() {
    help >&2
    exit 2
}

# namespace PLACE, port PLACE: its namespace, and its port of the bridge.
namespace() { if [ "$1" = registry ]; then echo "$PREFIX-reg"; else echo "$PREFIX-n$1"; fi; }
port() { if [ "$1" = registry ]; then echo vreg; else echo "vn$1"; fi; }

# places LIST: one place a word, checked.
places() {
    local place
    for place in ${1//,/ }; do
        case $place in
        all) seq "$(node_count)" ;;
        registry) echo registry ;;
        *)
            [[ $place =~ ^[0-9]+$ && -d $(node_directory "$place") ]] || fail "no such place: $place"
            echo "$place"
            ;;
        esac
    done
}
# nodes LIST: the same without the registry.
nodes() {
    local found
    found=$(places "$1")
    ! grep -qx registry <<<"$found" || fail "the registry is no node: see start-registry and stop-registry"
    echo "$found"
}

# ports LIST: the places' ports as a set of nftables.
ports() {
    local place found=
    for place in $(places "$1"); do found+="${found:+, }\"$(port "$place")\""; done
    echo "{ $found }"
}
# Rules of the bridge between all: from the standard input, as nft -f.
bridge_rules() { in_namespace "$PREFIX-sw" nft -f -; }
drop_rules() { in_namespace "$PREFIX-sw" nft delete table bridge "$1" 2>/dev/null || true; }

case ${1:-} in -h | --help) help && exit ;; esac
[ "$(id -u)" = 0 ] || fail "needs root"
[ -d "$CLUSTER" ] || fail "no cluster is up: cluster/up"
PROGRAMS=$(programs_directory)
forget_settings
