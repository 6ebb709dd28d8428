# shellcheck shell=bash
# Programs out of Debian's packages, unpacked into private folders: nothing is installed.
# shellcheck source=scripts/common.sh

# For what the release of this machine doesn't have, or only in an older form.
readonly NEWER_DEBIAN=trixie

# Prints the path of a program of Debian's, unpacking its package and what that needs first. Beside it is the folder
# `root`, with everything that was unpacked.
debian_tool() {
    local name=$1 folder="$PWD/target/debian/$1"
    [ -x "$folder/run" ] || locked debian fetch_debian_tool "$name" "$folder" || return 1
    printf '%s\n' "$folder/run"
}

# Sets `packages`, and `newer` where they are taken from a newer release.
packages_of() {
    newer=
    case $1 in
    # What a Docker engine is made of, and the images that tests make in place of public ones.
    dockerd) packages=(docker.io docker-compose iptables busybox-static openssl) ;;
    etcd) packages=(etcd-server) ;;
    promtool) packages=(prometheus) ;;
    # This form of docker-compose and kustomize need nothing but libc.
    docker-compose-2) packages=(docker-compose) newer=1 ;;
    kustomize) packages=(kustomize) newer=1 ;;
    *) packages=("$1") ;;
    esac
}

fetch_debian_tool() {
    local name=$1 folder=$2 work="$2.part" packages newer
    [ ! -x "$folder/run" ] || return 0
    if ! have apt-get || ! have dpkg-deb; then
        fail "$name is not installed, and this is no Debian to get it from"
    fi
    say "==> downloading $name from Debian into target/ (once)"
    rm -rf "$work"
    mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/root"
    packages_of "$name"
    "download_${newer:+newer_}packages" "$work" "${packages[@]}" ||
        fail "apt-get could not download $name" "its output is in $work/apt.log"
    local deb program
    for deb in "$work"/apt/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/root" --exclude='./usr/share/doc' --exclude='./usr/share/man'
    done
    rm -rf "$work/apt"
    if [ "$name" = dockerd ]; then
        # The link that the package's installation would make.
        ln -sf xtables-nft-multi "$work/root/usr/sbin/iptables"
        ln -sf xtables-nft-multi "$work/root/usr/sbin/ip6tables"
    fi
    program=$(compgen -G "$work/root/usr/*bin/$name" ||
        compgen -G "$work/root/usr/libexec/docker/cli-plugins/${name%-2}") ||
        fail "the package of $name has no program of that name"
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

# Downloads packages of this machine's release, and those they depend on that aren't installed.
download_packages() {
    local work=$1 apt
    shift
    private_apt "$work"
    "${apt[@]}" update >"$work/apt.log" 2>&1 || true
    # --reinstall: also where the system has it, since this folder is what is used.
    "${apt[@]}" --yes --download-only --no-install-recommends --reinstall install "$@" >>"$work/apt.log" 2>&1
}

# Downloads packages of a newer release, without what they depend on, from where this machine has Debian's packages from.
download_newer_packages() {
    local work=$1 apt source
    shift
    # shellcheck disable=SC2016
    source=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>"$work/apt.log" |
        sed -n 's/^Debian //p' | head -n 1)
    # Where lists were never fetched, there is no origin to be told.
    # shellcheck disable=SC2016
    [ -n "$source" ] || source=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>>"$work/apt.log" |
        grep -E '/debian/?$' | head -n 1)
    if [ -z "$source" ]; then
        echo "this machine's package sources are not Debian's" >>"$work/apt.log"
        return 1
    fi
    mkdir -p "$work/apt/sources"
    cat >"$work/apt/sources/newer.sources" <<EOF
Types: deb
URIs: $source
Suites: $NEWER_DEBIAN
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
    : >"$work/apt/status"
    private_apt "$work"
    apt+=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/apt/sources"
        -o "Dir::State::Status=$work/apt/status" -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    "${apt[@]}" update >>"$work/apt.log" 2>&1 || true
    (cd "$work/apt/cache/archives" && "${apt[@]}" download "$@") >>"$work/apt.log" 2>&1
}

# Sets `apt` to an apt-get with package lists of its own.
private_apt() {
    apt=(apt-get -o "Dir::State::Lists=$1/apt/lists" -o "Dir::Cache=$1/apt/cache"
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::Languages=none)
}
