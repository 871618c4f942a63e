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

  # From Go 1.24 on `go` asks for GOCACHEPROG by itself. Before, the `go` command alone is built once more with the
  # experiment, by a build tag: were it a setting of the whole of Go, every program that Go builds would say so.
  withExperiment =
    go:
    go.overrideAttrs (
      old:
      if isCross then
        # What was built does not run here.
        withSetting old
      else
        {
          postInstall = (old.postInstall or "") + ''

            (
              cd "$TMPDIR"
              unset GOOS GOARCH GOARM GO386 GOFLAGS GOROOT GOROOT_FINAL
              export GOCACHE=''${GOCACHE:-$TMPDIR/go-cache} GOTOOLCHAIN=local
              "$out/share/go/bin/go" build -tags goexperiment.cacheprog -o go-with-cacheprog cmd/go
              mv -f go-with-cacheprog "$out/share/go/bin/go"
            )
          '';
        }
    );

  isCross =
    let
      system = platform: (final.stdenv.${platform} or { }).system or null;
    in
    system "buildPlatform" != system "hostPlatform";

  withSetting =
    old:
    let
      join = attrs: {
        GOEXPERIMENT =
          if (attrs.GOEXPERIMENT or "") == "" then "cacheprog" else "${attrs.GOEXPERIMENT},cacheprog";
      };
    in
    # nixpkgs allows a variable in one of the two places.
    if old ? env.GOEXPERIMENT then { env = old.env // join old.env; } else join old;

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
