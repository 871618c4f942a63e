# What nix-gocacheprog adds to a `go` command that has nothing to do, and to a build that runs none.
# `step` makes each build a derivation of its own, of which the cache cannot tell; `least` is test/least.c, compiled.
{
  step,
  pairs ? 0,
  least ? "",
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
  module = ''
    mkdir source && cd source
    printf 'module command\n\ngo 1.21\n' >go.mod
    echo 'package command' >command.go
  '';
in
packages.buildGoModule {
  pname = if pairs == 0 then "nothing" else "command";
  version = "1";
  unpackPhase = module;
  vendorHash = null;
  doCheck = false;
  # In turns, which comes first. CPU time is that of all that has ended below this shell, which is the sandbox's first
  # process.
  buildPhase =
    if pairs == 0 then
      ":"
    else
      ''
        slice() {
            local program=$GOCACHEPROG from to
            case $1 in
            own) unset GOCACHEPROG ;;
            least) export GOCACHEPROG=${builtins.storePath least} LEAST=$GOCACHE ;;
            esac
            times >times.before
            from=$EPOCHREALTIME
            for _ in {1..20}; do
                go build .
            done
            to=$EPOCHREALTIME
            times >times.after
            echo "slice: $1 $from $to" $(tail -n 1 times.before) $(tail -n 1 times.after) >&2
            export GOCACHEPROG=$program
        }
        export GOCACHE=$PWD/../gocache
        slice own
        slice ours
        slice least
        for ((i = 0; i < ${toString pairs}; i++)); do
            if ((i % 2)); then slice own; slice least; slice ours; else slice ours; slice least; slice own; fi
        done
      '';
  installPhase = ''
    mkdir "$out"
    : ${step}
  '';
}
