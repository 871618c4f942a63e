# A C compiler as nixpkgs has it, with stand-ins for its wrappers: a compiler and a linker that know no C library, and
# two C libraries, which differ in their paths and in one header. `cc` is the folder of test/fetch-cc.
{ stdenv, cc }:
let
  parts = builtins.storePath cc;

  # What ends the names of the variables that are for this platform's wrappers.
  salt = builtins.replaceStrings [ "-" ] [ "_" ] "${cpu}-unknown-linux-gnu";
  cpu = builtins.head (builtins.match "(.*)-linux" builtins.currentSystem);

  hardening = "bindnow format fortify fortify3 pic relro stackprotector strictoverflow zerocallusedregs";

  install =
    name: attrs: script:
    stdenv.mkDerivation (
      {
        inherit name parts salt;
        phases = [ "installPhase" ];
        installPhase = script;
      }
      // attrs
    );

  # Everywhere in the C library's own linker scripts are the paths that it had in Debian.
  libcOf =
    number:
    install "glibc-${number}" { inherit number; } ''
      mkdir $out
      cp -r $parts/libc/lib $parts/libc/include $out/
      chmod -R u+w $out
      for each in $out/lib/libc.so $out/lib/libm.so $out/lib/libm.a; do
        if [[ -e $each ]] && head -c 20 $each | grep -q 'GNU ld'; then
          sed -i "s, /[^ ]*/\([^/ ]*\), $out/lib/\1,g" $each
        fi
      done
      echo "#define GLIBC_PACKAGE $number" >$out/include/glibc-package.h
    '';
  libc1 = libcOf "1";
  libc2 = libcOf "2";

  unwrapped = install "gcc" { libc = libc1; } ''
    mkdir $out
    cp -r $parts/tools/. $out/
    chmod -R u+w $out
    loader=$(echo $libc/lib/ld-linux-*)
    patch() {
      $loader --library-path $parts/tools/lib:$libc/lib $parts/tools/bin/patchelf "$@"
    }
    for each in $out/bin/* $out/lib/gcc/*/*/{cc1,cc1plus,collect2,lto-wrapper}; do
      patch --set-interpreter $loader --force-rpath --set-rpath $out/lib:$libc/lib $each
    done
    # What programs are linked with, too, finds the C library.
    patch --set-rpath $out/lib:$libc/lib $out/lib/libstdc++.so.6 $out/lib/libgcc_s.so.1
    # Programs take these from the C library's package, not from here.
    rm $out/lib/lib{c,m,mvec,dl,rt,pthread,resolv}.so.*
    rm $out/bin/patchelf
    # Where a program can find it when it runs, and not a second time beside the compiler.
    rm $out/lib/gcc/*/*/libstdc++.so
    ln -s libstdc++.so.6 $out/lib/libstdc++.so
  '';

  # Puts a script and the files beside it in their places.
  wrap = ''
    wrap() {
      local from=$1 to=$2 mode=$3 program=''${4-} text
      text=$(<"$from")
      text=''${text//@out@/$out}
      text=''${text//@bintools@/''${bintools-}}
      text=''${text//@program@/$program}
      text=''${text//@salt@/$salt}
      text=''${text//@hardening@/$hardening}
      if [[ $mode == 755 ]]; then
        printf '#!%s\n' $tools/bin/bash >"$to"
      fi
      printf '%s\n' "$text" >>"$to"
      chmod "$mode" "$to"
    }
    mkdir -p $out/bin $out/nix-support
    wrap ${./wrappers/common.sh} $out/nix-support/common.sh 644
    wrap ${./wrappers/role.sh} $out/nix-support/setup-hook 644
  '';

  bintoolsOf =
    {
      libc,
      dynamicLinker ? null,
      ldflags ? "",
    }:
    install "bintools-wrapper"
      {
        inherit
          libc
          dynamicLinker
          ldflags
          hardening
          unwrapped
          ;
      }
      ''
        ${wrap}
        wrap ${./wrappers/add-flags.sh} $out/nix-support/add-flags.sh 644
        wrap ${./wrappers/ld.sh} $out/bin/ld 755 $unwrapped/bin/ld
        wrap ${./wrappers/bintools-hook.sh} $out/nix-support/setup-hook 644
        for each in as ar nm ranlib strip objcopy objdump readelf; do
          ln -s $unwrapped/bin/$each $out/bin/
        done
        echo "-L$libc/lib $ldflags" >$out/nix-support/libc-ldflags
        loader=($libc/lib/ld-linux-*)
        echo "''${dynamicLinker:-''${loader[0]}}" >$out/nix-support/dynamic-linker
        echo $libc >$out/nix-support/orig-libc
      '';

  ccOf =
    {
      libc,
      bintools ? bintoolsOf { inherit libc; },
      cflags ? "",
      cflagsBefore ? "",
      ldflags ? "",
    }:
    install "gcc-wrapper"
      {
        inherit
          libc
          bintools
          cflags
          cflagsBefore
          ldflags
          hardening
          unwrapped
          ;
      }
      ''
        ${wrap}
        for each in gcc g++ cpp; do
          wrap ${./wrappers/cc.sh} $out/bin/$each 755 $unwrapped/bin/$each
        done
        ln -s gcc $out/bin/cc
        ln -s g++ $out/bin/c++
        ln -s $bintools/bin/* $out/bin/
        wrap ${./wrappers/cc-hook.sh} $out/nix-support/setup-hook 644
        wrap ${./wrappers/stdenv-hook.sh} $out/nix-support/setup-hook 644
        own=($unwrapped/lib/gcc/*/*)
        # Debian's compiler would look below /usr too.
        echo "-nostdinc -isystem $own/include -B$unwrapped/lib $cflags" >$out/nix-support/cc-cflags
        echo "$cflagsBefore" >$out/nix-support/cc-cflags-before
        echo "-L$unwrapped/lib $ldflags" >$out/nix-support/cc-ldflags
        echo "-B$libc/lib/" >$out/nix-support/libc-crt1-cflags
        echo "-idirafter $libc/include" >$out/nix-support/libc-cflags
        cxx=($unwrapped/cxx/*)
        echo "-isystem $cxx -isystem $cxx/backward" >$out/nix-support/libcxx-cxxflags
        ln -s $bintools/nix-support/dynamic-linker $out/nix-support/
        echo $libc >$out/nix-support/orig-libc
        echo $unwrapped >$out/nix-support/orig-cc
        echo $bintools >$out/nix-support/propagated-build-inputs
      '';
in
{
  inherit
    libc1
    libc2
    bintoolsOf
    ccOf
    hardening
    salt
    ;
  gcc = unwrapped;
  cc1 = ccOf { libc = libc1; };
  cc2 = ccOf { libc = libc2; };
  pkgConfig = install "pkg-config-wrapper" { inherit unwrapped hardening; } ''
    ${wrap}
    wrap ${./wrappers/pkg-config.sh} $out/bin/pkg-config 755 $unwrapped/bin/pkgconf
    wrap ${./wrappers/pkg-config-hook.sh} $out/nix-support/setup-hook 644
  '';
}
