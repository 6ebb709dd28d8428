#!/usr/bin/env bash
# Builds, shows and tests trusted-lb. See `./build.sh help`.
#
# Everything that is fetched or made lies under target/ and dist/; nothing is installed into the system.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/common.sh
. scripts/common.sh
# shellcheck source=scripts/wasm-std.sh
. scripts/wasm-std.sh
# shellcheck source=scripts/offline/wasm-std.sh
. scripts/offline/wasm-std.sh
# shellcheck source=scripts/crds.sh
. scripts/crds.sh
# shellcheck source=scripts/pypi.sh
. scripts/pypi.sh
# shellcheck source=scripts/envoy.sh
. scripts/envoy.sh
# shellcheck source=scripts/debian.sh
. scripts/debian.sh
# shellcheck source=scripts/oci.sh
. scripts/oci.sh
# shellcheck source=scripts/reproduce.sh
. scripts/reproduce.sh
# shellcheck source=scripts/release.sh
. scripts/release.sh
# shellcheck source=scripts/fuzz.sh
. scripts/fuzz.sh
# shellcheck source=scripts/deny.sh
. scripts/deny.sh
# shellcheck source=scripts/lint.sh
. scripts/lint.sh
# shellcheck source=scripts/istio.sh
. scripts/istio.sh

readonly MODULE=dist/trusted_lb.wasm
readonly COMMAND=dist/trusted-lb
readonly COMMAND_LAYOUT=dist/oci-command

usage() {
    cat <<EOF
usage: ./build.sh [COMMAND]

  build [--quiet]     build the module into $MODULE (the default)
  cli [--target TRIPLE | --static | --image]
                      build the trusted-lb command into $COMMAND, or for another machine into $COMMAND-TRIPLE; --static: for
                      this machine's Linux, without any library, into $COMMAND-static; --image: that as an OCI image into
                      $COMMAND_LAYOUT
  oci [--push REFERENCE [OPTIONS...]]
                      write the module as an OCI image into $LAYOUT and its bill of materials beside it, print the
                      digests that a WasmPlugin names, and push it; OPTIONS go to skopeo copy, credentials are skopeo's
  reproduce           build the module twice from nothing at different paths, and compare
  notes VERSION       print what CHANGELOG.md says about a version
  demo                show it working in a real Envoy, on this machine's loopback
  istio [FILE...]     a real Istio gateway with these manifests, or envoyfilter/, without a cluster, until Ctrl-C; a folder is
                      what kustomize makes of it
  soak [SECONDS [plain]]
                      mixed load on a real Envoy while configurations and endpoints come and go (default 600 s); plain:
                      without the retry policy that Istio gives every route
  crds                fetch the schemas of Istio's resources anew that check knows (needs go)
  fuzz [SECONDS]      fuzz the configuration's parser, decisions, signals and peer addresses (default 600 s in all)
  fuzz --merge        keep what the last runs found new in the corpus
  deny                check the dependencies' licences, sources and advisories
  test [--all-envoys] [ARGS...]
                      format, lints and every test with the newest Envoy; then those that run Envoy with the oldest, or
                      with every version that is known, the attacks too. ARGS go to cargo test, which then runs with the newest only
  test --envoy VERSION
                      only the tests that run Envoy, with this version
  test --deployments  only Docker Compose, the registry, kustomize, the dashboard, the smoke test in a cluster
  test --scripts      only shellcheck on the scripts and actionlint on the workflows
  bless               write every expected output anew: of the command, the console sessions, the generated documents, the
                      budgets; read the difference before you commit it
  test --istio [WORD...], test --envoy-gateway [WORD...]
                      the manifests in a real Istio, or in a real Envoy Gateway, without a cluster; only the tests whose
                      names have one of the words. Builds them from Go modules first (needs Go 1.$GO_MINOR, 5 to 11 minutes, 8 GB)
  test --instructions
                      only the budgets of what a request costs Envoy in instructions (some minutes; with valgrind, Debian's)
  bench [OPTIONS]     what a request costs a real Envoy, against Lua, in processor time; needs two idle cores and some
                      minutes; --help
  bench --instructions [OPTIONS]
                      the same in instructions, which don't depend on the machine; some minutes
  profile [--configure] WORKLOAD
                      the instructions of one request, or of taking its configuration, by function; without WORKLOAD it
                      lists them
  envoy [VERSION]     print the path of an Envoy binary (default $DEFAULT_ENVOY), downloading it first where needed;
                      known to work: $KNOWN_ENVOYS
  tool NAME           print the path of a program of Debian's, unpacking it below target/ first
  clean               remove what was built and fetched
  help                this text

The first run fetches what is missing into target/ and says so; later runs reuse it.
EOF
}

cmd_build() {
    local quiet=
    case "${1-}" in
    '') ;;
    --quiet) quiet=1 ;;
    *) fail "build doesn't know $1" "it takes --quiet only" ;;
    esac
    find_wasm_std
    locked build build_module
    [ -n "$quiet" ] || describe_module
}

