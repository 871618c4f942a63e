# The ways to write a Go derivation, each with the check that the client is what `go` uses.
{ step, ... }@args:
let
  packages = import ./. (removeAttrs args [ "step" ]);
  common = {
    version = "1";
    src = ./hello;
    vendorHash = null;
    doCheck = false;
    postBuild = ''
      [[ $GOCACHEPROG == /gocache/client ]]
      [[ ",$GODEBUG," == *,goindex=0,* ]]
    '';
    env = {
      inherit step;
    };
  };
in
[
  (packages.buildGoModule (common // { pname = "attributes"; }))
  (packages.buildGoModule (
    finalAttrs:
    common
    // {
      pname = "function";
      name = "function-${finalAttrs.version}";
    }
  ))
  ((packages.buildGoModule.override { inherit (packages) go; }) (common // { pname = "override"; }))
  ((packages.buildGoLatestModule.override (old: { inherit (old) go; })) (
    finalAttrs: common // { pname = "override-with-function"; }
  ))
  ((packages.buildGoModule (common // { pname = "overridden"; })).overrideAttrs (old: {
    name = "overridden-attributes";
    nativeBuildInputs = old.nativeBuildInputs ++ [ ];
  }))
  (packages.buildGoModule (
    common
    // {
      pname = "structured";
      __structuredAttrs = true;
    }
  ))
  (packages.buildGoModule (
    common
    // {
      pname = "own-configure-phase";
      configurePhase = "export GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go";
    }
  ))
  (packages.buildGoModule (
    common
    // {
      pname = "no-configure-phase";
      dontConfigure = true;
      preBuild = "export GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go";
    }
  ))
  (packages.buildGoModule (
    common
    // {
      pname = "hook-twice";
      buildInputs = [ packages.nixGocacheprogHook ];
      depsBuildBuild = [ packages.nixGocacheprogHook ];
      preConfigure = ''. ${packages.nixGocacheprogHook}/nix-support/setup-hook'';
      postBuild = common.postBuild + ''
        [[ $GODEBUG == goindex=0 ]]
      '';
    }
  ))
  (packages.buildGoModule (
    common
    // {
      pname = "own-godebug";
      env = common.env // {
        GODEBUG = "madvdontneed=1";
      };
      postBuild = common.postBuild + ''
        [[ $GODEBUG == madvdontneed=1,* ]]
      '';
    }
  ))
  (packages.buildGoModule (
    common
    // {
      pname = "own-gocacheprog";
      env = common.env // {
        GOCACHEPROG = "/gocache/../gocache/client";
      };
      postBuild = ''
        [[ $GOCACHEPROG == "/gocache/../gocache/client" ]]
      '';
    }
  ))
  (packages.buildGoModule (
    common
    // {
      pname = "off";
      env = common.env // {
        NIX_GOCACHEPROG = "off";
      };
      postBuild = ''
        [[ -z ''${GOCACHEPROG-} ]]
      '';
    }
  ))
]
