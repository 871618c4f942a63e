//! What can go wrong with a remote, while real `go` builds: each build must succeed and give what it gives without us, and
//! nothing wrong may be in the store. What each costs is printed.

use crate::front::{Fault, Front};
use crate::machine::{Built, Machine, Program, build_without};
use crate::servers::{Answers, Kind, S3_CREDENTIALS, Server, Setup, TLS, free_port};
use crate::support::TempDir;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two pairs of keys, as `nix-store --generate-binary-cache-key` writes them.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/keys");

/// Faults of a server, each in front of a real one.
const FAULTS: [(Fault, &str); 30] = [
    (Fault::Errors, "every answer is a 500"),
    (Fault::EverySecond, "every second answer is a 503"),
    (
        Fault::Stall,
        "connections are made, and nothing is answered",
    ),
    (Fault::StallInBody, "outputs stall in the middle"),
    (Fault::CutInBody, "outputs are cut in the middle"),
    (Fault::Drip, "outputs come a byte at a time"),
    (Fault::WrongBody, "outputs have a wrong byte"),
    (Fault::Shorter, "outputs are shorter than their entry says"),
    (Fault::Longer, "outputs are longer than their entry says"),
    (Fault::NoLength, "outputs end early, without a length"),
    (Fault::Page, "entries are a page of HTML"),
    (Fault::WrongSize, "entries have a wrong size"),
    (Fault::NoHttp, "answers are not HTTP"),
    (Fault::Redirect, "everything is redirected"),
    (Fault::NoOutputs, "all outputs are gone, and no entries"),
    (Fault::CutLink, "the link is cut while outputs come"),
    (Fault::Kill, "the server is killed in mid-transfer"),
    (Fault::Full, "the server is full, and says so"),
    (Fault::StallPuts, "puts are not answered"),
    (Fault::Swapped, "outputs are those of other actions"),
    (Fault::CutPacked, "packed outputs lack their end"),
    (Fault::Bomb, "outputs are small and unpack to a gigabyte"),
    (
        Fault::WrongEncoding,
        "packed outputs are said to be plain, plain ones to be packed",
    ),
    (Fault::TooMany, "every answer is a 429"),
    (Fault::Unauthorized, "every answer is a 401"),
    (Fault::CutEntries, "entries are cut in the middle"),
    (Fault::WrongHash, "entries name outputs that are not there"),
    (
        Fault::SwappedEntries,
        "signed entries are those of other actions",
    ),
    (Fault::Expired, "the credentials expire"),
    (Fault::Revoked, "the credentials are revoked"),
];

/// What breaks off uploads, of which none may be lost.
const CUTS: [(Fault, &str); 3] = [
    (
        Fault::KillInPut,
        "the server is killed in the middle of a put",
    ),
    (Fault::Expired, "the credentials expire while all is put"),
    (
        Fault::Revoked,
        "the credentials are revoked while all is put",
    ),
];

/// The servers that a fault is tried with.
fn kinds(fault: Fault) -> &'static [Kind] {
    match fault {
        // Others have their own words for it, which the 401s are.
        Fault::Expired | Fault::Revoked => &[Kind::S3],
        _ => &[Kind::BazelRemote, Kind::Nginx, Kind::S3],
    }
}

/// Those that are tried in short.
const SHORT: [Fault; 3] = [Fault::Stall, Fault::WrongBody, Fault::Full];

/// Servers that are tried in short: each kind, and each way of saying who asks.
const SHORT_SETUPS: [Setup; 3] = [
    Setup::plain(Kind::BazelRemote),
    Setup {
        kind: Kind::Nginx,
        tls: true,
        answers: Answers::Certificate,
    },
    Setup {
        kind: Kind::S3,
        tls: true,
        answers: Answers::Everybody,
    },
];

/// Every server that works.
fn setups() -> Vec<Setup> {
    let all = [false, true].map(|tls| Setup {
        kind: Kind::S3,
        tls,
        answers: Answers::Everybody,
    });
    let mut all = all.to_vec();
    all.push(Setup::plain(Kind::BazelRemoteUncompressed));
    for kind in [Kind::BazelRemote, Kind::Nginx] {
        for (tls, answers) in [
            (false, Answers::Everybody),
            (true, Answers::Password),
            (true, Answers::Certificate),
            (true, Answers::Everybody),
            (false, Answers::Password),
            (true, Answers::Token),
        ] {
            if (kind, answers) != (Kind::BazelRemote, Answers::Token) {
                all.push(Setup { kind, tls, answers });
            }
        }
    }
    all
}