build_module() {
    local linked="target/module/$WASM_TARGET/release/trusted_lb.wasm"
    compile_module target/module symbols
    mkdir -p dist
    # Left alone where nothing changed: whoever watches the file sees changes only.
    if ! cmp -s "$linked" "$MODULE"; then
        cp "$linked" "$MODULE.part"
        mv "$MODULE.part" "$MODULE"
    fi
}

# Into that target folder, stripped of that.
compile_module() {
    local folder=$1 strip=$2 commit cargo_home=${CARGO_HOME:-$HOME/.cargo}
    commit=$(commit)
    local flags=(
        # No path of the machine that built it belongs into the module: the same sources give the same bytes anywhere.
        "--remap-path-prefix=$PWD=/trusted-lb" "--remap-path-prefix=$cargo_home=/cargo"
        # As fast as opt-level 3 and smaller by a tenth: what is called once isn't inlined everywhere. docs/performance.md
        -Cllvm-args=-inline-threshold=30
        # Numbers that the linker filled in take five bytes each without it.
        -Clink-arg=--compress-relocations
    )
    # Encoded, so that a path may have spaces.
    local encoded
    encoded=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
    local env=(CARGO_TARGET_DIR="$folder" CARGO_PROFILE_RELEASE_STRIP="$strip" TRUSTED_LB_COMMIT="$commit"
        CARGO_ENCODED_RUSTFLAGS="$encoded" CARGO_TARGET_WASM32_WASIP1_LINKER="$PWD/scripts/wasm-linker")
    [ -z "$wasm_rustc" ] || env+=(RUSTC="$wasm_rustc")
    env "${env[@]}" cargo build --quiet --locked --release --lib --package trusted-lb --target "$WASM_TARGET" >&2
}

describe_module() {
    local bytes
    bytes=$(wc -c <"$MODULE")
    printf '%s  %d KB (%d bytes)\n' "$MODULE" $(((bytes + 999) / 1000)) "$bytes"
    printf 'sha256  %s\n' "$(sha256sum "$MODULE" | cut -d' ' -f1)"
    printf 'std     %s\n' "$wasm_std_from"
}

cmd_cli() {
    local version host rustflags=${RUSTFLAGS-} result=$COMMAND program=target/command/trusted-lb target=()
    case "${1-}" in
    '') ;;
    --static | --image)
        [ $# = 1 ] || fail "$1 takes no arguments"
        [ "$(uname)" = Linux ] || fail "a static command is built on Linux" "--target builds for another machine"
        host=$(rustc -vV | sed -n 's/^host: //p')
        # With --target the flags reach no build script, which couldn't be loaded.
        target=(--target "$host")
        rustflags="$rustflags -C target-feature=+crt-static"
        result=$COMMAND-static
        program=target/$host/command/trusted-lb
        ;;
    --target)
        [ $# = 2 ] || fail "--target takes one target triple" "rustc --print target-list lists them"
        target=(--target "$2")
        result=$COMMAND-$2
        program=target/$2/command/trusted-lb
        ;;
    *) fail "cli doesn't know $1" "it takes --target TRIPLE, --static or --image" ;;
    esac
    version="$(package_field version) ($(commit))"
    say "building $result (a minute on the first run)"
    # An empty list is an error for the bash of macOS, unless it is written like this.
    RUSTFLAGS="$rustflags" TRUSTED_LB_VERSION="$version" cargo build --quiet --locked --profile command --features cli --bin trusted-lb \
        ${target[@]+"${target[@]}"}
    mkdir -p dist
    cp "$program" "$result.part"
    mv "$result.part" "$result"
    # One for another machine can't be run here.
    say "$result  $("$result" --version 2>/dev/null || echo "$version")"
    [ "${1-}" != --image ] || write_command_image "$result"
}

cmd_oci() {
    local version
    version=$(package_field version)
    case "${1-}" in
    '') ;;
    --push) [ $# -ge 2 ] || fail "--push needs a reference" "such as registry.example.com/trusted-lb:$version" ;;
    *) fail "oci doesn't know $1" "it takes --push REFERENCE" ;;
    esac
    cmd_build --quiet
    write_image "$version"
    describe_image "$version"
    [ $# = 0 ] || push_image "$version" "${@:2}"
}

