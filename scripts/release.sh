# shellcheck shell=bash
# What a release says: the part of a changelog about one version.
# shellcheck source=scripts/common.sh

# release_notes VERSION [CHANGELOG]
release_notes() {
    local version=$1 changelog=${2-CHANGELOG.md} notes
    # From the version's heading, "## 0.1.0 - 2026-11-25", to the next one.
    notes=$(awk -v version="$version" '/^## / { on = $2 == version; next } on' "$changelog")
    [ -n "${notes//[[:space:]]/}" ] || fail "$changelog has no section '## $version'" \
        "at a release \"Unreleased\" becomes the version and the day: ## $version - YYYY-MM-DD"
    printf '%s\n' "$notes"
}
