# What the stand-ins for nixpkgs' wrappers share. A variable such as NIX_LDFLAGS is meant for one of three platforms: as
# it is for the one that the program will run on, with _FOR_BUILD or _FOR_TARGET for the others. A wrapper is for one
# platform, whose name is its salt, and the setup hook has noted in which roles the build uses it. With the salt as
# its ending a variable is for this wrapper alone.
# shellcheck shell=bash

salt=@salt@
declare -a roles=()

# find_roles KIND: the endings that count for this wrapper, into $roles.
find_roles() {
    local role noted
    for role in BUILD:_FOR_BUILD HOST: TARGET:_FOR_TARGET; do
        noted=NIX_$1_WRAPPER_TARGET_${role%%:*}_$salt
        if [[ -n ${!noted-} ]]; then
            roles+=("${role#*:}")
        fi
    done
}

# gather SEPARATOR NAME...: adds to each variable with the salt what the variables with the roles hold.
gather() {
    local separator=$1 name role from into all
    shift
    for name; do
        into=${name}_$salt
        all=${!into-}
        for role in ${roles[@]+"${roles[@]}"}; do
            from=$name$role
            if [[ -n ${!from-} ]]; then
                all+=${all:+$separator}${!from}
            fi
        done
        export "$into=$all"
    done
}

# gather_switches NAME...: a switch is on when it is on in one of the roles.
gather_switches() {
    local name role from into on
    for name; do
        into=${name}_$salt
        on=${!into:-0}
        for role in ${roles[@]+"${roles[@]}"}; do
            from=$name$role
            if [[ ${!from:-0} != 0 ]]; then
                on=1
            fi
        done
        export "$into=$on"
    done
}

# gather_one NAME: one value, of the first role that has one.
gather_one() {
    local role from into=$1_$salt
    for role in ${roles[@]+"${roles[@]}"}; do
        from=$1$role
        if [[ -z ${!into-} && -n ${!from-} ]]; then
            export "$into=${!from}"
        fi
    done
}

# salted NAME: what the variable holds for this wrapper.
salted() {
    local name=$1_$salt
    printf '%s' "${!name-}"
}

# set_salted NAME VALUE
set_salted() {
    export "$1_$salt=$2"
}

# flags_in FILE: what a file of the wrapper's own says, nothing without it.
flags_in() {
    if [[ -e @out@/nix-support/$1 ]]; then
        printf '%s' "$(<"@out@/nix-support/$1")"
    fi
}

# Whether a path is one that a build must not take anything from.
is_impure() {
    [[ $1 == /* && $1 != /dev/null && $1 != "${NIX_STORE:-/nix/store}"/* && $1 != /tmp/* ]] &&
        [[ $1 != "${NIX_BUILD_TOP:-/build}"/* && $1 != "${TMPDIR:-/tmp}"/* ]]
}

# is_hardened FLAG
is_hardened() {
    local name=NIX_HARDENING_ENABLE_$salt
    [[ " ${!name-} " == *" $1 "* ]]
}
