# The setup hook in every kind of Go builder: stand-ins of their shapes, with a `go` that fails unless it is told to
# use the client, or what a derivation says in `expected`. Each has to build.
{ tools, ... }:
let
  overlay = import ../../overlay.nix;
  packages = import ./. {
    inherit tools;
    # Not used here.
    go = tools;
    cacert = tools;
    overlays = [
      (_: _: {
        inherit go;
        cacert = go;
      })
      overlay
    ];
  };
  stdenv = packages.stdenv;
  hook = packages.nixGocacheprogHook;

  go = stdenv.mkDerivation {
    name = "go";
    phases = [ "installPhase" ];
    installPhase = ''
      mkdir -p $out/bin
      cat >$out/bin/go <<'END'
      #!/bin/sh
      echo "go $* with GOCACHEPROG=''${GOCACHEPROG-}" >&2
      [ "''${GOCACHEPROG-}" = "''${expected-/gocache/client}" ] || exit 1
      # As the real one does before it looks at GOCACHEPROG.
      if [ -z "''${GOCACHE-}" ] && ! mkdir -p "$HOME/.cache"; then
        echo "build cache is required, but could not be located" >&2
        exit 1
      fi
      case $* in
      *vendor*) mkdir vendor && echo module >vendor/modules.txt ;;
      *download*) mkdir -p "$GOPATH/pkg/mod/cache/download" && echo module >"$GOPATH/pkg/mod/cache/download/list" ;;
      esac
      END
      chmod +x $out/bin/go
    '';
  };
  inputs = [
    go
    hook
  ];
  module = {
    pname = "hello";
    version = "1";
    src = ./hello;
    # Of the one file that the stand-in for `go mod vendor` makes.
    vendorHash = "sha256-eAX7rlL0v3ovjMg+9iLp43Ek3vqIPyJrETu53wNeI0k=";
  };
  plain = {
    name = "hello";
    src = ./hello;
    nativeBuildInputs = inputs;
    installPhase = "echo done >$out";
  };
