# shellcheck shell=bash
# Two builds from nothing, at different paths, compared byte by byte.
# shellcheck source=scripts/common.sh

reproduce_module() {
    local work="$PWD/target/reproduce" place built=()
    rm -rf "$work"
    for place in "$work/first" "$work/second/at a longer path"; do
        say "==> building in ${place#"$PWD/"}"
        mkdir -p "$place/target"
        git ls-files -z --cached --others --exclude-standard |
            while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
            tar -c --null --files-from=- | tar -x -C "$place"
        # The standard library is an input of both, wherever it comes from.
        [ ! -d "$WASM_STD_DIR" ] || ln -s "$PWD/$WASM_STD_DIR" "$place/$WASM_STD_DIR"
        (cd "$place" && env -u CARGO_TARGET_DIR ./build.sh build --quiet)
        built+=("$place/$MODULE")
    done
    sha256sum "${built[@]}" | sed "s|$PWD/||"
    cmp "${built[@]}" || fail "two builds of the same sources differ"
    say "the same bytes"
    rm -rf "$work"
}
