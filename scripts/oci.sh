# shellcheck shell=bash
# The module as an OCI image, its bill of materials, and the digests that a WasmPlugin names.
# shellcheck source=scripts/common.sh
# shellcheck source=scripts/debian.sh

readonly LAYOUT=dist/oci
readonly BILL=dist/trusted_lb.cdx.json

# Writes the image of the built module.
write_image() {
    local version=$1 source licence revision written
    licence=$(package_field license)
    # Where the sources are is told by the package, or by who builds it.
    source=${TRUSTED_LB_SOURCE:-$(package_field repository)}
    revision=$(revision)
    local annotations=(
        "org.opencontainers.image.title=trusted-lb"
        "org.opencontainers.image.description=$(package_field description)"
        "org.opencontainers.image.version=$version"
        "org.opencontainers.image.licenses=$licence"
        "org.opencontainers.image.revision=$revision"
    )
    if [ -n "$source" ]; then
        annotations+=("org.opencontainers.image.source=$source")
    else
        say "note: the image names no source; set TRUSTED_LB_SOURCE to the repository's URL"
    fi
    cargo build --quiet --locked --release --package oci-image --package sbom >&2
    written=$(target/release/oci-image "$MODULE" "$LAYOUT" "$version" "${annotations[@]}")
    manifest_sha256=$(awk '$1 == "manifest" { print $2 }' <<<"$written")
    module_sha256=$(awk '$1 == "module" { print $2 }' <<<"$written")
    target/release/sbom trusted-lb "$WASM_TARGET" "$module_sha256" "$revision" "$(std_version)" >"$BILL.part"
    mv "$BILL.part" "$BILL"
}

# Writes the image of the command: the static program and nothing else.
write_command_image() {
    local program=$1 version architecture
    version=$(package_field version)
    case "$(uname -m)" in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$(uname -m) ;;
    esac
    cargo build --quiet --locked --release --package oci-image >&2
    target/release/oci-image --command "$architecture" "$program" "$COMMAND_LAYOUT" "$version" \
        "org.opencontainers.image.title=trusted-lb command" \
        "org.opencontainers.image.version=$version" \
        "org.opencontainers.image.licenses=$(package_field license)" \
        "org.opencontainers.image.revision=$(revision)"
    say "$COMMAND_LAYOUT  the image, an OCI layout: skopeo copy oci:$COMMAND_LAYOUT:$version docker://REGISTRY/trusted-lb-cli:$version"
}

describe_image() {
    local version=$1
    cat <<EOF
$LAYOUT  the image, an OCI layout
$BILL  what is in it, as CycloneDX
In a WasmPlugin:
  url: oci://REGISTRY/trusted-lb:$version
  sha256: "$manifest_sha256"   # of the image's manifest
or, where the module is served as a file:
  url: https://HOST/trusted_lb.wasm
  sha256: "$module_sha256"   # of the module
EOF
}

# push_image VERSION REFERENCE [OPTIONS of skopeo copy...]
push_image() {
    local version=$1 reference=${2#oci://} skopeo
    shift 2
    case "${reference##*/}" in
    *[:@]*) ;;
    *) reference="$reference:$version" ;;
    esac
    skopeo=$(command -v skopeo) || skopeo=$(debian_tool skopeo) ||
        fail "skopeo is needed to push" "install it, or push $LAYOUT with another tool that keeps digests"
    # What comes from this folder needs no policy about who signed it.
    "$skopeo" --insecure-policy copy --preserve-digests "$@" "oci:$LAYOUT:$version" "docker://$reference" >&2
    printf 'pushed  oci://%s@sha256:%s\n' "${reference%:*}" "$manifest_sha256"
}

# A field of the package or of the workspace.
package_field() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" Cargo.toml | head -n 1; }

# The commit, and whether the files differ from it.
revision() {
    local commit
    commit=$(git rev-parse HEAD 2>/dev/null) || {
        echo unknown
        return
    }
    [ -z "$(git status --porcelain 2>/dev/null)" ] || commit="$commit-modified"
    printf '%s\n' "$commit"
}

std_version() { "${wasm_rustc:-rustc}" --version | awk '{ print $2 }'; }
