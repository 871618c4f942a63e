# What the environment says to the linker, gathered once. Sourced by the wrappers of compiler and linker.
# shellcheck shell=bash disable=SC2034,SC2154
flags_set=NIX_BINTOOLS_WRAPPER_FLAGS_SET_$salt
if [[ -z ${!flags_set-} ]]; then
    roles=()
    find_roles BINTOOLS
    gather ' ' NIX_LDFLAGS NIX_LDFLAGS_BEFORE NIX_LDFLAGS_AFTER NIX_LDFLAGS_HARDEN NIX_HARDENING_ENABLE \
        NIX_IGNORE_LD_THROUGH_GCC
    gather_switches NIX_SET_BUILD_ID NIX_DONT_SET_RPATH
    gather_one NIX_DYNAMIC_LINKER
    bintools=@out@/nix-support
    if [[ -e $bintools/libc-ldflags ]]; then
        set_salted NIX_LDFLAGS "$(salted NIX_LDFLAGS) $(<"$bintools/libc-ldflags")"
    fi
    if [[ -e $bintools/libc-ldflags-before ]]; then
        set_salted NIX_LDFLAGS_BEFORE "$(<"$bintools/libc-ldflags-before") $(salted NIX_LDFLAGS_BEFORE)"
    fi
    if [[ -z $(salted NIX_DYNAMIC_LINKER) && -e $bintools/dynamic-linker ]]; then
        set_salted NIX_DYNAMIC_LINKER "$(<"$bintools/dynamic-linker")"
    fi
    export "$flags_set=1"
fi
