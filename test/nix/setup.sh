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

# A hook is a function, or code in a variable, of the name; and then each function or code in the
# array of the name's plural.
runHook() {
    local name=$1 hook
    shift
    local plural=${name%Hook}Hooks
    if declare -F "$name" >/dev/null; then
        "$name" "$@"
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

# Every input, propagated ones included, once.
declare -a allInputs=()
declare -A seenInputs=()
findInputs() {
    local input=$1 list propagated
    [[ -z ${seenInputs[$input]-} ]] || return 0
    seenInputs[$input]=1
    allInputs+=("$input")
    for list in propagated-build-inputs propagated-native-build-inputs; do
        if [[ -f $input/nix-support/$list ]]; then
            for propagated in $(<"$input/nix-support/$list"); do
                findInputs "$propagated"
            done
        fi
    done
}

declare -a envHooks=()
addEnvHooks() {
    shift
    envHooks+=("$@")
}

# Lists are arrays with structured attributes and words in a string without.
for input in ${depsBuildBuild[*]-} ${nativeBuildInputs[*]-} ${buildInputs[*]-} \
    ${propagatedBuildInputs[*]-} ${propagatedNativeBuildInputs[*]-}; do
    findInputs "$input"
done
for input in ${allInputs[@]+"${allInputs[@]}"}; do
    addToSearchPath inputsPath "$input/bin"
done
export -n inputsPath
PATH=${inputsPath:+$inputsPath:}$PATH
for input in ${allInputs[@]+"${allInputs[@]}"}; do
    if [[ -f $input/nix-support/setup-hook ]]; then
        # shellcheck source=/dev/null
        . "$input/nix-support/setup-hook"
    fi
done
for input in ${allInputs[@]+"${allInputs[@]}"}; do
    for hook in ${envHooks[@]+"${envHooks[@]}"}; do
        "$hook" "$input"
    done
done
unset each input hook inputsPath

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
    cd "$sourceRoot"
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
    local phase=$1 skip
    skip=${phase%Phase}
    skip=dont${skip^}
    if [[ -n ${!skip-} ]]; then
        return
    fi
    if [[ $phase == checkPhase && -z ${doCheck-} ]]; then
        return
    fi
    echo "Running phase: $phase"
    if [[ -n ${!phase-} ]]; then
        eval "${!phase}"
    else
        "$phase"
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
    local phase
    local usual="unpackPhase patchPhase ${preConfigurePhases[*]-} configurePhase ${preBuildPhases[*]-} buildPhase \
        checkPhase installPhase fixupPhase"
    for phase in ${phases[*]-$usual}; do
        runPhase "$phase"
    done
}
