# A stand-in for nixpkgs as overlay.nix sees it: names, builders of each shape that nixpkgs has had, `override`,
# package sets for another platform. `builder` is one of:
#
#   attributes   nixpkgs up to 24.11: `buildGoModule { ... }`, whose result is a plain derivation
#   finalAttrs   from 25.05 on (lib.extendMkDerivation): takes attributes or a function of the final ones, and
#                is itself a set with a functor
#   lambda       called without callPackage: a function and nothing else
{
  builder,
  overlay ? import ../../../overlay.nix,
  # Names on top: what a nixpkgs of another year has.
  more ? _: _: { },
}:
let
  isFunction = value: builtins.isFunction value || value ? __functor;
  fix =
    f:
    let
      x = f x;
    in
    x;

  # lib.makeOverridable, of a function whose result is a derivation or a builder.
  makeOverridable =
    function: inputs:
    let
      result = function inputs;
    in
    (
      if builtins.isFunction result then
        {
          __functor = _: result;
          __functionArgs = builtins.functionArgs result;
        }
      else
        result
    )
    // {
      override = {
        __functor =
          _: change:
          makeOverridable function (inputs // (if isFunction change then change inputs else change));
        __functionArgs = builtins.functionArgs function;
      };
    };

  # stdenv.mkDerivation, with the names that it gives to what is built for another platform.
  mkDerivation =
    platforms: attrsOrFunction:
    let
      function = if isFunction attrsOrFunction then attrsOrFunction else _: attrsOrFunction;
      attrs = function (attrs // { finalPackage = package; });
      env = attrs.env or { };
      clash = builtins.intersectAttrs env attrs;
      suffix = if platforms.build == platforms.host then "" else "-${platforms.host}-unknown-linux-gnu";
      package =
        derivation (
          removeAttrs attrs [
            "env"
            "passthru"
          ]
          // (
            if clash != { } then throw "env has ${toString (builtins.attrNames clash)}, as the derivation has" else env
          )
          // {
            name = (attrs.name or "${attrs.pname}-${attrs.version}") + suffix;
            system = "${platforms.build}-linux";
            builder = "/bin/sh";
          }
        )
        // {
          passthru = attrs.passthru or { };
          overrideAttrs =
            change:
            mkDerivation platforms (
              final:
              let
                old = function final;
              in
              old // (if isFunction change then change old else change)
            );
        }
        // attrs.passthru or { };
    in
    package;

  modules =
    { go, mkDerivation }:
    attrs:
    mkDerivation {
      name = "${attrs.pname}-modules";
      nativeBuildInputs = [ go ] ++ attrs.nativeBuildInputs or [ ];
      outputHash = attrs.vendorHash;
    };

  builders = rec {
    attributes =
      { go, mkDerivation }@inputs:
      { vendorHash, ... }@args:
      mkDerivation (
        args
        // {
          nativeBuildInputs = [ go ] ++ args.nativeBuildInputs or [ ];
          passthru = {
            inherit go;
            goModules = modules inputs args;
          }
          // args.passthru or { };
        }
      );

    lambda = attributes;

    finalAttrs =
      { go, mkDerivation }@inputs:
      let
        extend =
          final:
          {
            vendorHash ? null,
            ...
          }@args:
          {
            nativeBuildInputs = [ go ] ++ args.nativeBuildInputs or [ ];
            passthru = {
              inherit go;
              goModules = modules inputs final;
            }
            // args.passthru or { };
          };
      in
      {
        __functor =
          _: attrsOrFunction:
          mkDerivation (
            final:
            let
              args = if isFunction attrsOrFunction then attrsOrFunction final else attrsOrFunction;
            in
            args // extend final args
          );
        __functionArgs = builtins.functionArgs (extend { });
        constructDrv = mkDerivation;
      };
  };

  packages =
    platforms: final:
    let
      mk = mkDerivation platforms;
      buildPackages =
        if platforms.build == platforms.host then
          final
        else
          set {
            inherit (platforms) build;
            host = platforms.build;
          };
      call = if builder == "lambda" then function: function else makeOverridable;
      goFor =
        version:
        mk {
          pname = "go";
          inherit version;
        };
      builderFor =
        go:
        call builders.${builder} {
          inherit go;
          mkDerivation = mk;
        };
    in
    {
      inherit buildPackages mk;
      makeSetupHook =
        { name }:
        script:
        mk {
          inherit name script;
        };

      go_1_21 = throw "go_1_21 was removed";
      go_1_25 = goFor "1.25";
      go_1_26 = goFor "1.26";

      buildGo121Module = throw "buildGo121Module was removed";
      buildGo125Module = builderFor buildPackages.go_1_25;
      buildGo126Module = builderFor buildPackages.go_1_26;
      # Aliases of one another.
      buildGoLatestModule = final.buildGo126Module;
      buildGoModule = final.buildGo126Module;

      # What no project here uses.
      unrelated = abort "the overlay evaluated something that nobody asked for";
      buildGoPackage = abort "the overlay evaluated a builder that is none of its";
      go_1_20 = abort "the overlay evaluated a Go that is none of its";
    }
    // more goFor builderFor;

  set =
    platforms:
    fix (
      final:
      let
        prev = packages platforms final;
      in
      prev // overlay final prev
    );
in
{
  native = set {
    build = "x86_64";
    host = "x86_64";
  };
  cross = set {
    build = "x86_64";
    host = "aarch64";
  };
}
