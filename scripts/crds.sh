# shellcheck shell=bash
# The resources' own schemas, as their projects publish them: cut out of Istio's and Envoy Gateway's definitions, not typed.

readonly ISTIO_API=istio.io/api@v1.32.0
readonly CRDS=src/cli/check/envelope/crds

# Writes the definitions anew. Needs go.
crds() {
    local folder kind
    command -v go >/dev/null || fail "go is needed to fetch $ISTIO_API" "install it"
    folder=$(cd / && go mod download -json "$ISTIO_API" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    for kind in WasmPlugin TrafficExtension EnvoyFilter; do
        {
            echo "# $ISTIO_API, kubernetes/customresourcedefinitions.gen.yaml. Copyright Istio Authors, Apache License 2.0."
            # The document whose spec.names.kind it is.
            awk -v kind="$kind" '
                /^---$/ { if (found) printf "%s", text; text = ""; found = 0; next }
                { text = text $0 "\n" }
                $1 == "kind:" && $2 == kind { found = 1 }
                END { if (found) printf "%s", text }
            ' "$folder/kubernetes/customresourcedefinitions.gen.yaml"
        } >"$CRDS/${kind,,}.yaml"
        say "$CRDS/${kind,,}.yaml"
    done
}
