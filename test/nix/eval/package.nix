# What must be true of default.nix, and what test/nix/eval/install tries out of it.
let
  pkgs = {
    nixfmt-rfc-style = "nixfmt";
    rustc.version = "1.90.0";
    lib = {
      assertMsg = condition: message: condition || throw message;
      versionAtLeast = one: other: builtins.compareVersions one other >= 0;
      hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
      hasSuffix =
        suffix: text:
        let
          length = builtins.stringLength suffix;
        in
        builtins.substring (builtins.stringLength text - length) length text == suffix;
      removePrefix =
        prefix: text: builtins.substring (builtins.stringLength prefix) (builtins.stringLength text) text;
      optionalString = condition: text: if condition then text else "";
      licenses.bsd3 = "BSD-3-Clause";
      platforms.linux = [ "x86_64-linux" ];
    };
    pkgsStatic = {
      rustPlatform.buildRustPackage = attrs: attrs;
      stdenv = {
        buildPlatform.canExecute = host: host == "x86_64-linux";
        hostPlatform = "x86_64-linux";
      };
    };
  };
  package = import ../../../default.nix { inherit pkgs; };
  # A flake is given its inputs; this one looks at packages only when they are asked for.
  flake = (import ../../../flake.nix).outputs {
    self = flake;
    nixpkgs = {
      lib.genAttrs =
        names: make:
        builtins.listToAttrs (
          map (name: {
            inherit name;
            value = make name;
          }) names
        );
      legacyPackages = {
        x86_64-linux = pkgs;
        aarch64-linux = pkgs;
      };
    };
  };
  forEachSystem =
    outputs: names:
    builtins.attrNames outputs == [
      "aarch64-linux"
      "x86_64-linux"
    ]
    && builtins.all (output: builtins.attrNames output == names) (builtins.attrValues outputs);
  files = dir: builtins.attrNames (builtins.readDir "${package.src}/${dir}");
in
{
  inherit (package) src postInstall;
  true = {
    "a nixpkgs with an old Rust is told so" =
      !(builtins.tryEval (import ../../../default.nix { pkgs = pkgs // { rustc.version = "1.82.0"; }; }).pname).success;

    "the version is the manifest's" = builtins.match "[0-9]+\\.[0-9]+\\.[0-9]+" package.version != null;

    "the source is what the build reads" =
      files "." == [
        "Cargo.lock"
        "Cargo.toml"
        "const.nix"
        "src"
        "systemd"
        "test"
      ]
      && builtins.elem "main.rs" (files "src")
      && builtins.elem "main.rs" (files "test");

    "of the tests it is what the manifest names" = !builtins.elem "demo" (files "test") && !builtins.elem "nix" (files "test");

    "the flake has the package, the overlay, the module, the checks and a shell" =
      forEachSystem flake.packages [
        "default"
        "nix-gocacheprog"
      ]
      && forEachSystem flake.checks [
        "nixos"
        "package"
      ]
      && forEachSystem flake.devShells [ "default" ]
      && flake.formatter.x86_64-linux == "nixfmt"
      && builtins.isFunction flake.overlays.default
      && builtins.isFunction flake.nixosModules.default
      && flake.packages.x86_64-linux.default.src == package.src;

    "nothing of another processor's is run" =
      let
        other = pkgs // {
          pkgsStatic = pkgs.pkgsStatic // {
            stdenv = pkgs.pkgsStatic.stdenv // {
              hostPlatform = "aarch64-linux";
            };
          };
        };
        runs = text: builtins.match ".*completions bash.*" (builtins.replaceStrings [ "\n" ] [ " " ] text) != null;
      in
      runs package.postInstall && !runs (import ../../../default.nix { pkgs = other; }).postInstall;

    "the unit tests are run, and need no network" = package.doCheck && package.cargoTestFlags == [ "--lib" ];

    "the flake's module is on when it is imported" =
      (flake.nixosModules.default {
        pkgs = pkgs // {
          stdenv.hostPlatform.system = "x86_64-linux";
        };
        lib = import ./lib.nix;
      }).services.nix-gocacheprog.enable.content;

    "the packages are those of the lock file" = builtins.pathExists package.cargoLock.lockFile;
  };
}
