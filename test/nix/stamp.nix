# A program with a test that reads a poem, which another `poem` of the same length changes, and phases that write down
# all times before and after those that run `go`. With `make`, a build phase that a Makefile could be a part of.
{
  step,
  withHook ? true,
  poem ? "roses are red",
  flags ? "-trimpath -mod=vendor",
  mode ? "",
  ...
}@args:
let
  packages = import ./. (
    {
      inherit (args) tools cacert go;
    }
    // (if withHook then { } else { overlays = [ ]; })
  );
  times = phase: ''
    { echo ${phase}; find . -exec stat -c '%Y %n' {} + | sort -k 2; } >>$TMPDIR/times
    echo "${phase}: stamped=''${NIX_GOCACHEPROG_STAMPED-no}"
  '';
in
packages.buildGoModule {
  pname = "stamp";
  # It says nothing to a test.
  version = step;
  vendorHash = null;
  env = {
    GOFLAGS = flags;
    NIX_GOCACHEPROG_TESTS = mode;
  };
  src = packages.stdenv.runCommand "source" { inherit poem; } ''
    mkdir -p $out/poem/testdata
    cd $out
    printf 'module stamp\n\ngo 1.21\n' >go.mod
    printf 'package main\n\nfunc main() { println("stamp") }\n' >main.go
    printf 'package poem\n' >poem/poem.go
    cat >poem/poem_test.go <<END
    package poem

    import (
    	"os"
    	"testing"
    )

    func TestPoem(t *testing.T) {
    	poem, err := os.ReadFile("testdata/poem")
    	if err != nil {
    		t.Fatal(err)
    	}
    	about, err := os.Stat("testdata/poem")
    	if err != nil {
    		t.Fatal(err)
    	}
    	t.Logf("the poem: %s, stamped: %v", poem, about.ModTime().Unix() != 1)
    }
    END
    printf '%s' "$poem" >poem/testdata/poem
  '';
  unpackPhase = ''
    cp -r $src source
    # As everything is that comes from the store.
    find source -exec touch -h -d @1 {} +
    chmod -R u+w source
    cd source
  '';
  checkFlags = [ "-v" ];
  preBuild = times "preBuild";
  postBuild = times "postBuild";
  preCheck = times "preCheck";
  postCheck = times "postCheck";
  installPhase = ''
    ${times "install"}
    mkdir -p $out/bin
    cp $GOPATH/bin/stamp $out/bin/
    cp -p poem/testdata/poem $out/poem
    stat -c '%Y %n' $out/poem >>$TMPDIR/times
    sed "s,$out,,g" $TMPDIR/times >$out/times
  '';
}
