# What nixpkgs' stdenv itself says to compiler and linker, as far as it holds a build's own paths: the program finds its
# own libraries, and names that the compiler makes up are the same each time.
# shellcheck shell=bash disable=SC2154
seed=${out##*/}
export NIX_CFLAGS_COMPILE="${NIX_CFLAGS_COMPILE-} -frandom-seed=${seed:0:10}"
if [[ ${NIX_NO_SELF_RPATH-} != 1 ]]; then
    export NIX_LDFLAGS="-rpath $out/lib${NIX_LDFLAGS:+ $NIX_LDFLAGS}"
fi
export NIX_ENFORCE_NO_NATIVE=${NIX_ENFORCE_NO_NATIVE-1}
export NIX_STORE=${NIX_STORE:-/nix/store}
unset seed
