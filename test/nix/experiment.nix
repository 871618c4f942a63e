# A program built by the Go 1.21 of `old`, as the overlay changes it.
{
  step,
  old,
  ...
}@args:
let
  packages = import ./. {
    inherit (args) tools cacert go;
    overlays = [
      (final: _: {
        # Of the shape of nixpkgs' own, but built already.
        go_1_21 = final.stdenv.mkDerivation {
          name = "go-1.21";
          old = builtins.storePath old;
          phases = [ "installPhase" ];
          installPhase = ''
            runHook preInstall
            mkdir -p $out/share $out/bin
            cp -r $old $out/share/go
            chmod -R u+w $out/share/go
            ln -s $out/share/go/bin/* $out/bin
            runHook postInstall
          '';
        };
      })
      (import ../../overlay.nix)
    ];
  };
in
(packages.buildGoModule.override { go = packages.go_1_21; }) {
  pname = "hello";
  version = "1";
  inherit step;
  src = ./hello;
  vendorHash = null;
  doCheck = false;
  postBuild = "go version; go version -m $GOPATH/bin/hello";
}
