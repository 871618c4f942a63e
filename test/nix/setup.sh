# The stdenv stand-in's setup script: what a setup hook can rely on in nixpkgs' stdenv, and no more.
# Stricter in one way: phases too run with unset variables being errors, not only setup hooks.
# shellcheck shell=bash

# The builder has read the attributes by now, from the environment or, structured, from a file; what
# they are is beyond a static check.
# shellcheck disable=SC2048,SC2154

set -eu -o pipefail
shopt -s inherit_errexit nullglob

if [[ $(declare -p outputs) == "declare -A"* ]]; then
    for each in "${!outputs[@]}"; do
        export "$each=${outputs[$each]}"
    done
    for each in "${!env[@]}"; do
        export "$each=${env[$each]}"
    done
fi

export PATH=$tools/bin
export SHELL=$tools/bin/bash
export TZ=UTC
export SOURCE_DATE_EPOCH=315532800
prefix=$out

addToSearchPathWithCustomDelimiter() {
    local delimiter=$1 variable=$2 dir=$3
    if [[ -d $dir ]]; then
        export "$variable=${!variable-}${!variable:+$delimiter}$dir"
    fi
}

addToSearchPath() {
    addToSearchPathWithCustomDelimiter : "$@"
}

# A hook is a function, a script of PATH, or code in a variable, of the name; and then each function or code in the
# array of the name's plural.
runHook() {
    local name=$1 hook
    shift
    local plural=${name%Hook}Hooks
    if declare -F "$name" >/dev/null; then
        "$name"
    elif type -p "$name" >/dev/null; then
        # shellcheck source=/dev/null
        . "$name"
    elif [[ -n ${!name-} ]]; then
        eval "${!name}"
    fi
    local slice="${plural}[@]"
    for hook in ${!slice+"${!slice}"}; do
        if declare -F "$hook" >/dev/null; then
            "$hook" "$@"
        else
            eval "$hook"
        fi
    done
}

exitHandler() {
    local status=$?
    set +e
    if ((status != 0)); then
        runHook failureHook
    else
        runHook exitHook
    fi
    exit "$status"
}
trap exitHandler EXIT

# Every input, propagated ones included, once in each role: the platform that it runs on, and the one that it makes
# things for, where -1 is the one that builds, 0 the one that the result runs on, and 1 what that makes things for.
declare -a allInputs=() inputRoles=()
declare -A seenInputs=()
findInputs() {
    local input=$1 role=$2 propagated
    [[ -z ${seenInputs[$input $role]-} ]] || return 0
    seenInputs[$input $role]=1
    allInputs+=("$input")
    inputRoles+=("$role")
    if [[ -f $input/nix-support/propagated-build-inputs ]]; then
        for propagated in $(<"$input/nix-support/propagated-build-inputs"); do
            findInputs "$propagated" "$role"
        done
    fi
    if [[ -f $input/nix-support/propagated-native-build-inputs ]]; then
        for propagated in $(<"$input/nix-support/propagated-native-build-inputs"); do
            findInputs "$propagated" "-1 0"
        done
    fi
}

# addEnvHooks OFFSET FUNCTION...: functions that are called with each input that runs on that platform; or, as long as
# a derivation is not strict about the difference, with each input.
declare -a envHooks=()
addEnvHooks() {
    local offset=$1 each
    shift
    for each; do
        envHooks+=("$offset $each")
    done
}

# Lists are arrays with structured attributes and words in a string without.
for input in ${depsBuildBuild[*]-}; do
    findInputs "$input" "-1 -1"
done
for input in ${nativeBuildInputs[*]-} ${propagatedNativeBuildInputs[*]-}; do
    findInputs "$input" "-1 0"
done
for input in ${buildInputs[*]-} ${propagatedBuildInputs[*]-}; do
    findInputs "$input" "0 1"
done
for input in ${allInputs[@]+"${allInputs[@]}"}; do
    addToSearchPath inputsPath "$input/bin"
done
export -n inputsPath
PATH=${inputsPath:+$inputsPath:}$PATH
for nth in "${!allInputs[@]}"; do
    input=${allInputs[nth]}
    if [[ -f $input/nix-support/setup-hook ]]; then
        # shellcheck disable=SC2034 # for the hook
        read -r hostOffset targetOffset <<<"${inputRoles[nth]}"
        # shellcheck source=/dev/null
        . "$input/nix-support/setup-hook"
    fi
