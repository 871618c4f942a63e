# The stand-in package set: as much of nixpkgs as overlay.nix and a Go program can tell apart from it.
# test/nix/inputs prints the arguments.
{
  tools,
  cacert,
  go,
  # The folder of test/fetch-cc, for what is built with C.
  cc ? null,
  # Applied over the set, as with nixpkgs.
  overlays ? [ (import ../../overlay.nix) ],
}:
let
  # A thing that is called with its inputs, and can be called again with others of them.
  makeOverridable =
    function: inputs:
    let
      result = function inputs;
    in
    (if builtins.isFunction result then { __functor = _: result; } else result)
    // {
      override =
        change:
        makeOverridable function (
          inputs // (if builtins.isFunction change then change inputs else change)
        );
    };

  # An argument is a store path already: the evaluator would otherwise hash a whole toolchain each time.
  package = path: rec {
    type = "derivation";
    name = builtins.unsafeDiscardStringContext (baseNameOf path);
    outPath = builtins.storePath path;
    out = outPath;
    outputName = "out";
  };

  base =
    final:
    let
      stdenv = import ./stdenv.nix { tools = builtins.storePath tools; };
    in
    {
      inherit (stdenv) makeSetupHook;
      inherit stdenv;
      c = import ./cc.nix { inherit stdenv cc; };
      go = package go;
      cacert = final.makeSetupHook {
        name = "cacert-hook";
        substitutions.bundle = builtins.storePath cacert;
      } ./cacert.sh;

      buildGoLatestModule = makeOverridable (import ./go.nix) { inherit (final) go stdenv cacert; };
      # Names are aliases of one another in nixpkgs, and old names throw.
      buildGoModule = final.buildGoLatestModule;
      buildGo118Module = throw "Go 1.18 is gone";
    };

  extend =
    previous: overlay: final:
    let
      prev = previous final;
    in
    prev // overlay final prev;
  build = builtins.foldl' extend base overlays;
  packages = build packages;
in
packages
