# A stand-in for nixpkgs' cc-wrapper: gives a compiler that knows no C library what its own nix-support/ and the
# environment say. The compiler's own search path is empty.
# shellcheck shell=bash disable=SC1091,SC2034,SC2154,SC2193
set -euo pipefail
shopt -s nullglob
. @out@/nix-support/common.sh

# With these, or with no file at all, the compiler will not link.
links=1 files='' cxx='' compiles_c=1 libc=1
[[ @program@ != *++ ]] || cxx=1
for each; do
    case $each in
    -c | -S | -E | -M | -MM) links='' ;;
    -nostdinc) libc='' ;;
    -cc1) compiles_c='' ;;
    -?*) ;;
    *) files=1 ;;
    esac
done
[[ -n $files ]] || links=''

declare -a given=("$@")
if [[ ${NIX_ENFORCE_PURITY-} == 1 ]]; then
    given=()
    while (($# > 0)); do
        case $1 in
        -I/* | -L/*) is_impure "${1:2}" || given+=("$1") ;;
        -I | -L | -isystem)
            if is_impure "${2-}"; then
                shift
            else
                given+=("$1")
            fi
            ;;
        *) given+=("$1") ;;
        esac
        shift
    done
fi

# The linker's wrapper, which the compiler starts, must not do it once more.
flags_set=NIX_CC_WRAPPER_FLAGS_SET_$salt
if [[ -z ${!flags_set-} ]]; then
    . @bintools@/nix-support/add-flags.sh
    roles=()
    find_roles CC
    gather ' ' NIX_CFLAGS_COMPILE NIX_CFLAGS_COMPILE_BEFORE NIX_CFLAGS_LINK NIX_CXXSTDLIB_COMPILE NIX_CXXSTDLIB_LINK
    gather_switches NIX_ENFORCE_NO_NATIVE
    set_salted NIX_CFLAGS_COMPILE_BEFORE "$(flags_in cc-cflags-before) $(salted NIX_CFLAGS_COMPILE_BEFORE)"
    own="$(flags_in cc-cflags) $(flags_in libc-crt1-cflags)"
    [[ -z $libc ]] || own+=" $(flags_in libc-cflags)"
    set_salted NIX_CFLAGS_COMPILE "$own -B@out@/bin/ $(salted NIX_CFLAGS_COMPILE)"
    set_salted NIX_LDFLAGS "$(salted NIX_LDFLAGS) $(flags_in cc-ldflags)"
    export "$flags_set=1"
fi

if [[ $(salted NIX_ENFORCE_NO_NATIVE) == 1 ]]; then
    for i in "${!given[@]}"; do
        if [[ ${given[i]} == -m*=native ]]; then
            echo "warning: $0: ${given[i]} is left out, since NIX_ENFORCE_NO_NATIVE is set" >&2
            unset "given[$i]"
        fi
    done
fi

declare -a before=() after=()
if is_hardened fortify3; then
    before+=(-O2 -U_FORTIFY_SOURCE)
    after+=(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
elif is_hardened fortify; then
    before+=(-O2 -U_FORTIFY_SOURCE)
    after+=(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
fi
! is_hardened stackprotector || before+=(-fstack-protector-strong --param ssp-buffer-size=4)
! is_hardened zerocallusedregs || before+=(-fzero-call-used-regs=used-gpr)
! is_hardened pic || before+=(-fPIC)
! is_hardened strictoverflow || before+=(-fno-strict-overflow)
! is_hardened format || before+=(-Wformat -Wformat-security -Werror=format-security)
if is_hardened pie; then
    before=(-fPIE ${before[@]+"${before[@]}"})
    [[ " $* " == *" -shared "* || " $* " == *" -static "* ]] || before=(-pie "${before[@]}")
fi

# Words, as in nixpkgs: a flag cannot hold a blank.
# shellcheck disable=SC2046,SC2207
{
    before+=($(salted NIX_CFLAGS_COMPILE_BEFORE))
    after+=($(salted NIX_CFLAGS_COMPILE))
    if [[ -n $cxx ]]; then
        after+=($(salted NIX_CXXSTDLIB_COMPILE) $(flags_in libcxx-cxxflags))
    fi
    if [[ -n $links ]]; then
        after+=($(salted NIX_CFLAGS_LINK))
        if [[ -n $cxx ]]; then
            after+=($(salted NIX_CXXSTDLIB_LINK) $(flags_in libcxx-ldflags))
        fi
        for each in $(salted NIX_LDFLAGS_BEFORE); do
            before+=("-Wl,$each")
        done
        type=dynamic
        [[ " $* " != *" -static "* ]] || type=static
        if [[ $type == dynamic && -n $(salted NIX_DYNAMIC_LINKER) ]]; then
            before+=("-Wl,-dynamic-linker=$(salted NIX_DYNAMIC_LINKER)")
        fi
        for each in $(salted NIX_LDFLAGS); do
            if [[ $each == -L/* ]]; then
                after+=("$each")
            else
                after+=("-Wl,$each")
            fi
        done
        set_salted NIX_LINK_TYPE "$type"
    fi
}

# Asked for its version only, the compiler would complain about more.
if [[ $* == -v || -z $compiles_c ]]; then
    before=()
    after=()
fi
if ((${NIX_DEBUG:-0} >= 1)); then
    printf '%s:' "$0" ${before[@]+"${before[@]}"} ... ${after[@]+"${after[@]}"} >&2
fi
exec @program@ ${before[@]+"${before[@]}"} ${given[@]+"${given[@]}"} ${after[@]+"${after[@]}"}
