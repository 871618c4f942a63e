# The builds of test/faults. `src` is a store path; `kind` is what go does; `step` makes every build a
# derivation of its own; `client` is the GOCACHEPROG, none for a build without us.
{
  src,
  kind,
  step,
  client ? null,
  ...
}@args:
let
  packages = import ./. (
    {
      inherit (args) tools cacert go;
    }
    // (if client == null then { overlays = [ ]; } else { })
  );

  # Each begins several `go` commands, one after the other or at once, and says in $said what it found.
  kinds = {
    # What every kind needs of the standard library: for a cache that is not empty.
    standard = ''
      mkdir standard
      cd standard
      printf 'module example.com/standard\n\ngo 1.24\n' >go.mod
      printf 'package main\n\nfunc main() {}\n' >main.go
      printf 'package main\n\nimport "testing"\n\nfunc TestMain(*testing.M) {}\n' >main_test.go
      go vet .
      go test -c -o /dev/null
      go install $ldflags .
    '';
    build = ''
      go build ./...
      go install $ldflags ./cmd/...
    '';
    test = ''
      go test -vet=off ./... >tested
      # Neither the time it took nor whether it was cached.
      awk '{ print $1, $2 }' tested >>$said
      go install $ldflags ./cmd/one
    '';
    vet = ''
      ! go vet ./... 2>found
      cat found >&2
      sort found | grep -v '^nix-gocacheprog: ' >>$said
      go install $ldflags ./cmd/one
    '';
    two = ''
      go install $ldflags ./cmd/one & one=$!
      go install $ldflags ./cmd/two & two=$!
      wait $one
      wait $two
      go list -f '{{.Stale}}' ./cmd/... >>$said
    '';
  };
in
packages.buildGoModule {
  pname = "faults-${kind}";
  version = "1";
  src = builtins.storePath src;
  vendorHash = null;
  doCheck = false;
  env = {
    inherit step;
  }
  // (if client == null then { } else { GOCACHEPROG = client; });
  buildPhase = ''
    runHook preBuild
    said=$TMPDIR/said
    ldflags=-ldflags=-buildid=
    # What the client says is looked at in the log.
    : >$said
    ${kinds.${kind}}
    mkdir -p $out
    cp $said $out/said
    cat $said
    runHook postBuild
  '';
}
