# A small stand-in for nixpkgs' stdenv: mkDerivation and makeSetupHook of the same shape, on a static
# bash and busybox.
{ tools }:
let
  setup = ./setup.sh;

  # Strings, as nixpkgs passes them, unless the derivation asks for structured attributes.
  toDerivation =
    attrs:
    let
      args = removeAttrs attrs [
        "meta"
        "passthru"
        "env"
      ];
      environment = attrs.env or { };
    in
    derivation (
      {
        system = builtins.currentSystem;
        builder = "${tools}/bin/bash";
        args = [
          "-e"
          ./builder.sh
        ];
        inherit setup tools;
        outputs = [ "out" ];
        name = "${attrs.pname}-${attrs.version}";
      }
      // args
      // (if attrs.__structuredAttrs or false then { env = environment; } else environment)
    );

  # Takes attributes, or a function of the final attributes, so that overrideAttrs is seen by it.
  mkDerivation =
    attrsOrFunction:
    let
      function = if builtins.isFunction attrsOrFunction then attrsOrFunction else _: attrsOrFunction;
      final = function (final // { finalPackage = package; });
      drv = toDerivation final;
      package =
        drv
        // {
          overrideAttrs =
            change:
            mkDerivation (
              finalAttrs:
              let
                previous = function finalAttrs;
              in
              previous // (if builtins.isFunction change then change previous else change)
            );
          passthru = final.passthru or { };
          meta = final.meta or { };
        }
        // (final.passthru or { });
    in
    package;
in
{
  inherit mkDerivation;

  runCommand =
    name: attrs: buildCommand:
    mkDerivation (attrs // { inherit name buildCommand; });

  # Only what works in every release of nixpkgs: a name and substitutions.
  makeSetupHook =
    {
      name,
      substitutions ? { },
    }:
    script:
    mkDerivation {
      inherit name script;
      phases = [ "installPhase" ];
      from = map (key: "@${key}@") (builtins.attrNames substitutions);
      to = builtins.attrValues substitutions;
      __structuredAttrs = true;
      installPhase = ''
        mkdir -p $out/nix-support
        text=$(<"$script")
        for i in "''${!from[@]}"; do
          text=''${text//"''${from[i]}"/''${to[i]}}
        done
        printf '%s\n' "$text" >$out/nix-support/setup-hook
      '';
    };
}
