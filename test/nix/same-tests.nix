# The changes of test/same-tests: tests in packages of their own, each of which logs what it sees, and for each
# something that can change between two builds and leaves every size as it was. `variant` says which changes are made:
#
#   first    none
#   again    a README that no test reads
#   files    everything below the module's root
#   env      variables, what they name in the store, and programs of PATH
#   zone     the time zone
#   phase    what preCheck does
#   outside  files that lie beside the module, and in /tmp
{
  variant,
  # Only these cases, with a blank between each two; all, if there are none.
  only ? "",
  # So that a build is not one of before.
  step ? "",
  short ? false,
  # Attributes that are not in the environment.
  structured ? false,
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
  inherit (packages) stdenv;
  inherit (builtins) concatStringsSep attrNames filter;

  # `first`, or what it becomes in this variant.
  pick =
    which: first: other:
    if variant == which then other else first;
  file = pick "files";

  # Reads a file, and says so.
  read = path: ''return saw.File("${path}")'';

  # What the tests of each case see is what `body` returns.
  cases = {
    data = {
      short = true;
      files."testdata/in" = file "roses" "lilac";
      body = read "testdata/in";
    };
    deep-data = {
      files."testdata/a/b/c/in" = file "roses" "lilac";
      body = read "testdata/a/b/c/in";
    };
    large-data = {
      files."testdata/in" =
        concatStringsSep "" (builtins.genList (_: "0123456789abcdef") 4096) + file "a" "b";
      body = ''text := saw.File("testdata/in"); return text[len(text)-2:]'';
    };
    parent = {
      short = true;
      files."../golden-parent" = file "gold 1" "gold 2";
      body = read "../golden-parent";
    };
    module-root = {
      files."../NOTICE" = file "by me" "by us";
      body = read "../NOTICE";
    };
    sibling = {
      files."../data-of-sibling/in" = file "here" "home";
      body = read "../data-of-sibling/in";
    };
    listing = {
      short = true;
      files."testdata/${file "alpha" "omega"}" = "x";
      body = ''
        entries, _ := os.ReadDir("testdata")
        return entries[0].Name()
      '';
      imports = [ "os" ];
    };
    walk = {
      files."testdata/sub/${file "alpha" "omega"}" = "x";
      body = ''
        found := ""
        filepath.WalkDir("testdata", func(path string, _ fs.DirEntry, _ error) error {
          found += path + " "
          return nil
        })
        return found
      '';
      imports = [
        "io/fs"
        "path/filepath"
      ];
    };
    glob = {
      files."testdata/${file "one.txt" "two.txt"}" = "x";
      body = ''
        found, _ := filepath.Glob("testdata/*.txt")
        return found[0]
      '';
      imports = [ "path/filepath" ];
    };
    file-system = {
      files."testdata/in" = file "roses" "lilac";
      body = ''
        text, _ := fs.ReadFile(os.DirFS("testdata"), "in")
        return string(text)
      '';
      imports = [
        "io/fs"
        "os"
      ];
    };
    mode = {
      files."testdata/in" = "x";
      then_ = "chmod ${file "600" "700"} testdata/in";
      body = ''
        about, _ := os.Stat("testdata/in")
        return about.Mode().String()
      '';
      imports = [ "os" ];
    };
    link = {
      short = true;
      files."testdata/target" = file "roses" "lilac";
      then_ = "ln -s target testdata/in";
      body = read "testdata/in";
    };
    link-elsewhere = {
      files."testdata/one" = "roses";
      files."testdata/two" = "lilac";
      then_ = "ln -s ${file "one" "two"} testdata/in";
      body = read "testdata/in";
    };
    absent = {
      files."testdata/${file "there" "other"}" = "x";
      body = ''
        _, err := os.Stat("testdata/there")
        return fmt.Sprint(err)
      '';
      imports = [
        "fmt"
        "os"
      ];
    };
    swapped = {
      files."testdata/one" = file "roses" "lilac";
      files."testdata/two" = file "lilac" "roses";
      body = read "testdata/one";
    };
    changed-folder = {
      files."testdata/in" = file "roses" "lilac";
      body = ''
        os.Chdir("testdata")
        return saw.File("in")
      '';
      imports = [ "os" ];
    };
    beside-source = {
      files."testdata/in" = file "roses" "lilac";
      body = ''
        _, source, _, _ := runtime.Caller(0)
        return saw.File(filepath.Join(filepath.Dir(source), "testdata/in"))
      '';
      imports = [
        "path/filepath"
        "runtime"
      ];
    };
    script = {
      short = true;
      files."testdata/run" = "#!/bin/sh\necho ${file "roses" "lilac"}";
      then_ = "chmod +x testdata/run";
      body = ''
        said, err := exec.Command("./testdata/run").CombinedOutput()
        return fmt.Sprint(string(said), err)
      '';
      imports = [
        "fmt"
        "os/exec"
      ];
    };
    embedded = {
      short = true;
      files."in" = file "roses" "lilac";
      before = "//go:embed in\nvar text string";
      body = "return text";
      imports = [ "_ \"embed\"" ];
    };
    embedded-folder = {
      files."in/${file "alpha" "omega"}" = "x";
      before = "//go:embed in\nvar folder embed.FS";
      body = ''
        entries, _ := folder.ReadDir("in")
        return entries[0].Name()
      '';
      imports = [ "embed" ];
    };
    imported = {
      short = true;
      files."deep/deep.go" = "package deep\n\nconst Flower = \"${file "rose" "lily"}\"";
      body = "return deep.Flower";
      imports = [ "same/imported/deep" ];
    };
    imported-twice = {
      files."one/one.go" =
        "package one\n\nimport \"same/imported-twice/two\"\n\nfunc Flower() string { return two.Flower }";
      files."two/two.go" = "package two\n\nvar Flower = \"${file "rose" "lily"}\"";
      body = "return one.Flower()";
      imports = [ "same/imported-twice/one" ];
    };
    vendored = {
      files."../vendor/example.com/flower/flower.go" =
        "package flower\n\nconst Name = \"${file "rose" "lily"}\"";
      body = "return flower.Name";
      imports = [ "example.com/flower" ];
    };
    other-import = {
      files."aa/flower.go" = "package flower\n\nconst Name = \"rose\"";
      files."bb/flower.go" = "package flower\n\nconst Name = \"lily\"";
      body = "return flower.Name";
      imports = [ "flower \"same/other-import/${file "aa" "bb"}\"" ];
    };
    another-test = {
      files."more_test.go" = "package it\n\nconst flower = \"${file "rose" "lily"}\"";
      body = "return flower";
    };
    constrained = {
      files."here_linux.go" = "package it\n\nconst flower = \"${file "rose" "lily"}\"";
      body = "return flower";
    };
    constraint = {
      short = true;
      files."one.go" = "//go:build ${file " linux" "!linux"}\n\npackage it\n\nconst flower = \"rose\"";
      files."two.go" = "//go:build ${file "!linux" " linux"}\n\npackage it\n\nconst flower = \"lily\"";
      body = "return flower";
    };
    another-file = {
      files."${file "one" "two"}.go" = "package it\n\nconst flower = \"${file "rose" "lily"}\"";
      body = "return flower";
    };

    variable = {
      body = ''return os.Getenv("FLOWER")'';
      imports = [ "os" ];
    };
    all-variables = {
      body = ''
        for _, each := range os.Environ() {
          if strings.HasPrefix(each, "FLOWER=") {
            return each
          }
        }
        return ""
      '';
      imports = [
        "os"
        "strings"
      ];
    };
    variable-of-program = {
      body = ''
        said, err := exec.Command("/bin/sh", "-c", "echo $FLOWER").CombinedOutput()
        return fmt.Sprint(string(said), err)
      '';
      imports = [
        "fmt"
        "os/exec"
      ];
    };
    store-path = {
      body = ''return saw.File(os.Getenv("GARDEN") + "/flower")[0:5]'';
      imports = [ "os" ];
    };
    store-path-of-program = {
      body = ''
        said, err := exec.Command("/bin/sh", "-c", "head -c 5 $GARDEN/flower").CombinedOutput()
        return fmt.Sprint(string(said), err)
      '';
      imports = [
        "fmt"
        "os/exec"
      ];
    };
    program = {
      body = ''
        said, err := exec.Command("flower").CombinedOutput()
        return fmt.Sprint(string(said), err)
      '';
      imports = [
        "fmt"
        "os/exec"
      ];
    };
    zone = {
      body = "return time.Unix(0, 0).Format(time.RFC3339)";
      imports = [
        "time"
        "_ \"time/tzdata\""
      ];
    };
    umask = {
      body = "return fmt.Sprint(syscall.Umask(0))";
      imports = [
        "fmt"
        "syscall"
      ];
    };
    scratch = {
      body = ''return saw.File("/tmp/flower")'';
    };
    outside-module = {
      body = ''return saw.File("../../beside")'';
    };
    outside-source = {
      body = ''return saw.File("../../../garden/flower")'';
    };
  };

  isChosen =
    name:
    (!short || cases.${name}.short or false)
    && (only == "" || builtins.elem name (filter builtins.isString (builtins.split " " only)));
  chosen = filter isChosen (attrNames cases);

  garden =
    flower:
    stdenv.runCommand "garden" { } ''
      mkdir -p $out/bin
      echo ${flower} >$out/flower
      printf '#!/bin/sh\necho ${flower}\n' >$out/bin/flower
      chmod +x $out/bin/flower
    '';

  write = path: text: ''
    mkdir -p "$(dirname "${path}")"
    printf '%s\n' ${quote text} >"${path}"
  '';
  quote = text: "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] text + "'";

  # The package of a case.
  package =
    name:
    let
      case = cases.${name};
      imports = map (each: "import ${if builtins.match ".*\".*" each == null then "\"${each}\"" else each}\n") (
        (case.imports or [ ]) ++ [ "testing" ] ++ (if usesSaw then [ "same/saw" ] else [ ])
      );
      usesSaw = builtins.match ".*saw\\.File.*" (builtins.replaceStrings [ "\n" ] [ " " ] case.body) != null;
    in
    ''
      mkdir -p ${name}
      cd ${name}
      ${write "it.go" "package it"}
      ${write "it_test.go" ''
        package it

        ${concatStringsSep "" imports}
        ${case.before or ""}

        func see() string {
        ${case.body}
        }

        func TestIt(t *testing.T) { t.Logf("saw: ${name}: %q", see()) }
      ''}
      ${concatStringsSep "" (map (path: write path case.files.${path}) (attrNames (case.files or { })))}
      ${case.then_ or ""}
      cd ..
    '';

  # The module is a part of what is unpacked. As in nixpkgs, nothing of it is in the derivation but its store path.
  source = stdenv.runCommand "source" { } ''
    mkdir -p $out/source/module
    cd $out/source/module
    ${write "../beside" (pick "outside" "roses" "lilac")}
    ${write "../../garden/flower" (pick "outside" "roses" "lilac")}
    ${write "README" "${step} ${variant}"}
    ${write "go.mod" "module same\n\ngo 1.24\n\nrequire example.com/flower v1.0.0"}
    ${write "vendor/modules.txt" "# example.com/flower v1.0.0\n## explicit\nexample.com/flower"}
    ${write "vendor/example.com/flower/flower.go" "package flower\n\nconst Name = \"rose\""}
    ${write "saw/saw.go" ''
      package saw

      import "os"

      func File(path string) string {
        text, err := os.ReadFile(path)
        if err != nil {
          return err.Error()
        }
        return string(text)
      }
    ''}
    ${concatStringsSep "" (map package chosen)}
  '';
in
packages.buildGoModule (
  {
    pname = "same-tests";
    version = "1";
    src = source;
    vendorHash = null;
    nativeBuildInputs = [ (garden (pick "env" "roses" "lilac")) ];
    env = {
      GOFLAGS = "-mod=vendor -trimpath";
      FLOWER = pick "env" "rose" "lily";
      GARDEN = garden (pick "env" "roses" "lilac");
      ZONE = pick "zone" "America/New_York" "America/Sao_Paulo";
    };
    unpackPhase = ''
      cp -rP $src/source $src/garden .
      cp garden/flower /tmp/flower
      find source garden -exec touch -h -d @1 {} +
      chmod -R u+w source garden
      cd source/module
    '';
    preCheck = "export TZ=$ZONE; umask ${pick "phase" "022" "027"}";
    checkFlags = [ "-v" ];
    installPhase = "echo installed >$out";
  }
  // (if structured then { __structuredAttrs = true; } else { })
)
