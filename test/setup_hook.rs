//! The setup hook, sourced by a bash as strict as stdenv's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{TempDir, binary, text};

/// Runs both hook points, as stdenv does, and then says what became of the environment.
const PHASES: &str = r#"
    for hook in "${postConfigureHooks[@]}" "${preBuildHooks[@]}"; do "$hook"; done
    echo "${GOCACHEPROG-unset} ${GODEBUG-unset} ${GOFLAGS-unset}"
"#;

struct Bash {
    dir: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Bash {
    fn new() -> Self {
        Bash {
            dir: TempDir::new(),
            environment: Vec::new(),
        }
    }

    fn client(mut self, script: &str) -> Self {
        let client = self.client_path();
        fs::write(&client, script).unwrap();
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        let client = client.to_str().unwrap().to_string();
        self.environment.push(("NIX_GOCACHEPROG_CLIENT", client));
        self
    }

    fn client_path(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// What the script says on stdout and on stderr. It must not fail.
    fn run(&self, script: &str) -> (String, String) {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -eu -o pipefail\n{script}")])
            .env("hook", concat!(env!("CARGO_MANIFEST_DIR"), "/hook.sh"));
        for name in [
            "GOCACHE",
            "GOCACHEPROG",
            "GODEBUG",
            "GOFLAGS",
            "IN_NIX_SHELL",
            "NIX_BUILD_TOP",
            "NIX_GOCACHEPROG",
            "NIX_GOCACHEPROG_TESTS",
            "outputHash",
            "XDG_CACHE_HOME",
        ] {
            bash.env_remove(name);
        }
        bash.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = bash.output().expect("bash starts");
        assert!(output.status.success(), "{output:?}");
        (
            text(&output.stdout).to_string(),
            text(&output.stderr).to_string(),
        )
    }

    fn expect_client(&self, script: &str) {
        let path = self.client_path();
        let expected = format!("{} goindex=0 -count=1\n", path.display());
        assert_eq!(self.run(script), (expected, String::new()));
    }
}

const WORKING: &str = "#!/bin/sh\n[ \"$*\" = --version ]\n";

#[test]
fn a_client_that_is_there_is_what_go_uses() {
    let bash = Bash::new().client(WORKING);
    bash.expect_client(&format!(". \"$hook\"{PHASES}"));
}

#[test]
fn a_hook_that_is_sourced_twice_acts_once() {
    let bash = Bash::new().client(WORKING);
    bash.expect_client(&format!(
        ". \"$hook\"; nixGocacheprogSetup; . \"$hook\"{PHASES}"
    ));
}

#[test]
fn other_hooks_of_the_same_phases_stay() {
    let bash = Bash::new().client(WORKING);
    let others = "postConfigureHooks=(true) preBuildHooks=':'";
    bash.expect_client(&format!("{others}; . \"$hook\"{PHASES}"));
}

#[test]
fn a_module_derivation_gets_the_client_too() {
    let bash = Bash::new().client(WORKING).set("outputHash", "sha256-x");
    let bash = bash.set("GOPROXY", "off");
    bash.expect_client(&format!(". \"$hook\"{PHASES}"));
}

#[test]
fn a_module_derivation_gets_the_proxy_in_front_of_its_own_list() {
    let list = "https://example.com|direct";
    let module = |client| {
        let bash = Bash::new().client(client).set("outputHash", "sha256-x");
        bash.set("GOPROXY", list)
            .run(". \"$hook\"; nixGocacheprogSetup; echo \"$GOPROXY\"")
    };
    let (stdout, stderr) = module("#!/bin/sh\ncase $1 in proxy) echo http://127.0.0.1:7 ;; esac\n");
    assert_eq!(stdout, format!("http://127.0.0.1:7|{list}\n"));
    assert_eq!(stderr, "");
    let (stdout, stderr) = module("#!/bin/sh\ncase $1 in proxy) exit 1 ;; esac\n");
    assert_eq!(stdout, format!("{list}\n"));
    assert!(
        stderr.contains("the module proxy did not start"),
        "{stderr}"
    );
}

#[test]
fn what_the_derivation_has_set_stays() {
    let own = Bash::new().client(WORKING).set("GOCACHEPROG", "own");
    let (stdout, stderr) = own.run(&format!(". \"$hook\"{PHASES}"));
    assert_eq!((&*stdout, &*stderr), ("own unset unset\n", ""));
    let own = Bash::new().client(WORKING);
    let own = own.set("GODEBUG", "x=1").set("GOFLAGS", "-trimpath");
    let (stdout, stderr) = own.run(&format!(". \"$hook\"{PHASES}"));
    let expected = "/client x=1,goindex=0 -count=1 -trimpath\n";
    assert!(stdout.ends_with(expected), "{stdout}");
    assert_eq!(stderr, "");
    let own = Bash::new().client(WORKING);
    let own = own
        .set("GODEBUG", "goindex=1")
        .set("GOFLAGS", "-count=5 -v");
    let (stdout, stderr) = own.run(&format!(". \"$hook\"{PHASES}"));
    assert!(
        stdout.ends_with("/client goindex=1 -count=5 -v\n"),
        "{stdout}"
    );
    assert_eq!(stderr, "");
}

#[test]
fn flags_that_are_a_list_stay_one() {
    let bash = Bash::new().client(WORKING);
    let (stdout, stderr) = bash.run(
        "GOFLAGS=(-mod=vendor -trimpath); . \"$hook\"; nixGocacheprogSetup; printf '<%s>' \"${GOFLAGS[@]}\"",
    );
    assert_eq!((&*stdout, &*stderr), ("<-mod=vendor><-trimpath>", ""));
}

#[test]
fn a_client_that_is_missing_or_broken_is_said_once_and_nothing_else_happens() {
    let missing = Bash::new().set("NIX_GOCACHEPROG_CLIENT", "/no/such/client");
    let broken = Bash::new().client("#!/bin/sh\nexit 127\n");
    for bash in [missing, broken] {
        let (stdout, stderr) = bash.run(&format!(". \"$hook\"{PHASES}"));
        assert_eq!(stdout, "unset unset unset\n");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("no working client at"), "{stderr}");
        assert!(stderr.contains("pre-build-hook"), "{stderr}");
    }
}

#[test]
fn a_mode_that_is_unknown_is_off_and_said_once() {
    for mode in ["read-only", "READONLY", "1", "false"] {
        let bash = Bash::new().client(WORKING).set("NIX_GOCACHEPROG", mode);
        let (stdout, stderr) = bash.run(&format!(". \"$hook\"{PHASES}"));
        assert_eq!(stdout, "unset unset unset\n");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!(
            "={mode} is not one of on, readonly, audit and off"
        )));
    }
    for mode in ["", "on", "readonly", "audit"] {
        let bash = Bash::new().client(WORKING).set("NIX_GOCACHEPROG", mode);
        bash.expect_client(&format!(". \"$hook\"{PHASES}"));
    }
}

