# NixOS: importing this is enough for the cache; overlay.nix in your own Nix code makes Go builds use it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  const = import ./const.nix;
  cfg = config.services.nix-gocacheprog;
  requiredMounts = config.programs.nix-required-mounts or { enable = false; };
  nixIsLix = lib.getName (config.nix.package or "nix") == "lix";

  size = types.strMatching "[0-9]+(\\.[0-9]+)?([kKmMgGtT](i?B)?|B)?";
  age = types.strMatching "[0-9]+(\\.[0-9]+)?[smhdw]";

  command = [
    "${cfg.package}/bin/nix-gocacheprog"
    "daemon"
    "--max-size=${cfg.maxSize}"
    "--max-age=${cfg.maxAge}"
    "--idle-exit=${cfg.idleExit}"
  ]
  ++ lib.optional (cfg.minFree != null) "--min-free=${cfg.minFree}"
  ++ lib.optionals (cfg.remote != null) (
    [
      "--remote=${cfg.remote}"
      "--remote-mode=${cfg.remoteMode}"
    ]
    # systemd loads them into a folder that the daemon knows.
    ++ map (name: "--remote-${name}=${name}") (builtins.attrNames loaded)
  )
  ++ cfg.extraFlags;
  loaded = lib.filterAttrs (_: path: path != null) {
    credentials = cfg.remoteCredentials;
    ca = cfg.remoteCA;
    cert = cfg.remoteCert;
    key = cfg.remoteKey;
  };
  # systemd's own quoting: no shell is involved.
  quote = word: ''"${lib.replaceStrings [ "\\" ''"'' "%" "$" ] [ "\\\\" ''\"'' "%%" "$$" ] word}"'';

  hook =
    if cfg.chainedHook == null then
      "${cfg.package}/libexec/nix-gocacheprog/hook"
    else
      pkgs.writeShellScript "nix-gocacheprog-chain" ''
        exec ${cfg.package}/bin/nix-gocacheprog hook --chain ${lib.escapeShellArg cfg.chainedHook} "$@"
      '';
in
{
  options.services.nix-gocacheprog = {
    enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to keep Go's build cache for Nix builds. Importing the module turns it on.";
    };

    package = mkOption {
      type = types.package;
      default = import ./. { inherit pkgs; };
      defaultText = lib.literalExpression "nix-gocacheprog, built with this system's nixpkgs";
      description = "The package, with a static binary.";
    };

    mode = mkOption {
      type = types.enum [
        "hook"
        "static"
      ];
      default = if nixIsLix then "static" else "hook";
      defaultText = lib.literalExpression ''if config.nix.package is Lix then "static" else "hook"'';
      description = ''
        How the cache gets into the sandbox. With `"hook"`, Nix's pre-build-hook mounts it for builds that have the
        setup hook. With `"static"` there is no hook, and the sandbox of every build has the mounts: for Lix, which
        ignores what a hook says, and for hosts that build for others. Builds see only their own files either way.
      '';
    };

    maxSize = mkOption {
      type = size;
      default = "20G";
      example = "50G";
      description = "What the cache may take on disk; the least recently used goes first.";
    };

    maxAge = mkOption {
      type = age;
      default = "60d";
      example = "14d";
      description = "What was not used for so long goes.";
    };

    minFree = mkOption {
      type = types.nullOr size;
      default = null;
      example = "5G";
      description = "What the cache leaves free on its file system. By default 5 % of that, and at most 10G.";
    };

    idleExit = mkOption {
      type = age;
      default = "10m";
      example = "1h";
      description = "The daemon ends after so long without a build; the next build starts it.";
    };

    remote = mkOption {
      type = types.nullOr (types.strMatching "https?://[^@ ]+");
      default = null;
      example = "https://cache.example.org";
      description = ''
        A cache for several machines behind this one: bazel-remote, or any HTTP server that keeps what is PUT. Whoever can
        write there can change what is built here. Without it the daemon has no network.
      '';
    };

    remoteMode = mkOption {
      type = types.enum [
        "read"
        "write"
        "read-write"
      ];
      default = "read-write";
      description = "What may be done with the remote.";
    };

    remoteCredentials = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/secrets/go-cache";
      description = ''
        A file with `user:password`, or with a token. Only root has to be able to read it, and it must not be in the store,
        where everybody can.
      '';
    };

    remoteCA = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/etc/ssl/site.pem";
      description = "A file with the certificates that are trusted, instead of the system's.";
    };

    remoteCert = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/secrets/client.pem";
      description = "A file with a certificate that the remote is shown.";
    };

    remoteKey = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/secrets/client.key";
      description = "The file with that certificate's key.";
    };

    extraFlags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "More flags for `nix-gocacheprog daemon`.";
    };

    chainedHook = mkOption {
      type = types.nullOr types.str;
      default = if requiredMounts.enable then lib.getExe requiredMounts.package else null;
      defaultText = lib.literalExpression "that of programs.nix-required-mounts, if it is enabled";
      example = "/etc/nix/pre-build-hook";
      description = ''
        Another pre-build-hook, since Nix takes one program: it is run first, and Nix gets both answers. When it fails,
        Nix sees that as it would without us. For mode `"hook"`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    users.users.nix-gocacheprog = {
      isSystemUser = true;
      group = "nix-gocacheprog";
      home = const.cacheDir;
      description = "Go build cache for Nix builds";
    };
    users.groups.nix-gocacheprog = { };

    # What the units say is in the package; NixOS wants to hear here what starts them.
    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];
    systemd.sockets.nix-gocacheprog-build.wantedBy = [ "sockets.target" ];
    systemd.sockets.nix-gocacheprog-control.wantedBy = [ "sockets.target" ];
    systemd.services.nix-gocacheprog.serviceConfig = {
      ExecStart = [
        # The package's own goes first.
        ""
        (lib.concatMapStringsSep " " quote command)
      ];
    }
    // lib.optionalAttrs (cfg.remote != null) {
      PrivateNetwork = false;
      IPAddressDeny = "";
      # Besides those that it has already.
      RestrictAddressFamilies = "AF_INET AF_INET6";
      LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") loaded;
    };

    nix.settings =
      if cfg.mode == "hook" then
        {
          # Takes the place of the one that it chains, which is set as plainly.
          pre-build-hook = if cfg.chainedHook == null then hook else lib.mkOverride 90 hook;
        }
      else
        {
          # Each ends in a question mark: a build goes on without what is not there.
          extra-sandbox-paths = [
            "${const.sandboxClient}=${cfg.package}/bin/nix-gocacheprog?"
            "${const.sandboxRuntimeDir}/build=${const.runtimeDir}/build?"
            "${const.sandboxDir}/builds=${const.cacheDir}/builds?"
          ];
        };
  };
}
