# shellcheck shell=bash
# What the scripts share: messages, the project's root, its cache. Sourced, not run.
#
# The cache is one folder outside the work tree. An entry is named after all that it is made from (a name and a hash of
# its inputs), is filled in a temporary folder and renamed when whole, so it is never seen half done. Any entry may be
# deleted at any time: the next run makes it again.

set -euo pipefail
shopt -s inherit_errexit

# shellcheck disable=SC2034 # for the scripts that source this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${HUBBUB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hubbub}

say() { echo "${0##*/}: $*" >&2; }

die() {
    say "$*"
    exit 2
}

# need COMMAND HINT: ends with the hint if the command is not there.
need() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }

# as_root COMMAND...: runs it as root, with sudo if it must and may; fails if it may not.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# cached NAME INPUTS BUILD: prints the folder of the entry. If it is not there yet, `BUILD FOLDER` fills it, in one process
# at a time. Not for use in a condition: bash would then not stop BUILD at its first failure.
cached() {
    local name=$1 build=$3 entry
    entry=$cache/$name-$(sha256sum <<<"$2" | cut -c1-16)
    if [ ! -d "$entry" ]; then
        mkdir -p "$cache"
        (
            flock 9
            if [ -d "$entry" ]; then exit; fi
            temp=$(mktemp -d "$cache/.$name.XXXXXX")
            trap 'rm -rf "$temp"; [ -d "$entry" ] || say "could not set up $name: see above"' EXIT
            "$build" "$temp" >&2
            mv -T "$temp" "$entry"
        ) 9>"$cache/.$name.lock"
    fi
    touch "$entry" # its age tells how long it has not been used
    echo "$entry"
}

# go_program NAME PACKAGE READY: prints the path of READY if that is given, else of the program that Go builds from PACKAGE
# at the version that tools/go.mod pins.
go_program() {
    local name=$1 package=$2 ready=$3 entry
    if [ -n "$ready" ]; then
        [ -x "$ready" ] || die "'$ready' is not a program"
        echo "$ready"
        return
    fi
    # shellcheck disable=SC2317 # called by its name
    build_go_program() {
        need go "it builds $name; install Go 1.26 or newer (https://go.dev/dl), or name a ready program (see scripts/$name)"
        say "building $name (once; half a minute)"
        cd "$root/tools"
        CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$1/$name" "$package"
    }
    entry=$(cached "$name" "$package $(cat "$root/tools/go.sum")" build_go_program)
    echo "$entry/$name"
}