struct Trial<'a> {
    program: &'a Program,
    without: Built,
    /// What servers keep that have everything.
    filled: Vec<(Kind, TempDir)>,
    /// Only a part is tried.
    short: bool,
    survived: usize,
    tried: usize,
}

/// Tries everything, or what contains one of these words.
pub fn run(short: bool, words: &[String]) {
    let wanted = |what: &str| words.is_empty() || words.iter().any(|word| what.contains(word));
    let dir = TempDir::new();
    let program = program(&dir.path().join("program"));
    let without = build_without(&program);
    println!("without a remote, cold: {:.1} s", without.wall);
    let mut trial = Trial {
        program: &program,
        without,
        filled: Vec::new(),
        short,
        survived: 0,
        tried: 0,
    };
    for setup in setups() {
        let name = format!("working {}", setup.name());
        if wanted(&name) && (!short || SHORT_SETUPS.contains(&setup)) {
            trial.good(setup);
        }
    }
    for (nth, (fault, what)) in FAULTS.into_iter().enumerate() {
        let all = kinds(fault);
        for kind in all {
            let setup = Setup::plain(*kind);
            let what = format!("{what} ({})", setup.name());
            let is_tried = !short || SHORT.contains(&fault) && *kind == all[nth % all.len()];
            if wanted(&what) && is_tried {
                trial.fault(setup, fault, &what);
            }
        }
    }
    for (fault, what) in CUTS {
        for kind in kinds(fault) {
            let setup = Setup::plain(*kind);
            let what = format!("{what} ({})", setup.name());
            if wanted(&what) && !short {
                trial.cut(setup, fault, &what);
            }
        }
    }
    let rest: [(&str, fn(&mut _)); 6] = [
        ("signed", Trial::signed),
        ("dead", Trial::dead),
        ("credentials", Trial::wrong_credentials),
        ("emptied", Trial::emptied),
        ("earlier", Trial::earlier_release),
        ("full disk", Trial::full_disk),
    ];
    for (name, part) in rest {
        if wanted(name) {
            part(&mut trial);
        }
    }
    println!("remote: {}/{} faults survived", trial.survived, trial.tried);
    assert!(trial.survived == trial.tried, "not all were survived");
}

