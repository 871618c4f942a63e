# Puts the setup hook on every Go build: on buildGoModule and its siblings for one Go version.
final: prev:
let
  const = import ./const.nix;

  isFunction = value: builtins.isFunction value || value ? __functor;

  # The hook runs on the machine that builds, whatever it builds for.
  withHook =
    attrs:
    attrs
    // {
      nativeBuildInputs = (attrs.nativeBuildInputs or [ ]) ++ [
        (final.buildPackages.nixGocacheprogHook or final.nixGocacheprogHook)
      ];
    };

  # A builder takes attributes or, in newer nixpkgs, a function of the final ones, and has an `override`
  # for its Go: all of that goes on working. One that is an alias of another has its hook already.
  wrap =
    builder:
    if builder.hasNixGocacheprogHook or false then
      builder
    else
      (if builtins.isAttrs builder then builder else { __functionArgs = builtins.functionArgs builder; })
      // {
        hasNixGocacheprogHook = true;
        __functor =
          _: args:
          builder (if isFunction args then finalAttrs: withHook (args finalAttrs) else withHook args);
      }
      // (
        if builder ? override then
          {
            # It may tell what it takes, as the builder does.
            override = (if builtins.isAttrs builder.override then builder.override else { }) // {
              __functor = _: change: wrap (builder.override change);
            };
          }
        else
          { }
      );

  # From Go 1.24 on `go` asks for GOCACHEPROG by itself.
  withExperiment =
    go:
    go.overrideAttrs (
      old:
      let
        join = attrs: {
          GOEXPERIMENT =
            if (attrs.GOEXPERIMENT or "") == "" then "cacheprog" else "${attrs.GOEXPERIMENT},cacheprog";
        };
      in
      # nixpkgs allows a variable in one of the two places.
      if old ? env.GOEXPERIMENT then { env = old.env // join old.env; } else join old
    );

  # Names come and go with Go's versions, and old ones throw: none is evaluated before it is used.
  mapMatching =
    pattern: change:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = change prev.${name};
      }) (builtins.filter (name: builtins.match pattern name != null) (builtins.attrNames prev))
    );
in
{
  nixGocacheprogHook = final.makeSetupHook { name = const.setupHookName; } ./hook.sh;
}
// mapMatching "buildGo([0-9]+|Latest)?Module" wrap
// mapMatching "go_1_2[123]" withExperiment
