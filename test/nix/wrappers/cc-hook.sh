# shellcheck shell=bash disable=SC2154
[[ -z ${strictDeps-} ]] || ((hostOffset < 0)) || return 0

ccWrapperAddIncludes() {
    local role note
    role_of "$depHostOffset"
    if [[ -d $1/include ]]; then
        local name=NIX_CFLAGS_COMPILE$role
        export "$name=${!name-} -isystem $1/include"
    fi
}
addEnvHooks "$targetOffset" ccWrapperAddIncludes

role_of "$targetOffset"
export "NIX_CC_WRAPPER_TARGET_${note}_@salt@=1"
export "NIX_CC$role=@out@" "CC$role=gcc" "CXX$role=g++"
: "${NIX_HARDENING_ENABLE=@hardening@}"
export NIX_HARDENING_ENABLE
unset role note
