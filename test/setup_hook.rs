//! The setup hook, sourced by a bash as strict as stdenv's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{TempDir, text};

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
            "GOCACHEPROG",
            "GODEBUG",
            "GOFLAGS",
            "NIX_GOCACHEPROG",
            "outputHash",
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
    let expected = "/client x=1,goindex=0 -trimpath -count=1\n";
    assert!(stdout.ends_with(expected), "{stdout}");
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
fn a_derivation_can_switch_the_hook_off() {
    let bash = Bash::new().client(WORKING).set("NIX_GOCACHEPROG", "off");
    let (stdout, stderr) = bash.run(&format!(". \"$hook\"{PHASES}"));
    assert_eq!((&*stdout, &*stderr), ("unset unset unset\n", ""));
}
