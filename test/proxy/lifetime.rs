//! When a proxy starts and ends, and the setup hook that starts it.

use super::*;

#[test]
fn told_to_stop_a_proxy_answers_what_is_running_first() {
    let (begun, wait) = std::sync::mpsc::channel();
    let begun = std::sync::Mutex::new(begun);
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::start(move |asked, to| {
        begun.lock().unwrap().send(()).unwrap();
        told.lock().unwrap().recv().unwrap();
        module(asked, to)
    });
    let dir = TempDir::new();
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(dir.path().join("cache"));
    });
    let url = proxy.url.clone();
    let running = std::thread::spawn(move || get(&url, ZIP));
    wait.recv().unwrap();
    signal(proxy.child.id(), "TERM");
    go_on.send(()).unwrap();
    assert_eq!(running.join().unwrap().body, file(ZIP).unwrap());
    assert!(proxy.child.wait().unwrap().success());
    assert_eq!(counted(&proxy.log(), "kept"), 1);
}

#[test]
fn a_proxy_of_a_build_ends_with_it() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let mut build = Command::new("sleep").arg("600").spawn().unwrap();
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.args(["--build", &build.id().to_string()]);
    });
    assert_eq!(proxy.get(ZIP).status, 200);
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(proxy.child.wait().unwrap().success());
    assert_eq!(counted(&proxy.log(), "upstream_immutable"), 1);
}

/// Runs the setup hook as stdenv does in a fixed-output derivation, then these commands.
fn hooked(daemon: &Daemon, go: &Go, list: &str, commands: &str) -> (Output, TempDir) {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("build")).unwrap();
    std::os::unix::fs::symlink(binary(), dir.path().join("client")).unwrap();
    let script = format!(
        "set -eu -o pipefail
        postConfigureHooks=() preBuildHooks=() exitHooks=() failureHooks=()
        source {}/hook.sh
        for hook in \"${{postConfigureHooks[@]}}\" \"${{preBuildHooks[@]}}\"; do $hook; done
        {commands}",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut command = go_command(go, &dir, list);
    let path = format!("{}/bin:/usr/bin:/bin", go.goroot.display());
    command
        .env("PATH", path)
        .env("outputHash", "sha256-x")
        .env("NIX_BUILD_TOP", dir.path().join("build"))
        .env("NIX_GOCACHEPROG_CLIENT", dir.path().join("client"))
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .current_dir(dir.path())
        .env_clear();
    for (name, value) in command.get_envs() {
        bash.env(name, value.unwrap());
    }
    (bash.output().unwrap(), dir)
}

#[test]
fn the_setup_hook_puts_the_proxy_before_the_list_of_a_fixed_output_derivation() {
    let go = Go::pinned("1.27");
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let download =
        "go mod download example.test/m@v1.0.0; chmod -R u+w pkg; wait; echo \"$GOPROXY\"";
    for _ in 0..2 {
        let (output, dir) = hooked(&daemon, &go, &upstream.url, download);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let goproxy = text(&output.stdout);
        assert!(goproxy.starts_with("http://127.0.0.1:"), "{goproxy}");
        assert!(
            goproxy.ends_with(&format!("|{}\n", upstream.url)),
            "{goproxy}"
        );
        // It has ended with its build, which its output did not wait for.
        let log = dir.path().join("build/.nix-gocacheprog-proxy.log");
        daemon.wait_until("the proxy has ended", || {
            std::fs::read_to_string(&log)
                .unwrap()
                .contains("proxy ended")
        });
    }
    // The second download came from the cache.
    assert_eq!(upstream.count(ZIP), 1);
    assert_eq!(upstream.count(INFO), 1);
    assert_eq!(upstream.count(MOD), 1);
}

#[test]
fn the_setup_hook_starts_no_proxy_where_nothing_would_come_from_one() {
    let go = Go::pinned("1.27");
    let daemon = Daemon::start();
    for list in ["off", "direct", "file:///nowhere", "off,http://127.0.0.1:1"] {
        let (output, _) = hooked(&daemon, &go, list, "echo \"$GOPROXY\"");
        assert_eq!(text(&output.stdout), format!("{list}\n"));
    }
    // One that cannot start costs a line.
    let (output, _) = hooked(&daemon, &go, "ftp://x", "echo \"$GOPROXY\"");
    assert_eq!(text(&output.stdout), "ftp://x\n");
    assert!(
        text(&output.stderr).contains("did not start"),
        "{}",
        text(&output.stderr)
    );
}
