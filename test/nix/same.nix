# The changes of test/same: for each, what is built before it and after it, as two derivations. All programs are small,
# so that a build takes seconds; `said` in an output is what the program says when it runs.
{ ... }@args:
let
  packages = import ./. args;
  inherit (packages) c go stdenv;
  words = builtins.concatStringsSep " ";

  module = "module example.com/same\n\ngo 1.24\n";

  # A program that says the first of some bytes, which C or an assembler has.
  printsBytes = ''
    package main

    // extern char bytes[2];
    import "C"

    func main() { println(C.bytes[0]) }
  '';

  # Writes files, with the time that all files in the store have.
  write =
    files:
    builtins.concatStringsSep "" (
      map (name: ''
        mkdir -p "$(dirname "${name}")"
        cat >"${name}" <<'END-OF-FILE'
        ${files.${name}}
        END-OF-FILE
      '') (builtins.attrNames files)
    )
    + "find . -exec touch -h -d @1 {} +\n";

  # The packages of the standard library that have no C in them, compiled by Go, in a cache of Go's own. Without
  # nix-gocacheprog that is what a build begins with, since compiling them each time would take most of the time. It
  # goes by the version of Go, so cases that are about another Go of the same version begin with nothing.
  standard = stdenv.runCommand "go-build" { nativeBuildInputs = [ go ]; } ''
    export GOCACHE=$out GOFLAGS=-trimpath GODEBUG=goindex=0 HOME=$TMPDIR
    go build $(CGO_ENABLED=1 go list -deps -f '{{if not .CgoFiles}}{{.ImportPath}}{{end}}' runtime/cgo syscall errors)
  '';

  # What is built: `files` by `build`, in `env`, after `preBuild`.
  program =
    name:
    {
      files,
      env ? { },
      cc ? c.cc1,
      goPackage ? go,
      # Whether the program can run here.
      runs ? true,
      build ? "go build $flags -o $out/bin/ ./...",
      flags ? "",
      structured ? false,
      modRoot ? ".",
      # Whether it is built as any program is, by a phase that runs nothing but `go`.
      usual ? false,
      # Whether Go may take from its own cache what it is sure of.
      seeded ? goPackage == go,
      ...
    }@attrs:
    (packages.buildGoModule.override { go = goPackage; }) (
      removeAttrs attrs [
        "files"
        "cc"
        "goPackage"
        "runs"
        "build"
        "structured"
        "usual"
        "seeded"
      ]
      // {
        name = "same-${name}";
        vendorHash = null;
        doCheck = false;
        inherit modRoot;
        __structuredAttrs = structured;
        # As it is in nixpkgs: everything has a compiler.
        nativeBuildInputs = [ cc ] ++ (attrs.nativeBuildInputs or [ ]);
        flags = "-ldflags=-buildid= ${flags}";
        env = {
          CGO_ENABLED = "1";
          # So that outputs differ by what changed, and not by where they are. Other cases look at that.
          NIX_NO_SELF_RPATH = "1";
        }
        // env;
        unpackPhase = ''
          runHook preUnpack
          mkdir source
          cd source
          ${write (
            (if modRoot == "." && !(files ? "go.mod") then { "go.mod" = module; } else { }) // files
          )}
          runHook postUnpack
        '';
        installPhase = ''
          mkdir -p $out
          if [[ -n "${if runs then "1" else ""}" ]]; then
            for each in $out/bin/*; do
              "$each" >>$out/said 2>&1
            done
          elif [[ -d $out/bin ]]; then
            readelf -l $out/bin/* | grep -o '/.*/ld-[^]]*\|/.*/loader[^]]*' >$out/said || true
          fi
        '';
      }
      // (
        let
          seed = ''
            if [[ -n "${if seeded then "1" else ""}" && -z ''${GOCACHEPROG-} ]]; then
              cp -r ${standard} $GOCACHE
              chmod -R u+w $GOCACHE
            fi
          '';
        in
        if usual then
          {
            preBuild = seed + (attrs.preBuild or "");
            postBuild = "mkdir -p $out; cp -r $GOPATH/bin $out/";
          }
        else
          {
            buildPhase = seed + ''
              runHook preBuild
              ${build}
              runHook postBuild
            '';
          }
      )
    );

  # A program in C and Go that says what V is, where `includes` define it.
  saysV = includes: ''
    package main

    ${includes}
    // static int value(void) { return V; }
    import "C"

    func main() { println(C.V, C.value()) }
  '';
  define = v: "#define V ${v}\n";

  # One that says what it is told by flags, and whose code shows how it was hardened.
  probe = ''
    package main

    // #include <string.h>
    // #include <glibc-package.h>
    // #ifndef V
    // #define V 0
    // #endif
    // static int value(void) { return V; }
    // static int first(const char *from) { char copy[8]; strcpy(copy, from); return copy[0]; }
    import "C"

    func main() { println(C.value(), C.first(C.CString("x")), C.GLIBC_PACKAGE) }
  '';

  # One with a class.
  probeCxx = {
    "main.go" = ''
      package main

      // int value(void);
      import "C"

      func main() { println(C.value()) }
    '';
    "value.cc" = ''
      #include <cstdlib>
      #ifdef OF_FILE
      #include "v.h"
      #endif
      #ifndef V
      #define V 0
      #endif
      class Value { public: int get() { return abs(V); } };
      extern "C" int value(void) { Value value; return value.get(); }
    '';
  };

  # One without code of its own in C, which Go links by itself: its loader is written down in runtime/cgo.
  # It cannot run here: only in nixpkgs does a loader look for the C library beside itself.
  linked = {
    files."main.go" = ''
      package main

      import _ "runtime/cgo"

      func main() { println("linked by go") }
    '';
    runs = false;
  };

  # One linked with a library that `flags` find.
  usesFoo = pragmas: ''
    package main

    ${pragmas}
    // #ifndef FOO
    // #define FOO 0
    // #endif
    // int foo(void);
    import "C"

    func main() { println(C.FOO, C.foo()) }
  '';

  # A library of which there are two versions, with a header, a soname and a .pc file of its own.
  library =
    version:
    stdenv.mkDerivation {
      name = "foo-${version}";
      inherit version;
      nativeBuildInputs = [ c.cc1 ];
      phases = [ "installPhase" ];
      installPhase = ''
        mkdir -p $out/include $out/lib/pkgconfig
        echo "#define FOO $version" >$out/include/foo.h
        echo "int foo(void) { return $version; }" >foo.c
        gcc -shared -Wl,-soname,libfoo.so.$version -o $out/lib/libfoo.so.$version foo.c
        ln -s libfoo.so.$version $out/lib/libfoo.so
        printf '%s\n' 'Name: foo' 'Description: foo' "Version: $version" "Cflags: -I$out/include -DFOO_PC=$version" \
          "Libs: -L$out/lib -lfoo" >$out/lib/pkgconfig/foo.pc
        sed "s/Name: foo/Name: foo-$version/" $out/lib/pkgconfig/foo.pc >$out/lib/pkgconfig/foo-$version.pc
      '';
    };
  foo = {
    "1" = library "1";
    "2" = library "2";
  };

  # A header v.h in the store.
  header =
    v:
    stdenv.runCommand "header-${v}" { inherit v; } ''
      mkdir -p $out/include
      echo "#define V $v" >$out/include/v.h
    '';
  headers = {
    "1" = header "1";
    "2" = header "2";
  };

  assembler = include: {
    "main.go" = ''
      package main

      func value() int64

      func main() { println(value()) }
    '';
    "value_${goarch}.s" = ''
      #include "textflag.h"
      ${include}

      TEXT ·value(SB), NOSPLIT, $0-8
      	MOVQ $V, AX
      	MOVQ AX, ret+0(FP)
      	RET
    '';
  };
  # The same in a package of its own, whose assembler file includes a header of another folder.
  assemblerPackage = folder: {
    "main.go" = importing "example.com/same/${folder}";
    "${folder}/value.go" = ''
      package value

      func value() int64

      func V() int64 { return value() }
    '';
    "${folder}/value_${goarch}.s" = (assembler "#include \"../include/v.h\"")."value_${goarch}.s";
  };
  importing = package: ''
    package main

    import value "${package}"

    func main() { println(value.V()) }
  '';
  # A package whose header is in a folder below, where `go` does not look.
  depWithC = ''
    package dep

    // #cgo CFLAGS: -I''${SRCDIR}/include
    // #include "v.h"
    import "C"

    func V() int { return C.V }
  '';
  # A program with a library that preBuild installs below `prefix`, which its .pc file calls what is `said`.
  installed =
    { prefix, said }:
    v:
    {
      files."main.go" = ''
        package main

        // #cgo pkg-config: value
        // #include <value.h>
        import "C"

        func main() { println(C.V, C.value()) }
      '';
      nativeBuildInputs = [ c.pkgConfig ];
      preBuild = ''
        prefix=${prefix}
        mkdir -p $prefix/include $prefix/lib/pkgconfig
        printf '#define V ${v}\nint value(void);\n' >$prefix/include/value.h
        echo "int value(void) { return ${v}; }" >value.txt
        gcc -x c -c -o value.o value.txt
        ar rcD $prefix/lib/libvalue.a value.o
        rm value.txt value.o
        printf '%s\n' "prefix=${said}" 'Name: value' 'Description: value' 'Version: 1' \
          'Cflags: -I''${prefix}/include' 'Libs: -L''${prefix}/lib -lvalue' >$prefix/lib/pkgconfig/value.pc
        export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
      '';
    };

  goarch = "amd64";
  otherArch = "arm64";
  noC = {
    CGO_ENABLED = "0";
  };

  # Programs by which a change of a variable's value is seen; `first` is what it is before.
  variable =
    name: first: second: attrs:
    v:
    attrs
    // {
      env = (attrs.env or { }) // (
        let
          value = if v == "1" then first else second;
        in
        if value == null then { } else { ${name} = value; }
      );
    };
  probing = {
    files."main.go" = probe;
  };
  ofFile = files: {
    files."main.go" = saysV "// #include \"v.h\"";
  } // files;
  # Linked with libfoo.so without the C compiler's linker having the last word.
  foo1or2 = {
    files."main.go" = usesFoo "// #cgo LDFLAGS: -lfoo";
    flags = "-ldflags=-linkmode=internal";
  };

  # The parts of the compiler that it starts, one of which does more than the compiler says.
  gccParts =
    v:
    stdenv.runCommand "gcc-parts-${v}" { inherit v; inherit (c) gcc; } ''
      mkdir $out
      cp -rs $gcc/lib/gcc/* $out/
      find $out -type d -exec chmod u+w {} +
      cc1=($out/*/*/cc1)
      rm $cc1
      printf '#!%s\nexec %s "$@" -DV=%s\n' $tools/bin/bash $gcc/lib/gcc/''${cc1#$out/} $v >$cc1
      chmod +x $cc1
    '';

  # A Go package of the same version, with a patch that its version does not show: links to the original's files, but
  # for `go`, which finds GOROOT by where it is itself.
  patchedGo =
    patch:
    stdenv.runCommand "go" { original = go.outPath; } ''
      mkdir $out
      cp -rs $original/bin $original/pkg $original/src $original/lib $original/VERSION $original/go.env $out/
      find $out -type d -exec chmod u+w {} +
      replace() {
        rm $1
        cp $original/''${1#$out/} $1
        chmod u+w $1
      }
      replace $out/bin/go
      ${patch}
    '';
  compilerWithPatch = patchedGo ''
    compiler=($out/pkg/tool/*/compile)
    rm $compiler
    {
      echo "#!/bin/sh"
      echo "case \"\$*\" in *-V=full*) exec $original/''${compiler#$out/} \"\$@\" ;; esac"
      echo "exec $original/''${compiler#$out/} -N \"\$@\""
    } >$compiler
    chmod +x $compiler
  '';
  libraryWithPatch = patchedGo ''
    replace $out/src/errors/errors.go
    sed -i 's/return &errorString{text}/return \&errorString{text + " (patched)"}/' $out/src/errors/errors.go
  '';
  asGo = path: go // { outPath = "${path}"; out = "${path}"; };

  profile = {
    "1" =
      "H4sIAAAAAAACA+Ni4WAUYOJi4WAWYBHi5WJiZBJif8HecGL9AlUlDg5GJZA0M5DFBGQxCXBqcQH5bBJsCuwajEA2kw"
      + "CHBAeQzW7EYMRenJhbkJNabMSanF+aV2LEnFxQasSdl5iXX5yanJ+XUmzEmZuYmacHIow4wMz8vFQjdjArPd+IG8xI"
      + "TszJSS3yYAgAOyEK7K6EhrWPWABdErj5qQAAAA==";
    "2" =
      "H4sIAAAAAAACA+Ni4WAUYOJi4WAWYBHi5WJiZBJif8HecGL9AlUlDg5GJZC0CJDFBGQxCXBpcQH5bBJsCuwajEA2kw"
      + "CHBAeQzW7EYMRenJhbkJNabMSanF+aV2LEnFxQasSdl5iXX5yanJ+XUmzEmZuYmacHIow4wMyS8nwjdjArPd+IG8xI"
      + "TszJSS3yYAgAOyEK7K6EhrWPWACKE9e+qQAAAA==";
  };

  pure = files: {
    inherit files;
    env = noC;
  };

  cases = {
    # Files that C includes.
    header-beside = {
      change = "a header beside the Go file";
      make = v: {
        files = {
          "main.go" = saysV "// #include \"v.h\"";
          "v.h" = define v;
        };
      };
    };
    header-above = {
      change = "a header in a folder beside the package's, by -I\${SRCDIR}/../include";
      outside = true;
      make = v: {
        files = {
          "cmd/same/main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/../../include\n// #include \"v.h\"";
          "include/v.h" = define v;
        };
      };
    };
    header-below = {
      change = "a header in a folder below the package's";
      make = v: {
        files = {
          "main.go" = saysV "// #include \"include/deep/v.h\"";
          "include/deep/v.h" = define v;
        };
      };
    };
    header-above-module = {
      change = "a header above the module's root, in a project with the module in a folder";
      make = v: {
        modRoot = "go";
        files = {
          "go/go.mod" = module;
          "go/main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/../include\n// #include \"v.h\"";
          "include/v.h" = define v;
        };
      };
    };
    header-by-link = {
      change = "a header in a folder to which a symbolic link leads";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/link\n// #include \"v.h\"";
          "real/v.h" = define v;
        };
        postUnpack = "ln -s real link";
      };
    };
    inc = {
      change = "an .inc file beside the Go file";
      short = true;
      outside = true;
      make = v: {
        files = {
          "main.go" = saysV "// #include \"v.inc\"";
          "v.inc" = define v;
        };
      };
    };
    inl = {
      change = "an .inl file that a header includes";
      make = v: {
        files = {
          "main.go" = saysV "// #include \"v.h\"";
          "v.h" = "#include \"v.inl\"\n";
          "v.inl" = define v;
        };
      };
    };
    def = {
      change = "a .def file with a table, included by a C file";
      make = v: {
        files = {
          "main.go" = ''
            package main

            // int value(void);
            import "C"

            func main() { println(C.value()) }
          '';
          "value.c" = ''
            static int values[] = {
            #include "values.def"
            };
            int value(void) { return values[0]; }
          '';
          "values.def" = "${v},\n";
        };
      };
    };
    odd-ending = {
      change = "a text file that C includes as a table";
      make = v: {
        files = {
          "main.go" = ''
            package main

            // static int values[] = {
            // #include "tables/values.txt"
            // };
            // static int value(void) { return values[0]; }
            import "C"

            func main() { println(C.value()) }
          '';
          "tables/values.txt" = "${v},\n";
        };
      };
    };
    incbin = {
      change = "bytes that C takes in with .incbin";
      make = v: {
        files = {
          "main.go" = printsBytes;
          "bytes.c" = ''
            __asm__(".data\n.globl bytes\nbytes: .incbin \"bytes.bin\"\n.text\n");
          '';
          "bytes.bin" = "${v}\n";
        };
      };
    };
    header-generated = {
      change = "a header that preBuild makes";
      short = true;
      outside = true;
      make = v: {
        files."main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/generated\n// #include \"v.h\"";
        preBuild = ''
          mkdir generated
          echo "#define V ${v}" >generated/v.h
        '';
      };
    };
    header-generated-between = {
      change = "a header that is written anew after a first go command, in the same second and of the same size";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/generated\n// #include \"v.h\"";
          "first/first.go" = "package first\n\n// static int one(void) { return 1; }\nimport \"C\"\n\nvar One = C.one()\n";
        };
        preBuild = ''
          mkdir generated
          echo "#define V 7" >generated/v.h
          go build $flags ./first
          echo "#define V ${v}" >generated/v.h
        '';
        build = "mkdir -p $out/bin; go build $flags -o $out/bin/ .";
      };
    };
    header-outside-source = {
      change = "a header that preBuild makes beside the source, by CGO_CFLAGS";
      make = v: {
        files."main.go" = saysV "// #include \"v.h\"";
        preBuild = ''
          mkdir $NIX_BUILD_TOP/generated
          echo "#define V ${v}" >$NIX_BUILD_TOP/generated/v.h
          export CGO_CFLAGS="-O2 -I$NIX_BUILD_TOP/generated"
        '';
      };
    };
    header-by-absolute-path = {
      change = "a header that preBuild makes beside the source, included by its absolute path";
      make = v: {
        files."main.go" = saysV "// #include \"/build/generated/v.h\"";
        preBuild = ''
          mkdir ../generated
          echo "#define V ${v}" >../generated/v.h
        '';
      };
    };
    header-around = {
      change = "a header that preBuild makes beside the source, found from the folder around both";
      short = true;
      make = v: {
        files."main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/..\n// #include <generated/deep/v.h>";
        preBuild = ''
          mkdir -p ../generated/deep
          echo "#define V ${v}" >../generated/deep/v.h
        '';
      };
    };
    header-around-twice = {
      change = "a header that preBuild makes beside the source, included by one above the source";
      make = v: {
        files."main.go" = saysV "// #include \"../all.h\"";
        preBuild = ''
          mkdir ../generated
          echo "#define V ${v}" >../generated/v.h
          echo '#include "generated/v.h"' >../all.h
        '';
      };
    };
    incbin-in-macro = {
      change = "bytes that a macro of the assembler's takes in, by the name that it is called with";
      make = v: {
        files = {
          "main.go" = printsBytes;
          "bytes.S" = ''
            .macro bytes file
            .incbin "\file"
            .endm
            .data
            .globl bytes
            bytes: bytes logo.png
            .section .note.GNU-stack,"",@progbits
          '';
          "logo.png" = "${v}\n";
        };
      };
    };
    archive-generated = {
      change = "a static library that preBuild makes, and its header of the same bytes";
      make = v: {
        files."main.go" = ''
          package main

          // #cgo LDFLAGS: ''${SRCDIR}/lib/libvalue.a
          // int value(void);
          import "C"

          func main() { println(C.value()) }
        '';
        preBuild = ''
          mkdir lib
          echo "int value(void) { return ${v}; }" >lib/value.c
          gcc -c -o lib/value.o lib/value.c
          ar rcD lib/libvalue.a lib/value.o
        '';
      };
    };
    shared-library-generated = {
      change = "a shared library that preBuild makes, of another soname";
      make = v: {
        files."main.go" = usesFoo "// #cgo LDFLAGS: -L\${SRCDIR}/lib -lfoo";
        flags = "-ldflags=-linkmode=internal";
        runs = false;
        preBuild = ''
          mkdir lib
          echo "int foo(void) { return ${v}; }" >lib/foo.c
          gcc -shared -Wl,-soname,libfoo.so.${v} -o lib/libfoo.so lib/foo.c
        '';
      };
    };
    cxx-header = {
      change = "a header of C++ in another folder";
      make = v: {
        files = probeCxx // {
          "include/v.h" = define v;
        };
        env.CGO_CXXFLAGS = "-O2 -g -DOF_FILE -Iinclude";
        preBuild = ''export CGO_CXXFLAGS="-O2 -DOF_FILE -I$PWD/include"'';
      };
    };
    vendored = {
      change = "a header of a vendored module, in a folder of its own";
      make = v: {
        files = {
          "go.mod" = module + "\nrequire example.com/dep v1.0.0\n";
          "main.go" = importing "example.com/dep";
          "vendor/modules.txt" = "# example.com/dep v1.0.0\n## explicit; go 1.24\nexample.com/dep\n";
          "vendor/example.com/dep/dep.go" = depWithC;
          "vendor/example.com/dep/include/v.h" = define v;
        };
      };
    };
    replaced = {
      change = "a header of a module that a replace line finds outside of the main module";
      make = v: {
        modRoot = "main";
        files = {
          "main/go.mod" =
            module + "\nrequire example.com/dep v1.0.0\n\nreplace example.com/dep => ../dep\n";
          "main/main.go" = importing "example.com/dep";
          "dep/go.mod" = "module example.com/dep\n\ngo 1.24\n";
          "dep/dep.go" = depWithC;
          "dep/include/v.h" = define v;
        };
      };
    };
    replaced-by-version = {
      change = "which version of another module takes the place of one in the module cache, where only a header differs";
      short = true;
      make =
        v:
        let
          fork = version: {
            "${version}/go.mod" = "module example.com/fork\n\ngo 1.24\n";
            # A flag with SRCDIR would say the version.
            "${version}/dep.go" = ''
              package dep

              // #include "include/v.h"
              import "C"

              func V() int { return C.V }
            '';
            "${version}/include/v.h" = define version;
          };
        in
        {
          files = {
            "go.mod" =
              module
              + "\nrequire example.com/dep v1.0.0\n\nreplace example.com/dep v1.0.0 => example.com/fork v1.${v}.0\n";
            "main.go" = importing "example.com/dep";
          };
          preBuild = ''
            export GOMODCACHE=$NIX_BUILD_TOP/modules GOFLAGS='-mod=mod -trimpath' GOPROXY=off GONOSUMDB='*'
            for version in 1 2; do
              module=$GOMODCACHE/example.com/fork@v1.$version.0
              known=$GOMODCACHE/cache/download/example.com/fork/@v/v1.$version.0
              mkdir -p "$(dirname "$known")" "$module"
              (
                cd "$module"
                case $version in
                1) ${write (fork "1")} ;;
                2) ${write (fork "2")} ;;
                esac
                mv $version/* .
                rmdir $version
              )
              cp "$module/go.mod" "$known.mod"
              echo "{\"Version\":\"v1.$version.0\",\"Time\":\"2020-01-01T00:00:00Z\"}" >"$known.info"
              touch "$known.zip"
              echo "h1:$(printf '%s' "$version" | sha256sum | cut -c1-43)=" >"$known.ziphash"
            done
          '';
        };
    };
    workspace = {
      change = "a header of another module of a workspace";
      make = v: {
        modRoot = "main";
        files = {
          "go.work" = "go 1.24\n\nuse (\n\t./dep\n\t./main\n)\n";
          "main/go.mod" = module;
          "main/main.go" = importing "example.com/dep";
          "dep/go.mod" = "module example.com/dep\n\ngo 1.24\n";
          "dep/dep.go" = depWithC;
          "dep/include/v.h" = define v;
        };
        build = "go build $flags -o $out/bin/ .";
      };
    };
    test-of-cgo = {
      change = "a header that the test of a package with C is compiled with";
      make = v: {
        files = {
          "value/value.go" = ''
            package value

            // #cgo CFLAGS: -I''${SRCDIR}/../include
            // #include "v.h"
            import "C"

            func V() int { return C.V }
          '';
          "value/value_test.go" = ''
            package value

            import "testing"

            func TestV(t *testing.T) { println("tested", V()) }
          '';
          "include/v.h" = define v;
        };
        build = "mkdir -p $out/bin; go test -c $flags -o $out/bin/value.test ./value";
      };
    };

    store-link = {
      change = "a header of a vendored module with C that is a link to the store";
      short = true;
      make = v: {
        files = {
          "go.mod" = module + "\nrequire example.com/dep.go v1.0.0\n";
          "main.go" = importing "example.com/dep.go";
          "vendor/modules.txt" = "# example.com/dep.go v1.0.0\n## explicit; go 1.24\nexample.com/dep.go\n";
        };
        preBuild = ''
          mkdir vendor/example.com
          ln -s ${
            stdenv.runCommand "dep-${v}" { inherit v; } ''
              mkdir $out
              cd $out
              ${write {
                "dep.go" = depWithC;
                "include/v.h" = define v;
              }}
            ''
          } vendor/example.com/dep.go
        '';
      };
    };

    # Go's assembler includes files too, whether there is C or not.
    assembler-inc = {
      change = "an .inc file beside an assembler file, without C";
      short = true;
      outside = true;
      make = v: pure (assembler "#include \"v.inc\"" // { "v.inc" = define v; });
    };
    assembler-header = {
      change = "a header beside an assembler file, without C";
      make = v: pure (assembler "#include \"v.h\"" // { "v.h" = define v; });
    };
    assembler-header-elsewhere = {
      change = "a header of another folder that an assembler file includes, without C";
      outside = true;
      make = v: pure (assembler "#include \"include/v.h\"" // { "include/v.h" = define v; });
    };
    assembler-flags-folder = {
      change = "a header in a folder that -asmflags names, without C";
      make =
        v:
        pure (assembler "#include \"v.h\"" // { "include/v.h" = define v; })
        // {
          build = "go build $flags -asmflags=-I=$PWD/include -o $out/bin/ ./...";
        };
    };
    assembler-generated = {
      change = "an .inc file that preBuild makes for an assembler file, without C";
      make =
        v:
        pure (assembler "#include \"v.inc\"")
        // {
          preBuild = "echo '#define V ${v}' >v.inc";
        };
    };
    assembler-vendored = {
      change = "an .inc file of a vendored module's assembler file, without C";
      make =
        v:
        pure {
          "go.mod" = module + "\nrequire example.com/dep v1.0.0\n";
          "main.go" = importing "example.com/dep";
          "vendor/modules.txt" = "# example.com/dep v1.0.0\n## explicit; go 1.24\nexample.com/dep\n";
          "vendor/example.com/dep/dep.go" = ''
            package dep

            func value() int64

            func V() int64 { return value() }
          '';
          "vendor/example.com/dep/value_${goarch}.s" = (assembler "#include \"v.inc\"")."value_${goarch}.s";
          "vendor/example.com/dep/v.inc" = define v;
        };
    };
    assembler-package = {
      change = "a header of another folder that the assembler file of a package includes, beside packages that need none";
      short = true;
      make =
        v:
        pure (
          assemblerPackage "value"
          // {
            "other/other.go" = "package other\n\nfunc value() int64\n\nfunc V() int64 { return value() }\n";
            "other/value_${goarch}.s" = (assembler "#define V 7")."value_${goarch}.s";
            "include/v.h" = define v;
          }
        );
    };
    assembler-nested = {
      change = "an .inc file of a package with assembler, which a header of another folder includes";
      short = true;
      make =
        v:
        pure (
          assemblerPackage "value"
          // {
            "include/v.h" = "#include \"w.inc\"\n";
            "include/w.inc" = define "7";
            "value/w.inc" = define v;
          }
        );
    };
    assembler-generated-between = {
      change = "a header with the size and time that it had when an earlier command of the build looked at it, without C";
      short = true;
      make =
        v:
        pure (assemblerPackage "value" // { "include/v.h" = define "7"; })
        // {
          preBuild = ''
            mkdir first
            echo 'package first' >first/first.go
            go build $flags ./first
            echo '#define V ${v}' >include/v.h
            touch -r go.mod include/v.h
          '';
        };
    };
    assembler-link = {
      change = "a header that the assembler file of a package includes which is imported through a link";
      make =
        v:
        pure (
          assemblerPackage "real"
          // {
            "main.go" = importing "example.com/same/value";
            "include/v.h" = define v;
          }
        )
        // {
          preBuild = "ln -s real value";
        };
    };
    assembler-link-store = {
      change = "a header beside a vendored module with assembler that is a link to the store";
      short = true;
      make =
        v:
        pure {
          "go.mod" = module + "\nrequire example.com/dep v1.0.0\n";
          "main.go" = importing "example.com/dep";
          "vendor/modules.txt" = "# example.com/dep v1.0.0\n## explicit; go 1.24\nexample.com/dep\n";
        }
        // {
          preBuild = ''
            mkdir vendor/example.com
            ln -s ${
              stdenv.runCommand "dep-${v}" { inherit v; } ''
                mkdir $out
                cd $out
                ${write (assemblerPackage "dep" // { "include/v.h" = define v; })}
              ''
            }/dep vendor/example.com/dep
          '';
        };
    };

    # The compiler and its wrapper.
    loader = {
      change = "the C library's package, so the loader of a program that go links";
      short = true;
      outside = true;
      make = v: linked // { cc = if v == "1" then c.cc1 else c.cc2; };
    };
    libc = {
      change = "the C library's package, with a header that differs";
      make = v: probing // { cc = if v == "1" then c.cc1 else c.cc2; };
    };
    bintools = {
      change = "the linker's wrapper only: another loader";
      make =
        v:
        linked
        // {
          cc = c.ccOf {
            libc = c.libc1;
            bintools = c.bintoolsOf {
              libc = c.libc1;
              dynamicLinker = if v == "1" then null else "/lib64/loader-of-another-kind.so";
            };
          };
        };
    };
    bintools-flags = {
      change = "the linker's wrapper only: another library by libc-ldflags";
      make =
        v:
        foo1or2
        // {
          cc = c.ccOf {
            libc = c.libc1;
            bintools = c.bintoolsOf {
              libc = c.libc1;
              ldflags = "-L${foo.${v}}/lib";
            };
          };
          runs = false;
        };
    };
    wrapper-flags = {
      change = "cc-cflags of the compiler's wrapper";
      make =
        v:
        probing
        // {
          cc = c.ccOf {
            libc = c.libc1;
            cflags = "-DV=${v}";
          };
        };
    };
    wrapper-flags-before = {
      change = "cc-cflags-before of the compiler's wrapper";
      make =
        v:
        probing
        // {
          cc = c.ccOf {
            libc = c.libc1;
            cflagsBefore = "-DV=${v}";
          };
        };
    };
    wrapper-ldflags = {
      change = "cc-ldflags of the compiler's wrapper";
      make =
        v:
        foo1or2
        // {
          cc = c.ccOf {
            libc = c.libc1;
            ldflags = "-L${foo.${v}}/lib";
          };
          runs = false;
        };
    };
    compiler-by-cc = {
      change = "what a script does that CC names, in the source";
      make =
        v:
        probing
        // {
          preBuild = ''
            mkdir tools
            printf '#!%s\nexec gcc -DV=${v} "$@"\n' "$SHELL" >tools/cc
            chmod +x tools/cc
            export CC=$PWD/tools/cc
          '';
        };
    };
    compiler-by-path = {
      change = "what the gcc does that PATH finds first";
      make =
        v:
        probing
        // {
          preBuild = ''
            mkdir tools
            printf '#!%s\nexec %s -DV=${v} "$@"\n' "$SHELL" "$(command -v gcc)" >tools/gcc
            chmod +x tools/gcc
            export PATH=$PWD/tools:$PATH
          '';
        };
    };
    compiler-beside = {
      change = "a file from which a script takes flags that CC names, both beside the source";
      make =
        v:
        probing
        // {
          preBuild = ''
            mkdir ../tools
            echo "-DV=${v}" >../tools/flags
            printf '#!%s\nexec gcc $(<''${0%%/*}/flags) "$@"\n' "$SHELL" >../tools/cc
            chmod +x ../tools/cc
            export CC=$NIX_BUILD_TOP/tools/cc
          '';
        };
    };
    compiler-sdk = {
      change = "a header that a script finds by its own place, which CC names, both beside the source";
      make =
        v:
        probing
        // {
          preBuild = ''
            mkdir -p ../sdk/bin ../sdk/include
            echo "#define V ${v}" >../sdk/include/value.h
            printf '#!%s\nexec gcc -include "$(dirname "$0")/../include/value.h" "$@"\n' "$SHELL" >../sdk/bin/cc
            chmod +x ../sdk/bin/cc
            export CC=$NIX_BUILD_TOP/sdk/bin/cc
          '';
        };
    };
    compiler-variable = {
      change = "a file that a script finds by a variable";
      make =
        v:
        probing
        // {
          preBuild = ''
            mkdir ../tools ../flags
            echo "-DV=${v}" >../flags/all
            printf '#!%s\nexec gcc $(<"$FLAGS/all") "$@"\n' "$SHELL" >../tools/cc
            chmod +x ../tools/cc
            export FLAGS=$PWD/../flags CC=$PWD/../tools/cc
          '';
        };
    };
    compiler-anywhere = {
      change = "a file that a script finds in the build directory";
      make =
        v:
        probing
        // {
          preBuild = ''
            mkdir ../tools ../flags
            echo "-DV=${v}" >../flags/all
            printf '#!%s\nname=flags\nexec gcc $(<"$NIX_BUILD_TOP/$name/all") "$@"\n' "$SHELL" >../tools/cc
            chmod +x ../tools/cc
            export CC=$NIX_BUILD_TOP/tools/cc
          '';
        };
    };
    compiler-parts = {
      change = "GCC_EXEC_PREFIX, where gcc finds its parts";
      make = variable "GCC_EXEC_PREFIX" "${gccParts "1"}/" "${gccParts "2"}/" probing;
    };
    cc-by-role = {
      change = "depsBuildBuild, by which variables with _FOR_BUILD count";
      make =
        v:
        probing
        // {
          env.NIX_CFLAGS_COMPILE_FOR_BUILD = "-DV=5";
        }
        // (if v == "1" then { } else { depsBuildBuild = [ c.cc1 ]; });
    };

    # The variables of the wrappers.
    hardening-fortify = {
      change = "NIX_HARDENING_ENABLE without fortify";
      short = true;
      outside = true;
      make =
        variable "NIX_HARDENING_ENABLE" null (builtins.replaceStrings
          [ "fortify fortify3 " ]
          [ "" ]
          c.hardening
        ) probing;
    };
    hardening-stackprotector = {
      change = "NIX_HARDENING_ENABLE without stackprotector";
      make =
        variable "NIX_HARDENING_ENABLE" null (builtins.replaceStrings [ "stackprotector " ] [ "" ] c.hardening)
          probing;
    };
    hardening-none = {
      change = "NIX_HARDENING_ENABLE, empty";
      make = variable "NIX_HARDENING_ENABLE" null "" probing;
    };
    hardening-runtime = {
      change = "NIX_HARDENING_ENABLE, empty, for a program that go links";
      make = variable "NIX_HARDENING_ENABLE" null "" linked;
    };
    cflags = {
      change = "NIX_CFLAGS_COMPILE";
      make = variable "NIX_CFLAGS_COMPILE" "-DV=1" "-DV=2" probing;
    };
    cflags-before = {
      change = "NIX_CFLAGS_COMPILE_BEFORE";
      short = true;
      make = variable "NIX_CFLAGS_COMPILE_BEFORE" "-DV=1" "-DV=2" probing;
    };
    cflags-for-build = {
      change = "NIX_CFLAGS_COMPILE_FOR_BUILD";
      make = variable "NIX_CFLAGS_COMPILE_FOR_BUILD" "-DV=1" "-DV=2" (
        probing // { depsBuildBuild = [ c.cc1 ]; }
      );
    };
    cflags-for-target = {
      change = "NIX_CFLAGS_COMPILE_FOR_TARGET";
      make = variable "NIX_CFLAGS_COMPILE_FOR_TARGET" "-DV=1" "-DV=2" (
        probing // { buildInputs = [ c.cc1 ]; }
      );
    };
    cflags-salted = {
      change = "NIX_CFLAGS_COMPILE_${c.salt}";
      make = variable "NIX_CFLAGS_COMPILE_${c.salt}" "-DV=1" "-DV=2" probing;
    };
    cflags-link = {
      change = "NIX_CFLAGS_LINK";
      make = variable "NIX_CFLAGS_LINK" "-L${foo."1"}/lib" "-L${foo."2"}/lib" (foo1or2 // { runs = false; });
    };
    ldflags = {
      change = "NIX_LDFLAGS";
      make = variable "NIX_LDFLAGS" "-L${foo."1"}/lib" "-L${foo."2"}/lib" (foo1or2 // { runs = false; });
    };
    ldflags-before = {
      change = "NIX_LDFLAGS_BEFORE";
      make = variable "NIX_LDFLAGS_BEFORE" "-L${foo."1"}/lib" "-L${foo."2"}/lib" (foo1or2 // { runs = false; });
    };
    ldflags-after = {
      change = "NIX_LDFLAGS_AFTER";
      make = variable "NIX_LDFLAGS_AFTER" "-L${foo."1"}/lib" "-L${foo."2"}/lib" (foo1or2 // { runs = false; });
    };
    ldflags-harden = {
      change = "NIX_LDFLAGS_HARDEN";
      make = variable "NIX_LDFLAGS_HARDEN" "-L${foo."1"}/lib" "-L${foo."2"}/lib" (foo1or2 // { runs = false; });
    };
    ldflags-salted = {
      change = "NIX_LDFLAGS_${c.salt}";
      make = variable "NIX_LDFLAGS_${c.salt}" "-L${foo."1"}/lib" "-L${foo."2"}/lib" (
        foo1or2 // { runs = false; }
      );
    };
    dynamic-linker = {
      change = "NIX_DYNAMIC_LINKER";
      make = variable "NIX_DYNAMIC_LINKER" null "/lib/loader-of-another-kind.so" linked;
    };
    dynamic-linker-salted = {
      change = "NIX_DYNAMIC_LINKER_${c.salt}";
      make = variable "NIX_DYNAMIC_LINKER_${c.salt}" null "/lib/loader-of-another-kind.so" linked;
    };
    dont-set-rpath = {
      change = "NIX_DONT_SET_RPATH";
      make = variable "NIX_DONT_SET_RPATH" null "1" (probing // { runs = false; });
    };
    build-id = {
      change = "NIX_SET_BUILD_ID";
      # Debian's compiler asks for one anyway.
      same = true;
      make = variable "NIX_SET_BUILD_ID" null "1" probing;
    };
    cxx-flags = {
      change = "NIX_CXXSTDLIB_COMPILE";
      make = variable "NIX_CXXSTDLIB_COMPILE" "-DV=1" "-DV=2" { files = probeCxx; };
    };
    cxx-link = {
      change = "NIX_CXXSTDLIB_LINK";
      make = variable "NIX_CXXSTDLIB_LINK" null "-Wl,-rpath,/by/cxxstdlib" { files = probeCxx; };
    };
    native = {
      change = "NIX_ENFORCE_NO_NATIVE";
      make = variable "NIX_ENFORCE_NO_NATIVE" "1" "0" {
        files."main.go" = ''
          package main

          // #ifdef __SSE4_2__
          // #define V 2
          // #else
          // #define V 1
          // #endif
          // static int value(void) { return V; }
          import "C"

          func main() { println(C.value()) }
        '';
        env = {
          CGO_CFLAGS = "-O2 -march=native";
          CGO_CFLAGS_ALLOW = ".*";
        };
      };
    };
    purity = {
      change = "NIX_ENFORCE_PURITY, which hides headers of the host";
      make = variable "NIX_ENFORCE_PURITY" null "1" {
        files."main.go" = ''
          package main

          // #cgo CFLAGS: -I/dev/shm/same-purity
          // #if __has_include("v.h")
          // #include "v.h"
          // #else
          // #define V 1
          // #endif
          // static int value(void) { return V; }
          import "C"

          func main() { println(C.value()) }
        '';
        preBuild = ''
          mkdir -p /dev/shm/same-purity
          echo '#define V 2' >/dev/shm/same-purity/v.h
        '';
      };
    };
    ignore-ld-through-gcc = {
      change = "NIX_IGNORE_LD_THROUGH_GCC";
      same = true;
      make = variable "NIX_IGNORE_LD_THROUGH_GCC" null "1" probing;
    };

    # The compiler's own variables.
    cpath = {
      change = "CPATH";
      make = variable "CPATH" "${headers."1"}/include" "${headers."2"}/include" (ofFile { });
    };
    c-include-path = {
      change = "C_INCLUDE_PATH";
      make = variable "C_INCLUDE_PATH" "${headers."1"}/include" "${headers."2"}/include" (ofFile { });
    };
    cplus-include-path = {
      change = "CPLUS_INCLUDE_PATH";
      make = variable "CPLUS_INCLUDE_PATH" "${headers."1"}/include" "${headers."2"}/include" {
        files = probeCxx;
        env.CGO_CXXFLAGS = "-O2 -DOF_FILE";
      };
    };
    library-path = {
      change = "LIBRARY_PATH";
      make = variable "LIBRARY_PATH" "${foo."1"}/lib" "${foo."2"}/lib" (foo1or2 // { runs = false; });
    };
    cpath-content = {
      change = "a header below the build's own folder, by CPATH";
      make =
        v:
        ofFile {
          preBuild = ''
            mkdir $NIX_BUILD_TOP/include
            echo "#define V ${v}" >$NIX_BUILD_TOP/include/v.h
            export CPATH=$NIX_BUILD_TOP/include
          '';
        };
    };
    source-date = {
      change = "SOURCE_DATE_EPOCH, which C's __DATE__ shows";
      short = true;
      outside = true;
      make = v: {
        files."main.go" = ''
          package main

          // static const char *date(void) { return __DATE__; }
          import "C"

          func main() { println(C.GoString(C.date())) }
        '';
        preBuild = "export SOURCE_DATE_EPOCH=${if v == "1" then "315532800" else "1000000000"}";
      };
    };
    file-date = {
      change = "the time of a C file, which __TIMESTAMP__ shows, in a phase that runs go alone";
      short = true;
      make = v: {
        files = {
          "main.go" = ''
            package main

            // const char *date(void);
            import "C"

            func main() { println(C.GoString(C.date())) }
          '';
          "date.c" = "const char *date(void) { return __TIMESTAMP__; }\n";
        };
        usual = true;
        postUnpack = "touch -d @${v}00000000 date.c";
      };
    };
    cgo-cflags = {
      change = "CGO_CFLAGS";
      make = variable "CGO_CFLAGS" "-O2 -DV=1" "-O2 -DV=2" probing;
    };
    cgo-ldflags = {
      change = "CGO_LDFLAGS";
      make = variable "CGO_LDFLAGS" "-L${foo."1"}/lib -lfoo" "-L${foo."2"}/lib -lfoo" {
        files."main.go" = usesFoo "";
        flags = "-ldflags=-linkmode=internal";
        runs = false;
      };
    };

    # Libraries.
    build-inputs = {
      change = "buildInputs: a library of another version";
      make = v: {
        files."main.go" = usesFoo "// #cgo LDFLAGS: -lfoo\n// #include <foo.h>";
        buildInputs = [ foo.${v} ];
      };
    };
    build-inputs-strict = {
      change = "buildInputs with strictDeps";
      make = v: {
        files."main.go" = usesFoo "// #cgo LDFLAGS: -lfoo\n// #include <foo.h>";
        strictDeps = true;
        buildInputs = [ foo.${v} ];
      };
    };
    build-inputs-structured = {
      change = "buildInputs with structured attributes";
      make = v: {
        files."main.go" = usesFoo "// #cgo LDFLAGS: -lfoo\n// #include <foo.h>";
        structured = true;
        buildInputs = [ foo.${v} ];
      };
    };
    attribute-lib = {
      change = "a dependency in an attribute whose name is that of an output";
      make = v: {
        files."main.go" = saysV "// #include <v.h>";
        lib = "${headers.${v}}";
        preBuild = ''export NIX_CFLAGS_COMPILE="$NIX_CFLAGS_COMPILE -isystem $lib/include"'';
      };
    };
    attribute-dev-structured = {
      change = "the same, with structured attributes";
      make = v: {
        files."main.go" = saysV "// #include <v.h>";
        structured = true;
        env.dev = "${headers.${v}}";
        preBuild = ''export NIX_CFLAGS_COMPILE="$NIX_CFLAGS_COMPILE -isystem $dev/include"'';
      };
    };
    pkg-config = {
      change = "the version of a library that pkg-config finds by PKG_CONFIG_PATH";
      make = v: {
        files."main.go" = usesFoo "// #cgo pkg-config: foo\n// #include <foo.h>";
        nativeBuildInputs = [ c.pkgConfig ];
        env.PKG_CONFIG_PATH = "${foo.${v}}/lib/pkgconfig";
      };
    };
    pkg-config-inputs = {
      change = "the version of a library that pkg-config finds by its setup hook";
      make = v: {
        files."main.go" = usesFoo "// #cgo pkg-config: foo\n// #include <foo.h>";
        nativeBuildInputs = [ c.pkgConfig ];
        buildInputs = [ foo.${v} ];
      };
    };
    pkg-config-salted = {
      change = "PKG_CONFIG_PATH_${c.salt}";
      make = v: {
        files."main.go" = usesFoo "// #cgo pkg-config: foo\n// #include <foo.h>";
        nativeBuildInputs = [ c.pkgConfig ];
        env."PKG_CONFIG_PATH_${c.salt}" = "${foo.${v}}/lib/pkgconfig";
      };
    };
    pkg-config-source = {
      change = "a .pc file in the source";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo pkg-config: v";
          "pc/v.pc" = "Name: v\nDescription: v\nVersion: 1\nCflags: -DV=${v}\n";
        };
        nativeBuildInputs = [ c.pkgConfig ];
        preBuild = "export PKG_CONFIG_PATH=$PWD/pc";
      };
    };
    pkg-config-installed = {
      change = "a library that preBuild installs beside the source, and pkg-config finds";
      make = installed {
        prefix = "$NIX_BUILD_TOP/prefix";
        said = "$prefix";
      };
    };
    pkg-config-own-place = {
      change = "a header beside the source, to which a .pc file in the module's root leads by its own place";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo pkg-config: v\n// #include <v.h>";
          "v.pc" = "Name: v\nDescription: v\nVersion: 1\nCflags: -I\${pcfiledir}/../lib/include\n";
        };
        nativeBuildInputs = [ c.pkgConfig ];
        preBuild = ''
          mkdir -p ../lib/include
          echo "#define V ${v}" >../lib/include/v.h
          export PKG_CONFIG_PATH=$PWD
        '';
      };
    };
    pkg-config-installed-top = {
      change = "a library that preBuild installs right into the build directory, whose .pc file names it by its own place";
      make = installed {
        prefix = "$NIX_BUILD_TOP";
        said = "\\\${pcfiledir}/../..";
      };
    };
    pkg-config-program = {
      change = "the program that PKG_CONFIG names, in the source";
      make = v: {
        files."main.go" = saysV "// #cgo pkg-config: v";
        preBuild = ''
          printf '#!%s\ncase "$*" in *--cflags*) echo -DV=${v} ;; esac\n' "$SHELL" >pkg-config
          chmod +x pkg-config
          export PKG_CONFIG=$PWD/pkg-config
        '';
      };
    };
    pkg-config-tags = {
      change = "a tag, by which another package is asked for (#cgo alt pkg-config)";
      make = v: {
        files."main.go" = usesFoo ''
          // #cgo !alt pkg-config: foo-1
          // #cgo alt pkg-config: foo-2
          // #include <foo.h>'';
        nativeBuildInputs = [ c.pkgConfig ];
        env.PKG_CONFIG_PATH = "${foo."1"}/lib/pkgconfig:${foo."2"}/lib/pkgconfig";
        flags = if v == "1" then "" else "-tags=alt";
      };
    };
    pkg-config-tags-library = {
      change = "the same, in a package that is no main package";
      short = true;
      outside = true;
      make = v: {
        files = {
          "main.go" = ''
            package main

            import "example.com/same/value"

            func main() { println(value.Foo()) }
          '';
          "value/value.go" =
            builtins.replaceStrings
              [ "package main" "func main() { println(C.FOO, C.foo()) }" ]
              [ "package value" "func Foo() (int, int) { return C.FOO, int(C.foo()) }" ]
              (usesFoo ''
                // #cgo !alt pkg-config: foo-1
                // #cgo alt pkg-config: foo-2
                // #include <foo.h>'');
        };
        nativeBuildInputs = [ c.pkgConfig ];
        env.PKG_CONFIG_PATH = "${foo."1"}/lib/pkgconfig:${foo."2"}/lib/pkgconfig";
        preBuild = if v == "1" then "" else "export GOFLAGS=\"$GOFLAGS -tags=alt\"";
      };
    };

    # A build's own outputs.
    own-output = {
      change = "another derivation, with NIX_CFLAGS_COMPILE=-DDATADIR=\"$out/share\"";
      short = true;
      outside = true;
      make = v: {
        files."main.go" = ''
          package main

          // #define TEXT(x) #x
          // #define TEXT_OF(x) TEXT(x)
          // static const char *dir(void) { return TEXT_OF(DATADIR); }
          import "C"

          func main() { println(C.GoString(C.dir())) }
        '';
        step = v;
        preBuild = ''export NIX_CFLAGS_COMPILE="$NIX_CFLAGS_COMPILE -DDATADIR=$out/share"'';
      };
    };
    own-output-structured = {
      change = "the same, with structured attributes and two outputs";
      make = v: {
        files."main.go" = ''
          package main

          // #define TEXT(x) #x
          // #define TEXT_OF(x) TEXT(x)
          // static const char *dir(void) { return TEXT_OF(DATADIR); }
          import "C"

          func main() { println(C.GoString(C.dir())) }
        '';
        step = v;
        structured = true;
        outputs = [
          "out"
          "data"
        ];
        preBuild = ''
          export NIX_CFLAGS_COMPILE="$NIX_CFLAGS_COMPILE -DDATADIR=$data/share"
          mkdir $data
        '';
      };
    };
    own-headers = {
      change = "a header that the build has installed into its own output";
      outside = true;
      make = v: {
        files."main.go" = saysV "// #include <v.h>";
        preBuild = ''
          mkdir -p $out/include
          echo "#define V ${v}" >$out/include/v.h
          export NIX_CFLAGS_COMPILE="$NIX_CFLAGS_COMPILE -isystem $out/include"
        '';
      };
    };
    own-rpath = {
      change = "another derivation, whose -rpath is its own output";
      make =
        v:
        probing
        // {
          step = v;
          env.NIX_NO_SELF_RPATH = null;
        };
    };
    own-outputs = {
      change = "another derivation of the same name and the same source";
      same = true;
      make = v: probing // { step = v; };
    };

    # Go's own switches.
    go-package = {
      change = "the Go package: its compiler has a patch, and the same version";
      make = v: {
        files."main.go" = "package main\n\nfunc main() { println(1) }\n";
        env = noC;
        goPackage = if v == "1" then go else asGo compilerWithPatch;
      };
    };
    go-package-library = {
      change = "the Go package: its standard library has a patch, and the same version";
      make = v: {
        files."main.go" =
          "package main\n\nimport \"errors\"\n\nfunc main() { println(errors.New(\"x\").Error()) }\n";
        env = noC;
        goPackage = if v == "1" then go else asGo libraryWithPatch;
      };
    };
    goroot = {
      change = "GOROOT, with the same go";
      make = v: {
        files."main.go" =
          "package main\n\nimport \"errors\"\n\nfunc main() { println(errors.New(\"x\").Error()) }\n";
        env = noC;
        seeded = false;
        preBuild = "export GOROOT=${if v == "1" then go.outPath else libraryWithPatch}";
      };
    };
    goroot-compiler = {
      change = "GOROOT, with the same go, and another compiler of the same version";
      make = v: {
        files."main.go" = "package main\n\nfunc main() { println(1) }\n";
        env = noC;
        seeded = false;
        preBuild = "export GOROOT=${if v == "1" then go.outPath else compilerWithPatch}";
      };
    };
    toolexec = {
      change = "what -toolexec's program does, which hands -V=full on";
      short = true;
      outside = true;
      make = v: {
        files."main.go" = "package main\n\nvar V = \"0\"\n\nfunc main() { println(V) }\n";
        env = noC;
        seeded = false;
        preBuild = ''
          {
            echo "#!$SHELL"
            echo 'case "$* " in *" -V=full "*) exec "$@" ;; esac'
            echo 'case $1 in */compile) [[ "$*" != *"-p main "* ]] || sed -i "s/\"0\"/\"${v}\"/" main.go ;; esac'
            echo 'exec "$@"'
          } >wrapper
          chmod +x wrapper
          export GOFLAGS="$GOFLAGS -toolexec=$PWD/wrapper"
        '';
      };
    };
    race = {
      change = "a header of a program with -race";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/include\n// #include \"v.h\"";
          "include/v.h" = define v;
        };
        flags = "-race";
      };
    };
    race-or-not = {
      change = "-race";
      make = v: probing // { flags = if v == "1" then "" else "-race"; };
    };
    pie = {
      change = "a header of a program with -buildmode=pie";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/include\n// #include \"v.h\"";
          "include/v.h" = define v;
        };
        flags = "-buildmode=pie";
      };
    };
    pie-or-not = {
      change = "-buildmode=pie";
      make =
        v:
        pureMain
        // {
          flags = if v == "1" then "" else "-buildmode=pie";
          runs = false;
        };
    };
    c-archive = {
      change = "a header of a program with -buildmode=c-archive";
      make = v: {
        files = {
          "main.go" = ''
            package main

            // #cgo CFLAGS: -I''${SRCDIR}/include
            // #include "v.h"
            import "C"

            //export Get
            func Get() int { return C.V }

            func main() {}
          '';
          "include/v.h" = define v;
        };
        build = "mkdir -p $out; go build $flags -buildmode=c-archive -o $out/v.a .";
        runs = false;
      };
    };
    pgo = {
      change = "the profile in default.pgo";
      make = v: {
        files."main.go" = hot;
        env = noC;
        preBuild = "echo ${profile.${v}} | base64 -d >default.pgo";
      };
    };
    gcflags = {
      change = "-gcflags";
      make = v: pureMain // { flags = if v == "1" then "" else "-gcflags=-N"; };
    };
    asmflags = {
      change = "-asmflags";
      make = v: pure (assembler "") // { flags = "-asmflags=-D=V=${v}"; };
    };
    ldflags-x = {
      change = "-ldflags=-X";
      make =
        v:
        pure { "main.go" = "package main\n\nvar V = \"0\"\n\nfunc main() { println(V) }\n"; }
        // {
          build = "go build \"-ldflags=-buildid= -X main.V=${v}\" -o $out/bin/ .";
        };
    };
    tags = {
      change = "-tags";
      make =
        v:
        pure {
          "main.go" = "package main\n\nfunc main() { println(V) }\n";
          "one.go" = "//go:build !alt\n\npackage main\n\nconst V = 1\n";
          "two.go" = "//go:build alt\n\npackage main\n\nconst V = 2\n";
        }
        // {
          flags = if v == "1" then "" else "-tags=alt";
        };
    };
    trimpath = {
      change = "GOFLAGS without -trimpath";
      make =
        v:
        probing
        // {
          preBuild = if v == "1" then "" else "export GOFLAGS=\${GOFLAGS//-trimpath/}";
        };
    };
    cross = {
      change = "GOARCH";
      make = v: pureMain // {
        env = noC // {
          GOARCH = if v == "1" then goarch else otherArch;
        };
        build = "mkdir -p $out/bin; go build $flags -o $out/bin/ .";
        runs = v == "1";
      };
    };
    goamd64 = {
      change = "GOAMD64";
      make = v: pureMain // {
        env = noC // {
          GOAMD64 = if v == "1" then "v1" else "v3";
        };
        runs = v == "1";
      };
    };
    goexperiment = {
      change = "GOEXPERIMENT";
      make = v: pureMain // {
        env = noC // (if v == "1" then { } else { GOEXPERIMENT = "preemptibleloops"; });
      };
    };
    coverage = {
      change = "-cover";
      make = v: pureMain // {
        flags = if v == "1" then "" else "-cover -coverpkg=./...";
        runs = false;
      };
    };
    coverage-source = {
      change = "a header of a program with -cover";
      make = v: {
        files = {
          "main.go" = saysV "// #cgo CFLAGS: -I\${SRCDIR}/include\n// #include \"v.h\"";
          "include/v.h" = define v;
        };
        flags = "-cover";
        env.GOCOVERDIR = "/build";
        runs = false;
      };
    };
    cgo-or-not = {
      change = "CGO_ENABLED";
      make = v: pureMain // {
        files."main.go" =
          "package main\n\nimport \"os/user\"\n\nfunc main() { _, err := user.Lookup(\"x\"); println(err.Error()) }\n";
        env.CGO_ENABLED = if v == "1" then "0" else "1";
        runs = v == "1";
      };
    };

    # Names, sizes and times that stay the same.
    embed = {
      change = "an embedded file of the same size and time";
      outside = true;
      make =
        v:
        pure {
          "main.go" = ''
            package main

            import _ "embed"

            //go:embed v.txt
            var V string

            func main() { print(V) }
          '';
          "v.txt" = "${v}\n";
        };
    };
    import = {
      change = "an import, in a file of the same size and time";
      make =
        v:
        pure (twoPackages // {
          "main.go" = "package main\n\nimport \"example.com/same/p${v}\"\n\nfunc main() { println(p${v}.V) }\n";
        });
    };
    import-godebug = {
      change = "the same, with GODEBUG exported in preBuild";
      short = true;
      outside = true;
      make =
        v:
        pure (twoPackages // {
          "main.go" = "package main\n\nimport \"example.com/same/p${v}\"\n\nfunc main() { println(p${v}.V) }\n";
        })
        // {
          preBuild = "export GODEBUG=madvdontneed=1";
        };
    };
    cgo-flags-godebug = {
      change = "a #cgo CFLAGS line, in a file of the same size and time, with GODEBUG exported in preBuild";
      make = v: {
        files."main.go" = saysV "// #cgo CFLAGS: -DV=${v}";
        preBuild = "export GODEBUG=madvdontneed=1";
      };
    };
    constraint-godebug = {
      change = "a build constraint, in a file of the same size and time, with GODEBUG exported in preBuild";
      make =
        v:
        pure {
          "main.go" = "package main\n\nfunc main() { println(V) }\n";
          "one.go" = "//go:build ${if v == "1" then "linux" else "plan9"}\n\npackage main\n\nconst V = 1\n";
          "two.go" = "//go:build ${if v == "1" then "plan9" else "linux"}\n\npackage main\n\nconst V = 2\n";
        }
        // {
          preBuild = "export GODEBUG=madvdontneed=1";
        };
    };
    test-result = {
      change = "a file that a test reads, of the same size and time, with GOFLAGS set anew in preBuild";
      make =
        v:
        pure {
          "value.go" = "package value\n";
          "value_test.go" = ''
            package value

            import (
            	"os"
            	"testing"
            )

            func TestV(t *testing.T) {
            	text, err := os.ReadFile("testdata/v.txt")
            	t.Logf("%s %v", text, err)
            }
          '';
          "testdata/v.txt" = v;
        }
        // {
          preBuild = "export GOFLAGS=-trimpath GODEBUG=";
          # Neither the time it took nor whether it ran.
          build = "mkdir -p $out; go test -v . | grep 'value_test.go' >$out/tested";
          runs = false;
        };
    };
    generated-source = {
      change = "a Go file that preBuild makes";
      make =
        v:
        pure { "main.go" = "package main\n\nfunc main() { println(V) }\n"; }
        // {
          preBuild = "printf 'package main\\n\\nconst V = ${v}\\n' >v.go";
        };
    };
  };

  pureMain = pure {
    "main.go" = ''
      package main

      func sum(of []int) (s int) {
      	for _, each := range of {
      		s += each
      	}
      	return
      }

      func main() { println(sum([]int{1, 2, 3})) }
    '';
  };
  twoPackages = {
    "p1/p.go" = "package p1\n\nconst V = 1\n";
    "p2/p.go" = "package p2\n\nconst V = 2\n";
  };
  # Each of the two functions is too long to become a part of its caller, unless it is hot. The profiles know lines by
  # their distance from the caller's first.
  hot =
    let
      body = ''
        	for i := 0; i < n; i++ {
        		n = n*31 ^ i>>3
        		if n%5 == 2 {
        			n = n*17 + i/(n|1) + i%9
        		}
        		if n%7 == 3 {
        			n = n*19 - i/(n|3) - i%11
        		}
        		if n%11 == 4 {
        			n = n*23 ^ i/(n|5) ^ i%13
        		}
        	}
        	return n
        }
      '';
    in
    ''
      package main

      // What each of them gives does not depend on that.

      var sum int

      func caller(n int) {
      	for i := 0; i < n; i++ {
      		sum += one(i)
      		sum += two(i)
      	}
      }

      func one(n int) int {
      ${body}
      func two(n int) int {
      ${body}
      func main() {
      	caller(3)
      	println(sum)
      }
    '';

  # What most cases need of the standard library, for a cache that is not empty.
  prime = [
    (program "prime-c" { files."main.go" = probe; })
    (program "prime-go" (pure {
      "main.go" = "package main\n\nimport _ \"errors\"\n\nfunc main() {}\n";
    }))
  ];

  # A C library of a header, an archive and a .pc file.
  archive =
    name:
    stdenv.mkDerivation {
      inherit name;
      nativeBuildInputs = [ c.cc1 ];
      phases = [ "installPhase" ];
      installPhase = ''
        mkdir -p $out/include $out/lib/pkgconfig
        echo "int $name(int number);" >$out/include/$name.h
        echo "int $name(int number) { return number * ''${#name}; }" >$name.c
        gcc -O2 -c -o $name.o $name.c
        ar rcD $out/lib/lib$name.a $name.o
        printf '%s\n' "Name: $name" "Description: $name" 'Version: 1' "Cflags: -I$out/include" \
          "Libs: -L$out/lib -l$name" >$out/lib/pkgconfig/$name.pc
      '';
    };

  # What an audit has to find nothing in: a program with three C libraries, each found in a way of its own. It is another
  # derivation that fills the cache.
  audited =
    mode:
    program (if mode == "" then "filling" else mode) {
      nativeBuildInputs = [ c.pkgConfig ];
      buildInputs = map archive [
        "one"
        "three"
        "eleven"
      ];
      files = {
        "main.go" = ''
          package main

          import (
          	"example.com/same/eleven"
          	"example.com/same/one"
          	"example.com/same/three"
          )

          func main() { println(one.Of(7), three.Of(7), eleven.Of(7)) }
        '';
        "one/one.go" = ''
          package one

          // #cgo LDFLAGS: -lone
          // #include <one.h>
          import "C"

          func Of(number int) int { return int(C.one(C.int(number))) }
        '';
        "three/three.go" = ''
          package three

          // #cgo pkg-config: three
          // #include <three.h>
          import "C"

          func Of(number int) int { return int(C.three(C.int(number))) }
        '';
        # In C and C++ of the package's own, with a header of another folder.
        "eleven/eleven.go" = ''
          package eleven

          // #cgo CPPFLAGS: -I''${SRCDIR}/../include
          // #cgo LDFLAGS: -leleven
          // #include "of.h"
          import "C"

          func Of(number int) int { return int(C.of(C.int(number))) }
        '';
        "eleven/of.c" = "#include \"of.h\"\n#include <eleven.h>\nint of(int number) { return more(eleven(number)); }\n";
        "eleven/more.cc" = "#include \"of.h\"\nint more(int number) { return number + 1; }\n";
        "include/of.h" = ''
          #ifdef __cplusplus
          extern "C" {
          #endif
          int of(int number);
          int more(int number);
          #ifdef __cplusplus
          }
          #endif
        '';
      };
      env = if mode == "" then { } else { NIX_GOCACHEPROG = mode; };
      build = ''
        go build $flags -o $out/bin/ ./...
        go vet ./...
      '';
    };

  # Two projects with one Go and modules in common, and nothing else: another C library, other inputs. The first `go`
  # command of each builds what has no C in it.
  project =
    name: cc: input:
    let
      drv = program name {
        inherit cc;
        buildInputs = [ input ];
        files = {
          "go.mod" = "module example.com/${name}\n\ngo 1.24\n\nrequire example.com/common v1.0.0\n";
          "pure/main.go" = ''
            package main

            import (
            	"encoding/json"
            	"os"

            	"example.com/common/one"
            	"example.com/common/two"
            )

            func main() {
            	json.NewEncoder(os.Stdout).Encode([]string{"${name}", one.Name(), two.Name()})
            }
          '';
          "c/main.go" =
            builtins.replaceStrings [ "func main() {" ] [ "func main() {\n\tprintln(\"${name}\")\n\t" ]
              (usesFoo "// #cgo LDFLAGS: -lfoo\n// #include <foo.h>");
          "vendor/modules.txt" =
            "# example.com/common v1.0.0\n## explicit; go 1.24\nexample.com/common/one\nexample.com/common/two\n";
          "vendor/example.com/common/one/one.go" =
            "package one\n\nimport \"strings\"\n\nfunc Name() string { return strings.ToUpper(\"one\") }\n";
          "vendor/example.com/common/two/two.go" =
            "package two\n\nimport \"strconv\"\n\nfunc Name() string { return strconv.Itoa(2) }\n";
        };
        build = ''
          go build $flags -o $out/bin/pure ./pure
          go build $flags -o $out/bin/c ./c
        '';
      };
    in
    {
      drv = drv.drvPath;
      out = drv.outPath;
    };
in
{
  inherit cases;
  sharing = [
    (project "first" c.cc1 foo."1")
    (project "second" c.cc2 foo."2")
  ];
  # For the shell: each case in a line.
  list = map (
    name:
    let
      case = cases.${name};
      of = v: program name (case.make v);
    in
    {
      inherit name;
      inherit (case) change;
      same = case.same or false;
      short = case.short or false;
      outside = case.outside or false;
      a = (of "1").drvPath;
      b = (of "2").drvPath;
      outA = (of "1").outPath;
      outB = (of "2").outPath;
    }
  ) (builtins.attrNames cases);
  prime = map (drv: { drv = drv.drvPath; out = drv.outPath; }) prime;
  audit = map (drv: { drv = drv.drvPath; out = drv.outPath; }) [
    (audited "")
    (audited "audit")
  ];
}
