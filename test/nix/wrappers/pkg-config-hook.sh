# shellcheck shell=bash disable=SC2154
[[ -z ${strictDeps-} ]] || ((hostOffset < 0)) || return 0

pkgConfigWrapperAddPath() {
    local role note
    role_of "$depHostOffset"
    addToSearchPath "PKG_CONFIG_PATH$role" "$1/lib/pkgconfig"
    addToSearchPath "PKG_CONFIG_PATH$role" "$1/share/pkgconfig"
}
addEnvHooks "$targetOffset" pkgConfigWrapperAddPath

role_of "$targetOffset"
export "NIX_PKG_CONFIG_WRAPPER_TARGET_${note}_@salt@=1"
export "PKG_CONFIG$role=pkg-config"
unset role note
