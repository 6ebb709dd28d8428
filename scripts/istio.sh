# shellcheck shell=bash
# A real Istio and a real Envoy Gateway on this machine: their programs, built from Go modules, and a place to run them in.
# shellcheck source=scripts/common.sh
# shellcheck source=scripts/debian.sh

readonly LAB=target/istio
readonly GO_MINOR=26
# Each is a folder of tests/istio/go with its own go.mod and go.sum: these exact modules are built, never newer ones.
# Sets `programs`, what they are called, and `fetched`, how much of modules is fetched.
lab_folder() {
    case $1 in
    istio)
        programs=(pilot-discovery pilot-agent)
        called="istiod and its agent"
        fetched="250 MB"
        ;;
    kubernetes)
        programs=(kube-apiserver kubectl)
        called="an API server and kubectl"
        fetched="100 MB"
        ;;
    envoy-gateway)
        programs=(envoy-gateway)
        called="Envoy Gateway"
        fetched="250 MB"
        ;;
    esac
}

# test_istio [NAME...]: the tests whose name contains one of these, or all.
test_istio() {
    lab_needs_linux
    istio_artifacts
    cargo build --quiet --locked --package istio-lab --bin istio-tests
    in_lab target/debug/istio-tests "$@"
}

# test_envoy_gateway [NAME...]: as test_istio.
test_envoy_gateway() {
    lab_needs_linux
    lab_programs envoy-gateway
    lab_artifacts
    cargo build --quiet --locked --package istio-lab --bin envoy-gateway-tests
    in_lab target/debug/envoy-gateway-tests "$@"
}

# try_istio [FILE...]: the set-up of the tests for a person. A folder is one for kustomize.
try_istio() {
    lab_needs_linux
    local file files=()
    for file; do
        # As the user named it, from where build.sh was started.
        [ -e "$file" ] || [ ! -e "${OLDPWD-}/$file" ] || file=$OLDPWD/$file
        [ -e "$file" ] || fail "there is no file $file"
        files+=("$(realpath "$file")")
    done
    istio_artifacts
    cargo build --quiet --locked --package istio-lab --bin try-istio
    write_enter
    TRUSTED_LB_LAB_PID="$PWD/$LAB/pid" in_lab target/debug/try-istio ${files[@]+"${files[@]}"}
}

# A script that runs a command in the running set-up: its network, with its kubectl.
write_enter() {
    cat >"$LAB/enter" <<'END'
#!/bin/sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
pid=$(cat "$here/pid") && [ -d "/proc/$pid" ] || { echo "./build.sh istio isn't running" >&2; exit 1; }
for KUBECONFIG in "/proc/$pid"/root/.lab/tmp/istio-lab*/kubeconfig; do :; done
PATH=$here/bin:$PATH
export KUBECONFIG PATH
[ "$(id -u)" = 0 ] || user='--user --preserve-credentials'
exec nsenter --target "$pid" ${user-} --net "$@"
END
    chmod +x "$LAB/enter"
}

istio_artifacts() {
    lab_programs istio kubernetes
    lab_artifacts
    TRUSTED_LB_ETCD=$(debian_tool etcd)
    export TRUSTED_LB_ETCD
}

# What both need: the module, its image, an Envoy and a registry.
lab_artifacts() {
    export_artifacts
    write_image "$(package_field version)" 2>/dev/null
    TRUSTED_LB_REGISTRY=$(debian_tool docker-registry)
    TRUSTED_LB_SKOPEO=$(debian_tool skopeo)
    export TRUSTED_LB_LAB="$PWD/$LAB" TRUSTED_LB_REGISTRY TRUSTED_LB_SKOPEO
    cargo build --quiet --locked --package trusted-lb --features cli --bin trusted-lb
    export TRUSTED_LB_COMMAND="$PWD/target/debug/trusted-lb"
    export TRUSTED_LB_IMAGE_WRITER="$PWD/target/release/oci-image"
    # The smoke test's script asks for it.
    if ! have curl; then
        mkdir -p "$LAB/tools"
        printf '#!/bin/sh\nexec %q "$@"\n' "$(debian_tool curl)" >"$LAB/tools/curl"
        chmod +x "$LAB/tools/curl"
        export PATH="$PWD/$LAB/tools:$PATH"
    fi
}

