# A stand-in for the linker of nixpkgs' bintools-wrapper.
# shellcheck shell=bash disable=SC1091,SC2034,SC2154
set -euo pipefail
shopt -s nullglob
. @out@/nix-support/common.sh
. @out@/nix-support/add-flags.sh

declare -a given=("$@") before=() after=()
if [[ ${NIX_ENFORCE_PURITY-} == 1 ]] &&
    [[ -z $(salted NIX_IGNORE_LD_THROUGH_GCC) || -z $(salted NIX_LINK_TYPE) ]]; then
    given=()
    while (($# > 0)); do
        case $1 in
        -L/*) is_impure "${1:2}" || given+=("$1") ;;
        -L | -rpath | -dynamic-linker)
            if is_impure "${2-}"; then
                shift
            else
                given+=("$1" "$2")
                shift
            fi
            ;;
        *) given+=("$1") ;;
        esac
        shift
    done
fi

! is_hardened relro || before+=(-z relro)
! is_hardened bindnow || before+=(-z now)
# Words, as in the compiler's wrapper.
# shellcheck disable=SC2046,SC2207
{
    before+=($(salted NIX_LDFLAGS_HARDEN))
    # The compiler's wrapper has given these already.
    if [[ -z $(salted NIX_LINK_TYPE) ]]; then
        before+=($(salted NIX_LDFLAGS_BEFORE))
        if [[ " $* " != *" -static "* && -n $(salted NIX_DYNAMIC_LINKER) ]]; then
            before+=(-dynamic-linker "$(salted NIX_DYNAMIC_LINKER)")
        fi
        after+=($(salted NIX_LDFLAGS))
    fi
    after+=($(salted NIX_LDFLAGS_AFTER))
}

# The program finds the libraries in the store that it is linked with.
declare -a dirs=()
declare -A wanted=() found=()
relocatable='' previous=''
for each in ${before[@]+"${before[@]}"} ${given[@]+"${given[@]}"} ${after[@]+"${after[@]}"}; do
    case $previous in
    -L) dirs+=("$each") ;;
    -l) wanted[lib$each.so]=1 ;;
    -dynamic-linker | -plugin) ;;
    *)
        case $each in
        -L/*) dirs+=("${each:2}") ;;
        -l?*) wanted[lib${each:2}.so]=1 ;;
        "${NIX_STORE:-/nix/store}"/*.so | "${NIX_STORE:-/nix/store}"/*.so.*)
            dirs+=("${each%/*}")
            wanted[${each##*/}]=1
            ;;
        -r | -i | --relocatable) relocatable=1 ;;
        esac
        ;;
    esac
    previous=$each
done
if [[ $(salted NIX_DONT_SET_RPATH) != 1 ]]; then
    for dir in ${dirs[@]+"${dirs[@]}"}; do
        [[ $dir == "${NIX_STORE:-/nix/store}"/* && -z ${found[$dir]-} ]] || continue
        for each in "$dir"/*.so*; do
            if [[ -n ${wanted[${each##*/}]-} ]]; then
                found[$dir]=1
                after+=(-rpath "$dir")
                break
            fi
        done
    done
fi
if [[ $(salted NIX_SET_BUILD_ID) == 1 && -z $relocatable ]]; then
    after+=(--build-id="${NIX_BUILD_ID_STYLE:-sha1}")
fi
exec @program@ ${before[@]+"${before[@]}"} ${given[@]+"${given[@]}"} ${after[@]+"${after[@]}"}
