# Four programs, each twice and each time as another derivation; without the hook, each once.
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
  # What they import they do not share, so each has something to put.
  programs = {
    bits = ''import "math/bits"; func main() { println(bits.Len(255)) }'';
    sort = ''import "sort"; func main() { println(sort.SearchInts([]int{1, 2, 3}, 3)) }'';
    strconv = ''import "strconv"; func main() { println(strconv.Quote("x")) }'';
    text = ''import "strings"; func main() { println(strings.Repeat("ab", 3)) }'';
  };
  program =
    copy: name:
    packages.buildGoModule {
      # Not the name of the package itself, which would be ambiguous.
      pname = "use-${name}";
      version = copy;
      inherit step;
      vendorHash = null;
      doCheck = false;
      text = "package main; ${programs.${name}}";
      unpackPhase = ''
        mkdir source && cd source
        printf 'module use-${name}\n\ngo 1.21\n' >go.mod
        printf '%s\n' "$text" >main.go
      '';
    };
in
builtins.concatMap (copy: map (program copy) (builtins.attrNames programs)) (
  if withHook then
    [
      "a"
      "b"
    ]
  else
    [ "alone" ]
)
