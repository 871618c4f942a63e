# A stand-in for nixpkgs' lib: options, conditions, priorities and merging, as far as module.nix can tell them from
# the real ones (lib.evalModules, lib.mkOption, lib.mkIf, lib.mkOverride, lib.types).
rec {
  inherit (builtins)
    concatStringsSep
    elem
    isList
    isString
    mapAttrs
    match
    ;
  concatMapStringsSep =
    separator: function: list:
    concatStringsSep separator (map function list);
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: values: if condition then values else { };
  filterAttrs =
    keep: set:
    removeAttrs set (builtins.filter (name: !keep name set.${name}) (builtins.attrNames set));
  nameValuePair = name: value: { inherit name value; };
  mapAttrs' = function: set: builtins.listToAttrs (mapAttrsToList function set);
  mapAttrsToList = function: set: map (name: function name set.${name}) (builtins.attrNames set);
  replaceStrings = builtins.replaceStrings;
  escapeShellArg = text: "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
  getName = drv: if isString drv then drv else drv.pname or (builtins.parseDrvName drv.name).name;
  getExe = drv: "${drv}/bin/${drv.meta.mainProgram}";
  literalExpression = text: { inherit text; };

  mkOption = option: { _type = "option"; } // option;
  mkEnableOption =
    what:
    mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };

  # A value as its type makes it.
  applied = type: value: (type.apply or (same: same)) value;

  mkDefault = mkOverride 1000;

  types = rec {
    bool.check = builtins.isBool;
    str.check = isString;
    package.check = value: value ? outPath;
    enum = values: { check = value: elem value values; };
    ints.positive.check = value: builtins.isInt value && value > 0;
    nullOr = type: {
      check = value: value == null || type.check value;
      apply = value: if value == null then null else applied type value;
    };
    coercedTo =
      from: coerce: to:
      let
        coerced = value: if from.check value then coerce value else value;
      in
      {
        check = value: to.check (coerced value);
        apply = value: applied to (coerced value);
      };
    submodule =
      { options }:
      {
        check =
          value:
          builtins.isAttrs value
          && removeAttrs value (builtins.attrNames options) == { }
          && builtins.all (name: options.${name} ? default || value ? ${name}) (builtins.attrNames options)
          && builtins.all (name: options.${name}.type.check value.${name}) (builtins.attrNames value);
        apply =
          value: mapAttrs (name: option: applied option.type (value.${name} or option.default)) options;
      };
    listOf = type: { check = value: isList value && builtins.all type.check value; };
    strMatching = pattern: { check = value: isString value && match pattern value != null; };
  };

  # Several definitions of one thing: sets are merged, lists are joined, of others the one with the strongest
  # priority counts, and two of the same are a conflict.
  merge =
    where: definitions:
    let
      given = map (
        definition:
        if definition._type or null == "override" then
          definition
        else
          {
            priority = 100;
            content = definition;
          }
      ) definitions;
      strongest = builtins.foldl' (a: b: if b.priority < a then b.priority else a) 1000 given;
      left = map (one: one.content) (builtins.filter (one: one.priority == strongest) given);
      first = builtins.head left;
    in
    if builtins.all (value: builtins.isAttrs value && !(value ? outPath)) left then
      builtins.zipAttrsWith (name: merge "${where}.${name}") left
    else if builtins.all isList left then
      builtins.concatLists left
    else if builtins.length left == 1 then
      first
    else
      throw "${where} is defined more than once";

  # One module with options, below services.nix-gocacheprog, and plain sets with what else a system says.
  # `arguments` is what the module is called with besides config and lib.
  evalModule =
    {
      module,
      arguments,
      definitions,
    }:
    let
      path = "services.nix-gocacheprog";
      evaluated = module (
        arguments
        // {
          inherit config;
          lib = import ./lib.nix;
        }
      );
      options = evaluated.options.services.nix-gocacheprog;
      given = merge path (map (one: one.services.nix-gocacheprog or { }) definitions);
      unknown = builtins.attrNames (removeAttrs given (builtins.attrNames options));
      values = builtins.mapAttrs (
        name: option:
        let
          value = given.${name} or option.default;
        in
        if option.type.check value then applied option.type value else throw "${path}.${name} has a value of the wrong type"
      ) options;
      # The one definition that depends on the options is known as a whole only after them.
      content = if evaluated.config.condition then evaluated.config.content else { };
      others = map (one: removeAttrs one [ "services" ]) definitions;
      rest = merge "config" (others ++ [ content ]);
      base = merge "config" others;
      config =
        # Its own options may look at those of others, but not at what it says of them.
        builtins.mapAttrs (name: _: rest.${name} or { }) (
          base
          // {
            environment = { };
            nix = { };
            systemd = { };
            users = { };
          }
        )
        // {
          warnings = rest.warnings or [ ];
          services.nix-gocacheprog =
            if unknown == [ ] then values else throw "${path} has no option ${toString unknown}";
        };
    in
    {
      inherit config options;
    };
}
