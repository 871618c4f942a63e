# A Go program of one small package.
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
  inherit step doCheck;
  src = ./hello;
  vendorHash = null;
}