#[test]
fn go_has_a_place_for_its_own_cache_where_home_cannot_be_written() {
    let gocache = |home: &str, also: &'static str| {
        let bash = Bash::new().client(WORKING).set("HOME", home);
        let bash = bash.set("NIX_BUILD_TOP", "/top").set(also, "/there");
        let (stdout, _) = bash.run(". \"$hook\"; nixGocacheprogSetup; echo \"${GOCACHE-unset}\"");
        stdout.trim_end().to_string()
    };
    let homeless = "/homeless-shelter";
    assert_eq!(gocache(homeless, "OTHER"), "/top/.nix-gocacheprog-gocache");
    assert_eq!(gocache("", "OTHER"), "/top/.nix-gocacheprog-gocache");
    assert_eq!(gocache(homeless, "GOCACHE"), "/there");
    assert_eq!(gocache(homeless, "XDG_CACHE_HOME"), "unset");
    assert_eq!(gocache("/tmp", "OTHER"), "unset");
}

/// As much of stdenv as runs hooks, and a source tree as it comes from the store.
const STDENV: &str = r#"
    runHook() {
        local name=$1 hook
        local slice="${name%Hook}Hooks[@]"
        if [[ -n ${!name-} ]]; then eval "${!name}"; fi
        for hook in ${!slice+"${!slice}"}; do eval "$hook"; done
    }
    times() { find . -printf '%T@\n' | sort -u | tr '\n' ' '; }
    is_stamped() {
        [[ ${NIX_GOCACHEPROG_STAMPED-} == 1 && $(times) != *" 1.0"* && $(times) != "1.0"* ]] || return 1
    }
    is_as_ever() {
        [[ -z ${NIX_GOCACHEPROG_STAMPED-} && $(times) == "1.0000000000 " ]] || return 1
    }
    NIX_BUILD_TOP=$(mktemp -d)
    trap 'rm -rf "$NIX_BUILD_TOP"' EXIT
    mkdir -p "$NIX_BUILD_TOP/source/module/testdata"
    cd "$NIX_BUILD_TOP/source/module"
    echo a >testdata/a; echo b >b.go; echo module m >go.mod
    find "$NIX_BUILD_TOP/source" -exec touch -h -d @1 {} +
    . "$hook"
    runHook postHook
