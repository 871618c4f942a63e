# The stdenv setup hook: makes `go` keep its build cache in the daemon's cache, through the client that
# Nix's pre-build-hook has put into the sandbox. It must never make a build fail that succeeds without it.
#
#   NIX_GOCACHEPROG=off     do nothing
#   NIX_GOCACHEPROG_CLIENT  where the client is, if not at /gocache/client or, without a sandbox, on the host
# shellcheck shell=bash

nixGocacheprogSetup() {
    # Both hooks below call this, and a hook that is propagated as well is sourced twice.
    if [[ -n ${nixGocacheprogDone-} || ${NIX_GOCACHEPROG-} == off ]]; then
        return 0
    fi
    nixGocacheprogDone=1

    if [[ -n ${GOCACHEPROG-} ]]; then
        # The derivation's own: it knows better.
        return 0
    fi
    # In a sandbox there is the first; without one, what NixOS or `nix-gocacheprog install` has put on the host.
    local client=${NIX_GOCACHEPROG_CLIENT:-/gocache/client} host
    for host in /run/current-system/sw/bin/nix-gocacheprog /usr/local/bin/nix-gocacheprog; do
        if [[ -z ${NIX_GOCACHEPROG_CLIENT-} && ! -e $client && -x $host ]]; then
            client=$host
        fi
    done
    # Run once before `go` depends on it: `go` gives up when its GOCACHEPROG does not start.
    if ! [[ -f $client && -x $client ]] || ! "$client" --version >/dev/null 2>&1; then
        echo "nix-gocacheprog: no working client at $client, so this build runs without the shared Go cache;" \
            "check pre-build-hook in nix.conf and, on the host, nix-gocacheprog doctor" >&2
        return 0
    fi
    export GOCACHEPROG=$client
    [[ ${client##*/} != nix-gocacheprog ]] || GOCACHEPROG+=" client"
    nixGocacheprogClient=$client
    # `go` keeps what it knows of a source folder under the names, sizes and times of its files. In Nix
    # all times are the same, so a change of an import that keeps a file's size would be missed.
    export GODEBUG=${GODEBUG:+$GODEBUG,}goindex=0
    # For the same reason a test that reads a file is run again: `go` would take the result of another
    # file of the same size. What the test was compiled to still comes from the cache. With structured
    # attributes it can be a list, which `go` does not see, but the derivation's own phases may.
    if [[ $(declare -p GOFLAGS 2>/dev/null) != "declare -a"* ]]; then
        export GOFLAGS="${GOFLAGS:+$GOFLAGS }-count=1"
    fi

    # A fixed-output derivation downloads modules.
    if [[ -n ${outputHash-} ]]; then
        nixGocacheprogProxy
    fi
}

# Puts the module proxy in front of the user's own GOPROXY list. It ends with this shell; where it fails, `go` goes
# on to the list.
nixGocacheprogProxy() {
    local url='' list=${GOPROXY-} log=${NIX_BUILD_TOP:-${TMPDIR:-/tmp}}/.nix-gocacheprog-proxy.log
    if [[ -z $list ]]; then
        list=$(go env GOPROXY 2>/dev/null) || true
    fi
    case $list in
    # Nothing would come from a module proxy.
    '' | off | off[,\|]* | direct | direct[,\|]*) return 0 ;;
    file:*[,\|]*) ;;
    file:*) return 0 ;;
    esac
    # Twice in the background, so that a `wait` of the build does not wait for it.
    read -r -t 10 url < <(
        (GOPROXY=$list exec -a nix-gocacheprog "$nixGocacheprogClient" proxy --build $$ </dev/null 2>"$log" &)
    ) || true
    if [[ $url == http://* ]]; then
        export GOPROXY="$url|$list"
    else
        echo "nix-gocacheprog: the module proxy did not start, so modules are downloaded without the cache;" \
            "$log says why" >&2
    fi
}

# One line on what the cache did for this build, within a fraction of a second, or none.
nixGocacheprogSummary() {
    if [[ -n ${nixGocacheprogClient-} ]]; then
        (exec -a client "$nixGocacheprogClient" --summary) || true
    fi
}

# A derivation with a configure phase of its own, or none, does not run the first.
postConfigureHooks+=(nixGocacheprogSetup)
preBuildHooks+=(nixGocacheprogSetup)
if [[ -n ${buildCommand-}${buildCommandPath-} ]]; then
    # runCommand has no phases at all.
    nixGocacheprogSetup
elif [[ -n ${dontConfigure-} || ${configurePhase-postConfigure} != *postConfigure* ]] &&
    [[ ${buildPhase-preBuild} != *preBuild* ]]; then
    # Phases of its own that run neither: one more before the build.
    preBuildPhases+=" nixGocacheprogSetup"
fi
exitHooks+=(nixGocacheprogSummary)
failureHooks+=(nixGocacheprogSummary)
