# What must be true of overlay.nix: one sentence each, and whether it is so.
let
  nixpkgs = import ./nixpkgs.nix;
  shapes = [
    "attributes"
    "finalAttrs"
    "lambda"
  ];
  overridable = [
    "attributes"
    "finalAttrs"
  ];
  inShapes =
    which: check:
    builtins.all (
      builder:
      check (nixpkgs { inherit builder; }) || builtins.trace "not with the builder of shape ${builder}" false
    ) which;

  inputs = drv: drv.drvAttrs.nativeBuildInputs;
  hooks = drv: builtins.filter (input: input.name or "" == "nix-gocacheprog-hook") (inputs drv);
  hasHook = drv: builtins.length (hooks drv) == 1;
  fails = value: !(builtins.tryEval value).success;
  functionArgs = value: value.__functionArgs or (builtins.functionArgs value);

  args = {
    pname = "p";
    version = "1";
    vendorHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    passthru.mine = "kept";
  };
  isWhole = drv: hasHook drv && hasHook drv.goModules && drv.mine == "kept" && drv.drvPath != "";
in
{
  "every builder that takes attributes puts the hook on the program and on its modules" =
    inShapes shapes
      ({ native, ... }: isWhole (native.buildGoModule args) && isWhole (native.buildGo125Module args));

  "a builder that takes a function of the final attributes still does" = inShapes [ "finalAttrs" ] (
    { native, ... }:
    let
      drv = native.buildGoModule (final: args // { version = "of-${final.pname}"; });
    in
    isWhole drv && drv.name == "p-of-p"
  );

  "the function may be a functor" = inShapes [ "finalAttrs" ] (
    { native, ... }: isWhole (native.buildGoModule { __functor = _: _: args; })
  );

  "an input of the program's own comes before the hook" = inShapes shapes (
    { native, ... }:
    let
      drv = native.buildGoModule (args // { nativeBuildInputs = [ "mine" ]; });
    in
    builtins.elemAt (inputs drv) 1 == "mine" && hasHook drv
  );

  "a builder that is an alias of another has the hook once" = inShapes shapes (
    { native, ... }: hasHook (native.buildGoModule args) && hasHook (native.buildGoLatestModule args)
  );

  "another Go can be given, and another again" = inShapes overridable (
    { native, ... }:
    let
      once = native.buildGoModule.override { go = native.go_1_25; };
      twice = once.override (old: {
        go = if old.go == native.go_1_25 then native.go_1_26 else abort "the first change is lost";
      });
    in
    isWhole (once args)
    && (once args).go == native.go_1_25
    && isWhole (twice args)
    && (twice args).go == native.go_1_26
  );

  "a builder tells what it takes, and so does its override" =
    inShapes shapes ({ native, ... }: functionArgs native.buildGoModule ? vendorHash)
    && inShapes overridable ({ native, ... }: functionArgs native.buildGoModule.override ? go);

  "a builder keeps what else it has" = inShapes [ "finalAttrs" ] (
    { native, ... }: native.buildGoModule ? constructDrv
  );

  "overrideAttrs keeps the hook" = inShapes shapes (
    { native, ... }:
    let
      drv = (native.buildGoModule args).overrideAttrs (old: {
        version = "${old.version}-patched";
      });
    in
    hasHook drv && drv.name == "p-1-patched"
  );

  "structured attributes have the hook as well" = inShapes shapes (
    { native, ... }: isWhole (native.buildGoModule (args // { __structuredAttrs = true; }))
  );

  "the hook is the build platform's, by its plain name, when another platform is built for" =
    inShapes shapes
      (
        { native, cross }:
        let
          drv = cross.buildGoModule args;
        in
        drv.name == "p-1-aarch64-unknown-linux-gnu"
        && hasHook drv
        && builtins.all (hook: hook.drvPath == native.nixGocacheprogHook.drvPath) (hooks drv)
        && drv.go.drvPath == native.go_1_26.drvPath
      );

  "names that are not there stay away, and names that throw go on throwing" = inShapes shapes (
    { native, ... }:
    !(native ? buildGo123Module)
    && !(native ? go_1_22)
    && fails native.buildGo121Module
    && fails native.go_1_21
    && native ? buildGo121Module
  );

  "names of other years are found" =
    let
      packages = nixpkgs {
        builder = "attributes";
        more = goFor: builderFor: {
          go_1_22 = goFor "1.22";
          buildGo122Module = builderFor (goFor "1.22");
          buildGo130Module = builderFor (goFor "1.30");
        };
      };
    in
    isWhole (packages.native.buildGo122Module args) && isWhole (packages.native.buildGo130Module args);

  "the go command of Go 1.21 to 1.23 gets the experiment, its programs and later ones do not" =
    let
      packages = nixpkgs {
        builder = "attributes";
        more = goFor: _: {
          go_1_21 = goFor "1.21";
          go_1_22 = (goFor "1.22").overrideAttrs (_: {
            postInstall = "echo mine";
          });
          go_1_23 = (goFor "1.23").overrideAttrs (_: {
            env.GOEXPERIMENT = "aliastypeparams";
          });
          go_1_24 = goFor "1.24";
        };
      };
      has =
        go:
        builtins.match ".*-tags goexperiment.cacheprog .*" (
          builtins.replaceStrings [ "\n" ] [ " " ] (go.drvAttrs.postInstall or "")
        ) != null;
      setting = go: go.drvAttrs.GOEXPERIMENT or null;
      inherit (packages) native;
    in
    has native.go_1_21
    && has native.go_1_22
    && builtins.substring 0 9 native.go_1_22.drvAttrs.postInstall == "echo mine"
    && has native.go_1_23
    && !has native.go_1_24
    && setting native.go_1_21 == null
    && setting native.go_1_23 == "aliastypeparams";

  "nothing is evaluated that is not used" = inShapes shapes (
    { native, ... }: builtins.seq native (builtins.attrNames native != [ ])
  );

  "the hook's name is the one that is looked for" = inShapes shapes (
    { native, ... }: native.nixGocacheprogHook.name == (import ../../../const.nix).setupHookName
  );
}
