#!/usr/bin/env bash
# Run by scripts/istio.sh in namespaces of its own: istio-inside.sh ROOT COMMAND... makes ROOT a root folder with everything
# that this machine has, and with what Istio's and Envoy Gateway's programs want at fixed places. Nothing outside changes.
set -euo pipefail
root=$1
shift
here=$PWD
if [ -n "${TRUSTED_LB_LAB_PID-}" ]; then
    # The process of this namespace as the machine knows it: /proc is still the machine's here.
    read -r pid _ </proc/self/stat
    echo "$pid" >"$TRUSTED_LB_LAB_PID"
fi

# Everything in a folder, bound into another that is empty.
bind_all() {
    local from=$1 to=$2 entry target
    for entry in "$from"/* "$from"/.[!.]*; do
        target=$to/${entry##*/}
        if [ -L "$entry" ]; then
            cp -P "$entry" "$target"
        elif [ -d "$entry" ]; then
            mkdir "$target"
            mount --rbind "$entry" "$target"
        elif [ -e "$entry" ]; then
            : >"$target"
            mount --bind "$entry" "$target"
        fi
    done
}

# As bind_all, over a folder that the machine has, so that something can be made in it.
open_up() {
    mkdir -p "$root/.lab/$1"
    bind_all "/$1" "$root/.lab/$1"
    mount --rbind "$root/.lab/$1" "$root/$1"
}

mount -t tmpfs -o mode=755 tmpfs "$root"
bind_all "" "$root"
# Where the agent keeps modules.
open_up var/lib
[ ! -d "$root/var/lib/istio" ] || mount -t tmpfs tmpfs "$root/var/lib/istio"
mkdir -p "$root/var/lib/istio/data"
# Where envoyfilter/envoyfilter-file.yaml has the module.
open_up etc
mkdir -p "$root/etc/trusted-lb"
# Where Envoy Gateway looks for certificates.
mkdir "$root/certs"
# The registry that the manifests name, and the names by which proxies know their control planes.
printf '127.0.0.1 %s\n' localhost registry.example.com istiod.istio-system.svc \
    envoy-gateway.envoy-gateway-system.svc.cluster.local >"$root/.lab/hosts"
mount --bind "$root/.lab/hosts" "$root/etc/hosts"
mount -t proc proc "$root/proc"
# Temporary files are gone with this namespace, however it ends.
mkdir -m 1777 "$root/.lab/tmp"
export TMPDIR=/.lab/tmp

# The network is of this namespace alone. Every IPv4 address is the loopback's own, so that requests come from the addresses
# that manifests name, and nothing leaves the machine.
python3 - <<'PY'
import fcntl, socket, struct

SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP = 1
control = socket.socket()
fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
networks = ("10.0.20.3", 5), ("16.0.0.1", 4), ("32.0.0.1", 3), ("64.0.0.1", 2), ("192.0.0.1", 1)
for index, (address, prefix) in enumerate(networks):
    mask = socket.inet_ntoa(struct.pack("!I", 0xFFFFFFFF << 32 - prefix & 0xFFFFFFFF))
    for request, value in (SIOCSIFADDR, address), (SIOCSIFNETMASK, mask):
        packed = struct.pack("16sH2x4s8x", b"lo:%d" % index, socket.AF_INET, socket.inet_aton(value))
        fcntl.ioctl(control, request, packed)
PY
exec chroot "$root" env -C "$here" "$@"