impl Trial<'_> {
    /// One build on a machine without anything, whatever its remote does.
    fn build(&mut self, what: &str, args: &[&str], check: impl Fn(&Machine) -> Result<(), String>) {
        let machine = Machine::start(&[], args);
        self.build_on(machine, what, check);
    }

    fn build_on(
        &mut self,
        mut machine: Machine,
        what: &str,
        check: impl Fn(&Machine) -> Result<(), String>,
    ) {
        self.tried += 1;
        let built = machine.build(self.program);
        let told = machine.stats()["remote"].clone();
        let mut wrong = String::new();
        if built.hash != self.without.hash {
            wrong += "another program came out; ";
        }
        if let Err(why) = check(&machine) {
            let _ = write!(wrong, "{why}; ");
        }
        let verified = machine.admin(&["verify"]);
        // The second is what version 0.1.0 says.
        if !verified.contains("no damage") && !verified.contains("all whole") {
            let _ = write!(wrong, "the store: {verified}; ");
        }
        if !machine.is_alive() {
            wrong += "the daemon has ended; ";
        }
        let log = machine.log();
        if log.contains("secret") || log.contains("bWU6c2VjcmV0") {
            wrong += "a password is in the log; ";
        }
        println!(
            "{} {what}: {:.1} s, lost {:.1} s (gets waited {:.1} s in all; {} hits, {} ahead, {} misses, {} errors, {} damaged)",
            if wrong.is_empty() { "ok  " } else { "FAIL" },
            built.wall,
            (built.wall - self.without.wall).max(0.0),
            told["waited_us"].as_u64().unwrap() as f64 / 1e6,
            told["hits"],
            told["ahead"],
            told["misses"],
            told["errors"],
            told["damaged"]
        );
        if wrong.is_empty() {
            self.survived += 1;
        } else {
            println!("     {wrong}\n{log}");
        }
    }

    /// A machine fills a server that works, and another one has everything from it.
    fn good(&mut self, setup: Setup) {
        let server = Server::start(setup);
        let dir = TempDir::new();
        let args = access(setup, &server, dir.path());
        let args = strs(&args);
        // What is to be uploaded survives a restart: at first there is no server.
        let nowhere = format!("127.0.0.1:{}", free_port());
        let nowhere = through(&nowhere, setup, &server, dir.path());
        let first = Machine::start(&[], &strs(&nowhere));
        let built = first.build(self.program);
        assert!(built.hash == self.without.hash);
        let queued = first.remote("queue");
        let first = first.restart(&args);
        first.wait_for_uploads();
        let uploads = first.remote("uploads");
        assert!(queued > 100 && uploads > 100, "{}", first.log());
        assert_eq!(first.remote("errors"), 0, "{}", first.log());
        let what = format!(
            "{}: what another machine has built ({queued} puts waited for a restart, {uploads} are uploaded)",
            setup.name()
        );
        self.build(&what, &args, |machine| {
            let remote = |what| machine.remote(what);
            let (misses, errors) = (remote("misses"), remote("errors"));
            // The program itself, which `go` does not keep, is asked for by its pure key and by its full one.
            if misses > 2 || errors > 0 || remote("hits") + remote("ahead") == 0 {
                return Err(format!("{misses} misses, {errors} errors"));
            }
            machine.wait_for_uploads();
            match machine.remote("sent") {
                0 => Ok(()),
                sent => Err(format!("{sent} bytes were sent that were there already")),
            }
        });
    }

    /// A server that has what another machine has built.
    fn filled(&mut self, setup: Setup) -> Server {
        if !self.filled.iter().any(|(kind, _)| *kind == setup.kind) {
            let server = Server::start(setup);
            let dir = TempDir::new();
            let args = access(setup, &server, dir.path());
            let machine = Machine::start(&[], &strs(&args));
            machine.build(self.program);
            machine.wait_for_uploads();
            let copy = TempDir::new();
            copy_all(&server.storage, copy.path());
            self.filled.push((setup.kind, copy));
        }
        let copy = self.filled.iter().find(|(kind, _)| *kind == setup.kind);
        let dir = TempDir::new();
        let storage = dir.path().join("storage");
        std::fs::create_dir(&storage).unwrap();
        copy_all(copy.unwrap().1.path(), &storage);
        Server::start_in(setup, dir, &storage, "127.0.0.1", &[])
    }

    /// A server that has what another machine has built and signed.
    fn filled_and_signed(&self, setup: Setup) -> Server {
        let server = Server::start(setup);
        let dir = TempDir::new();
        let mut args = access(setup, &server, dir.path());
        args.push("--remote-secret-key-file".into());
        args.push(format!("{KEYS}/test-1.secret"));
        let machine = Machine::start(&[], &strs(&args));
        machine.build(self.program);
        machine.wait_for_uploads();
        server
    }

    fn fault(&mut self, setup: Setup, fault: Fault, what: &str) {
        let puts = matches!(fault, Fault::Full | Fault::StallPuts);
        // Only a signature says which action an entry is for.
        let needs_key = fault == Fault::SwappedEntries;
        let server = if needs_key {
            self.filled_and_signed(setup)
        } else if puts {
            Server::start(setup)
        } else {
            self.filled(setup)
        };
        let front = Front::start(fault, &server.address, server.pid());
        let dir = TempDir::new();
        let mut args = through(&front.address, setup, &server, dir.path());
        if needs_key {
            args.push("--remote-trusted-public-keys".into());
            args.push(public_key("test-1"));
        }
        self.build(what, &strs(&args), |machine| {
            if needs_key && machine.remote("untrusted") == 0 {
                return Err("all entries were trusted".into());
            }
            went_wrong(&front)
        });
    }

    /// A machine's uploads are broken off. Once the server is as it was they go on, and another machine has all of them.
    fn cut(&mut self, setup: Setup, fault: Fault, what: &str) {
        let (dir, stored) = (TempDir::new(), TempDir::new());
        let start = || Server::start_in(setup, TempDir::new(), stored.path(), "127.0.0.1", &[]);
        let server = start();
        let front = Front::start(fault, &server.address, server.pid());
        let args = through(&front.address, setup, &server, dir.path());
        let machine = Machine::start(&[], &strs(&args));
        let built = machine.build(self.program);
        assert!(built.hash == self.without.hash);
        let happened = went_wrong(&front);
        // Whatever is tried again meanwhile fails too.
        let errors = errors(&machine);
        let refused = machine.remote("refused");
        drop(server);
        let server = start();
        let args = access(setup, &server, dir.path());
        let args = strs(&args);
        let machine = machine.restart(&args);
        machine.wait_for_uploads();
        self.build(what, &args, |machine| {
            happened.clone()?;
            errors.clone()?;
            if refused > 0 {
                return Err(format!("{refused} uploads were dropped"));
            }
            let (misses, damaged) = (machine.remote("misses"), machine.remote("damaged"));
            if misses > 2 || damaged > 0 {
                return Err(format!("{misses} misses, {damaged} damaged"));
            }
            Ok(())
        });
    }

    /// Somebody else can write to the server, which keeps what one machine has signed, and changes what is there.
    fn signed(&mut self) {
        let setup = Setup::plain(Kind::Nginx);
        let server = self.filled_and_signed(setup);
        let (trusted, other) = (public_key("test-1"), public_key("test-2"));
        let trusts = |key| {
            [
                "--remote",
                &server.url,
                "--remote-mode",
                "read",
                "--remote-trusted-public-keys",
                key,
            ]
        };
        let has_hits = |machine: &Machine| match machine.remote("hits") + machine.remote("ahead") {
            0 => Err("no hits".to_string()),
            _ => Ok(()),
        };
        let is_untrusted = |machine: &Machine| {
            let hits = machine.remote("hits") + machine.remote("ahead");
            match (machine.remote("untrusted"), hits) {
                (0, _) => Err("nothing was refused".to_string()),
                (_, 0) => Ok(()),
                (_, hits) => Err(format!("{hits} hits")),
            }
        };
        self.build(
            "entries are signed by a trusted key",
            &trusts(&trusted),
            has_hits,
        );
        self.build(
            "they are signed by another key",
            &trusts(&other),
            is_untrusted,
        );
        if self.short {
            return;
        }
        let entries = server.storage.join("ac");
        let kept = TempDir::new();
        copy_all(&entries, kept.path());

        let all = files(&entries);
        let texts: Vec<_> = all
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        for (path, text) in all.iter().zip(texts.iter().cycle().skip(1)) {
            std::fs::write(path, text).unwrap();
        }
        self.build(
            "each signed entry is that of another action",
            &trusts(&trusted),
            is_untrusted,
        );
        for (what, from, to) in [
            (
                "the signatures are gone",
                "nix-gocacheprog-signature",
                "a-signature",
            ),
            ("the signatures name another key", "test-1:", "test-2:"),
            (
                "signed entries have another size",
                "sizeBytes\":\"",
                "sizeBytes\":\"1",
            ),
        ] {
            copy_all(kept.path(), &entries);
            for path in files(&entries) {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.contains(from), "{text}");
                std::fs::write(&path, text.replace(from, to)).unwrap();
            }
            self.build(what, &trusts(&trusted), is_untrusted);
        }
        copy_all(kept.path(), &entries);

        // What is signed is the hash, so that other bytes are damage.
        let outputs = files(&server.storage.join("cas"));
        let bytes: Vec<_> = outputs
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        for (path, bytes) in outputs.iter().zip(bytes.iter().cycle().skip(1)) {
            std::fs::write(path, bytes).unwrap();
        }
        self.build(
            "each output is that of another entry",
            &trusts(&trusted),
            |machine| match machine.remote("damaged") {
                0 => Err("nothing was damaged".into()),
                _ => Ok(()),
            },
        );

        // Somebody without a key fills a server for those who trust one.
        let server = self.filled(setup);
        let args = [
            "--remote",
            &server.url,
            "--remote-mode",
            "read",
            "--remote-trusted-public-keys",
            &trusted,
        ];
        self.build("nothing is signed", &args, is_untrusted);
    }

    fn dead(&mut self) {
        if self.short {
            return;
        }
        let url = format!("http://127.0.0.1:{}", free_port());
        self.build("there is no server", &["--remote", &url], errors);
        // An address that nobody has, and from which nothing comes back.
        let url = "http://192.0.2.1:8080";
        self.build(
            "the network swallows everything",
            &["--remote", url],
            errors,
        );
    }

    fn wrong_credentials(&mut self) {
        let setup = |kind, answers| Setup {
            kind,
            tls: true,
            answers,
        };
        let password = setup(Kind::BazelRemote, Answers::Password);
        for (setup, wrong) in [
            (password, "me:a-secret-that-is-wrong\n"),
            (
                setup(Kind::Nginx, Answers::Token),
                "a-secret-that-is-wrong\n",
            ),
        ] {
            let server = Server::start(setup);
            let dir = TempDir::new();
            let args = access(setup, &server, dir.path());
            let args = strs(&args);
            std::fs::write(dir.path().join("credentials"), wrong).unwrap();
            let what = format!("the credentials are wrong ({})", setup.name());
            self.build(&what, &args, errors);
            if self.short {
                return;
            }
        }
        for (what, right, wrong) in [
            ("the key is unknown", "= me", "= nobody"),
            ("the secret is wrong", "a-long", "a-wrong"),
        ] {
            let setup = Setup::plain(Kind::S3);
            let server = Server::start(setup);
            let dir = TempDir::new();
            let args = access(setup, &server, dir.path());
            let text = S3_CREDENTIALS.replace(right, wrong);
            assert!(text != S3_CREDENTIALS);
            std::fs::write(dir.path().join("credentials"), text).unwrap();
            let what = format!("{what} ({})", setup.name());
            self.build(&what, &strs(&args), errors);
        }
        // Without the site's own certificates.
        let server = Server::start(password);
        let args = ["--remote", &server.url];
        self.build("the server's certificate is nobody's", &args, errors);

        for kind in [Kind::BazelRemote, Kind::Nginx] {
            let wanted = setup(kind, Answers::Certificate);
            let server = Server::start(wanted);
            let ca = format!("{TLS}/ca.pem");
            let without = ["--remote", &server.url, "--remote-ca", &ca];
            let what = format!("there is no certificate to show ({})", wanted.name());
            self.build(&what, &without, errors);
            let (cert, key) = (format!("{TLS}/server.pem"), format!("{TLS}/server.key"));
            let others = [
                &without[..],
                &["--remote-cert", &cert, "--remote-key", &key],
            ]
            .concat();
            let what = format!("the certificate is somebody else's ({})", wanted.name());
            self.build(&what, &others, errors);
        }
    }

    /// A machine with an earlier release and one with this one use one server: neither is harmed by what the other has put.
    fn earlier_release(&mut self) {
        let Some(earlier) = std::env::var_os("NIX_GOCACHEPROG_EARLIER") else {
            return;
        };
        let start = |server: &Server| {
            let args = ["--remote", &server.url];
            Machine::start_program((&earlier).into(), TempDir::new(), &[], &args)
        };
        let server = Server::start(Setup::plain(Kind::BazelRemote));
        let machine = start(&server);
        machine.build(self.program);
        machine.wait_for_uploads();
        drop(machine);
        self.build(
            "an earlier release has filled bazel-remote",
            &["--remote", &server.url],
            |_| Ok(()),
        );
        let server = self.filled(Setup::plain(Kind::BazelRemote));
        self.build_on(
            start(&server),
            "an earlier release reads what this one has put",
            |_| Ok(()),
        );
    }

    fn emptied(&mut self) {
        for kind in [Kind::Nginx, Kind::S3] {
            let setup = Setup::plain(kind);
            let server = self.filled(setup);
            let outputs = server.names().join("cas");
            std::fs::remove_dir_all(&outputs).unwrap();
            let dir = TempDir::new();
            let args = access(setup, &server, dir.path());
            let args = strs(&args);
            let what = format!("the server has lost its outputs ({})", setup.name());
            self.build(&what, &args, |machine| {
                machine.wait_for_uploads();
                match std::fs::read_dir(&outputs).map_or(0, Iterator::count) {
                    0..10 => Err("what was lost is not sent again".into()),
                    _ => Ok(()),
                }
            });
            if self.short {
                return;
            }
            let what = format!("and has them again ({})", setup.name());
            self.build(&what, &args, |machine| {
                match machine.remote("hits") + machine.remote("ahead") {
                    0 => Err("no hits".into()),
                    _ => Ok(()),
                }
            });
        }
    }

    /// The disk of a server, and then that of a machine.
    fn full_disk(&mut self) {
        if self.short {
            return;
        }
        for kind in [Kind::Nginx, Kind::S3] {
            let setup = Setup::plain(kind);
            let dir = TempDir::new();
            let small = Small::mount(&dir.path().join("small"), "2M");
            let server = Server::start_in(setup, TempDir::new(), &small.0, "127.0.0.1", &[]);
            let args = access(setup, &server, dir.path());
            let what = format!("the server's disk is full ({})", setup.name());
            self.build(&what, &strs(&args), errors);
            drop(server);
            drop(small);
        }

        let server = self.filled(Setup::plain(Kind::Nginx));
        let dir = TempDir::new();
        let small = Small::mount(&dir.path().join("cache"), "4M");
        let machine = Machine::start_in(dir, &[], &["--remote", &server.url]);
        self.build_on(machine, "the machine's own disk is full", |_| Ok(()));
        drop(small);
    }
}