cmd_reproduce() {
    [ $# = 0 ] || fail "reproduce takes no arguments"
    find_wasm_std
    reproduce_module
}

# The commit that is built, as versions show it.
commit() {
    git rev-parse --short=12 HEAD 2>/dev/null || echo unknown
}

cmd_notes() {
    [ $# = 1 ] || fail "notes takes one version"
    release_notes "$1"
}

cmd_demo() {
    [ $# = 0 ] || fail "demo takes no arguments"
    export_artifacts
    cargo run --quiet --locked --package testkit --bin demo
}

cmd_soak() {
    export_artifacts
    [ $# -gt 0 ] || set -- 600
    say "soak: $1 s"
    nice cargo run --quiet --locked --package testkit --bin soak -- "$@"
}

cmd_bench() {
    export_artifacts
    cargo run --quiet --locked --package testkit --bin bench -- "$@"
}

# Where a request's instructions go, function by function.
cmd_profile() {
    find_wasm_std
    compile_module target/profile debuginfo
    cargo run --quiet --locked --package testkit --bin profile -- \
        "target/profile/$WASM_TARGET/release/trusted_lb.wasm" "$@"
}

# What demo and tests run, built or fetched first.
export_artifacts() {
    cmd_build --quiet
    TRUSTED_LB_MODULE="$PWD/$MODULE"
    TRUSTED_LB_ENVOY=$(envoy_binary "${1-$DEFAULT_ENVOY}")
    export TRUSTED_LB_MODULE TRUSTED_LB_ENVOY
}

cmd_deny() {
    [ $# = 0 ] || fail "deny takes no arguments"
    deny
}

cmd_crds() { crds; }

cmd_fuzz() {
    case "${1-}" in
    --merge) fuzz_merge ;;
    '' | [1-9]*) fuzz "${1-600}" ;;
    *) fail "fuzz takes a number of seconds, or --merge" ;;
    esac
}

cmd_test() {
    local began=$SECONDS others=$OLDEST_ENVOY version of_envoy=("${ENVOY_TESTS[@]}")
    case "${1-}" in
    # One part alone.
    --instructions)
        [ $# = 1 ] || fail "--instructions takes no arguments"
        step "budgets of instructions" cmd_bench --instructions --budgets
        return
        ;;
    --istio)
        test_istio "${@:2}"
        return
        ;;
    --envoy-gateway)
        test_envoy_gateway "${@:2}"
        return
        ;;
    --envoy)
        [ $# = 2 ] || fail "--envoy takes one version" "known to work: $KNOWN_ENVOYS"
        step "module and Envoy" export_artifacts "$2"
        step "tests with Envoy $2" cargo_test "${ENVOY_TESTS[@]}"
        return
        ;;
    --deployments)
        [ $# = 1 ] || fail "--deployments takes no arguments"
        step "module and Envoy" export_artifacts
        step "deployments" cargo_test --test deployments
        return
        ;;
    --scripts)
        [ $# = 1 ] || fail "--scripts takes no arguments"
        lint
        return
        ;;
    # All parts.
    --all-envoys)
        shift
        others=${KNOWN_ENVOYS% "$DEFAULT_ENVOY"}
        of_envoy=("${ENVOY_TESTS_AND_ATTACKS[@]}")
        ;;
    ?*) others= ;;
    esac
    if cargo fmt --version >/dev/null 2>&1; then
        step "format" cargo fmt --all --check
    else
        say "==> SKIPPED: cargo fmt is not installed, so the format is not checked"
    fi
    lint
    if cargo clippy --version >/dev/null 2>&1; then
        step "lints" cargo clippy --quiet --workspace --all-targets --all-features --locked -- -D warnings
    else
        say "==> SKIPPED: cargo clippy is not installed, so lints are not checked"
    fi
    step "module and Envoy" export_artifacts
    step "tests with Envoy $DEFAULT_ENVOY" cargo_test "$@"
    for version in $others; do
        TRUSTED_LB_ENVOY=$(envoy_binary "$version")
        step "tests with Envoy $version" cargo_test "${of_envoy[@]}"
    done
    say "all tests passed in $((SECONDS - began)) s"
}

lint() {
    step "scripts" lint_scripts
    step "workflows" lint_workflows
}

cargo_test() { cargo test --workspace --all-features --locked "$@"; }

cmd_bless() {
    [ $# = 0 ] || fail "bless takes no arguments"
    export_artifacts
    SNAPSHOTS=overwrite TRYCMD=overwrite BUDGETS=overwrite \
        cargo_test --quiet --no-fail-fast --test cli --test module -- --skip faults:: || true
    git status --short >&2
    say "read each difference before you commit it: git diff"
}

step() {
    local name=$1 began=$SECONDS
    shift
    say "==> $name"
    "$@"
    say "    $name: $((SECONDS - began)) s"
}

cmd_istio() {
    try_istio "$@"
}

cmd_envoy() {
    envoy_binary "${1-$DEFAULT_ENVOY}"
}

cmd_tool() {
    [ $# = 1 ] || fail "tool takes the name of one program"
    debian_tool "$1"
}

cmd_clean() {
    rm -rf dist target
}

case "${1-build}" in
build | bench | bless | crds | istio | profile | cli | oci | reproduce | notes | demo | fuzz | deny | soak | test | envoy | tool | clean) "cmd_${1-build}" "${@:2}" ;;
help | -h | --help) usage ;;
*)
    say "error: there is no command '$1'"
    usage >&2
    exit 2
    ;;
esac
