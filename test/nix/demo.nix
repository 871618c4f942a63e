# The program of test/demo. `src` is a store path; `step` makes every build a derivation of its own, of which the compilers
# cannot tell.
{
  src,
  step,
  withHook ? true,
  vendorHash ? "sha256-Mx6XaWjw0lqgPOTd3vtdXdzyy0iNFc8Um8a7Hb1sbTo=",
  structured ? false,
  # Folders whose tests are run, between blanks, instead of building the program.
  tested ? "",
  # What the build may do with the cache.
  mode ? null,
  ...
}@args:
let
  packages = import ./. (
    {
      inherit (args) tools cacert go;
    }
    // (if withHook then { } else { overlays = [ ]; })
  );
in
packages.buildGoModule {
  pname = "containerd";
  version = "2.4.2";
  src = builtins.storePath src;
  inherit vendorHash;
  subPackages = if tested == "" then [ "cmd/containerd" ] else [ tested ];
  doCheck = tested != "";
  __structuredAttrs = structured;
  postInstall = ": ${step}";
  env = if mode == null then { } else { NIX_GOCACHEPROG = mode; };
}
