//! Builds by a real Nix in its real sandbox, with the stand-in for nixpkgs of test/nix.
//!
//! Each test runs itself once more inside test/nix/enter, where /nix is private, and does its work
//! there: a daemon of its own as a user of its own, and nix-build with our hook.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime};

use crate::support::{Daemon, TempDir, binary, text};
use crate::upstream::{Upstream, module};

/// Says to a test that it runs in the private namespaces.
const INSIDE: &str = "NIX_GOCACHEPROG_TEST_INSIDE";

/// The daemon's user: nobody else's, and none of Nix's build users.
const DAEMON_USER: u32 = 30870;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs the test that `body` is the whole of, inside test/nix/enter.
fn in_nix<F: FnOnce(&Nix)>(body: F) {
    in_nix_of(None, body);
}

/// The same with the Nix of this suite of Debian.
fn in_nix_of<F: FnOnce(&Nix)>(suite: Option<&str>, body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return body(&Nix::new());
    }
    let closure = std::any::type_name::<F>();
    let (_, test) = closure.split_once("::").unwrap();
    let test = test.strip_suffix("::{{closure}}").unwrap();
    let output = Command::new(repository("test/nix/enter"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("NIX_GOCACHEPROG_BIN", binary())
        .envs(suite.map(|suite| ("NIX_SUITE", suite)))
        .stdin(Stdio::null())
        .output()
        .expect("test/nix/enter starts");
    assert!(
        output.status.success() && text(&output.stdout).contains("1 passed"),
        "in Nix, {}:\n{}",
        output.status,
        said(&output)
    );
}

/// All that was said, set off so that nobody counts its test results.
fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both)
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect()
}

/// Nix, and what the test builds are made of.
struct Nix {
    inputs: Vec<String>,
    dir: TempDir,
    step: String,
}

impl Nix {
    fn new() -> Self {
        let goroot = run(Command::new(repository("test/fetch-go")).args(["--have", "1.27"]));
        let inputs = run(Command::new(repository("test/nix/inputs")).arg(goroot.trim_end()));
        let dir = TempDir::new();
        // Where a developer's own folders are out of reach for the daemon's user and the sandbox.
        fs::copy(binary(), dir.path().join("nix-gocacheprog")).unwrap();
        let program = fs::read(binary()).unwrap();
        assert!(
            !program.windows(9).any(|bytes| bytes == b"/ld-linux"),
            "{} is not static, so it cannot start in the sandbox: run test/run, or set NIX_GOCACHEPROG_BIN",
            binary().display()
        );
        symlink("nix-gocacheprog", dir.path().join("hook")).unwrap();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Nix {
            inputs: inputs.lines().map(str::to_string).collect(),
            dir,
            // Builds that were not there before.
            step: since.unwrap().as_nanos().to_string(),
        }
    }

    /// A daemon as a user of its own.
    fn daemon(&self) -> Daemon {
        Daemon::start_as(DAEMON_USER)
    }

    /// nix-build of an expression in test/nix, for which `step` makes it a new derivation.
    fn command(&self, file: &str, step: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nix-build");
        command
            .arg("--no-out-link")
            .arg(repository("test/nix").join(file))
            .args(&self.inputs)
            .args(["--argstr", "step"])
            .arg(format!("{step}-{}", self.step))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn without_hook(&self, file: &str, step: &str) -> Built {
        let command = &mut self.command(file, step, &["--arg", "withHook", "false"]);
        Built::new(command.output().unwrap())
    }

    fn with_hook(&self, runtime_dir: &Path, file: &str, step: &str, args: &[&str]) -> Built {
        let mut command = self.command(file, step, args);
        command
            .args(["--option", "pre-build-hook"])
            .arg(self.dir.path().join("hook"))
            .env("NIX_GOCACHEPROG_RUNTIME_DIR", runtime_dir);
        Built::new(command.output().unwrap())
    }
}

/// What nix-build gave; the store need not keep it.
struct Built {
    paths: Vec<PathBuf>,
    log: String,
}

impl Built {
    fn new(output: Output) -> Self {
        let log = said(&output);
        assert!(
            output.status.success(),
            "nix-build ended with {}:\n{log}",
            output.status
        );
        Built {
            paths: text(&output.stdout).lines().map(PathBuf::from).collect(),
            log,
        }
    }

    fn program(&self, nth: usize, name: &str) -> Vec<u8> {
        fs::read(self.paths[nth].join("bin").join(name)).unwrap()
    }