done
for hook in ${envHooks[@]+"${envHooks[@]}"}; do
    # What a variable of the hook's is called goes by this.
    depHostOffset=${hook% *}
    declare -A hookInputs=()
    for nth in "${!allInputs[@]}"; do
        input=${allInputs[nth]}
        if [[ (-z ${strictDeps-} || ${inputRoles[nth]% *} == "$depHostOffset") && -z ${hookInputs[$input]-} ]]; then
            hookInputs[$input]=1
            "${hook#* }" "$input"
        fi
    done
done
unset each nth input hook inputsPath hookInputs hostOffset targetOffset depHostOffset

unpackPhase() {
    runHook preUnpack
    local stripped
    if [[ -d $src ]]; then
        stripped=${src##*/}
        stripped=${stripped#*-}
        cp -r "$src" "$stripped"
        # With its time stamps, which `go` has in some of its cache keys; in the store all are the same.
        find "$stripped" -exec touch -h -d @1 {} +
        chmod -R u+w "$stripped"
    else
        mkdir source
        tar -xf "$src" -C source
        stripped=source
    fi
    sourceRoot=${sourceRoot:-$stripped}
    runHook postUnpack
}

patchPhase() {
    runHook prePatch
    local each
    for each in ${patches[*]-}; do
        patch -p1 <"$each"
    done
    runHook postPatch
}

configurePhase() {
    runHook preConfigure
    runHook postConfigure
}

buildPhase() {
    runHook preBuild
    runHook postBuild
}

checkPhase() {
    runHook preCheck
    runHook postCheck
}

installPhase() {
    runHook preInstall
    runHook postInstall
}

installCheckPhase() {
    runHook preInstallCheck
    runHook postInstallCheck
}

distPhase() {
    runHook preDist
    runHook postDist
}

fixupPhase() {
    runHook preFixup
    if [[ -n ${propagatedBuildInputs[*]-} ]]; then
        mkdir -p "$prefix/nix-support"
        echo "${propagatedBuildInputs[*]}" >"$prefix/nix-support/propagated-build-inputs"
    fi
    if [[ -n ${propagatedNativeBuildInputs[*]-} ]]; then
        mkdir -p "$prefix/nix-support"
        echo "${propagatedNativeBuildInputs[*]}" >"$prefix/nix-support/propagated-native-build-inputs"
    fi
    runHook postFixup
}

runPhase() {
    local curPhase=$1 skip
    skip=${curPhase%Phase}
    skip=dont${skip^}
    if [[ -n ${!skip-} ]]; then
        return
    fi
    case $curPhase in
    checkPhase) [[ -n ${doCheck-} ]] || return 0 ;;
    installCheckPhase) [[ -n ${doInstallCheck-} ]] || return 0 ;;
    distPhase) [[ -n ${doDist-} ]] || return 0 ;;
    esac
    echo "Running phase: $curPhase"
    if [[ -n ${!curPhase-} ]]; then
        eval "${!curPhase}"
    else
        "$curPhase"
    fi
    if [[ $curPhase == unpackPhase ]]; then
        # An unpack phase of its own may be there already.
        cd "${sourceRoot:-.}"
    fi
}

genericBuild() {
    if [[ -n ${buildCommandPath-} ]]; then
        # shellcheck source=/dev/null
        . "$buildCommandPath"
        return
    elif [[ -n ${buildCommand-} ]]; then
        eval "$buildCommand"
        return
    fi
    local curPhase
    local usual="${prePhases[*]-} unpackPhase patchPhase ${preConfigurePhases[*]-} configurePhase \
        ${preBuildPhases[*]-} buildPhase checkPhase ${preInstallPhases[*]-} installPhase ${preFixupPhases[*]-} fixupPhase \
        installCheckPhase ${preDistPhases[*]-} distPhase ${postPhases[*]-}"
    for curPhase in ${phases[*]-$usual}; do
        runPhase "$curPhase"
    done
}

runHook postHook
runHook userHook
