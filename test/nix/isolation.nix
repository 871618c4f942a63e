# Two builds at the same time. The first has outputs in its build directory and waits; the second is told
# their names and tries to get at them, and at the cache. /meet is a directory that both can see, with two
# pipes in it; `step` makes them new derivations.
{ step, ... }@args:
let
  packages = import ./. (removeAttrs args [ "step" ]);
  build =
    attrs:
    packages.stdenv.mkDerivation (
      {
        inherit step;
        nativeBuildInputs = [
          packages.go
          packages.nixGocacheprogHook
        ];
        GOFLAGS = "-trimpath";
        GOTOOLCHAIN = "local";
        CGO_ENABLED = "0";
        configurePhase = ''
          export GOCACHE=$TMPDIR/go-cache
          export GOPATH=$TMPDIR/go
          runHook postConfigure
          [[ -n ''${GOCACHEPROG-} ]]
        '';
        phases = [
          "configurePhase"
          "buildPhase"
        ];
      }
      // attrs
    );
in
[
  (build {
    name = "victim";
    buildPhase = ''
      mkdir victim && cd victim
      printf 'module victim\n\ngo 1.21\n' >go.mod
      printf 'package victim\n\nconst Secret = "%s"\n' "$step" >victim.go
      output=$(go list -export -f '{{.Export}}' .)
      [[ $output == /gocache/* ]]
      sha256sum "$output" >sums
      echo "''${output##*/}" >/meet/ready
      read -r verdict </meet/done
      [[ $verdict == tried ]]
      # What was this build's is still there, and still what it was.
      sha256sum -c sums
      [[ $(sha256sum <"$output") == "''${output##*/}"* ]]
      echo "$output" >$out
    '';
  })
  (build {
    name = "intruder";
    src = ./probe;
    buildPhase = ''
      cp -r $src probe && chmod -R u+w probe && cd probe
      go build -o ../probe-bin .
      own=$(go list -export -f '{{.Export}}' .)
      read -r name </meet/ready
      ../probe-bin "$own" "$name"
      echo tried >/meet/done
      echo "$own" >$out
    '';
  })
]