    /// What the program says on stderr, where `println` writes.
    fn run(&self, nth: usize, name: &str) -> String {
        let program = self.paths[nth].join("bin").join(name);
        let output = Command::new(program).output().unwrap();
        assert!(output.status.success());
        text(&output.stderr).to_string()
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let mut delete = Command::new("nix-store");
        delete.args(["--delete", "--ignore-liveness"]);
        let _ = delete.args(&self.paths).output();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}:\n{}", said(&output));
    text(&output.stdout).to_string()
}

#[test]
fn a_build_runs_as_a_build_user_in_a_sandbox() {
    in_nix(|nix| {
        let said = nix.command("sandbox.nix", "sandbox", &[]).output().unwrap();
        let built = Built::new(said);
        let found = fs::read_to_string(&built.paths[0]).unwrap();
        let (users, root) = found.split_once('\n').unwrap();
        let user: u32 = users.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!((30901..=30932).contains(&user), "{found}");
        let mut root: Vec<_> = root.lines().collect();
        root.sort_unstable();
        assert_eq!(root, ["bin", "build", "dev", "etc", "nix", "proc", "tmp"]);
    });
}

#[test]
fn a_program_from_a_full_cache_is_the_one_built_without_us() {
    in_nix(|nix| {
        let without = nix.without_hook("hello.nix", "without");
        let daemon = nix.daemon();
        let runtime_dir = daemon.runtime_dir();
        let filling = nix.with_hook(&runtime_dir, "hello.nix", "filling", &[]);
        // `go install`, and `go test` without -trimpath.
        let (install, test) = (daemon.session_end(), daemon.session_end());
        assert!(install.puts > 0 && test.puts > 0, "{install:?} {test:?}");
        let cached = nix.with_hook(&runtime_dir, "hello.nix", "cached", &[]);
        let (install, test) = (daemon.session_end(), daemon.session_end());
        for session in [&install, &test] {
            assert!(session.hits * 100 >= session.gets * 95, "{session:?}");
            assert_eq!(session.errors, 0);
        }
        assert_eq!(cached.run(0, "hello"), "hello\n");
        for built in [&filling, &cached] {
            assert!(built.program(0, "hello") == without.program(0, "hello"));
        }
    });
}

#[test]
fn a_build_can_do_nothing_to_another_build_or_to_the_cache() {
    in_nix(|nix| isolation_with_hook(nix, &[]));
}

#[test]
fn nor_can_it_where_nix_allocates_the_users_of_builds() {
    in_nix_of(Some("trixie"), |nix| isolation_with_hook(nix, ALLOCATE));
}

#[test]
fn nor_can_it_where_a_current_nix_allocates_the_users_of_builds() {
    in_nix_of(Some("sid"), |nix| isolation_with_hook(nix, ALLOCATE));
}

/// Has Nix take users for builds that no file names.
const ALLOCATE: &[&str] = &[
    "--option",
    "extra-experimental-features",
    "auto-allocate-uids",
    "--option",
    "auto-allocate-uids",
    "true",
];

fn isolation_with_hook(nix: &Nix, args: &[&str]) {
    let said = nix.command("sandbox.nix", "users", args).output().unwrap();
    let users = fs::read_to_string(&Built::new(said).paths[0]).unwrap();
    let user: u32 = users.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(user >= 872_415_232, !args.is_empty(), "{users}");
    let daemon = nix.daemon();
    let hook = nix.dir.path().join("hook");
    let hook = ["--option", "pre-build-hook", hook.to_str().unwrap()];
    isolation(nix, &daemon, &[&hook, args].concat(), "");
}

#[test]
fn nor_can_it_where_static_sandbox_paths_do_without_the_hook() {
    in_nix(|nix| {
        let daemon = nix.daemon();
        let client = nix.dir.path().join("nix-gocacheprog");
        let builds = daemon.cache_dir().join("builds");
        let sockets = daemon.runtime_dir().join("build");
        let paths = format!(
            "/gocache/client={}? /gocache/run/build={}? /gocache/builds={}?",
            client.display(),
            sockets.display(),
            builds.display()
        );
        isolation(nix, &daemon, &[], &paths);
    });
}

/// A build that tries everything against another one which is there at the same time.
fn isolation(nix: &Nix, daemon: &Daemon, args: &[&str], sandbox_paths: &str) {
    let meet = nix.dir.path().join("meet");
    fs::create_dir(&meet).unwrap();
    fs::set_permissions(&meet, fs::Permissions::from_mode(0o777)).unwrap();
    for pipe in ["ready", "done"] {
        let pipe = meet.join(pipe);
        run(Command::new("mkfifo").args(["-m", "666"]).arg(pipe));
    }
    let mounts = format!("/meet={} {sandbox_paths}", meet.display());
    let mut command = nix.command("isolation.nix", "isolation", args);
    command
        .args(["--option", "extra-sandbox-paths", &mounts])
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir());
    let built = Built::new(command.output().unwrap());
    assert!(
        built.log.contains("probe: nothing was possible"),
        "{}",
        built.log
    );
    let outputs: Vec<_> = built
        .paths
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_ne!(outputs[0], outputs[1]);
    let in_static_mode = outputs[0].starts_with("/gocache/builds/");
    assert_eq!(in_static_mode, !sandbox_paths.is_empty(), "{outputs:?}");
}

