# What must be true of module.nix: one sentence each, and whether it is so.
let
  lib = import ./lib.nix;
  const = import ../../../const.nix;

  package =
    name: more:
    derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
    }
    // {
      pname = name;
    }
    // more;
  ours = package "nix-gocacheprog" { };
  nix = package "nix" { };

  system =
    definitions:
    lib.evalModule {
      module = import ../../../module.nix;
      arguments.pkgs.writeShellScript = name: text: "script ${name}: ${text}";
      definitions = [
        {
          services.nix-gocacheprog = {
            package = ours;
            # Weaker than what a sentence says.
            enable = lib.mkOverride 200 true;
          };
          nix.package = nix;
        }
      ]
      ++ definitions;
    };
  evaluate = definitions: (system definitions).config;
  with' = options: evaluate [ { services.nix-gocacheprog = options; } ];
  fails = config: !(builtins.tryEval (builtins.deepSeq config.nix.settings (start config))).success;

  # What ExecStart comes to, after the empty one that takes the package's away.
  start =
    config:
    let
      lines = config.systemd.services.nix-gocacheprog.serviceConfig.ExecStart;
    in
    assert builtins.head lines == "" && builtins.length lines == 2;
    builtins.elemAt lines 1;

  requiredMounts = {
    programs.nix-required-mounts = {
      enable = true;
      package = package "required" { meta.mainProgram = "mounts"; };
    };
    nix.settings.pre-build-hook = "${requiredMounts.programs.nix-required-mounts.package}/bin/mounts";
  };
  chainOf = program: ''
    script nix-gocacheprog-chain: exec ${ours}/bin/nix-gocacheprog hook --chain '${program}' "$@"
  '';
