# A stand-in for nixpkgs' buildGoModule, of the same shape: a fixed-output derivation that vendors the
# modules, and a main derivation that builds, tests and installs without network.
{
  go,
  stdenv,
  cacert,
}:
attrsOrFunction:
let
  package = stdenv.mkDerivation (
    finalAttrs:
    let
      args =
        if builtins.isFunction attrsOrFunction then attrsOrFunction finalAttrs else attrsOrFunction;
      words = builtins.concatStringsSep " ";
      vendored = args.vendorHash != null;
      environment = {
        GO111MODULE = "on";
        GOTOOLCHAIN = "local";
        CGO_ENABLED = "0";
      };

      goModules = stdenv.mkDerivation (
        {
          name = "${args.name or "${args.pname}-${args.version}"}-go-modules";
          inherit (args) src;
          # The setup hooks of the program run here too.
          nativeBuildInputs = [ go ] ++ (args.nativeBuildInputs or [ ]) ++ [ cacert ];
          env = environment // (args.env or { });
          impureEnvVars = [
            "http_proxy"
            "https_proxy"
            "all_proxy"
            "no_proxy"
            "HTTP_PROXY"
            "HTTPS_PROXY"
            "ALL_PROXY"
            "NO_PROXY"
            "GOPROXY"
          ];
          configurePhase = ''
            runHook preConfigure
            export GOCACHE=$TMPDIR/go-cache
            export GOPATH=$TMPDIR/go
            cd "${args.modRoot or "."}"
            runHook postConfigure
          '';
          buildPhase = ''
            runHook preBuild
            go mod vendor
            mkdir -p vendor
            runHook postBuild
          '';
          installPhase = ''
            runHook preInstall
            cp -r vendor $out
            runHook postInstall
          '';
          dontFixup = true;
          outputHashMode = "recursive";
          outputHashAlgo = "sha256";
          outputHash = args.vendorHash;
        }
        // (args.modAttrs or { })
      );
    in
    removeAttrs args [
      "vendorHash"
      "modAttrs"
      "modRoot"
    ]
    // {
      nativeBuildInputs = [ go ] ++ (args.nativeBuildInputs or [ ]);
      env =
        environment
        // {
          GOFLAGS = words ([ "-trimpath" ] ++ (if vendored then [ "-mod=vendor" ] else [ ]));
        }
        // (args.env or { });

      ldflags = words ((args.ldflags or [ ]) ++ [ "-buildid=" ]);
      subPackages = words (args.subPackages or [ ]);
      tags = builtins.concatStringsSep "," (args.tags or [ ]);
      checkFlags = words (args.checkFlags or [ ]);
      doCheck = args.doCheck or true;

      configurePhase =
        args.configurePhase or ''
          runHook preConfigure
          export GOCACHE=$TMPDIR/go-cache
          export GOPATH=$TMPDIR/go
          export GOPROXY=off
          export GOSUMDB=off
          cd "${args.modRoot or "."}"
          ${if vendored then "rm -rf vendor; cp -r ${goModules} vendor" else ""}
          runHook postConfigure
        '';

      # One `go install` for each folder with Go files, and one `go test` for each with tests, unless subPackages are named.
      buildPhase =
        args.buildPhase or ''
          runHook preBuild

          buildGoDir() {
            local cmd="$1" dir="$2"
            declare -a flags
            flags+=(''${tags:+-tags=$tags})
            flags+=(''${ldflags:+-ldflags="$ldflags"})
            flags+=("-p" "$NIX_BUILD_CORES")
            if [ "$cmd" = "test" ]; then
              flags+=(-vet=off)
              flags+=($checkFlags)
            fi
            local OUT
            if ! OUT="$(go $cmd "''${flags[@]}" "$dir" 2>&1)"; then
              if ! echo "$OUT" | grep -qE 'no (buildable|non-test) Go|no Go files|build constraints exclude all'; then
                echo "$OUT" >&2
                return 1
              fi
            fi
            if [ -n "$OUT" ]; then
              echo "$OUT" >&2
            fi
            return 0
          }

          getGoDirs() {
            local type;
            type="$1"
            if [ -n "$subPackages" ]; then
              echo "$subPackages" | sed "s,\(^\| \),\1./,g"
            else
              find . -type f -name \*$type.go -exec dirname {} \; | grep -v "/vendor/" | sort -u | grep -vE '/_|examples|Godeps|testdata'
            fi
          }

          for pkg in $(getGoDirs ""); do
            echo "Building subPackage $pkg"
            buildGoDir install "$pkg"
          done

          runHook postBuild
        '';

      checkPhase =
        args.checkPhase or ''
          runHook preCheck
          # Tests may look for their files by the paths they were compiled from.
          export GOFLAGS=''${GOFLAGS//-trimpath/}

          for pkg in $(getGoDirs test); do
            buildGoDir test "$pkg"
          done

          runHook postCheck
        '';

      installPhase =
        args.installPhase or ''
          runHook preInstall
          mkdir -p $out
          if [[ -d $GOPATH/bin ]]; then
            cp -r "$GOPATH/bin" $out/
          fi
          runHook postInstall
        '';

      passthru = {
        inherit go goModules;
      }
      // (args.passthru or { });
    }
  );
in
package