#[test]
fn eight_builds_at_once_are_all_correct() {
    in_nix(|nix| {
        let without = nix.without_hook("many.nix", "without");
        let daemon = nix.daemon();
        for step in ["filling", "cached"] {
            let built = nix.with_hook(
                &daemon.runtime_dir(),
                "many.nix",
                step,
                &["--max-jobs", "8", "--cores", "2"],
            );
            assert_eq!(built.paths.len(), 8);
            for nth in 0..8 {
                let name = ["use-bits", "use-sort", "use-strconv", "use-text"][nth % 4];
                assert!(
                    built.program(nth, name) == without.program(nth % 4, name),
                    "{name} differs from the one built without us"
                );
                assert_eq!(
                    built.run(nth, name),
                    ["8\n", "2\n", "\"x\"\n", "ababab\n"][nth % 4]
                );
            }
        }
        let sessions = daemon.sessions();
        assert_eq!(sessions.len(), 16);
        assert!(sessions.iter().all(|session| session.errors == 0));
        // The second time, all is there.
        let cached = &sessions[8..];
        assert!(
            cached
                .iter()
                .all(|session| session.hits * 100 >= session.gets * 95),
            "{cached:?}"
        );
    });
}

#[test]
fn two_fixed_output_builds_at_once_have_a_proxy_each_and_modules_from_the_cache() {
    in_nix(|nix| {
        let daemon = nix.daemon();
        // Nobody gets an answer before both builds have asked.
        let met = Mutex::new((false, false));
        let changed = Condvar::new();
        let upstream = Upstream::start(move |asked, to| {
            let mut both = met.lock().unwrap();
            both.0 |= asked.path.contains("/v1.0.0.");
            both.1 |= asked.path.contains("/v1.1.0.");
            changed.notify_all();
            let limit = Duration::from_secs(120);
            let waited = changed.wait_timeout_while(both, limit, |both| *both != (true, true));
            drop(waited.unwrap());
            module(asked, to)
        });
        let mut sums = Vec::new();
        for step in ["fetched", "cached"] {
            let mut command = nix.command("modules.nix", step, &["--max-jobs", "2"]);
            command
                .args(["--option", "pre-build-hook"])
                .arg(nix.dir.path().join("hook"))
                .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir())
                .env("GOPROXY", &upstream.url);
            let built = Built::new(command.output().unwrap());
            let lines = |what: &str| -> Vec<String> {
                let found = built.log.lines().filter(|line| line.contains(what));
                let mut found: Vec<_> = found.map(|line| line.trim().to_string()).collect();
                found.sort();
                found
            };
            let proxies = lines("GOPROXY is ");
            assert_eq!(proxies.len(), 2, "{}", built.log);
            assert_ne!(proxies[0], proxies[1]);
            for proxy in &proxies {
                let list = proxy.strip_prefix("GOPROXY is http://127.0.0.1:").unwrap();
                assert!(list.ends_with(&format!("|{}", upstream.url)), "{proxy}");
            }
            sums.push(lines("\"Sum\": \"h1:"));
            assert_eq!(sums[0].len(), 2, "{}", built.log);
        }
        assert_eq!(sums[0], sums[1]);
        for version in ["v1.0.0", "v1.1.0"] {
            for kind in ["info", "mod", "zip"] {
                let path = format!("/example.test/m/@v/{version}.{kind}");
                assert_eq!(upstream.count(&path), 1, "{path}");
            }
        }
    });
}

#[test]
fn every_way_to_write_a_go_derivation_gets_the_cache() {
    in_nix(|nix| {
        let daemon = nix.daemon();
        let built = nix.with_hook(&daemon.runtime_dir(), "ways.nix", "ways", &[]);
        assert!(!built.log.contains("no working client"), "{}", built.log);
        // All but the one that has it switched off.
        assert_eq!(daemon.sessions().len(), built.paths.len() - 1);
    });
}

#[test]
fn a_changed_import_is_seen_in_a_file_of_the_same_size_and_time() {
    in_nix(|nix| {
        let daemon = nix.daemon();
        // With -mod=vendor `go` indexes the folders.
        for (flags, which) in [
            ("", "aa"),
            ("", "bb"),
            ("-mod=vendor", "aa"),
            ("-mod=vendor", "bb"),
        ] {
            let args = ["--argstr", "which", which, "--argstr", "flags", flags];
            let built = nix.with_hook(&daemon.runtime_dir(), "import.nix", "import", &args);
            assert_eq!(built.run(0, "import"), format!("{which}\n"), "{flags}");
        }
    });
}

