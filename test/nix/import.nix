# A program whose one import differs between `which` = aa and bb, but not the size of any file.
{
  step,
  which,
  flags ? "",
  ...
}@args:
(import ./. {
  inherit (args) tools cacert go;
}).buildGoModule
  {
    pname = "import";
    version = "1";
    inherit step which;
    vendorHash = null;
    doCheck = false;
    env.GOFLAGS = flags;
    unpackPhase = ''
      mkdir -p source/aa source/bb && cd source
      printf 'module import\n\ngo 1.21\n' >go.mod
      for each in aa bb; do
        printf 'package %s\n\nfunc F() string { return "%s" }\n' $each $each >$each/f.go
      done
      printf 'package main\n\nimport "import/%s"\n\nfunc main() { println(%s.F()) }\n' $which $which >main.go
      # As everything is that comes from the store.
      find . -exec touch -h -d @1 {} +
    '';
  }
