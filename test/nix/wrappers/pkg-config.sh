# A stand-in for nixpkgs' pkg-config-wrapper: the folders of the roles in which the build has it.
# shellcheck shell=bash disable=SC1091,SC2154
set -euo pipefail
. @out@/nix-support/common.sh
find_roles PKG_CONFIG
if ((${#roles[@]} > 0)); then
    gather : PKG_CONFIG_PATH
    PKG_CONFIG_PATH=$(salted PKG_CONFIG_PATH)
    export PKG_CONFIG_PATH
fi
exec @program@ "$@"
