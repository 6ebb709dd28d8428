# shellcheck shell=bash
# What build.sh and the scripts beside it share. Progress goes to stderr, so that stdout is for results.

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    shift
    local line
    for line in "$@"; do say "       $line"; done
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command while no other process runs one under the same lock: several tests may need the same thing at once.
locked() {
    local lock="target/$1.lock"
    shift
    mkdir -p target
    if have flock; then
        (
            flock 9
            "$@" 9>&-
        ) 9>"$lock"
    else
        "$@"
    fi
}
