#!/usr/bin/env bash
# The pre-commit hook (.pre-commit-hooks.yaml): `trusted-lb check` on the files that are given. The command of this machine
# is taken, or else built once in pre-commit's own copy of this repository, which needs cargo.
set -euo pipefail

if command -v trusted-lb >/dev/null; then
    exec trusted-lb check "$@"
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$root/dist/trusted-lb
if [ ! -x "$program" ]; then
    command -v cargo >/dev/null || {
        echo "trusted-lb isn't installed, and without cargo it can't be built: install either" >&2
        exit 2
    }
    "$root/build.sh" cli >&2
fi
exec "$program" check "$@"
