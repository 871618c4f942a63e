# Builds that go by times, as Make does: each writes down what it has made, and where. Of what is generated some is
# older than its source, some newer, and some as old.
{
  step,
  withHook ? true,
  ...
}@args:
let
  packages = import ./. (
    {
      inherit (args) tools cacert go;
    }
    // (if withHook then { } else { overlays = [ ]; })
  );
  build =
    name: attrs:
    packages.buildGoModule (
      {
        pname = "make-${name}";
        version = "1";
        inherit step;
        vendorHash = null;
        env.GOFLAGS = "-trimpath -mod=vendor";
        unpackPhase = ''
          mkdir -p source/data bin && cd source
          printf 'module stamp\n\ngo 1.21\n' >go.mod
          printf 'package main\n\n//go:generate make generate\n\nfunc main() { println("made") }\n' >main.go
          printf 'package main\n\nimport "testing"\n\nfunc TestMade(t *testing.T) {}\n' >main_test.go
          printf 'go build -o "$TMPDIR/program" .\nmake script\n' >build.sh
          for each in older newer same; do
            echo "generated from $each" >data/$each.out
            echo "the source of $each" >data/$each.in
          done
          find . -exec touch -h -d @1 {} +
          touch -d @1000 data/older.in data/newer.out
          # All that Make does, as far as it matters here.
          cat >../bin/make <<'END'
          for each in data/*.in; do
            out=''${each%.in}.out
            if [ ! -e "$out" ] || [ "$each" -nt "$out" ]; then
              echo "$1 makes $out" >>"$MADE"
            fi
          done
          END
          sed -i "1i #!$tools/bin/bash" ../bin/make
          chmod +x ../bin/make
          export MADE=$PWD/../made PATH=$PATH:$PWD/../bin
          : >"$MADE"
        '';
        doCheck = false;
        installPhase = ''
          make install
          cp "$MADE" $out
        '';
      }
      // attrs
    );
  phase = commands: ''
    runHook preBuild
    ${commands}
    runHook postBuild
  '';
in
[
  (build "hooks" {
    doCheck = true;
    preBuild = "make preBuild";
    postBuild = "make postBuild";
    preCheck = "make preCheck";
    postCheck = "make postCheck";
  })
  (build "phase" {
    buildPhase = phase ''
      make phase
      go build -o "$TMPDIR/program" .
    '';
  })
  (build "script" { buildPhase = phase "bash ./build.sh"; })
  (build "generate" {
    buildPhase = phase ''
      go generate ./...
      go build -o "$TMPDIR/program" .
    '';
  })
  (build "loop" {
    buildPhase = phase ''
      for each in 1 2; do
        make $each
      done
      go build -o "$TMPDIR/program" .
    '';
  })
]
