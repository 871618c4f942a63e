# Where a build starts. Structured attributes come as a file of shell variables; NIX_ATTRS_SH_FILE
# names it by a path of the host on old Nix, so it is found by where it is.
# shellcheck shell=bash disable=SC1090,SC1091,SC2154
if [[ -e .attrs.sh ]]; then
    . ./.attrs.sh
fi
. "$setup"
genericBuild
