# shellcheck shell=bash
# Coverage-guided fuzzing with the stable compiler: the coverage passes are LLVM's own, libFuzzer comes with the crate
# libfuzzer-sys and needs a C++ compiler.

readonly FUZZ_TARGETS=(configuration decide signals peer files lua)

# Builds the targets, and runs each for its share of the seconds. What is found stops everything.
fuzz() {
    local seconds=$1 share host target bin options found
    command -v c++ >/dev/null || fail "fuzzing needs a C++ compiler" "on Debian: apt-get install g++"
    share=$((seconds / ${#FUZZ_TARGETS[@]}))
    [ "$share" -gt 0 ] || fail "$seconds seconds are too few for ${#FUZZ_TARGETS[@]} targets"
    host=$(rustc -vV | sed -n 's/^host: //p')
    say "building the fuzz targets (two minutes on the first run)"
    # With --target the flags reach the targets only, not the build scripts.
    CARGO_TARGET_DIR=target/fuzz RUSTFLAGS="$(coverage_flags)" \
        cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host"
    for target in "${FUZZ_TARGETS[@]}"; do
        bin=target/fuzz/$host/release/$target
        found=target/fuzz/found/$target
        mkdir -p "$found"
        options=(-max_total_time="$share" -max_len=2048 -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$found/" -print_final_stats=1)
        [ ! -f "fuzz/$target.dict" ] || options+=(-dict="fuzz/$target.dict")
        say "==> $target for $share s"
        # New inputs go into the first folder: under target/ until somebody merges them.
        mkdir -p "target/fuzz/corpus/$target"
        if ! "$bin" "${options[@]}" "target/fuzz/corpus/$target" "fuzz/corpus/$target" >"target/fuzz/$target.log" 2>&1; then
            grep -A3 panicked "target/fuzz/$target.log" >&2 || tail -n 20 "target/fuzz/$target.log" >&2
            fail "$target found something: the input is in $found/" "fix it, and copy the input into fuzz/corpus/$target/"
        fi
        grep -E 'number_of_executed_units|new_units_added|peak_rss' "target/fuzz/$target.log" | sed 's/^stat::/    /'
    done
}

# Adds to the corpus what covers something new, and takes out what doesn't.
fuzz_merge() {
    local host target merged
    host=$(rustc -vV | sed -n 's/^host: //p')
    for target in "${FUZZ_TARGETS[@]}"; do
        merged=target/fuzz/merged/$target
        rm -rf "$merged"
        mkdir -p "$merged" "target/fuzz/corpus/$target"
        "target/fuzz/$host/release/$target" -set_cover_merge=1 -max_len=1024 "$merged" "fuzz/corpus/$target" "target/fuzz/corpus/$target" 2>/dev/null
        rm -rf "fuzz/corpus/$target"
        cp -r "$merged" "fuzz/corpus/$target"
        say "fuzz/corpus/$target: $(find "$merged" -type f | wc -l) inputs"
    done
}

coverage_flags() {
    local flags="-Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing" option
    for option in level=4 inline-8bit-counters pc-table trace-compares; do
        flags+=" -Cllvm-args=-sanitizer-coverage-$option"
    done
    echo "$flags"
}