"#;

/// The builder with the real program as its client.
fn real_client() -> Bash {
    let client = binary();
    Bash::new().set("NIX_GOCACHEPROG_CLIENT", client.to_str().unwrap())
}

const OWN_PHASE: &str = r#"
    runHook preBuild
    # As in nixpkgs.
    buildGoDir() {
      local cmd="$1" dir="$2"
      flags+=(${tags:+-tags=$(concatStringsSep "," tags)})
      local OUT
      if ! OUT="$(go $cmd "${flags[@]}" $dir 2>&1)"; then
        return 1
      fi
      if [ -n "$OUT" ]; then
        echo "$OUT" >&2
      fi
      return 0
    }
    for pkg in $(getGoDirs ""); do
      buildGoDir install "$pkg"
    done
    go vet \
      ./...
    runHook postBuild
"#;

#[test]
fn times_say_content_while_a_phase_runs_go_and_nothing_else() {
    let script = format!(
        r#"{STDENV}
        buildPhase='{OWN_PHASE}'
        preBuild='is_as_ever'
        postBuild='is_as_ever'
        GOFLAGS+=" -mod=vendor"
        runHook preBuild
        is_stamped
        echo "${{GODEBUG-unset}} $GOFLAGS"
        touch -d @7 b.go; echo new >new; touch -d @8 new .
        runHook postBuild && exit 1
        [[ $(times) == "1.0000000000 7.0000000000 8.0000000000 " ]]
        echo "$GODEBUG $GOFLAGS"
        touch -d @1 b.go new .
        checkPhase='runHook preCheck; go test ./...; runHook postCheck'
        runHook preCheck; is_as_ever; runHook postCheck
        checkPhase=$'runHook preCheck
go test ./...
runHook postCheck'
        runHook preCheck; is_stamped; runHook failureHook; is_as_ever
        NIX_GOCACHEPROG_TESTS=run
        runHook preCheck; is_as_ever
    "#
    );
    // The first postBuild finds what the phase has written.
    let script = script.replace(
        "runHook postBuild && exit 1",
        "postBuild=; runHook postBuild",
    );
    let (stdout, stderr) = real_client().run(&script);
    assert_eq!(
        (&*stdout, &*stderr),
        ("unset -mod=vendor\ngoindex=0 -count=1 -mod=vendor\n", "")
    );
}