/// Uploads come when the processor has nothing better to do.
fn went_wrong(front: &Front) -> Result<(), String> {
    for _ in 0..600 {
        if front.happened() > 0 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err("nothing went wrong".into())
}

/// Something must have gone wrong, sooner or later.
fn errors(machine: &Machine) -> Result<(), String> {
    for _ in 0..600 {
        if machine.remote("errors") > 0 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err("nothing went wrong".into())
}

fn public_key(name: &str) -> String {
    std::fs::read_to_string(format!("{KEYS}/{name}.public")).unwrap()
}

/// All files below a folder, in the order of their names.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The flags for a server.
fn access(setup: Setup, server: &Server, dir: &Path) -> Vec<String> {
    let mut args = vec!["--remote".to_string(), server.url.clone()];
    if setup.tls {
        args.extend(["--remote-ca".into(), format!("{TLS}/ca.pem")]);
    }
    let credentials = match setup.kind {
        Kind::S3 => Some(S3_CREDENTIALS),
        _ => setup.answers.credentials(),
    };
    if let Some(credentials) = credentials {
        let path = dir.join("credentials");
        std::fs::write(&path, credentials).unwrap();
        args.extend(["--remote-credentials".into(), path.to_str().unwrap().into()]);
    }
    if setup.answers == Answers::Certificate {
        args.extend(["--remote-cert".into(), format!("{TLS}/client.pem")]);
        args.extend(["--remote-key".into(), format!("{TLS}/client.key")]);
    }
    args
}

/// The flags for a server, which is reached at another address.
fn through(address: &str, setup: Setup, server: &Server, dir: &Path) -> Vec<String> {
    let mut args = access(setup, server, dir);
    args[1] = args[1].replace(&server.address, address);
    args
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
}

/// A file system with little room.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=755"),
                "tmpfs",
            ])
            .arg(at)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting needs root");
        Self(at.into())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A module of many small packages, which need next to nothing of the standard library.
fn program(dir: &Path) -> Program {
    let (mut imports, mut calls) = (String::new(), String::new());
    for n in 0..40 {
        let package = dir.join(format!("p{n}"));
        std::fs::create_dir_all(&package).unwrap();
        let mut text = format!(
            "package p{n}\n\nfunc Say(n int) int {{ return n * {n} }}\n\nvar Table = [...]string{{\n"
        );
        for line in 0..n * 20 {
            let _ = writeln!(text, "\t\"a line of the table of p{n}, number {line}\",");
        }
        text += "}\n";
        std::fs::write(package.join("say.go"), text).unwrap();
        let _ = writeln!(imports, "\t\"example.com/remote/p{n}\"");
        let _ = writeln!(calls, "\tprintln(p{n}.Say({n}), len(p{n}.Table))");
    }
    std::fs::write(dir.join("go.mod"), "module example.com/remote\n\ngo 1.24\n").unwrap();
    let main = format!("package main\n\nimport (\n{imports})\n\nfunc main() {{\n{calls}}}\n");
    std::fs::write(dir.join("main.go"), main).unwrap();
    Program {
        dir: dir.into(),
        package: ".",
        name: "remote-1.0",
    }
}
