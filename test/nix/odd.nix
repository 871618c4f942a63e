# Derivations in which the pre-build-hook has to find the setup hook, or to see that it is not there. Each checks what
# its sandbox has.
{
  tools,
  contentAddressed ? false,
  # Another pre-build-hook goes first, and mounts this.
  chained ? "",
}:
let
  packages = import ./. {
    inherit tools;
    # Not used here.
    go = tools;
    cacert = tools;
    overlays = [
      (import ../../overlay.nix)
      (_: prev: if contentAddressed then { nixGocacheprogHook = floating prev.nixGocacheprogHook; } else { })
    ];
  };
  inherit (packages) stdenv;
  hook = packages.nixGocacheprogHook;
  floating =
    drv:
    drv.overrideAttrs (_: {
      __contentAddressed = true;
      outputHashMode = "recursive";
      outputHashAlgo = "sha256";
    });

  check =
    wanted: name: attrs:
    stdenv.runCommand name attrs ''
      ids=(/gocache/????????????????????????????????)
      ${
        if wanted then
          "[[ -S /gocache/run/build/sock && -x /gocache/client && \${#ids[@]} == 1 ]]"
        else
          "[[ ! -e /gocache ]]"
      }
      ${if chained == "" then "" else "[[ -d ${chained} ]]"}
      echo done >$out
    '';
  has = check true;

  all = {
    native = has "native" { nativeBuildInputs = [ hook ]; };
    depsBuildBuild = has "depsBuildBuild" { depsBuildBuild = [ hook ]; };
    buildInputs = has "buildInputs" { buildInputs = [ hook ]; };
    structured = has "structured" {
      nativeBuildInputs = [ hook ];
      __structuredAttrs = true;
    };
    platform = has "platform" {
      nativeBuildInputs = [
        (hook.overrideAttrs (old: {
          name = "${old.name}-aarch64-unknown-linux-gnu";
        }))
      ];
    };
    without = check false "without" { };
  };
in
if contentAddressed then
  {
    resolved = all.native;
    itself = floating all.native;
    structured = floating all.structured;
  }
else
  all
