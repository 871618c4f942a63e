{
  description = "Go's build cache and module cache inside sandboxed Nix builds";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem =
        make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      overlays.default = import ./overlay.nix;

      # Importing this turns it on (module.nix alone does not), with the package as this flake builds it: the system's own
      # nixpkgs may be too old for that.
      nixosModules.default =
        { lib, pkgs, ... }:
        {
          imports = [ ./module.nix ];
          services.nix-gocacheprog = {
            enable = lib.mkDefault true;
            package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          };
        };

      packages = forEachSystem (pkgs: rec {
        nix-gocacheprog = import ./. { inherit pkgs; };
        default = nix-gocacheprog;
      });

      checks = forEachSystem (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        nixos = import ./test/nixos.nix { inherit pkgs; };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt-rfc-style);

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo
            pkgs.clippy
            pkgs.rustc
            pkgs.rustfmt
            pkgs.shellcheck
          ];
        };
      });
    };
}