#[test]
fn times_stay_where_a_phase_could_notice_or_they_could_not_say_content() {
    let phase = |change: &dyn Fn(&str) -> String, before: &str| {
        let phase = change(OWN_PHASE);
        let script =
            format!("{STDENV}\n{before}\nbuildPhase='{phase}'\nrunHook preBuild\nis_as_ever");
        let (_, stderr) = real_client().run(&script);
        assert_eq!(stderr, "", "{phase}{before}");
    };
    let plain = |phase: &str| phase.to_string();
    for line in [
        "make all",
        "./build.sh",
        "python3 generate.py",
        "go build . && ./tool",
        "go generate; touch x",
        "go generate ./...",
        "go run ./internal/build",
        "go tool stringer",
        "flags+=($(make flags))",
        "if [ -n \"$(make -n)\" ]; then",
        "cp -p a $out",
        "echo `cat x`",
        "eval \"$x\"",
    ] {
        phase(
            &|phase| phase.replace("go vet", &format!("{line}\n    go vet")),
            "",
        );
    }
    phase(&|phase| phase.replace("runHook postBuild", ""), "");
    phase(&|_| String::new(), "");
    phase(&plain, "GOFLAGS=-overlay=/nix/store/x");
    phase(&plain, "checkFlags=(-exec ./wrapper)");
    // Tests of another module may be run, and read what is in this one.
    phase(&plain, "touch -d @1 go.work .");
    phase(&plain, "touch -d @1 ../go.work ..; GOFLAGS=-mod=vendor");
    phase(&plain, "export GOWORK=/elsewhere/go.work");
    phase(&plain, "checkFlags='-v -C ../other'");
    phase(&|phase| phase.replace("go vet", "go vet -C ../other"), "");
    phase(&|phase| phase.replace("go vet", "go vet -C=../other"), "");
    for replaced in ["replace a => ./a", "replace (\n\ta v1.0.0 =>\t../a\n)"] {
        let edit = format!("printf 'module m\n{replaced}\n' >go.mod; touch -d @1 go.mod");
        phase(&plain, &edit);
        let vendored = format!(
            "{STDENV}\n{edit}; GOFLAGS+=' -mod=vendor'\nbuildPhase='{OWN_PHASE}'\nrunHook preBuild\nis_stamped"
        );
        real_client().run(&vendored);
    }
    phase(&plain, "GOCACHEPROG=/its/own");
    phase(&plain, "outputHash=x");
    phase(&plain, "ln -s /etc/passwd link; touch -h -d @1 link .");
    phase(&plain, "NIX_BUILD_TOP=$PWD");
    phase(&plain, "mv go.mod ../..; touch -d @1 .");
}

