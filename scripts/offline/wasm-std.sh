# shellcheck shell=bash
# The standard library for wasm32-wasip1 out of Debian's packages, for machines on which rustup can't get it: it isn't
# installed, or its servers can't be reached.
# shellcheck source=scripts/common.sh

# Debian builds no standard library for this target, but has the compiler, its sources and a libc for it. They are
# downloaded into a private folder, with package lists of their own, and unpacked there: nothing is installed.
build_wasm_std_from_debian() {
    [ ! -e "$WASM_STD_DIR/ready" ] || return 0
    local work="$PWD/$WASM_STD_DIR.part"
    rm -rf "$work"
    mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/root"

    say "==> downloading Debian's Rust compiler, its sources and wasi-libc into target/ (once; about 140 MB)"
    local apt=(apt-get -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache"
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Retries=3)
    local log="$work/apt.log"
    # A source that doesn't answer is no reason to stop while another has the packages.
    "${apt[@]}" update >"$log" 2>&1 || true
    "${apt[@]}" --yes --download-only --no-install-recommends install rustc-web rust-web-src wasi-libc \
        >>"$log" 2>&1 || fail "apt-get could not download rustc-web, rust-web-src and wasi-libc" \
        "its output is in $log" "or: rustup target add $WASM_TARGET"

    say "==> unpacking (once; about 750 MB for a minute, half of it stays)"
    local deb
    for deb in "$work"/apt/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/root" --wildcards --no-wildcards-match-slash \
            --exclude='./usr/share' --exclude='./usr/src/rustc-*/compiler' --exclude='./usr/src/rustc-*/src' \
            --exclude='./usr/src/rustc-*/tests'
    done
    rm -rf "$work/apt"
    make_sysroot "$work"

    say "==> compiling the standard library for $WASM_TARGET (once; about a minute)"
    compile_std "$work"
    rm -rf "$work"/root/usr/src "$work/std"

    "$work/sysroot/bin/rustc" --version >"$work/ready"
    rm -rf "$WASM_STD_DIR"
    mv "$work" "$WASM_STD_DIR"
}

# A folder that looks like a toolchain: a wrapper around the unpacked compiler, its libraries for this machine, a
# linker, and room for the wasm libraries. Paths are found relative to the wrapper, so that the folder can be moved.
make_sysroot() {
    local work=$1 sysroot="$1/sysroot" host
    host=$(basename "$(dirname "$(compgen -G "$work/root/usr/lib/rustlib/*-linux-gnu*/lib" | head -n 1)")")
    [ -n "$host" ] || fail "the package rustc-web has no libraries for this machine"
    local wasm="$sysroot/lib/rustlib/$WASM_TARGET/lib"
    mkdir -p "$sysroot/bin" "$wasm/self-contained" "$sysroot/lib/rustlib/$host/bin"
    ln -s "../../../../root/usr/lib/rustlib/$host/lib" "$sysroot/lib/rustlib/$host/lib"

    cat >"$sysroot/bin/rustc" <<'EOF'
#!/bin/sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=${here%/sysroot/bin}/root
for lib in "$root"/usr/lib/*-linux-gnu*; do LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; done
export LD_LIBRARY_PATH
exec "$root/usr/bin/rustc" --sysroot "${here%/bin}" "$@"
EOF
    chmod +x "$sysroot/bin/rustc"

    local linker
    linker=$(find_wasm_linker) || fail "there is no linker for WebAssembly" \
        "rustup's toolchains have rust-lld; on Debian: apt-get install lld"
    ln -s "$linker" "$sysroot/lib/rustlib/$host/bin/rust-lld"
    cp "$work"/root/usr/lib/wasm32-wasi/{libc.a,crt1-command.o,crt1-reactor.o} "$wasm/self-contained/"
}

find_wasm_linker() {
    local active
    active=$(rustc --print sysroot)
    compgen -G "$active/lib/rustlib/*/bin/rust-lld" && return
    command -v rust-lld || command -v wasm-ld
}

compile_std() {
    local work=$1 wasm="$1/sysroot/lib/rustlib/$WASM_TARGET/lib" library
    library=$(compgen -G "$work/root/usr/src/rustc-*/library" | head -n 1)
    [ -n "$library" ] || fail "the package rust-web-src has no library sources"
    mkdir -p "$work/std/src" "$work/std/.cargo" "$work/sysroot/lib/rustlib/src/rust"
    ln -s "$library" "$work/sysroot/lib/rustlib/src/rust/library"
    printf '[package]\nname = "std-builder"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/std/Cargo.toml"
    echo '#![no_std]' >"$work/std/src/lib.rs"
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "%s"\n' \
        "$library/vendor" >"$work/std/.cargo/config.toml"
    # Bitcode is what fat link-time optimization of the module works on.
    (
        cd "$work/std"
        RUSTC="$work/sysroot/bin/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/std/target" \
            RUSTFLAGS="-Cembed-bitcode=yes --remap-path-prefix=$work/sysroot/lib/rustlib/src/rust=/rustc --remap-path-prefix=$library=/rustc/library" \
            CARGO_PROFILE_RELEASE_OPT_LEVEL=s cargo build --quiet --offline --release --target "$WASM_TARGET" \
            -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
    ) >"$work/std.log" 2>&1 || {
        cat "$work/std.log" >&2
        fail "the standard library did not compile"
    }
    cp "$work/std/target/$WASM_TARGET"/release/deps/*.rlib "$wasm/"
    cp "$work/std/target/$WASM_TARGET"/release/deps/*.rmeta "$wasm/" 2>/dev/null || true
    rm -f "$wasm"/libstd_builder-* "$work/sysroot/lib/rustlib/src/rust/library"
}
