# Unpacked Debian packages in a folder of ours: the machine's own packages, lists
# and dpkg database are read at most, never changed, so no root is needed either.
# Sourced by test/fetch-*.
# shellcheck shell=bash

test_cache() {
    printf '%s\n' "${NIX_GOCACHEPROG_TEST_CACHE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/test-cache}"
}

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# The machine's own Debian mirror, so that no mirror is named here and a local one is honoured.
debian_mirror() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }'
}

# unpack_debian DIR SUITE PACKAGE...: unpacks the packages with everything they depend on into
# DIR. SUITE is "default" for whatever the machine itself is. A package of another architecture is
# named like libc6:arm64.
unpack_debian() {
    local dir=$1 suite=$2 work package
    shift 2
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        say "needs apt-get and dpkg to fetch $* from Debian; run it on Debian or Ubuntu"
        return 1
    fi
    work=$dir.packages
    mkdir -p "$work/archives/partial" "$work/lists/partial" "$work/parts" "$dir"
    # An empty status file makes apt resolve the whole closure instead of what this machine lacks.
    : >"$work/status"
    local -a apt=(apt-get -qq
        -o "Dir::State::Status=$work/status"
        -o "Dir::Cache=$work"
        -o APT::Install-Recommends=false
        # Nothing of the machine's is written, so none of its locks are needed.
        -o Debug::NoLocking=1
        # Otherwise root downloads as _apt, who may be unable to enter this folder.
        -o APT::Sandbox::User=
    )
    for package; do
        [[ $package != *:* ]] ||
            apt+=(-o "APT::Architectures::=$(dpkg --print-architecture)" -o "APT::Architectures::=${package#*:}")
    done
    local -a private_lists=(-o "Dir::State::Lists=$work/lists")
    if [[ $suite != default ]]; then
        local mirror
        mirror=$(debian_mirror)
        if [[ -z $mirror ]]; then
            say "suite $suite needs a Debian mirror among the machine's apt sources; there is none"
            return 1
        fi
        printf 'deb [signed-by=%s] %s %s main\n' \
            /usr/share/keyrings/debian-archive-keyring.gpg "$mirror" "$suite" >"$work/sources.list"
        apt+=("${private_lists[@]}"
            -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=-)
        say "reading the package lists of $suite (apt-get update, into a folder of its own)"
        "${apt[@]}" update >&2
    elif ! "${apt[@]}" -s install "$@" >/dev/null 2>&1; then
        # No lists, or old ones.
        apt+=("${private_lists[@]}")
        say "reading the package lists (apt-get update, into a folder of its own)"
        "${apt[@]}" update >&2
    fi
    say "downloading $* and all that it depends on"
    "${apt[@]}" -y --download-only install "$@" >&2
    local deb
    for deb in "$work"/archives/*.deb; do
        dpkg -x "$deb" "$dir"
    done
    rm -rf "$work"
}

# cached NAME FUNCTION [ARG...]: prints the folder NAME of the test cache. FUNCTION NEW FINAL [ARG...]
# makes it when it is not there: in NEW, a folder that becomes FINAL only when it is complete.
cached() {
    local name=$1 make=$2 cache final
    shift 2
    cache=$(test_cache)
    final=$cache/$name
    if [[ ! -d $final ]]; then
        mkdir -p "$cache"
        (
            flock 9
            if [[ ! -d $final ]]; then
                rm -rf "$final.new" "$final.new.packages"
                "$make" "$final.new" "$final" "$@"
                mv "$final.new" "$final"
            fi
        ) 9>"$final.lock"
    fi
    printf '%s\n' "$final"
}
