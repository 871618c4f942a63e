# Two fixed-output derivations, each of which downloads a version of the tests' module.
{ step, ... }@args:
let
  packages = import ./. { inherit (args) tools cacert go; };
  download =
    version:
    let
      # Another one with each step, or the output would be there already.
      text = "${version} ${step}\n";
    in
    packages.stdenv.mkDerivation {
      name = "modules-${version}";
      nativeBuildInputs = [
        packages.go
        packages.nixGocacheprogHook
      ];
      impureEnvVars = [ "GOPROXY" ];
      env = {
        GOSUMDB = "off";
        GOTOOLCHAIN = "local";
      };
      inherit text;
      phases = [ "buildPhase" ];
      buildPhase = ''
        runHook preBuild
        export GOPATH=$TMPDIR/go GOCACHE=$TMPDIR/go-cache
        echo "GOPROXY is $GOPROXY"
        go mod download -json example.test/m@${version}
        printf '%s' "$text" >$out
        runHook postBuild
      '';
      outputHashMode = "flat";
      outputHashAlgo = "sha256";
      outputHash = builtins.hashString "sha256" text;
    };
in
map download [
  "v1.0.0"
  "v1.1.0"
]
