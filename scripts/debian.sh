# shellcheck shell=bash
# Programs out of Debian's packages, unpacked into private folders: nothing is installed.
# shellcheck source=scripts/common.sh

# Prints the path of a program of Debian's, unpacking its package and what that needs first.
debian_tool() {
    local name=$1 folder="$PWD/target/debian/$1"
    [ -x "$folder/run" ] || locked debian fetch_debian_tool "$name" "$folder" || return 1
    printf '%s\n' "$folder/run"
}

fetch_debian_tool() {
    local name=$1 folder=$2 work="$2.part"
    [ ! -x "$folder/run" ] || return 0
    have apt-get && have dpkg-deb || fail "$name is not installed, and this is no Debian to get it from"
    say "==> downloading $name from Debian into target/ (once)"
    rm -rf "$work"
    mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/root"
    local apt=(apt-get -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache"
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Retries=3)
    "${apt[@]}" update >"$work/apt.log" 2>&1 || true
    # --reinstall: also where the system has it, since this folder is what is used.
    "${apt[@]}" --yes --download-only --no-install-recommends --reinstall install "$name" >>"$work/apt.log" 2>&1 ||
        fail "apt-get could not download $name" "its output is in $work/apt.log"
    local deb program
    for deb in "$work"/apt/cache/archives/*.deb; do dpkg-deb --extract "$deb" "$work/root"; done
    rm -rf "$work/apt"
    program=$(compgen -G "$work/root/usr/*bin/$name") || fail "the package $name has no program of that name"
    cat >"$work/run" <<EOF
#!/bin/sh
root=\$(CDPATH='' cd -- "\$(dirname -- "\$0")" && pwd)/root
for lib in "\$root"/usr/lib/*-linux-gnu*; do LD_LIBRARY_PATH=\$lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}; done
export LD_LIBRARY_PATH
exec "\$root${program#"$work/root"}" "\$@"
EOF
    chmod +x "$work/run"
    rm -rf "$folder"
    mv "$work" "$folder"
}
