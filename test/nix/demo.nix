# The program of test/demo. `src` is a store path; `step` makes every build a derivation of its own.
{
  src,
  step,
  withHook ? true,
  vendorHash ? "sha256-Mx6XaWjw0lqgPOTd3vtdXdzyy0iNFc8Um8a7Hb1sbTo=",
  structured ? false,
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
  subPackages = [ "cmd/containerd" ];
  doCheck = false;
  __structuredAttrs = structured;
  env = {
    inherit step;
  };
}
