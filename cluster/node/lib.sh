# shellcheck shell=bash disable=SC2034,SC2154 # for the scripts that source this, and from what they source before
# The cluster of nodes: where its files are, its addresses, and how to get into a node. Sourced after scripts/lib.sh.
#
# A node is a network namespace and, in it, one process tree with mounts of its own. Node 1 has a link to the machine, and
# every other node one to node 1, so that nothing goes through the machine's own bridges and firewall.

nodes=(1 2)
state=$cache/nodes # one cluster's keys, configuration, logs and store; goes with it
kubeconfig=$state/kubeconfig
here=$root/cluster/node

machine_ip=10.213.0.1
api_ip=10.213.0.2         # node 1
pods=10.213.128.0/18      # all nodes' pods
services=10.213.64.0/18
api_service=10.213.64.1
dns_service=10.213.64.10

node_name() { echo "hubbub-node-$1"; } # NODE: its network namespace, its cgroups, its links
node_ip() { if [ "$1" = 1 ]; then echo $api_ip; else echo "10.213.$(($1 - 1)).2"; fi; }
gateway_of() { if [ "$1" = 1 ]; then echo $machine_ip; else echo "10.213.$(($1 - 1)).1"; fi; }
node_pods() { echo "10.213.$((128 + 16 * ($1 - 1))).0/20"; }

# node_pid NODE: the process id, as the machine sees it, of the node's process 1. Fails when there is none.
node_pid() {
    local holder first=
    read -r holder 2>/dev/null <"$state/node-$1.pid" || return 1
    # Another process may have got the id since.
    grep -qsF "HUBBUB_NODE=$1" "/proc/$holder/environ" || return 1
    read -r first _ 2>/dev/null <"/proc/$holder/task/$holder/children" || [ -n "$first" ] || return 1
    echo "$first"
}

# in_node NODE COMMAND...: runs it inside that node.
in_node() {
    local pid
    pid=$(node_pid "$1")
    shift
    nsenter --target "$pid" --mount --net --pid -- "$@"
}

# until_true SECONDS COMMAND...: runs it until it succeeds. Gives up after that time, with what it said last.
until_true() {
    local end=$((SECONDS + $1)) limit=$1
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            say "gave up after $limit s: $*"
            "$@" >&2
            return
        fi
        sleep 0.2
    done
}
