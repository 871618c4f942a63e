# The package: one static binary, since it is mounted into sandboxes without anything it could be linked to.
{
  pkgs ? import <nixpkgs> { },
}:
let
  inherit (pkgs) lib;
  inherit (pkgs.pkgsStatic) stdenv;
  manifest = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).package;

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
assert lib.assertMsg (lib.versionAtLeast pkgs.rustc.version manifest.rust-version) ''
  nix-gocacheprog needs Rust ${manifest.rust-version}, and this nixpkgs has ${pkgs.rustc.version}: give it a newer one, as in
  services.nix-gocacheprog.package = import ./nix-gocacheprog { pkgs = import <newer-nixpkgs> { }; }'';
pkgs.pkgsStatic.rustPlatform.buildRustPackage {
  pname = "nix-gocacheprog";
  inherit (manifest) version;
  src = builtins.path {
    name = "nix-gocacheprog-source";
    path = ./.;
    filter = isSource;
  };
  cargoLock.lockFile = ./Cargo.lock;

  # The unit tests. The others want Go toolchains and a Nix of their own: `test/run` has them.
  doCheck = true;
  cargoTestFlags = [ "--lib" ];

  postInstall = ''
    # Nix gives its pre-build-hook no arguments of ours: the name says which subcommand it is.
    mkdir -p $out/libexec/nix-gocacheprog
    ln -s ../../bin/nix-gocacheprog $out/libexec/nix-gocacheprog/hook

    for unit in systemd/*.service systemd/*.socket; do
      install -Dm444 -t $out/lib/systemd/system "$unit"
    done
    substituteInPlace $out/lib/systemd/system/nix-gocacheprog.service --replace-fail /usr/local/bin $out/bin
    install -Dm444 systemd/sysusers.conf $out/lib/sysusers.d/nix-gocacheprog.conf
    install -Dm444 systemd/tmpfiles.conf $out/lib/tmpfiles.d/nix-gocacheprog.conf
  ''
  # For another machine's processor there is nothing that could say them.
  + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    mkdir -p $out/share/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    ngc=$out/bin/nix-gocacheprog
    $ngc man >$out/share/man/man1/nix-gocacheprog.1
    $ngc completions bash >$out/share/bash-completion/completions/nix-gocacheprog
    $ngc completions zsh >$out/share/zsh/site-functions/_nix-gocacheprog
    $ngc completions fish >$out/share/fish/vendor_completions.d/nix-gocacheprog.fish
  '';

  meta = {
    description = "Go's build cache and module cache inside sandboxed Nix builds";
    license = lib.licenses.bsd3;
    platforms = lib.platforms.linux;
    mainProgram = "nix-gocacheprog";
  };
}
