# Puts the setup hook on every Go build: on buildGoModule and its siblings for one Go version.
final: prev:
let
  const = import ./const.nix;

  withHook =
    attrs:
    attrs
    // {
      nativeBuildInputs = (attrs.nativeBuildInputs or [ ]) ++ [ final.nixGocacheprogHook ];
    };

  # A builder takes attributes or, in newer nixpkgs, a function of the final ones, and has an `override`
  # for its Go: all of that goes on working. One that is an alias of another has its hook already.
  wrap =
    builder:
    if builder.hasNixGocacheprogHook or false then
      builder
    else
      (if builtins.isAttrs builder then builder else { })
      // {
        hasNixGocacheprogHook = true;
        __functor =
          _: args:
          builder (if builtins.isFunction args then finalAttrs: withHook (args finalAttrs) else withHook args);
      }
      // (if builder ? override then { override = change: wrap (builder.override change); } else { });

  # Names come and go with Go's versions, and old ones throw: none is evaluated before it is used.
  isBuilder = name: builtins.match "buildGo([0-9]+|Latest)?Module" name != null;
  builders = builtins.filter isBuilder (builtins.attrNames prev);
in
{
  nixGocacheprogHook = final.makeSetupHook { name = const.setupHookName; } ./hook.sh;
}
// builtins.listToAttrs (
  map (name: {
    inherit name;
    value = wrap prev.${name};
  }) builders
)