in
{
  "to enable it is enough" =
    let
      config = evaluate [ ];
    in
    config.nix.settings.pre-build-hook == "${ours}/libexec/nix-gocacheprog/hook"
    && !(config.nix.settings ? extra-sandbox-paths)
    && config.environment.systemPackages == [ ours ]
    && config.systemd.packages == [ ours ]
    && config.systemd.tmpfiles.packages == [ ours ]
    && config.systemd.sockets.nix-gocacheprog-build.wantedBy == [ "sockets.target" ]
    && config.systemd.sockets.nix-gocacheprog-control.wantedBy == [ "sockets.target" ];

  "the daemon has a system user of its own, who owns the cache" =
    let
      inherit (evaluate [ ]) users;
    in
    users.users.nix-gocacheprog.isSystemUser
    && users.users.nix-gocacheprog.group == "nix-gocacheprog"
    && users.users.nix-gocacheprog.home == const.cacheDir
    && users.groups ? nix-gocacheprog;

  "imported it does nothing until it is enabled" =
    let
      config =
        (lib.evalModule {
          module = import ../../../module.nix;
          arguments.pkgs = { };
          definitions = [ { nix.package = nix; } ];
        }).config;
    in
    config.nix == { package = nix; }
    && config.systemd == { }
    && config.users == { }
    && config.environment == { }
    && config.nix == (with' { enable = false; }).nix;

  "every option has a type, a default and a description" = builtins.all (
    option: option.type ? check && option ? default && lib.isString option.description
  ) (builtins.attrValues (system [ ]).options);

  "the options are those that are promised" =
    builtins.attrNames (system [ ]).options == [
      "auditOneIn"
      "chainedHook"
      "enable"
      "extraFlags"
      "idleExit"
      "maxAge"
      "maxSize"
      "metricsFile"
      "minFree"
      "mode"
      "offNames"
      "package"
      "readonlyNames"
      "remote"
      "remoteCA"
      "remoteCert"
      "remoteCredentials"
      "remoteKey"
      "remoteMode"
      "trustedUsers"
    ]
    && builtins.all (old: (system [ ]).options.${old}.visible == false) [
      "remoteCA"
      "remoteCert"
      "remoteCredentials"
      "remoteKey"
      "remoteMode"
    ];

  "the daemon is started with its limits" =
    start (evaluate [ ])
    == ''"${ours}/bin/nix-gocacheprog" "daemon" "--max-size=20G" "--max-age=60d" "--idle-exit=10m"''
    &&
      start (with' {
        maxSize = "1.5TiB";
        maxAge = "2w";
        minFree = "500M";
        idleExit = "1h";
      })
      == ''"${ours}/bin/nix-gocacheprog" "daemon" "--max-size=1.5TiB" "--max-age=2w" "--idle-exit=1h" "--min-free=500M"'';

  "without a remote the service is as the package has it" =
    builtins.attrNames (evaluate [ ]).systemd.services.nix-gocacheprog.serviceConfig == [ "ExecStart" ];

  "a remote brings the network, and systemd reads what only root can" =
    let
      config = with' {
        remote = {
          url = "https://cache.example.org";
          mode = "read-write";
          credentialsFile = "/run/secrets/cache";
          caFile = "/etc/ssl/site.pem";
          secretKeyFile = "/run/secrets/key";
          trustedPublicKeys = [
            "a:1"
            "b:2"
          ];
          insecureHttp = true;
        };
      };
      service = config.systemd.services.nix-gocacheprog.serviceConfig;
    in
    service.PrivateNetwork == false
    && service.IPAddressDeny == ""
    && service.RestrictAddressFamilies == "AF_INET AF_INET6"
    &&
      service.LoadCredential == [
        "ca:/etc/ssl/site.pem"
        "credentials:/run/secrets/cache"
        "secret-key-file:/run/secrets/key"
      ]
    &&
      service.SetCredential
      ==
        map (name: "${name}:${const.missingCredential}") [
          "ca"
          "credentials"
          "secret-key-file"
        ]
    &&
      builtins.match ''.*"--remote=https://cache.example.org" "--remote-mode=read-write" "--remote-ca=ca" "--remote-credentials=credentials" "--remote-secret-key-file=secret-key-file" "--remote-trusted-public-keys=a:1 b:2" "--remote-insecure-http"'' (
        start config
      ) != null
    && config.warnings == [ ];

  "a remote is read, unless it is said that it may be written to" =
    builtins.match ''.*"--remote-mode=read"'' (
      start (with' { remote.url = "https://cache.example.org"; })
    ) != null;

  "a remote may be a bucket" =
    builtins.match ''.*"--remote=s3://bucket/go\?region=eu-north-1" .*'' (
      start (with' { remote.url = "s3://bucket/go?region=eu-north-1"; })
    ) != null;

  "what the options of a remote were called before still evaluates, and says what they are called now" =
    let
      old = with' {
        remote = "https://cache.example.org";
        remoteMode = "read-write";
        remoteCredentials = "/run/secrets/cache";
        remoteCA = "/etc/ssl/site.pem";
        remoteCert = "/run/secrets/client.pem";
        remoteKey = "/run/secrets/client.key";
      };
      new = with' {
        remote = {
          url = "https://cache.example.org";
          mode = "read-write";
          credentialsFile = "/run/secrets/cache";
          caFile = "/etc/ssl/site.pem";
          certFile = "/run/secrets/client.pem";
          keyFile = "/run/secrets/client.key";
        };
      };
    in
    old.systemd == new.systemd
    && builtins.length old.warnings == 5
    && builtins.elem "services.nix-gocacheprog.remoteCA has been renamed to services.nix-gocacheprog.remote.caFile." old.warnings;

  "who is trusted, what only reads and what is audited is the daemon's to know" =
    builtins.match ''.*"--trusted-user=ci" "--readonly-name=release-\*" "--off-name=a" "--off-name=b" "--audit-one-in=100"'' (
      start (with' {
        trustedUsers = [ "ci" ];
        readonlyNames = [ "release-*" ];
        offNames = [
          "a"
          "b"
        ];
        auditOneIn = 100;
      })
    ) != null;

  "the file of metrics is in a folder that the daemon may write to, and nothing else is" =
    let
      config = with' { metricsFile = "/var/lib/metrics/go.prom"; };
    in
    builtins.match ''.*"--metrics-file=/var/lib/metrics/go.prom"'' (start config) != null
    && config.systemd.services.nix-gocacheprog.serviceConfig.ReadWritePaths == [ "-/var/lib/metrics" ]
    && config.systemd.tmpfiles.rules == [ "d /var/lib/metrics 0755 nix-gocacheprog nix-gocacheprog -" ]
    && (evaluate [ ]).systemd.tmpfiles.rules or [ ] == [ ]
    && fails (with' { metricsFile = "relative.prom"; })
    && fails (with' { metricsFile = "/var/lib/metrics/name"; });

  "a password in the URL of a remote, which everybody could read, is refused" =
    fails (with' { remote = "https://me:secret@cache.example.org"; })
    && fails (with' { remote.url = "https://me:secret@cache.example.org"; })
    && fails (with' { remote.url = "https://cache.example.org/?token=secret"; })
    && fails (with' { remote.mode = "read"; });

  "systemd hands on a flag as it was written" =
    builtins.match ''.* "--x=\\"\$\$HOME\\" %%h \\\\"'' (
      start (with' { extraFlags = [ ''--x="$HOME" %h \'' ]; })
    ) != null;

  "what is no size, no age and no mode is refused" =
    fails (with' { maxSize = "much"; })
    && fails (with' { maxAge = "60"; })
    && fails (with' { idleExit = "-1s"; })
    && fails (with' { minFree = "5%"; })
    && fails (with' { mode = "other"; })
    && fails (with' { auditOneIn = 0; })
    && fails (with' { nonsense = true; });

  "mode static mounts what may be missing, and has no hook" =
    (with' { mode = "static"; }).nix.settings == {
      extra-sandbox-paths = [
        "/gocache/client=${ours}/bin/nix-gocacheprog?"
        "/gocache/run/build=/run/nix-gocacheprog/build?"
        "/gocache/builds=/var/cache/nix-gocacheprog/builds?"
      ];
    };

  "the sandbox paths of others stay" =
    (evaluate [
      {
        services.nix-gocacheprog.mode = "static";
        nix.settings.extra-sandbox-paths = [ "/dev/kvm" ];
      }
    ]).nix.settings.extra-sandbox-paths
    == [ "/dev/kvm" ] ++ (with' { mode = "static"; }).nix.settings.extra-sandbox-paths;

  "with Lix the mode is static" =
    (evaluate [ { nix.package = lib.mkOverride 50 (package "lix" { }); } ]).services.nix-gocacheprog.mode
    == "static";

  "an earlier hook is chained, in a script, because Nix passes no flags" =
    (with' { chainedHook = "/etc/nix/it's hook"; }).nix.settings.pre-build-hook
    == chainOf "/etc/nix/it'\\''s hook";

  "the hook of nix-required-mounts is chained by itself" =
    (evaluate [ requiredMounts ]).nix.settings.pre-build-hook
    == chainOf requiredMounts.nix.settings.pre-build-hook;

  "a hook that is not chained is a conflict, and not lost" = fails (evaluate [
    { nix.settings.pre-build-hook = "/etc/nix/hook"; }
  ]);
}
