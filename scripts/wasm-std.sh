# shellcheck shell=bash
# The standard library for wasm32-wasip1, from the first place that has it. Sets:
#   wasm_std_from   where it comes from, for people
#   wasm_rustc      the compiler that has it; empty if that is the active one
# shellcheck source=scripts/common.sh
# shellcheck source=scripts/offline/wasm-std.sh

readonly WASM_TARGET=wasm32-wasip1
readonly WASM_STD_DIR=target/wasm-std
wasm_std_from=
wasm_rustc=

find_wasm_std() {
    if ! have cargo || ! have rustc; then
        fail "there is no Rust toolchain" "install rustup, or your distribution's cargo and rustc (1.89 or newer)"
    fi
    if active_toolchain_has_std; then
        wasm_std_from="the active toolchain"
        return
    fi
    if have rustup && [ "${RUSTUP_AUTO_INSTALL:-1}" != 0 ]; then
        say "==> rustup target add $WASM_TARGET (once; about 20 MB, some seconds)"
        if rustup target add "$WASM_TARGET" >&2 && active_toolchain_has_std; then
            wasm_std_from="the active toolchain, by rustup"
            return
        fi
        say "    rustup could not; looking further"
    fi
    if debian_like; then
        [ -e "$WASM_STD_DIR/ready" ] || locked wasm-std build_wasm_std_from_debian
        wasm_std_from="Debian's packages ($(cat "$WASM_STD_DIR/ready"))"
        wasm_rustc="$PWD/$WASM_STD_DIR/sysroot/bin/rustc"
        return
    fi
    fail "the Rust toolchain has no standard library for $WASM_TARGET, and nothing here can get it. Either:" \
        "rustup:   rustup target add $WASM_TARGET" \
        "Fedora:   dnf install rust-std-static-$WASM_TARGET" \
        "Arch:     pacman -S rust-wasm" \
        "Debian:   apt-get and dpkg-deb on the path are enough; build.sh does the rest without installing anything"
}

active_toolchain_has_std() {
    local libdir
    libdir=$(rustc --print target-libdir --target "$WASM_TARGET" 2>/dev/null) || return 1
    compgen -G "$libdir/libstd-*.rlib" >/dev/null
}

debian_like() { have apt-get && have dpkg-deb; }
