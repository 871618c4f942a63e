# A Go program of one small package. `step` makes each build a derivation of its own, of which its tests cannot tell.
{
  step,
  withHook ? true,
  doCheck ? withHook,
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
  pname = "hello";
  version = "1";
  inherit doCheck;
  postInstall = ": ${step}";
  src = ./hello;
  vendorHash = null;
}