#[test]
fn times_say_content_while_go_runs_and_nothing_that_is_installed_tells() {
    in_nix(|nix| {
        let without = nix.without_hook("stamp.nix", "without");
        let daemon = nix.daemon();
        let build = |step: &str, args: &[&str]| {
            let built = nix.with_hook(&daemon.runtime_dir(), "stamp.nix", step, args);
            assert_eq!(built.run(0, "stamp"), "stamp\n");
            assert!(built.program(0, "stamp") == without.program(0, "stamp"));
            let times = |built: &Built| fs::read_to_string(built.paths[0].join("times")).unwrap();
            assert_eq!(times(&built), times(&without));
            assert!(!built.log.contains("stamped=1"), "{}", built.log);
            built
        };
        for step in ["filling", "cached"] {
            let built = build(step, &[]);
            let expected = "the poem: roses are red, stamped: true";
            assert!(built.log.contains(expected), "{}", built.log);
            let is_cached = built.log.contains("(cached)");
            assert_eq!(is_cached, step == "cached", "{}", built.log);
        }
        let built = build("changed", &["--argstr", "poem", "violets: blue"]);
        let expected = "the poem: violets: blue, stamped: true";
        assert!(built.log.contains(expected), "{}", built.log);
        assert!(!built.log.contains("(cached)"), "{}", built.log);
        let built = build("run", &["--argstr", "mode", "run"]);
        let expected = "the poem: roses are red, stamped: false";
        assert!(built.log.contains(expected), "{}", built.log);
        assert!(!built.log.contains("(cached)"), "{}", built.log);
    });
}

#[test]
fn nothing_is_made_that_is_not_made_without_us() {
    in_nix(|nix| {
        let made = |built: &Built| -> Vec<String> {
            let paths = built.paths.iter();
            paths
                .map(|path| fs::read_to_string(path).unwrap())
                .collect()
        };
        let without = made(&nix.without_hook("make.nix", "without"));
        // Something is made in each, and not everything.
        for made in &without {
            assert!(made.contains("makes data/older.out"), "{without:?}");
            assert!(!made.contains("data/newer.out"), "{without:?}");
        }
        let daemon = nix.daemon();
        for step in ["filling", "cached"] {
            let built = nix.with_hook(&daemon.runtime_dir(), "make.nix", step, &[]);
            assert_eq!(made(&built), without);
        }
    });
}

#[test]
fn a_go_that_the_overlay_gives_the_experiment_does_not_tell_its_programs() {
    in_nix(|nix| {
        let goroot = run(Command::new(repository("test/fetch-go")).args(["--have", "1.21"]));
        let inputs = run(Command::new(repository("test/nix/inputs")).arg(goroot.trim_end()));
        let old = inputs.lines().last().unwrap();
        let daemon = nix.daemon();
        let args = ["--argstr", "old", old];
        let built = nix.with_hook(&daemon.runtime_dir(), "experiment.nix", "experiment", &args);
        assert!(daemon.session_end().puts > 0);
        assert_eq!(built.run(0, "hello"), "hello\n");
        for said in ["hello: go1.21", "go version go1.21"] {
            assert!(built.log.contains(said), "{}", built.log);
        }
        assert!(!built.log.contains("X:cacheprog"), "{}", built.log);
    });
}

#[test]
fn a_build_without_a_daemon_goes_on_and_says_so() {
    in_nix(|nix| {
        let nowhere = nix.dir.path().join("nowhere");
        let without_tests = ["--arg", "doCheck", "false"];
        let built = nix.with_hook(&nowhere, "hello.nix", "without-daemon", &without_tests);
        assert_eq!(built.run(0, "hello"), "hello\n");
        assert_eq!(built.log.matches("no working client").count(), 1);
    });
}

#[test]
fn the_overlay_evaluates_no_name_that_is_not_used() {
    in_nix(|nix| {
        let eval = |expression: &str| {
            let mut command = Command::new("nix-instantiate");
            command
                .args(["--eval", "--strict", "-E", expression])
                .args(&nix.inputs);
            command.output().unwrap()
        };
        let set = format!(
            "{{ ... }}@args: let p = import {} args; in",
            repository("test/nix").display()
        );
        let names = eval(&format!("{set} builtins.attrNames p"));
        assert!(
            text(&names.stdout).contains("buildGo118Module"),
            "{}",
            said(&names)
        );
        let gone = eval(&format!("{set} p.buildGo118Module {{ }}"));
        assert!(said(&gone).contains("Go 1.18 is gone"), "{}", said(&gone));
        // An alias of a wrapped builder is not wrapped again.
        let hooks = eval(&format!(
            "{set} builtins.length (p.buildGoModule {{ name = \"x\"; vendorHash = null; }}).nativeBuildInputs"
        ));
        assert_eq!(text(&hooks.stdout), "2\n", "{}", said(&hooks));
    });
}
