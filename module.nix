# NixOS: with services.nix-gocacheprog.enable = true the machine has the cache; overlay.nix in your own Nix code makes Go
# builds use it. (The flake's nixosModules.default turns it on.)
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkEnableOption mkOption types;
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
  ++ lib.optional (cfg.metricsFile != null) "--metrics-file=${cfg.metricsFile}"
  ++ map (user: "--trusted-user=${user}") cfg.trustedUsers
  ++ map (name: "--readonly-name=${name}") cfg.readonlyNames
  ++ map (name: "--off-name=${name}") cfg.offNames
  ++ lib.optional (cfg.auditOneIn != null) "--audit-one-in=${toString cfg.auditOneIn}"
  ++ lib.optionals (remote != null) (
    [
      "--remote=${remote.url}"
      "--remote-mode=${remote.mode}"
    ]
    # systemd loads them into a folder that the daemon knows.
    ++ map (name: "--remote-${name}=${name}") (builtins.attrNames loaded)
    ++ lib.optional (
      remote.trustedPublicKeys != [ ]
    ) "--remote-trusted-public-keys=${lib.concatStringsSep " " remote.trustedPublicKeys}"
    ++ lib.optional remote.insecureHttp "--remote-insecure-http"
  )
  ++ cfg.extraFlags;

  # What the options were called before they were those of `remote`.
  renamed = {
    remoteMode = "mode";
    remoteCredentials = "credentialsFile";
    remoteCA = "caFile";
    remoteCert = "certFile";
    remoteKey = "keyFile";
  };
  inUse = lib.filterAttrs (old: _: cfg.${old} != null) renamed;
  remote =
    if cfg.remote == null then
      null
    else
      cfg.remote // lib.mapAttrs' (old: new: lib.nameValuePair new cfg.${old}) inUse;

  loaded = lib.filterAttrs (_: path: path != null) {
    credentials = remote.credentialsFile;
    ca = remote.caFile;
    cert = remote.certFile;
    key = remote.keyFile;
    secret-key-file = remote.secretKeyFile;
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
    enable = mkEnableOption "Go's build cache and module cache inside sandboxed Nix builds";

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
        ignores the hook's output, and for hosts that build for others. Builds see only their own files either way.
      '';
    };

    maxSize = mkOption {
      type = size;
      default = "20G";
      example = "50G";
      description = "Disk space for the cache; the least recently used entries are evicted first.";
    };

    maxAge = mkOption {
      type = age;
      default = "60d";
      example = "14d";
      description = "Entries unused for this long are evicted.";
    };

    minFree = mkOption {
      type = types.nullOr size;
      default = null;
      example = "5G";
      description = "Free space to leave on the file system. By default 5 % of it, but at most 10G.";
    };

    metricsFile = mkOption {
      type = types.nullOr (types.strMatching "/.+\\.prom");
      default = null;
      example = "/var/lib/nix-gocacheprog-metrics/gocacheprog.prom";
      description = ''
        Where the daemon writes metrics for node_exporter's textfile collector. The module creates the folder for the
        daemon's user: name it in `services.prometheus.exporters.node.extraFlags` as `--collector.textfile.directory=`.
      '';
    };

    idleExit = mkOption {
      type = age;
      default = "10m";
      example = "1h";
      description = "The daemon exits after this long without a build; the next build starts it again.";
    };

    trustedUsers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "ci" ];
      description = ''
        Users whose own `go` commands may store what Nix builds get. Such a user can change what is built on this machine.
        Nix builds never get what other users store.
      '';
    };

    readonlyNames = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "release-*" ];
      description = "Derivations, by name or pattern, that read the cache but store nothing in it.";
    };

    offNames = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "openssl-*" ];
      description = "Derivations, by name or pattern, that do not use the cache.";
    };

    auditOneIn = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 100;
      description = ''
        Compile every Nth build from scratch and compare its outputs with the cache. Only for mode `"hook"`.
      '';
    };

    remote = mkOption {
      # A URL alone is how it was written first.
      type = types.nullOr (
        types.coercedTo types.str (url: { inherit url; }) (
          types.submodule {
            options = {
              url = mkOption {
                type = types.strMatching "https?://[^@? ]+|s3://[^@ ]+";
                example = "https://cache.example.org";
                description = "Where it is: `https://…`, or `s3://bucket/prefix?endpoint=…&region=…`.";
              };
              mode = mkOption {
                type = types.enum [
                  "read"
                  "write"
                  "read-write"
                ];
                default = "read";
                description = "Whether the daemon reads from the remote, writes to it, or both.";
              };
              credentialsFile = mkOption {
                type = types.nullOr types.str;
                default = null;
                example = "/run/secrets/go-cache";
                description = "A file with `user:password`, or with a token.";
              };
              caFile = mkOption {
                type = types.nullOr types.str;
                default = null;
                example = "/etc/ssl/site.pem";
                description = "A file with certificates to trust instead of the system's.";
              };
              certFile = mkOption {
                type = types.nullOr types.str;
                default = null;
                example = "/run/secrets/client.pem";
                description = "A file with a client certificate for the remote.";
              };
              keyFile = mkOption {
                type = types.nullOr types.str;
                default = null;
                example = "/run/secrets/client.key";
                description = "The file with that certificate's private key.";
              };
              secretKeyFile = mkOption {
                type = types.nullOr types.str;
                default = null;
                example = "/run/secrets/go-cache-signing";
                description = ''
                  A file with the key that signs what is uploaded, as `nix-store --generate-binary-cache-key` writes it.
                  Without `trustedPublicKeys`, only entries signed by this key are used.
                '';
              };
              trustedPublicKeys = mkOption {
                type = types.listOf types.str;
                default = [ ];
                example = [ "cache.example.org-1:7VLz…" ];
                description = ''
                  Use only entries signed by one of these keys. The default is the key in `secretKeyFile`, if there is one.
                '';
              };
              insecureHttp = mkOption {
                type = types.bool;
                default = false;
                description = ''
                  Allow plain http to another machine. Anyone on the way can then change what builds get.
                '';
              };
            };
          }
        )
      );
      default = null;
      example = lib.literalExpression ''
        {
          url = "https://cache.example.org";
          credentialsFile = "/run/secrets/go-cache";
        }
      '';
      description = ''
        A cache shared by several machines: bazel-remote, any HTTP server that stores what is PUT, or an object store that
        speaks S3. Anyone who can write there can change what is built here, unless `trustedPublicKeys` or
        `secretKeyFile` is set. Without a remote the daemon has no network. Files with secrets may be readable by root
        only, and must not be in the Nix store, where everybody can read them.
      '';
    };

    extraFlags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "More options for `nix-gocacheprog daemon`.";
    };

    chainedHook = mkOption {
      type = types.nullOr types.str;
      default = if requiredMounts.enable then lib.getExe requiredMounts.package else null;
      defaultText = lib.literalExpression "that of programs.nix-required-mounts, if it is enabled";
      example = "/etc/nix/pre-build-hook";
      description = ''
        Another pre-build-hook. Nix takes only one program, so this one runs first and Nix gets both answers. If it fails,
        Nix ends the build, as it does without this module. Only for mode `"hook"`.
      '';
    };
  }
  // lib.mapAttrs (
    old: new:
    mkOption {
      type = types.nullOr types.str;
      default = null;
      visible = false;
      description = "The old name of `remote.${new}`.";
    }
  ) renamed;

  config = lib.mkIf cfg.enable {
    warnings = lib.mapAttrsToList (
      old: new: "services.nix-gocacheprog.${old} has been renamed to services.nix-gocacheprog.remote.${new}."
    ) inUse;

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
    systemd.tmpfiles.rules = lib.optional (
      cfg.metricsFile != null
    ) "d ${dirOf cfg.metricsFile} 0755 nix-gocacheprog nix-gocacheprog -";
    systemd.sockets.nix-gocacheprog-build.wantedBy = [ "sockets.target" ];
    systemd.sockets.nix-gocacheprog-control.wantedBy = [ "sockets.target" ];
    systemd.services.nix-gocacheprog.serviceConfig = {
      ExecStart = [
        # The package's own goes first.
        ""
        (lib.concatMapStringsSep " " quote command)
      ];
    }
    // lib.optionalAttrs (cfg.metricsFile != null) { ReadWritePaths = [ "-${dirOf cfg.metricsFile}" ]; }
    // lib.optionalAttrs (remote != null) {
      PrivateNetwork = false;
      IPAddressDeny = "";
      # Besides those that it has already.
      RestrictAddressFamilies = "AF_INET AF_INET6";
      LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") loaded;
      # What is not there at boot is taken up when the daemon is started next, and the daemon serves meanwhile.
      SetCredential = map (name: "${name}:${const.missingCredential}") (builtins.attrNames loaded);
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
