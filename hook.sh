# The stdenv setup hook: makes `go` keep its build cache in the daemon's cache, through the client that
# Nix's pre-build-hook has put into the sandbox. It must never make a build fail that succeeds without it.
#
#   NIX_GOCACHEPROG         on        read and write the shared cache (the default)
#                           readonly  read it; what this build puts stays in the build
#                           audit     compile everything, and compare it with what the cache has
#                           off       do nothing; so does anything else, with a line that says so
#   NIX_GOCACHEPROG_TESTS   run       run each test, also if its result is in the cache
#   NIX_GOCACHEPROG_CLIENT  where the client is, if not at /gocache/client or, without a sandbox, on the host
#
# It sets GOCACHEPROG once the inputs are known and before the first phase; GOCACHE where `go` would have none; and
# NIX_GOCACHEPROG_STAMPED while the times of the source say its content. See docs/tests.md and docs/dev-shell.md.
# shellcheck shell=bash

nixGocacheprogSetup() {
    # Several hooks below call this, and a hook that is propagated as well is sourced twice.
    if [[ -n ${nixGocacheprogDone-} ]]; then
        return 0
    fi
    nixGocacheprogDone=1
    case ${NIX_GOCACHEPROG-} in
    '' | on | readonly | audit) ;;
    off) return 0 ;;
    *)
        echo "nix-gocacheprog: NIX_GOCACHEPROG=$NIX_GOCACHEPROG is not one of on, readonly, audit and off, so this" \
            "build runs without the shared Go cache" >&2
        return 0
        ;;
    esac
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
    nixGocacheprogClient=$client
    nixGocacheprogCommand=$client
    [[ ${client##*/} != nix-gocacheprog ]] || nixGocacheprogCommand+=" client"
    export GOCACHEPROG=$nixGocacheprogCommand
    # `go` looks for a place for its own cache first, and fails where there is none.
    if [[ -z ${GOCACHE-} && -z ${XDG_CACHE_HOME-} && -n ${NIX_BUILD_TOP-} && ! -w ${HOME-} ]]; then
        export GOCACHE=$NIX_BUILD_TOP/.nix-gocacheprog-gocache
    fi
    nixGocacheprogTimesSayNothing

    # A fixed-output derivation downloads modules.
    if [[ -n ${outputHash-} ]]; then
        nixGocacheprogProxy
    fi
    # In a shell all of this ends with the phase.
    if [[ -z ${IN_NIX_SHELL-} ]]; then
        nixGocacheprogWatchPhases
        declare -F go >/dev/null || nixGocacheprogWrapGo
    fi
}

# `go` knows a package's files and a test's input files by names, sizes and times. In Nix all times are the same, so it
# must neither believe an index of a folder nor a test's result. The derivation's own flags and settings win.
nixGocacheprogTimesSayNothing() {
    if [[ ${GODEBUG-} != *goindex=* ]]; then
        export GODEBUG=${GODEBUG:+$GODEBUG,}goindex=0
        nixGocacheprogIndexOff=1
    fi
    # With structured attributes it can be a list, which `go` does not see, but the derivation's own phases may.
    if [[ $(declare -p GOFLAGS 2>/dev/null) != "declare -a"* && ${GOFLAGS-} != *-count* ]]; then
        nixGocacheprogCountOff=${GOFLAGS+set}
        : "${nixGocacheprogCountOff:=unset}"
        export GOFLAGS="-count=1${GOFLAGS:+ $GOFLAGS}"
    fi
}

# Takes that back, whatever a phase has made of these variables meanwhile. $1: what else may be believed.
nixGocacheprogTimesSayContent() {
    if [[ -n ${nixGocacheprogIndexOff-} && $1 == index ]]; then
        nixGocacheprogIndexOff=
        GODEBUG=,${GODEBUG-},
        GODEBUG=${GODEBUG/,goindex=0,/,}
        GODEBUG=${GODEBUG#,}
        GODEBUG=${GODEBUG%,}
        [[ -n $GODEBUG ]] || unset GODEBUG
    fi
    if [[ -n ${nixGocacheprogCountOff-} && ${GOFLAGS-} == *-count=1* ]]; then
        GOFLAGS=" $GOFLAGS "
        GOFLAGS=${GOFLAGS/ -count=1 / }
        GOFLAGS=${GOFLAGS# }
        GOFLAGS=${GOFLAGS% }
        [[ -n $GOFLAGS || $nixGocacheprogCountOff != unset ]] || unset GOFLAGS
    fi
    nixGocacheprogCountOff=
}

# Makes runHook say where the phases begin and end that run `go`: after all that preBuild and preCheck do, and before
# anything of postBuild and postCheck.
# shellcheck disable=SC2317 # Called by stdenv.
nixGocacheprogWatchPhases() {
    local definition
    if ! definition=$(declare -f runHook) || declare -F nixGocacheprogRunHook >/dev/null; then
        return 0
    fi
    eval "nixGocacheprogRunHook ${definition#runHook }"
    runHook() {
        case ${1-} in
        postBuild | postCheck | exitHook | failureHook) nixGocacheprogRestore ;;
        esac
        nixGocacheprogRunHook "$@"
        case ${1-} in
        preBuild) nixGocacheprogStamp "${buildPhase-}" ;;
        preCheck)
            if [[ ${NIX_GOCACHEPROG_TESTS-} != run ]]; then
                nixGocacheprogStamp "${checkPhase-}"
            fi
            ;;
        esac
    }
}

# Whether a phase runs nothing but `go`, as nixpkgs' own do. Others could run what goes by times, as Make does, or write
# what a test reads and `go` does not look at.
# shellcheck disable=SC2016 # This is about the text of a phase.
nixGocacheprogRunsGoOnly() {
    local phase=$1 line each writes='' tests=''
    local tools='(^|[^[:alnum:]_/.-])(make|gmake|ninja|cmake|meson|just|task|mage|bazel|scons|waf|redo|tup)([^[:alnum:]_.-]|$)'
    local dirs='^for [[:alnum:]_]+ in \$\(getGoDirs ("[[:alnum:]]*"|[[:alnum:]]+)\); do$'
    local compiles='^if ! OUT="\$\(go \$cmd [^;&|<>`()]*2>&1\)"; then$'
    local says='^if ! echo "\$OUT" \| grep -qE '\''[^'\'']*'\''; then$'
    local finds='^find \. -type f -name \\\*\$type\.go -exec dirname \{\} \\; \| grep -v "/vendor/" \| sort (-u|--unique) \| grep -v( "\$exclude"|E '\''[^'\'']*'\'')$'
    # The value of each -o, and whether it is below the folder that `go` runs in.
    local output='[[:space:]"'\''(]--?o([[:space:]="'\''].*|$)'
    local below='^[[:space:]=]+(\./)?[[:alnum:]_]([[:alnum:]_/-]|\.[[:alnum:]_-])*([[:space:]]|$)'
    [[ $phase == *"runHook pre"* && $phase == *"runHook post"* ]] || return 1
    [[ ! $phase =~ $tools ]] || return 1
    phase=${phase//\\$'\n'/ }
    while IFS= read -r line; do
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        # What has signs in it by which a shell can do more, to the letter.
        case $line in
        '' | '#'* | 'local type;' | 'local d; local cmd;') continue ;;
        'IFS='\'' '\'' read -r -a excludedArr <<<$excludedPackages') continue ;;
        'printf -v excludedAlternates '\''%s\\|'\'' "${excludedArr[@]}"') continue ;;
        'excludedAlternates=${excludedAlternates%\\|} # drop final \| added by printf') continue ;;
        'exclude='\''\(/_\|examples\|Godeps\|testdata'\' | 'exclude+='\''\|'\''"$excludedAlternates"' | 'exclude+='\''\)'\') continue ;;
        'flags+=(${tags:+-tags=$(concatStringsSep "," tags)})') continue ;;
        'if (( "${NIX_DEBUG:-0}" >= 1 )); then' | 'if [[ -n "$(shopt -s nullglob; echo $dir/*)" ]]; then') continue ;;
        'echo "$subPackages" | sed "s,\(^\| \),\1./,g"') continue ;;
        '. $TMPDIR/buildFlagsArray' | 'touch $TMPDIR/buildFlagsArray') continue ;;
        'declare -p buildFlagsArray > $TMPDIR/buildFlagsArray') continue ;;
        'buildGoDir "test -c -o $GOPATH/bin/" "$pkg"') continue ;;
        'mv $dir/* $dir/..' | 'rmdir $dir') continue ;;
        'for '*getGoDirs*) [[ ! $line =~ $dirs ]] || continue ;;
        'if ! OUT='*) [[ ! $line =~ $compiles ]] || continue ;;
        'if ! echo '*) [[ ! $line =~ $says ]] || continue ;;
        'find '*) [[ ! $line =~ $finds ]] || continue ;;
        # Behind a quote it may be no comment.
        *[[:space:]]#*)
            each=${line%%[[:space:]]#*}
            [[ $each == *[\"\'\\\$]* ]] || line=$each
            ;;
        esac
        line+=' '
        if [[ $line == *'>'* ]]; then
            for each in '2>&1' '>&2' '1>&2' '>/dev/null' '2>/dev/null' '&>/dev/null' '> /dev/null' '2> /dev/null'; do
                line=${line//" $each "/ }
            done
        fi
        case $line in
        'if [ '*' ]; then ' | 'if [[ '*' ]]; then ') line="[ ${line%; then } " ;;
        'for '*' in '*'; do ') line="[ ${line%; do } " ;;
        esac
        case $line in
        *[\;\&\|\`\<\>]* | *'$('* | *'${ '* | *'-exec'*) return 1 ;;
        esac
        each=$line
        while [[ $each == *-o* && $each =~ $output ]]; do
            each=${BASH_REMATCH[1]}
            [[ $each =~ $below ]] || writes=1
        done
        case $line in
        # What only decides which `go` commands are run, and with which flags.
        '[ '* | 'done ' | 'fi ' | 'else ' | '{ ' | '} ' | '( ' | ') ') ;;
        'buildGoDir() { ' | 'getGoDirs() { ' | 'return '[01]' ') ;;
        'local '* | 'declare '* | 'export NIX_BUILD_CORES=1 ' | 'export GOFLAGS='*) ;;
        'flags+=('*') ' | 'buildFlagsArray+=('*') ') [[ $line != *\(*[\(\)]*\)* ]] || return 1 ;;
        'type="$1" ' | 'cmd="$1" ' | 'd="$2" ') ;;
        'dir=$GOPATH/bin/'*) [[ ${line% } != *[[:space:]]* ]] || return 1 ;;
        'runHook preBuild ' | 'runHook postBuild ' | 'runHook preCheck ' | 'runHook postCheck ' | 'echo '*) ;;
        # Not `go generate`, `go run` and `go tool`, which start whatever they like.
        'go test '* | 'buildGoDir test '*) tests=1 ;;
        'go install '* | 'buildGoDir install '*) writes=1 ;;
        'go build '* | 'go vet '* | 'go list '* | 'buildGoDir build '* | 'buildGoDir vet '*) ;;
        *) return 1 ;;
        esac
    done <<<"$phase"
    # A test may read what is written beside the module, or be there before it.
    [[ -z $writes || -z $tests ]]
}

# Gives the source times that say its content, until nixGocacheprogRestore. Where that cannot be, all is as it was.
nixGocacheprogStamp() {
    # GOCACHEPROG may be a phase's own by now.
    if [[ ${GOCACHEPROG-} != "$nixGocacheprogCommand" || -n ${nixGocacheprogStamped-} || -n ${outputHash-} ]]; then
        return 0
    fi
    # The whole of what was unpacked, of which the module may be a part.
    local top=${NIX_BUILD_TOP-} tree=$PWD module=$PWD
    if [[ -z $top || $tree/ != "$top"/?* ]]; then
        return 0
    fi
    tree=${tree#"$top"/}
    tree=$top/${tree%%/*}
    # All of the module has to be in there.
    while [[ ! -f $module/go.mod ]]; do
        [[ $module != "$tree" ]] || return 0
        module=${module%/*}
    done
    # Files of an overlay take the place of others, with times of their own.
    local flags="${GOFLAGS[*]-} ${buildFlags[*]-} ${checkFlags[*]-}"
    if [[ $flags == *-overlay* || $flags == *-exec* ]] || ! nixGocacheprogRunsGoOnly "$1"; then
        return 0
    fi
    if nixGocacheprogHasModules "$module" "$flags $1"; then
        return 0
    fi
    if ! nixGocacheprogTimes --stamp "$tree"; then
        return 0
    fi
    nixGocacheprogStamped=1
    export NIX_GOCACHEPROG_STAMPED=1
    # What cannot be read is different each time.
    NIX_GOCACHEPROG_BESIDE=$(nixGocacheprogBeside "$module") || NIX_GOCACHEPROG_BESIDE=$$-$EPOCHREALTIME
    export NIX_GOCACHEPROG_BESIDE
    # The index of a module in the module cache goes by its path alone.
    if [[ " ${GOFLAGS[*]-} " == *" -mod=vendor "* ]]; then
        nixGocacheprogTimesSayContent index
    else
        nixGocacheprogTimesSayContent tests
    fi
}

# Where anything can be written. Only in a sandbox does a build have these to itself.
nixGocacheprogScratch=()
if [[ -e /gocache/client || ${NIX_BUILD_TOP-} == /build ]]; then
    nixGocacheprogScratch=(/tmp /var/tmp /dev/shm)
fi

# A hash of what lies beside the module in the build directory and in scratch directories, or nothing: a test may read it,
# and `go` looks for changes in the module only. Programs that were installed are part of it where a test may look for them.
nixGocacheprogBeside() {
    local module=$1 dir=$NIX_BUILD_TOP rest each
    local -a beside=()
    while [[ $dir != "$module" ]]; do
        rest=${module#"$dir"/}
        for each in "$dir"/* "$dir"/.[!.]*; do
            case $each in
            "$dir/${rest%%/*}" | "$dir/env-vars" | "$dir"/.attrs.* | "$dir"/.nix-gocacheprog*) continue ;;
            "${GOPATH:-/}" | "${GOCACHE:-/}") continue ;;
            # As HOME=$(mktemp -d) makes it: it has another name in each build.
            "$dir"/tmp.??????????) ! nixGocacheprogIsEmpty "$each" || continue ;;
            esac
            [[ ! -e $each && ! -L $each ]] || beside+=("$each")
        done
        dir+=/${rest%%/*}
    done
    for dir in ${nixGocacheprogScratch[@]+"${nixGocacheprogScratch[@]}"}; do
        for each in "$dir"/* "$dir"/.[!.]*; do
            if [[ $NIX_BUILD_TOP/ != "$each"/* && $each/ != "$NIX_BUILD_TOP"/* ]] && [[ -e $each || -L $each ]]; then
                beside+=("$each")
            fi
        done
    done
    if nixGocacheprogUsesInstalled; then
        beside+=("$GOPATH/bin")
    fi
    ((${#beside[@]} == 0)) || {
        find "${beside[@]}" -exec stat -c '%n %f' {} +
        find "${beside[@]}" -type l -exec readlink {} +
        find "${beside[@]}" -type f -exec sha256sum {} +
    } | sha256sum
}

nixGocacheprogIsEmpty() {
    local each
    [[ -d $1 && ! -L $1 ]] || return 1
    for each in "$1"/* "$1"/.[!.]*; do
        [[ ! -e $each && ! -L $each ]] || return 1
    done
}

# Whether a test may find what was installed: in PATH, or by what the check phase or a variable says. All tests have GOPATH, but
# the programs in there have the version in them, and few tests look.
nixGocacheprogUsesInstalled() {
    local each said="${preCheck-} ${checkPhase-} ${checkFlags[*]-}"
    local -a folders
    [[ -n ${GOPATH-} && -d $GOPATH/bin ]] || return 1
    if declare -F preCheck >/dev/null; then
        said+=$(declare -f preCheck)
    fi
    case $said in
    *GOPATH* | *GOBIN* | *"${GOPATH##*/}/bin"*) return 0 ;;
    esac
    IFS=: read -r -a folders <<<"$PATH"
    for each in "${folders[@]}"; do
        [[ ! ${each:-.} -ef $GOPATH/bin ]] || return 0
    done
    said=$(unset GOPATH GOBIN GOCACHE GOMODCACHE PATH && export -p)
    [[ $said == *"$GOPATH"* && $said =~ "$GOPATH"([^[:alnum:]_.-]|$) ]]
}

# Whether `go` may test packages of other modules than this one: of what such a test reads, `go` looks for changes only in
# the test's own module, and nixGocacheprogBeside only outside of this one.
nixGocacheprogHasModules() {
    local module=$1 phase=$2 dir=$PWD text=''
    local elsewhere='(^|[[:space:]"'\''(])--?C([[:space:]="'\'']|$)' replaced='=>[[:space:]]*["`]?[./]'
    [[ ! $phase =~ $elsewhere ]] || return 0
    case ${GOWORK-} in
    off) ;;
    ?*) return 0 ;;
    *)
        while [[ -n $dir ]]; do
            [[ ! -e $dir/go.work ]] || return 0
            dir=${dir%/*}
        done
        ;;
    esac
    # `vendor` has no tests.
    if [[ " ${GOFLAGS[*]-} " == *" -mod=vendor "* && $phase != *-mod=[mr]* ]]; then
        return 1
    fi
    IFS= read -r -d '' text <"$module/go.mod" || true
    [[ $text =~ $replaced ]]
}

# Puts the times back of all that no phase has written to.
nixGocacheprogRestore() {
    if [[ -z ${nixGocacheprogStamped-} ]]; then
        return 0
    fi
    nixGocacheprogStamped=
    unset NIX_GOCACHEPROG_STAMPED NIX_GOCACHEPROG_BESIDE
    nixGocacheprogTimesSayNothing
    nixGocacheprogTimes --restore ||
        echo "nix-gocacheprog: the mtimes of the source could not be put back" >&2
}

nixGocacheprogTimes() {
    # What it says is for debugging: a tree that cannot be stamped, or a client of an older release, is no fault.
    (
        [[ -n ${NIX_GOCACHEPROG_LOG-} ]] || exec 2>/dev/null
        exec -a client "$nixGocacheprogClient" "$@" --times "$NIX_BUILD_TOP/.nix-gocacheprog-times"
    ) || return 1
}

# With any GOCACHEPROG `go` keeps no executable: `go tool -n` names a file that is gone, and a tool is linked each time
# that it is run. What a phase says itself comes by here; scripts and Makefiles have the `go` of PATH.
# shellcheck disable=SC2317 # Called by the phases.
nixGocacheprogWrapGo() {
    nixGocacheprogRuns=0
    go() {
        case ${1-} in
        tool)
            # One of the module's; those of Go itself are there already.
            if [[ ${2-} == -n ]] || { [[ -n ${2-} && ${2-} != -* ]] && nixGocacheprogRanOften; }; then
                GOCACHEPROG='' command go "$@"
                return
            fi
            ;;
        run)
            if nixGocacheprogRanOften; then
                GOCACHEPROG='' command go "$@"
                return
            fi
            ;;
        generate)
            if nixGocacheprogGeneratesOften; then
                GOCACHEPROG='' command go "$@"
                return
            fi
            ;;
        esac
        command go "$@"
    }
}

# Whether linking once more costs more than compiling without the cache, which is done once.
nixGocacheprogRanOften() {
    [[ ${GOCACHEPROG-} == "$nixGocacheprogCommand" ]] && ((++nixGocacheprogRuns > 10))
}

nixGocacheprogGeneratesOften() {
    local lines
    [[ ${GOCACHEPROG-} == "$nixGocacheprogCommand" ]] || return 1
    lines=$(grep -rhE --include='*.go' --exclude-dir=vendor --exclude-dir=testdata \
        '^//go:generate .*go (run|tool) ' . 2>/dev/null) || return 1
    lines=${lines//[^$'\n']/}
    ((${#lines} >= 10))
}

# Puts the module proxy in front of the user's own GOPROXY list. It ends with this shell; where it fails, `go` goes
# on to the list.
nixGocacheprogProxy() {
    local url='' list=${GOPROXY-} log=${NIX_BUILD_TOP:-${TMPDIR:-/tmp}}/.nix-gocacheprog-proxy.log
    if [[ -z $list ]]; then
        list=$(GOCACHEPROG='' go env GOPROXY 2>/dev/null) || true
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
    if [[ -n ${nixGocacheprogClient-} && ${GOCACHEPROG-} == "$nixGocacheprogCommand" ]]; then
        (exec -a client "$nixGocacheprogClient" --summary) || true
    fi
}

# In a shell a phase has the cache while it runs, and what the user does afterwards is their own.
nixGocacheprogEnter() {
    local name kept
    if [[ -n ${nixGocacheprogEntered-} ]]; then
        return 0
    fi
    nixGocacheprogEntered=1
    nixGocacheprogKept=
    for name in GOCACHEPROG GOCACHE GODEBUG GOFLAGS GOPROXY; do
        nixGocacheprogKept+="unset $name"$'\n'
        if kept=$(declare -p "$name" 2>/dev/null); then
            # Not local to the function that brings it back.
            kept=${kept#declare }
            nixGocacheprogKept+="declare -g ${kept#-- }"$'\n'
        fi
    done
    nixGocacheprogDone=
    nixGocacheprogSetup
}

nixGocacheprogLeave() {
    if [[ -n ${nixGocacheprogEntered-} ]]; then
        nixGocacheprogEntered=
        eval "$nixGocacheprogKept"
    fi
}

if [[ -n ${IN_NIX_SHELL-} ]]; then
    preBuildHooks+=(nixGocacheprogEnter)
    postBuildHooks+=(nixGocacheprogLeave)
    preCheckHooks+=(nixGocacheprogEnter)
    postCheckHooks+=(nixGocacheprogLeave)
else
    # The first comes before all phases, with PATH complete. A hook that is sourced later than that has the others.
    postHooks+=(nixGocacheprogSetup)
    postConfigureHooks+=(nixGocacheprogSetup)
    preBuildHooks+=(nixGocacheprogSetup)
    exitHooks+=(nixGocacheprogSummary)
    failureHooks+=(nixGocacheprogSummary)
fi
