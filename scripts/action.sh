#!/usr/bin/env bash
# The steps of the GitHub action (action.yml).
set -euo pipefail

fail() {
    printf '::error::%s\n' "$1"
    exit 2
}

# Where the next steps find the command: the one that is given, or the release of the action's own version.
find_command() {
    local folder target name url
    if [ -n "${COMMAND:-}" ]; then
        [ -x "$COMMAND" ] || fail "there is no program $COMMAND"
        printf 'TRUSTED_LB=%s\n' "$COMMAND" >>"$GITHUB_ENV"
        return
    fi
    case "$(uname -sm)" in
    "Linux x86_64") target=x86_64-unknown-linux-musl ;;
    "Linux aarch64") target=aarch64-unknown-linux-musl ;;
    "Darwin arm64") target=aarch64-apple-darwin ;;
    "Darwin x86_64") target=x86_64-apple-darwin ;;
    *) fail "there is no release of trusted-lb for $(uname -sm): build it and give its path as command" ;;
    esac
    folder=$(mktemp -d)
    name=trusted-lb-$target
    url=${GITHUB_SERVER_URL:-https://github.com}/$REPOSITORY/releases/download/$VERSION
    for file in "$name" SHA256SUMS; do
        curl --fail --silent --show-error --location --retry 3 --output "$folder/$file" "$url/$file" ||
            fail "$url/$file can't be downloaded: name the action by the tag of a release, or give a command"
    done
    (cd "$folder" && grep -F " $name" SHA256SUMS | shasum --algorithm 256 --check --status) ||
        fail "$url/$name isn't what SHA256SUMS says"
    chmod +x "$folder/$name"
    printf 'TRUSTED_LB=%s\n' "$folder/$name" >>"$GITHUB_ENV"
}

# Annotations for people, and SARIF if it is asked for. The exit code is that of `trusted-lb check`.
check_files() {
    local files
    mapfile -t files < <(printf '%s\n' "${FILES:-.}" | sed '/^[[:space:]]*$/d')
    if [ -n "${SARIF:-}" ]; then
        "$TRUSTED_LB" check --format sarif "${files[@]}" >"$SARIF" || true
    fi
    "$TRUSTED_LB" check --format github "${files[@]}"
}

case "${1:-}" in
command) find_command ;;
check) check_files ;;
*) fail "usage: action.sh command|check" ;;
esac