lab_needs_linux() {
    [ "$(uname -s)" = Linux ] || fail "this runs on Linux only: it starts Istio's programs in namespaces of their own"
    have unshare || fail "unshare is not installed" "it is part of util-linux"
    have python3 || fail "python3 is not installed"
    in_namespace true 2>/dev/null || fail "this machine lets nobody make namespaces (unshare --user --mount --pid --net)" \
        "run it as root, or in a container that may"
}

# lab_programs FOLDER...: builds what isn't built from the go.mod as it is.
lab_programs() {
    local folder missing=()
    for folder; do
        [ "$(cat "$LAB/built-$folder" 2>/dev/null)" = "$(lab_pins "$folder")" ] || missing+=("$folder")
    done
    [ ${#missing[@]} = 0 ] || locked istio build_lab_programs "${missing[@]}"
}

# What decides what is built.
lab_pins() { cat "tests/istio/go/$1/go.mod" "tests/istio/go/$1/go.sum" | sha256sum; }

build_lab_programs() {
    local folder toolchain began=$SECONDS
    lab_needs_go
    for folder; do
        build_lab_folder "$folder"
    done
    # Some 3 GB, of no use to what is built.
    rm -rf "$LAB/go"
    say "    built in $((SECONDS - began)) s"
}

# Sets `toolchain`: what GOTOOLCHAIN has to say.
lab_needs_go() {
    local version minor
    have go || fail "Go is not installed; Istio and its API server are built from Go modules" \
        "install Go 1.$GO_MINOR or newer: https://go.dev/dl/"
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    minor=${version#go1.}
    minor=${minor%%[!0-9]*}
    toolchain=local
    [ "${minor:-0}" -lt "$GO_MINOR" ] || return 0
    # Since 1.21 Go fetches the version that a go.mod asks for as a module, and checks its hash as it does any module's.
    [ "${minor:-0}" -ge 21 ] || fail "Go 1.$GO_MINOR or newer is needed to build Istio; this is $version" \
        "https://go.dev/dl/"
    say "    with Go 1.$GO_MINOR, fetched as a Go module (70 MB): this is $version"
    toolchain=auto
}

build_lab_folder() {
    local folder=$1 programs called fetched name work="$PWD/$LAB"
    lab_folder "$folder"
    say "==> building $called from Go modules (once; fetches about $fetched)"
    mkdir -p "$LAB/bin" "$LAB/share"
    (
        # The caches are of this folder alone.
        export GOMODCACHE="$work/go/mod" GOCACHE="$work/go/cache" GOTOOLCHAIN="$toolchain" GOWORK=off
        export GOFLAGS="-trimpath -mod=readonly -modcacherw -buildvcs=false"
        cd "tests/istio/go/$folder"
        # The programs are the go.mod's tools.
        nice go build ${TRUSTED_LB_GO_JOBS:+-p "$TRUSTED_LB_GO_JOBS"} -ldflags='-s -w' -o "$work/bin/" tool
        if [ "$folder" = istio ]; then
            cd "$(go list -m -f '{{.Dir}}' istio.io/istio)"
            cp manifests/charts/base/files/crd-all.gen.yaml tests/integration/pilot/testdata/gateway-api-crd.yaml \
                tools/packaging/common/envoy_bootstrap.json "$work/share/"
        fi
    ) >&2 || fail "$folder did not build"
    for name in "${programs[@]}"; do
        [ -x "$LAB/bin/$name" ] || fail "the build of $folder made no $name"
    done
    lab_pins "$folder" >"$LAB/built-$folder"
}

# in_lab COMMAND...: runs a command with mounts, processes and a network of its own. When it ends, for whatever reason, all
# that it started is gone.
in_lab() {
    local root="$PWD/$LAB/root"
    mkdir -p "$root"
    in_namespace "$BASH" scripts/istio-inside.sh "$root" "$@"
}

in_namespace() {
    local options=(--mount --pid --net --fork --kill-child)
    [ "$(id -u)" = 0 ] || options+=(--user --map-root-user)
    unshare "${options[@]}" "$@"
}
