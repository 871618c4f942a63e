# shellcheck shell=bash disable=SC2154
[[ -z ${strictDeps-} ]] || ((hostOffset < 0)) || return 0

bintoolsWrapperAddLibraries() {
    local role note dir name
    local -a libraries
    role_of "$depHostOffset"
    for dir in lib64 lib; do
        libraries=("$1/$dir"/lib*)
        if [[ -d $1/$dir && ! -L $1/$dir && ${#libraries[@]} -gt 0 ]]; then
            name=NIX_LDFLAGS$role
            export "$name=${!name-} -L$1/$dir"
        fi
    done
}
addEnvHooks "$targetOffset" bintoolsWrapperAddLibraries

role_of "$targetOffset"
export "NIX_BINTOOLS_WRAPPER_TARGET_${note}_@salt@=1"
export "NIX_BINTOOLS$role=@out@"
for each in ar as ld nm objcopy objdump readelf ranlib strip; do
    export "${each^^}$role=$each"
done
: "${NIX_HARDENING_ENABLE=@hardening@}"
export NIX_HARDENING_ENABLE
unset role note each
