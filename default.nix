# The package: one static binary, since it is mounted into sandboxes without anything it could be linked to.
{
  pkgs ? import <nixpkgs> { },
}:
let
  inherit (pkgs) lib;

  # What the build reads, and no more: a change of anything else rebuilds nothing.
  isSource =
    path: type:
    let
      name = lib.removePrefix "${toString ./.}/" (toString path);
      inside = dir: name == dir || lib.hasPrefix "${dir}/" name;
    in
    builtins.elem name [
      "Cargo.lock"
      "Cargo.toml"
      "const.nix"
    ]
    || inside "src"
    || inside "systemd"
    # The manifest names them, and unit tests read the data.
    || name == "test"
    || inside "test/data"
    || (inside "test" && (type == "directory" || lib.hasSuffix ".rs" name) && !inside "test/nix");
in
pkgs.pkgsStatic.rustPlatform.buildRustPackage {
  pname = "nix-gocacheprog";
  inherit ((builtins.fromTOML (builtins.readFile ./Cargo.toml)).package) version;
  src = builtins.path {
    name = "nix-gocacheprog-source";
    path = ./.;
    filter = isSource;
  };
  cargoLock.lockFile = ./Cargo.lock;

  # The tests on the real binary want a Go toolchain and a Nix of their own: `test/run` has them.
  cargoTestFlags = [ "--bins" ];

  postInstall = ''
    # Nix gives its pre-build-hook no arguments of ours: the name says which subcommand it is.
    mkdir -p $out/libexec/nix-gocacheprog
    ln -s ../../bin/nix-gocacheprog $out/libexec/nix-gocacheprog/hook

    for unit in systemd/*.service systemd/*.socket; do
      install -Dm444 -t $out/lib/systemd/system "$unit"
    done
    sed -i "s|/usr/local/bin|$out/bin|" $out/lib/systemd/system/nix-gocacheprog.service
    install -Dm444 systemd/sysusers.conf $out/lib/sysusers.d/nix-gocacheprog.conf
    install -Dm444 systemd/tmpfiles.conf $out/lib/tmpfiles.d/nix-gocacheprog.conf
  '';

  meta = {
    description = "Go's build cache and module cache inside sandboxed Nix builds";
    license = lib.licenses.bsd3;
    platforms = lib.platforms.linux;
    mainProgram = "nix-gocacheprog";
  };
}