/// As nixpkgs has had them since 22.05, besides those of `OWN_PHASE`, and a few that a derivation may have.
const LINES_OF_GO: &str = r#"# We do not set trimpath for tests, in case they reference test assets
export GOFLAGS=${GOFLAGS//-trimpath/}
exclude='\(/_\|examples\|Godeps\|testdata'
exclude+='\|'"$excludedAlternates"
exclude+='\)'
if [[ -n "$excludedPackages" ]]; then
IFS=' ' read -r -a excludedArr <<<$excludedPackages
printf -v excludedAlternates '%s\\|' "${excludedArr[@]}"
excludedAlternates=${excludedAlternates%\\|} # drop final \| added by printf
local d; local cmd;
cmd="$1"
d="$2"
. $TMPDIR/buildFlagsArray
declare -ga buildFlagsArray
declare -a flags
flags+=($buildFlags "${buildFlagsArray[@]}")
flags+=(${tags:+-tags=${tags// /,}})
flags+=(${tags:+-tags=$(concatStringsSep "," tags)})
flags+=(${ldflags:+-ldflags="${ldflags[*]}"})
flags+=("-p" "$NIX_BUILD_CORES")
if [ "$cmd" = "test" ]; then
if ! OUT="$(go $cmd $buildFlags "${buildFlagsArray[@]}" ${ldflags:+-ldflags="$ldflags"} -v -p $NIX_BUILD_CORES $d 2>&1)"; then
if ! echo "$OUT" | grep -qE '(no( buildable| non-test)?|build constraints exclude all) Go (source )?files'; then
echo "$OUT" >&2
getGoDirs() {
local type;
type="$1"
echo "$subPackages" | sed "s,\(^\| \),\1./,g"
find . -type f -name \*$type.go -exec dirname {} \; | grep -v "/vendor/" | sort --unique | grep -v "$exclude"
if (( "${NIX_DEBUG:-0}" >= 1 )); then
buildFlagsArray+=(-x)
if [ ${#buildFlagsArray[@]} -ne 0 ]; then
declare -p buildFlagsArray > $TMPDIR/buildFlagsArray
touch $TMPDIR/buildFlagsArray
if [ -z "$enableParallelBuilding" ]; then
export NIX_BUILD_CORES=1
for pkg in $(getGoDirs test); do
buildGoDir test $checkFlags "$pkg"
buildGoDir "test -c -o $GOPATH/bin/" "$pkg"
dir=$GOPATH/bin/linux_arm64
if [[ -n "$(shopt -s nullglob; echo $dir/*)" ]]; then
mv $dir/* $dir/..
rmdir $dir
for each in ./a ./b; do
go test ./... >/dev/null 2>&1
go test -c -o internal/x.test ./x
go vet ./... # all
"#;

/// Each could do something else, or write what a test reads after the hook has looked.
const LINES_OF_MORE: &str = r#"if [ -d data ]; then cp -r data $TMPDIR/; fi
if [ a ]; ./gen; then
if [ -n "$(make -n)" ]; then
if ! OUT="$(./gen)"; then
if ! echo x | tee y; then
export GOFLAGS=x; ./codegen
echo "$version" > $TMPDIR/version
echo "$version" >$TMPDIR/version
echo a >&2file
echo " # "; ./codegen
echo ${ ./gen
echo "$subPackages" | sed "e ./gen"
find . -type f -name x -delete
go build -o $TMPDIR/foo ./cmd/foo
go build -o="$TMPDIR/foo" ./cmd/foo
go build -o ../foo .
go build -o a/../../foo .
go install ./cmd/foo
go test -exec ./x ./...
go test ./... & ./gen
go list <(./gen)
flags+=(-o $out/x)
flags+=(x) ./gen
type=x ./gen
exclude=x ./gen
dir=$GOPATH/bin/x ./gen
dir=testdata
local x=1; ./gen
local x=$(./gen)
printf -v x "%s" "$(./gen)"
IFS= read x <<<$(./gen)
for x in $a; ./gen; do
for x in $(getGoDirs; ./gen); do
runHook generate
buildGoDir run ./x
buildGoDir "$cmd" x
"#;

#[test]
fn a_phase_is_gos_own_only_if_each_line_is() {
    let script = format!(
        "set -f; . \"$hook\"
        while IFS= read -r line; do
            phase=$'runHook preCheck\\ngo test ./...\\n'$line$'\\nrunHook postCheck'
            if nixGocacheprogRunsGoOnly \"$phase\"; then printf '%s\\n' \"$line\"; fi
        done <<'LINES'\n{LINES_OF_GO}{LINES_OF_MORE}LINES"
    );
    let (stdout, stderr) = Bash::new().run(&script);
    assert_eq!((&*stdout, &*stderr), (LINES_OF_GO, ""));
}

#[test]
fn what_go_writes_is_no_matter_where_no_test_runs() {
    let script = r#". "$hook"
        nixGocacheprogRunsGoOnly $'runHook preBuild\ngo build -o $out/bin/x .\ngo install .\nrunHook postBuild'"#;
    Bash::new().run(script);
}

/// What the check phase finds beside the module, as a hash, after `before` and then after `change`.
fn beside(before: &str, change: &str) -> (String, String) {
    let script = format!(
        r#"{STDENV}
        scratch=$(mktemp -d); trap 'rm -rf "$NIX_BUILD_TOP" "$scratch"' EXIT
        nixGocacheprogScratch=("$scratch" /no/such/folder)
        checkPhase=$'runHook preCheck\ngo test ./...\nrunHook postCheck'
        export GOPATH=$NIX_BUILD_TOP/go
        mkdir -p "$GOPATH/bin"; echo 1 >"$GOPATH/bin/tool"; echo 1 >"$GOPATH/other"
        {before}
        runHook preCheck; is_stamped; echo "$NIX_GOCACHEPROG_BESIDE"; runHook postCheck
        {change}
        runHook preCheck; is_stamped; echo "$NIX_GOCACHEPROG_BESIDE"; runHook postCheck
    "#
    );
    let (stdout, stderr) = real_client().run(&script);
    assert_eq!(stderr, "");
    let (first, second) = stdout.split_once('\n').unwrap();
    (first.to_string(), second.trim_end().to_string())
}

#[test]
fn what_a_build_has_beside_the_module_counts() {
    let tool = r#"echo 2 >"$GOPATH/bin/tool""#;
    for (before, change) in [
        ("", r#"echo 1 >"$NIX_BUILD_TOP/x""#),
        ("", r#"echo 1 >../x"#),
        ("", r#"echo 1 >"$scratch/x""#),
        (r#"echo 1 >"$scratch/.x""#, r#"echo 2 >"$scratch/.x""#),
        (
            r#"mkdir "$scratch/d"; ln -s a "$scratch/d/x""#,
            r#"ln -sfn b "$scratch/d/x""#,
        ),
        (
            r#"preCheck='export HOME=$(mktemp -d -p "$NIX_BUILD_TOP"); touch "$HOME/.x"'"#,
            "",
        ),
        // What preCheck writes is there when the hook looks.
        (r#"preCheck='echo $((++runs)) >"$scratch/x"'; runs=0"#, ""),
        (r#"PATH+=:$GOPATH/bin"#, tool),
        (r#"PATH+=:$NIX_BUILD_TOP/./go//bin/"#, tool),
        (
            r#"ln -s "$GOPATH/bin" "$scratch/bin"; PATH+=:$scratch/bin"#,
            tool,
        ),
        (r#"preCheck='tool=$GOPATH/bin/tool'"#, tool),
        (r#"preCheck='tool=$TMPDIR/../go/bin/tool'; TMPDIR=/x"#, tool),
        (
            r#"preCheck() { tool=$(go env GOPATH); }; go() { :; }"#,
            tool,
        ),
        (r#"checkFlags=(-tool "$GOPATH/bin/tool")"#, tool),
        (r#"export TOOL=$GOPATH/bin/tool"#, tool),
        (r#"export TOOLS=$GOPATH"#, tool),
    ] {
        let (first, second) = beside(before, change);
        assert_ne!(first, second, "{before}; {change}");
    }
    for (before, change) in [
        (r#"echo 1 >"$NIX_BUILD_TOP/x"; echo 1 >"$scratch/x""#, ""),
        (
            r#"preCheck='export HOME=$(mktemp -d -p "$NIX_BUILD_TOP")'"#,
            "",
        ),
        ("", tool),
        ("export GOCACHE=$GOPATH-cache GOBIN=", tool),
        ("export GOMODCACHE=$GOPATH/pkg/mod", tool),
        ("TOOL=$GOPATH/bin/tool", tool),
        (r#"PATH+=:$GOPATH/bin"#, r#"echo 2 >"$GOPATH/other""#),
        (
            r#"nixGocacheprogScratch=("$NIX_BUILD_TOP")"#,
            "echo 3 >testdata/a",
        ),
    ] {
        let (first, second) = beside(before, change);
        assert_eq!(first, second, "{before}; {change}");
    }
}

#[test]
fn an_index_is_believed_only_of_folders_whose_times_say_content() {
    let godebug = |before: &str| {
        let script = format!(
            "{STDENV}\n{before}\nbuildPhase='{OWN_PHASE}'\nrunHook preBuild\nis_stamped\necho \"${{GODEBUG-unset}} ${{GOFLAGS-unset}}\""
        );
        real_client().run(&script).0
    };
    // Modules of the module cache go by their path alone.
    assert_eq!(godebug(""), "goindex=0 unset\n");
    assert_eq!(godebug("GOFLAGS+=' -mod=vendor'"), "unset -mod=vendor\n");
    let workspace = "GOFLAGS+=' -mod=vendor'; touch -d @1 ../go.work; touch -d @1 ..";
    assert_eq!(
        godebug(&format!("{workspace}; export GOWORK=off")),
        "unset -mod=vendor\n"
    );
    let unset = "GOFLAGS=-mod=vendor; export GODEBUG=madvdontneed=1";
    assert_eq!(godebug(unset), "madvdontneed=1 -mod=vendor\n");
    let added = "GOFLAGS+=' -mod=vendor'; GODEBUG+=,madvdontneed=1";
    assert_eq!(godebug(added), "madvdontneed=1 -mod=vendor\n");
}

#[test]
fn in_a_shell_a_phase_has_the_cache_and_the_user_has_what_was_before() {
    let bash = real_client()
        .set("IN_NIX_SHELL", "impure")
        .set("GODEBUG", "x='1' $y");
    let say = r#"echo "${GOCACHEPROG-unset}|${GODEBUG-unset}|${GOFLAGS-unset}""#;
    let (stdout, stderr) = bash.run(&format!(
        r#"{STDENV}
        GOCACHE=/not/exported
        {say}; is_as_ever
        buildPhase='{OWN_PHASE}'
        runHook preBuild; {say}; is_as_ever; runHook postBuild; {say}
        runHook preCheck; runHook postCheck; {say}
        declare -p GOCACHE; declare -F go || true
        runHook exitHook
        "#
    ));
    let own = "unset|x='1' $y|unset\n";
    let during = format!(
        "{} client|x='1' $y,goindex=0|-count=1\n",
        binary().display()
    );
    let after = "declare -- GOCACHE=\"/not/exported\"\n";
    assert_eq!(stdout, format!("{own}{during}{own}{own}{after}"));
    assert_eq!(stderr, "");
}

#[test]
fn executables_are_kept_where_linking_again_would_cost_more() {
    let bash = Bash::new().client(WORKING);
    let (stdout, stderr) = bash.run(
        r#"
        bin=$(mktemp -d); cd "$bin"
        trap 'rm -rf "$bin"' EXIT
        printf '#!/bin/sh
echo "$* ${GOCACHEPROG:-without}"
exit 7
' >go
        chmod +x go
        PATH=$bin:$PATH
        . "$hook"; nixGocacheprogSetup
        mine() { "$@" && exit 1 || [[ $? == 7 ]]; }
        mine go build x; mine go tool; mine go tool -n t; mine go generate .
        for nth in {1..12}; do mine go run "$nth"; done
        mine go tool t
        for nth in {1..12}; do echo '//go:generate go tool t'; done >x.go
        mine go generate .
        GOCACHEPROG=/its/own; mine go generate .
    "#,
    );
    let client = bash.client_path();
    let client = client.to_str().unwrap();
    let mut expected =
        format!("build x {client}\ntool {client}\ntool -n t without\ngenerate . {client}\n");
    for nth in 1..=12 {
        let with = if nth > 10 { "without" } else { client };
        expected.push_str(&format!("run {nth} {with}\n"));
    }
    expected.push_str("tool t without\ngenerate . without\ngenerate . /its/own\n");
    assert_eq!((&*stdout, &*stderr), (&*expected, ""));
}

#[test]
fn the_summary_is_of_a_build_that_had_the_cache() {
    let summary = |between: &str| {
        let client = "#!/bin/sh\n[ \"$*\" != --summary ] || echo the summary\n";
        let bash = Bash::new().client(client);
        bash.run(&format!(
            ". \"$hook\"; nixGocacheprogSetup; {between}\nfor hook in \"${{exitHooks[@]}}\"; do \"$hook\"; done"
        ))
        .0
    };
    assert_eq!(summary(""), "the summary\n");
    assert_eq!(summary("GOCACHEPROG=/its/own"), "");
    assert_eq!(summary("unset GOCACHEPROG"), "");
}

#[test]
fn a_derivation_can_switch_the_hook_off() {
    let bash = Bash::new().client(WORKING).set("NIX_GOCACHEPROG", "off");
    let (stdout, stderr) = bash.run(&format!(". \"$hook\"{PHASES}"));
    assert_eq!((&*stdout, &*stderr), ("unset unset unset\n", ""));
}