in
{
  module = packages.buildGoModule module;
  moduleWithoutDependencies = packages.buildGoModule (module // { vendorHash = null; });
  moduleOfAFunction = packages.buildGoModule (
    final: module // { vendorHash = if final.pname == "hello" then null else "lost"; }
  );
  moduleStructured = packages.buildGoModule (module // { __structuredAttrs = true; });
  moduleWithOwnConfigure = packages.buildGoModule (
    module
    // {
      vendorHash = null;
      configurePhase = "export GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go";
    }
  );
  moduleWithoutConfigure = packages.buildGoModule (
    module
    // {
      vendorHash = null;
      dontConfigure = true;
      preBuild = "export GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go";
    }
  );
  # overrideModAttrs, and what proxyVendor makes of the modules.
  moduleWithOtherModules = packages.buildGoModule (
    module
    // {
      modAttrs = {
        buildPhase = ''
          runHook preBuild
          go mod download
          cp -r $GOPATH/pkg/mod/cache/download vendor
          mv vendor/list vendor/modules.txt
          runHook postBuild
        '';
      };
    }
  );

  # gomod2nix: phases of its own that run the hooks; its modules come from derivations without the setup hook.
  gomod2nix = stdenv.mkDerivation (
    plain
    // {
      configurePhase = ''
        runHook preConfigure
        export GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go GOSUMDB=off GOPROXY=off
        runHook postConfigure
      '';
      buildPhase = ''
        runHook preBuild
        go install -v -p $NIX_BUILD_CORES .
        runHook postBuild
      '';
    }
  );

  # gobuild.nix: a setup hook of its own, which adds a phase that exports another GOCACHEPROG.
  gobuild = stdenv.mkDerivation (
    plain
    // {
      nativeBuildInputs = inputs ++ [
        (packages.makeSetupHook { name = "configure-go-cache"; } (
          builtins.toFile "configure-go-cache.sh" ''
            goConfigureCache() {
                export GOCACHEPROG=/its/own
            }
            preConfigurePhases+=" goConfigureCache"
          ''
        ))
      ];
      expected = "/its/own";
      buildPhase = "go build .";
    }
  );

  # buildGoPackage, of nixpkgs until 24.11: GOPATH, no modules, and GOPROXY unset.
  buildGoPackage = stdenv.mkDerivation (
    plain
    // {
      GO111MODULE = "off";
      configurePhase = ''
        runHook preConfigure
        mkdir -p go/src/example.com
        export GOPATH=$PWD/go GOCACHE=$TMPDIR/go-cache
        runHook postConfigure
      '';
      buildPhase = ''
        runHook preBuild
        go install example.com/hello
        runHook postBuild
      '';
    }
  );

  derivation = stdenv.mkDerivation (plain // { buildPhase = "go build ."; });
  derivationWithHooks = stdenv.mkDerivation (plain // { preBuild = "go generate ."; });
  derivationWithoutConfigure = stdenv.mkDerivation (
    plain
    // {
      dontConfigure = true;
      buildPhase = "go build .";
    }
  );
  derivationWithOwnPhases = stdenv.mkDerivation (
    plain
    // {
      configurePhase = "true";
      buildPhase = "go build .";
      preBuildPhases = "earlier";
      earlier = "echo earlier";
    }
  );
  derivationStructured = stdenv.mkDerivation (
    plain
    // {
      __structuredAttrs = true;
      dontConfigure = true;
      preBuildPhases = [ "true" ];
      buildPhase = "go build .";
    }
  );
  # As buildGoModule passes them up to nixpkgs 24.11.
  derivationWithListOfFlags = stdenv.mkDerivation (
    plain
    // {
      __structuredAttrs = true;
      GOFLAGS = [
        "-mod=vendor"
        "-trimpath"
      ];
      buildPhase = ''
        [[ ''${#GOFLAGS[@]} == 2 && ''${GOFLAGS[0]} == -mod=vendor ]]
        go build .
      '';
    }
  );
  hookInDepsBuildBuild = stdenv.mkDerivation (
    plain
    // {
      nativeBuildInputs = [ go ];
      depsBuildBuild = [ hook ];
      buildPhase = "go build .";
    }
  );
  hookInBuildInputs = stdenv.mkDerivation (
    plain
    // {
      nativeBuildInputs = [ go ];
      buildInputs = [ hook ];
      buildPhase = "go build .";
    }
  );

  runCommand = stdenv.runCommand "hello" { nativeBuildInputs = inputs; } "go build . && echo done >$out";
  runCommandStructured = stdenv.runCommand "hello" {
    nativeBuildInputs = inputs;
    __structuredAttrs = true;
  } "go build . && echo done >$out";

  # The first `go` of any phase has the cache.
  goInPostPatch = stdenv.mkDerivation (
    plain
    // {
      postPatch = "go generate .";
      buildPhase = "go build .";
    }
  );
  goInPostUnpack = stdenv.mkDerivation (plain // { postUnpack = "go version"; });
  goInInstallPhase = stdenv.mkDerivation (
    plain
    // {
      phases = [ "installPhase" ];
      installPhase = "go build . && echo done >$out";
    }
  );
  goInInstallCheckPhase = stdenv.mkDerivation (
    plain
    // {
      dontConfigure = true;
      dontBuild = true;
      doInstallCheck = true;
      installCheckPhase = "go test .";
    }
  );
  goInPrePhases = stdenv.mkDerivation (
    plain
    // {
      prePhases = "earliest";
      earliest = "go version";
    }
  );
  flagsAreUnset = stdenv.mkDerivation (
    plain
    // {
      preBuild = "unset GOFLAGS GODEBUG; go build .";
      postBuild = ''[[ -z ''${GOFLAGS-}''${GODEBUG-} ]]'';
    }
  );
  homeOfItsOwn = stdenv.mkDerivation (
    plain
    // {
      preConfigure = "export HOME=$TMPDIR GOWORK=off";
      buildPhase = "go build .";
    }
  );

  ownGocacheprog = stdenv.mkDerivation (
    plain
    // {
      GOCACHEPROG = "/mine";
      HOME = "/build";
      expected = "/mine";
      buildPhase = "go build .";
    }
  );
  turnedOff = stdenv.mkDerivation (
    plain
    // {
      NIX_GOCACHEPROG = "off";
      HOME = "/build";
      expected = "";
      buildPhase = "go build .";
    }
  );
  unknownMode = stdenv.mkDerivation (
    plain
    // {
      NIX_GOCACHEPROG = "read-only";
      HOME = "/build";
      expected = "";
      buildPhase = "go build .";
    }
  );
  withoutClient = stdenv.mkDerivation (
    plain
    // {
      NIX_GOCACHEPROG_CLIENT = "/nowhere";
      HOME = "/build";
      expected = "";
      buildPhase = "go build .";
    }
  );
}
