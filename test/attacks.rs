//! What local users and builds try on the daemon, each attack in one sentence: `test/attacks` prints them all. Everything goes
//! through the real sockets, from real users, to a daemon with a user of its own.

use crate::peer::{Peer, body_of, get_frame, put_frame, raw_as};
use crate::support::{BUILDER, Daemon, OWNER, TempDir};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Users of the machine that are none of Nix's.
const ALICE: u32 = 31_001;
const MALLORY: u32 = 31_002;

/// Of those that Nix allocates itself.
const ALLOCATED: u32 = 872_415_232 + 65_536;

/// What the daemon is told besides.
const OPTIONS: &[&str] = &["--readonly-name", "release-*", "--off-name", "secret-*"];

/// A daemon, and an action of each attack's own.
struct Stage {
    daemon: Daemon,
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self {
            daemon: Daemon::start_for_builder_with(OPTIONS),
            dir: TempDir::new(),
        }
    }

    /// Says hello as this user, with more fields.
    fn hello(&self, user: u32, fields: serde_json::Value) -> Result<Peer, String> {
        let mut hello = serde_json::json!({"version": 1, "name": "attack"});
        for (name, value) in fields.as_object().unwrap() {
            hello[name] = value.clone();
        }
        Peer::hello_as(&self.daemon, user, &hello.to_string())
    }

    fn peer(&self, user: u32) -> Peer {
        self.hello(user, serde_json::json!({})).unwrap()
    }

    /// Registers a build as the hook does; gives its ID and its directory.
    fn register(&self, name: &str, mode: &str) -> (String, PathBuf) {
        self.register_with(serde_json::json!({"name": name, "mode": mode}))
    }

    /// Asks on the control socket.
    fn ask(&self, question: &serde_json::Value) -> serde_json::Value {
        let socket = self.daemon.runtime_dir().join("control/sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        let limit = std::time::Duration::from_secs(60);
        stream.set_read_timeout(Some(limit)).unwrap();
        writeln!(stream, "{question}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn register_with(&self, fields: serde_json::Value) -> (String, PathBuf) {
        let mut ask = fields;
        ask["ask"] = "register".into();
        ask["chroot"] = self.dir.path().to_str().into();
        let reply = self.ask(&ask);
        let build = reply["build"].as_str().unwrap_or_else(|| panic!("{reply}"));
        (build.into(), reply["directory"].as_str().unwrap().into())
    }

    fn enter(&self, user: u32, build: &str) -> Result<Peer, String> {
        self.hello(user, serde_json::json!({"build": build}))
    }

    /// What a user gets for an action.
    fn got(&self, user: u32, action: u8) -> Option<Vec<u8>> {
        got(&mut self.peer(user), action)
    }

    fn put(&self, user: u32, action: u8, body: &[u8]) {
        assert_eq!(self.peer(user).put(action, body), 's');
    }

    fn record(&self, build: &str) -> serde_json::Value {
        let path = self.daemon.cache_dir().join("registered").join(build);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Everybody else is served as before.
    fn goes_on(&self) {
        self.put(BUILDER, 250, b"still here");
        assert_eq!(self.got(BUILDER, 250).unwrap(), b"still here");
    }
}

/// What a peer gets for an action, as it reads it itself.
fn got(peer: &mut Peer, action: u8) -> Option<Vec<u8>> {
    peer.send(&get_frame(action));
    let mut head = [0; 9];
    peer.stream.read_exact(&mut head).unwrap();
    if head[0] != b'h' {
        return None;
    }
    let mut rest = [0; 48];
    peer.stream.read_exact(&mut rest).unwrap();
    let name: String = rest[..32]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(std::fs::read(peer.directory.join(name)).unwrap())
}

/// Does something in a thread that is this user's.
#[allow(unsafe_code)]
fn act_as<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            // SAFETY: the calls take numbers, and no list. They are the system's own and change this thread alone.
            let done = unsafe {
                libc::syscall(libc::SYS_setgroups, 0, 0) == 0
                    && libc::syscall(libc::SYS_setresgid, user, user, user) == 0
                    && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
            };
            assert!(done, "root can act as user {user}");
            act()
        });
        acting.join().unwrap()
    })
}

/// A file system that never answers, as one on a server that is gone.
struct Hanging {
    place: std::ffi::CString,
    _unread: std::fs::File,
}

impl Hanging {
    #[allow(unsafe_code)]
    fn over(directory: &Path) -> Self {
        let unread = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("FUSE in the kernel: modprobe fuse");
        let place = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&unread);
        let options = format!("fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other");
        let options = std::ffi::CString::new(options).unwrap();
        // SAFETY: the strings end with a zero and live throughout the call.
        let mounted = unsafe {
            libc::mount(
                c"hanging".as_ptr(),
                place.as_ptr(),
                c"fuse".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        Self {
            place,
            _unread: unread,
        }
    }
}

impl Drop for Hanging {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the string ends with a zero and lives throughout the call.
        unsafe { libc::umount2(self.place.as_ptr(), libc::MNT_DETACH) };
    }
}

/// What Mallory tries on builds of Nix, in one of the ways in which those come to the daemon.
fn on_builds(s: &Stage, build: impl Fn() -> Peer) {
    s.put(MALLORY, 1, b"wrong");
    let mut first = build();
    assert_eq!(got(&mut first, 1), None);
    assert_eq!(first.put(1, b"right"), 's');
    s.put(MALLORY, 1, b"wrong");
    assert!(s.enter(MALLORY, &first.build).is_err());
    let path = link(&mut first, 1, b"right");
    act_as(MALLORY, || {
        assert!(std::fs::read_dir(&first.directory).is_err());
        assert!(std::fs::write(&path, b"wrong").is_err());
        assert!(std::fs::remove_file(&path).is_err());
        assert!(std::fs::write(first.directory.join("ready"), b"wrong").is_err());
    });
    assert_eq!(got(&mut build(), 1).unwrap(), b"right");
    assert_eq!(
        s.got(ALICE, 1).unwrap(),
        b"right",
        "who reads what builds put"
    );
}

type Attack = (&'static str, fn(&Stage));

const ATTACKS: &[Attack] = &[
    (
        "a user puts other bytes under an action that builds have put",
        |s| {
            s.put(BUILDER, 1, b"right");
            s.put(MALLORY, 1, b"wrong");
            assert_eq!(s.got(BUILDER, 1).unwrap(), b"right");
            assert_eq!(s.got(ALICE, 1).unwrap(), b"right");
        },
    ),
    ("in hook mode, a user tries all of it on a build", |s| {
        on_builds(s, || {
            let (build, _) = s.register("hooked", "on");
            s.enter(BUILDER, &build).unwrap()
        });
    }),
    ("in static mode, a user tries all of it on a build", |s| {
        on_builds(s, || s.peer(BUILDER));
    }),
    (
        "with sandbox = false, a user tries all of it on a build",
        |s| {
            on_builds(s, || {
                let top = s.dir.path().join("nix-build-x.drv-0");
                let _ = std::fs::create_dir(&top);
                chown(&top, Some(BUILDER), Some(BUILDER)).unwrap();
                s.hello(BUILDER, serde_json::json!({"top": top})).unwrap()
            });
        },
    ),
    (
        "with auto-allocate-uids, a user tries all of it on builds that each have a user of their own",
        |s| {
            let next = std::sync::atomic::AtomicU32::new(ALLOCATED);
            on_builds(s, || {
                s.peer(next.fetch_add(65_536, std::sync::atomic::Ordering::Relaxed))
            });
        },
    ),
    (
        "with single-user Nix, a user tries all of it on builds of the daemon's own user",
        |s| on_builds(s, || s.peer(OWNER)),
    ),
    ("a user puts an action before any build does", |s| {
        s.put(MALLORY, 1, b"wrong");
        assert_eq!(s.got(BUILDER, 1), None);
        assert_eq!(s.got(ALICE, 1), None);
        assert_eq!(s.got(MALLORY, 1).unwrap(), b"wrong", "for themselves alone");
    }),
    (
        "a user puts what a build is about to put, again and again",
        |s| {
            for n in 0..10u8 {
                s.put(MALLORY, 1, &[n]);
            }
            s.put(BUILDER, 1, b"right");
            s.put(MALLORY, 1, b"wrong");
            assert_eq!(s.got(ALLOCATED, 1).unwrap(), b"right");
        },
    ),
    ("a user puts under the keys of another user's tier", |s| {
        s.put(ALICE, 1, b"hers");
        for user in [ALICE, MALLORY] {
            let key = Sha256::new()
                .chain_update(b"nix-gocacheprog tier 1\0")
                .chain_update(user.to_le_bytes())
                .chain_update([1; 32])
                .finalize();
            let mut peer = s.peer(MALLORY);
            let mut frame = vec![b'p'];
            frame.extend(8u64.to_le_bytes());
            frame.extend(key);
            frame.extend(Sha256::digest(b"wrong"));
            frame.extend(5u64.to_le_bytes());
            frame.extend(b"wrong");
            peer.send(&frame);
            assert_eq!(peer.answer(), 's');
        }
        assert_eq!(s.got(ALICE, 1).unwrap(), b"hers");
    }),
    (
        "a user names an output of somebody else's without having its bytes",
        |s| {
            let (body, _) = body_of("a secret");
            s.put(BUILDER, 1, &body);
            let mut peer = s.peer(MALLORY);
            peer.send(&put_frame(2, &Sha256::digest(&body), body.len() as u64));
            peer.send(b"a guess!");
            assert_eq!(peer.answer(), 'r');
            assert_eq!(got(&mut peer, 2), None);
        },
    ),
    (
        "a user audits, so that what builds have put is removed",
        |s| {
            s.put(BUILDER, 1, b"right");
            let mut peer = s
                .hello(MALLORY, serde_json::json!({"mode": "audit"}))
                .unwrap();
            assert_eq!(peer.put(1, b"wrong"), 's');
            assert_eq!(s.got(BUILDER, 1).unwrap(), b"right");
        },
    ),
    ("a user says of itself that it is shared", |s| {
        let mut peer = s
            .hello(
                MALLORY,
                serde_json::json!({"shared": true, "name": "hello-1.0"}),
            )
            .unwrap();
        assert_eq!(peer.put(1, b"wrong"), 's');
        drop(peer);
        assert_eq!(s.got(BUILDER, 1), None);
        let lists = s.daemon.cache_dir().join("lists");
        assert_eq!(
            std::fs::read_dir(lists).unwrap().count(),
            0,
            "it is in no list"
        );
    }),
    ("a user asks whether builds of a name were there", |s| {
        let mut build = s
            .hello(
                BUILDER,
                serde_json::json!({"shared": true, "name": "known-1.0"}),
            )
            .unwrap();
        assert_eq!(build.put(1, b"x"), 's');
        drop(build);
        let lists = s.daemon.cache_dir().join("lists");
        s.daemon.wait_until("the list is there", || {
            std::fs::read_dir(&lists).unwrap().count() > 0
        });
        let welcome = |name: &str| {
            let hello = serde_json::json!({"shared": true, "name": name});
            let mut welcome = s.hello(MALLORY, hello).unwrap().welcome;
            for field in ["build", "directory"] {
                welcome[field].take();
            }
            welcome
        };
        assert_eq!(welcome("known-1.0"), welcome("unknown-1.0"));
    }),
    (
        "a user asks whether a path is there that it cannot see",
        |s| {
            let hidden = s.daemon.cache_dir().join("outputs");
            let welcome = |top: &Path| {
                let mut welcome = s
                    .hello(MALLORY, serde_json::json!({"top": top}))
                    .unwrap()
                    .welcome;
                for field in ["build", "directory"] {
                    welcome[field].take();
                }
                welcome
            };
            assert_eq!(welcome(&hidden), welcome(Path::new("/no/such/path")));
        },
    ),
    (
        "a user pins a build to a path that is there for ever",
        |s| {
            for top in ["/", "/proc/self", "/etc/passwd"] {
                let peer = s.hello(MALLORY, serde_json::json!({"top": top})).unwrap();
                assert!(s.record(&peer.build)["lifeline"].is_null(), "{top}");
            }
        },
    ),
    (
        "a user says hello with a build ID that stands in /proc/*/mountinfo, after the build",
        |s| {
            let (build, _) = s.register("hooked", "on");
            let mut own = s.enter(BUILDER, &build).unwrap();
            assert!(s.enter(MALLORY, &build).is_err());
            assert_eq!(own.put(1, b"right"), 's');
        },
    ),
    (
        "a user says hello with such a build ID before the build does",
        |s| {
            let (build, _) = s.register("hooked", "on");
            assert!(s.enter(MALLORY, &build).is_err());
            assert_eq!(s.enter(BUILDER, &build).unwrap().put(1, b"right"), 's');
        },
    ),
    (
        "a build says hello with the ID of another build user's",
        |s| {
            let (build, _) = s.register("hooked", "on");
            let _own = s.enter(BUILDER, &build).unwrap();
            assert!(s.enter(ALLOCATED, &build).is_err());
        },
    ),
    (
        "a build says hello with the ID of a build that registered itself",
        |s| {
            let own = s.peer(ALICE);
            for user in [MALLORY, BUILDER, ALLOCATED, 0] {
                assert!(s.enter(user, &own.build).is_err(), "{user}");
            }
        },
    ),
    (
        "a user tells from the error whether a build ID is one",
        |s| {
            let (build, _) = s.register("hooked", "on");
            let unknown = s.enter(MALLORY, &"0".repeat(32)).err();
            assert!(unknown.is_some());
            assert_eq!(s.enter(MALLORY, &build).err(), unknown);
            assert_eq!(s.enter(MALLORY, &s.peer(ALICE).build).err(), unknown);
        },
    ),
    ("a user names a build by a path", |s| {
        for build in ["../../../../etc", "..", "", "/", "0", &"g".repeat(32)] {
            assert!(s.enter(MALLORY, build).is_err(), "{build}");
        }
    }),
    (
        "a user asks for the counts of another's build by its ID",
        |s| {
            let mut own = s.peer(ALICE);
            own.put(1, b"x");
            assert_eq!(
                counts(s, ALICE, serde_json::json!({"build": own.build}))["puts"],
                1
            );
            assert_eq!(
                counts(s, MALLORY, serde_json::json!({"build": own.build}))["puts"],
                0
            );
        },
    ),
    (
        "a user asks for the counts of another's build by its folder",
        |s| {
            let top = s.dir.path().join("top");
            std::fs::create_dir(&top).unwrap();
            chown(&top, Some(ALICE), Some(ALICE)).unwrap();
            let mut own = s.hello(ALICE, serde_json::json!({"top": top})).unwrap();
            own.put(1, b"x");
            assert_eq!(counts(s, ALICE, serde_json::json!({"top": top}))["puts"], 1);
            assert_eq!(
                counts(s, MALLORY, serde_json::json!({"top": top}))["puts"],
                0
            );
        },
    ),
    ("a build that may only read says that it may put", |s| {
        let (build, _) = s.register("hooked", "readonly");
        let mut peer = s
            .hello(BUILDER, serde_json::json!({"build": build, "mode": "on"}))
            .unwrap();
        assert_eq!(peer.welcome["mode"], "readonly");
        assert_eq!(peer.put(1, b"wrong"), 'r');
        assert_eq!(s.got(BUILDER, 1), None);
    }),
    ("a build that is audited says that it is not", |s| {
        s.put(BUILDER, 1, b"right");
        let (build, _) = s.register("hooked", "audit");
        let mut peer = s
            .hello(BUILDER, serde_json::json!({"build": build, "mode": "on"}))
            .unwrap();
        assert_eq!(peer.get(1), 'm');
    }),
    (
        "a build whose name may only read registers itself with that name",
        |s| {
            let mut peer = s
                .hello(BUILDER, serde_json::json!({"name": "release-1.0"}))
                .unwrap();
            assert_eq!(peer.put(1, b"wrong"), 'r');
            s.goes_on();
        },
    ),
    (
        "a build whose name does without the cache registers itself with that name",
        |s| {
            assert!(
                s.hello(BUILDER, serde_json::json!({"name": "secret-1.0"}))
                    .is_err()
            );
        },
    ),
    (
        "a build without the network puts a module file for builds that download one",
        |s| {
            let module: [u8; 32] = *b"a hash over what it is..-module\0";
            let put = |build: &str, body: &[u8]| {
                let mut frame = put_frame(0, &Sha256::digest(body), body.len() as u64);
                frame[9..41].copy_from_slice(&module);
                let mut peer = s.enter(BUILDER, build).unwrap();
                peer.send(&[&frame, body].concat());
                peer.answer()
            };
            let build = |fixed: Option<bool>| {
                s.register_with(serde_json::json!({"name": "x", "fixed": fixed}))
                    .0
            };
            assert_eq!(put(&build(Some(false)), b"wrong"), 'r');
            assert_eq!(put(&build(Some(true)), b"right"), 's');
            assert_eq!(put(&build(None), b"right"), 's', "of an older hook");
        },
    ),
    ("a mode that is not understood lets a build put", |s| {
        for mode in ["read-only", "READONLY", "yes"] {
            assert!(
                s.hello(BUILDER, serde_json::json!({"mode": mode})).is_err(),
                "{mode}"
            );
        }
    }),
    (
        "a user gives its build the name of a program in the statistics",
        |s| {
            let mut peer = s
                .hello(MALLORY, serde_json::json!({"name": "hello-1.0"}))
                .unwrap();
            assert_eq!(peer.put(1, &[1; 5000]), 's');
            drop(peer);
            let users = s.daemon.stats()["users"].to_string();
            assert!(!users.contains("hello"), "{users}");
        },
    ),
    (
        "a user gives its build a name of ten thousand bytes with control characters",
        |s| {
            let name = "\u{1b}[2J\n".to_string() + &"x".repeat(10_000);
            let peer = s.hello(MALLORY, serde_json::json!({"name": name})).unwrap();
            let record = s.record(&peer.build);
            let kept = record["name"].as_str().unwrap();
            assert!(
                kept.len() <= 211 && !kept.contains(char::is_control),
                "{kept:?}"
            );
        },
    ),
    ("a user says that it has found terabytes by itself", |s| {
        let mut peer = s.peer(MALLORY);
        let found = [
            &b"f"[..],
            &0u64.to_le_bytes(),
            &[1; 32],
            &((1u64 << 40) - 1).to_le_bytes(),
        ];
        peer.send(&found.concat().repeat(100));
        assert_eq!(got(&mut peer, 1), None);
        drop(peer);
        s.daemon.wait_until("the session is counted", || {
            s.daemon.stats()["since_start"]["gets"] == 1
        });
        assert_eq!(s.daemon.stats()["since_start"]["bytes_read"], 0);
    }),
    ("a user says a hello of a megabyte", |s| {
        let mut stream = raw_as(&s.daemon, MALLORY);
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(!said.contains("directory\":\"/"), "{said}");
        s.goes_on();
    }),
    ("a build writes to an output that it got", |s| {
        s.put(BUILDER, 1, b"right");
        let mut peer = s.peer(BUILDER);
        let path = link(&mut peer, 1, b"right");
        for user in [BUILDER, MALLORY] {
            let opened = act_as(user, || std::fs::OpenOptions::new().write(true).open(&path));
            assert!(opened.is_err(), "{user}");
        }
    }),
    ("a build makes an output that it got writable", |s| {
        s.put(BUILDER, 1, b"right");
        let path = link(&mut s.peer(BUILDER), 1, b"right");
        let done = act_as(BUILDER, || {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666))
        });
        assert!(done.is_err());
    }),
    (
        "a build removes, renames or adds a file in its directory",
        |s| {
            s.put(BUILDER, 1, b"right");
            let mut peer = s.peer(BUILDER);
            let path = link(&mut peer, 1, b"right");
            let directory = peer.directory.clone();
            act_as(BUILDER, || {
                assert!(std::fs::remove_file(&path).is_err());
                assert!(std::fs::rename(&path, directory.join("x")).is_err());
                assert!(std::fs::write(directory.join("new"), b"x").is_err());
                assert!(
                    std::os::unix::fs::symlink("/etc/passwd", directory.join("ready")).is_err()
                );
            });
        },
    ),
    ("a user lists the build directories, or one of them", |s| {
        let peer = s.peer(ALICE);
        act_as(MALLORY, || {
            assert!(std::fs::read_dir(s.daemon.cache_dir().join("builds")).is_err());
            assert!(std::fs::read_dir(s.daemon.cache_dir()).is_err());
            assert!(std::fs::read_dir(&peer.directory).is_err());
        });
    }),
    ("a user looks into the store", |s| {
        s.put(BUILDER, 1, b"right");
        act_as(MALLORY, || {
            for part in ["outputs", "actions", "registered", "lists", "tmp"] {
                let path = s.daemon.cache_dir().join(part);
                assert!(std::fs::read_dir(&path).is_err(), "{part}");
                assert!(std::fs::metadata(path.join("00")).is_err(), "{part}");
            }
        });
    }),
    ("a user reads the daemon's own files", |s| {
        act_as(MALLORY, || {
            for name in ["tiers", "lock", "state", "statistics"] {
                let opened = std::fs::File::open(s.daemon.cache_dir().join(name));
                assert!(opened.is_err(), "{name}");
            }
        });
    }),
    ("a user speaks on the control socket", |s| {
        let socket = s.daemon.runtime_dir().join("control/sock");
        for user in [MALLORY, BUILDER] {
            assert!(
                act_as(user, || UnixStream::connect(&socket).is_err()),
                "{user}"
            );
        }
    }),
    (
        "a user puts a socket of its own in the place of the daemon's",
        |s| {
            let dir = s.daemon.runtime_dir();
            act_as(MALLORY, || {
                assert!(std::fs::remove_file(dir.join("build/sock")).is_err());
                assert!(std::os::unix::net::UnixListener::bind(dir.join("build/other")).is_err());
            });
        },
    ),
    ("root overwrites all that it was handed", |s| {
        s.put(BUILDER, 1, b"right");
        let mut peer = s.peer(0);
        let path = link(&mut peer, 1, b"right");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::write(&path, b"wrong").unwrap();
        assert_eq!(s.got(BUILDER, 1).unwrap(), b"right");
        assert_eq!(s.got(0, 1).unwrap(), b"right");
    }),
    (
        "root moves away all that it was handed, as `go build -o x.a` does",
        |s| {
            s.put(BUILDER, 1, b"right");
            let (mut one, mut two) = (s.peer(0), s.peer(0));
            let (path, other) = (link(&mut one, 1, b"right"), link(&mut two, 1, b"right"));
            std::fs::rename(&path, s.dir.path().join("x.a")).unwrap();
            assert_eq!(std::fs::read(&other).unwrap(), b"right");
            assert_eq!(got(&mut one, 1).unwrap(), b"right", "it is put back");
        },
    ),
    ("a put whose bytes are not those of its output", |s| {
        let mut peer = s.peer(BUILDER);
        peer.send(&put_frame(1, &Sha256::digest(b"right"), 5));
        peer.send(b"wrong");
        assert_eq!(peer.answer(), 'r');
        assert_eq!(got(&mut peer, 1), None);
    }),
    ("a put that ends in the middle of its body", |s| {
        let mut peer = s.peer(MALLORY);
        peer.send(&put_frame(1, &Sha256::digest(b"right"), 1 << 30));
        peer.send(b"righ");
        drop(peer);
        s.daemon
            .wait_until("nothing is left of it", || s.daemon.unfinished() == 0);
        s.goes_on();
    }),
    ("a put of more bytes than there are", |s| {
        let mut peer = s.peer(MALLORY);
        peer.send(&put_frame(1, &[0; 32], u64::MAX));
        assert_eq!(peer.answer(), '-', "its session ends");
        s.goes_on();
    }),
    ("a frame that nobody knows", |s| {
        let mut peer = s.peer(MALLORY);
        peer.send(b"\xffnonsense");
        assert_eq!(peer.answer(), '-', "its session ends");
        s.goes_on();
    }),
    ("a peer that reads none of its answers", |s| {
        let mut peer = s.peer(MALLORY);
        let stream = peer.stream.get_mut();
        stream
            .set_write_timeout(Some(std::time::Duration::from_millis(200)))
            .unwrap();
        let gets = get_frame(1).repeat(1000);
        for _ in 0..100 {
            if stream.write_all(&gets).is_err() {
                break;
            }
        }
        s.goes_on();
    }),
    ("a peer that says nothing at all", |s| {
        let silent: Vec<_> = (0..100).map(|_| raw_as(&s.daemon, MALLORY)).collect();
        s.goes_on();
        drop(silent);
    }),
    (
        "a user registers builds until the disk is full of directories",
        |s| {
            for _ in 0..1100 {
                s.peer(MALLORY);
            }
            let builds = std::fs::read_dir(s.daemon.cache_dir().join("builds"))
                .unwrap()
                .count();
            assert!(builds <= 1030, "{builds}");
            s.goes_on();
        },
    ),
    (
        "a user's lifelines are on a file system that does not answer",
        |s| {
            let top = s.dir.path().join("top");
            std::fs::create_dir(&top).unwrap();
            chown(&top, Some(MALLORY), Some(MALLORY)).unwrap();
            let builds: Vec<_> = (0..3)
                .map(|_| {
                    s.hello(MALLORY, serde_json::json!({"top": top}))
                        .unwrap()
                        .build
                })
                .collect();
            for build in &builds {
                assert_eq!(s.record(build)["lifeline"], top.to_str().unwrap());
            }
            let _hanging = Hanging::over(&top);
            // What asks about builds that have ended comes back, and the daemon ends when it is told to.
            for question in [
                serde_json::json!({"ask": "stats"}),
                serde_json::json!({"ask": "builds", "since": 1000, "limit": 10, "live": true}),
            ] {
                let reply = s.ask(&question);
                assert!(
                    !reply["reply"].is_null() && reply["error"].is_null(),
                    "{reply}"
                );
            }
            s.goes_on();
            let (build, _) = s.register("hooked", "on");
            assert!(s.enter(BUILDER, &build).is_ok());
            s.daemon.terminate();
            let status = format!("/proc/{}/stat", s.daemon.pid());
            s.daemon.wait_until("the daemon has ended", || {
                std::fs::read_to_string(&status).unwrap().contains(") Z ")
            });
        },
    ),
    ("a user's builds turn others' directories out", |s| {
        let own = s.peer(ALICE);
        let (build, directory) = s.register("hooked", "on");
        for _ in 0..1100 {
            s.peer(MALLORY);
        }
        assert!(own.directory.is_dir() && directory.is_dir());
        assert!(s.enter(ALICE, &own.build).is_ok() && s.enter(BUILDER, &build).is_ok());
    }),
];

fn counts(stage: &Stage, user: u32, fields: serde_json::Value) -> serde_json::Value {
    let mut hello = serde_json::json!({"version": 1, "summary": true});
    for (name, value) in fields.as_object().unwrap() {
        hello[name] = value.clone();
    }
    let mut stream = raw_as(&stage.daemon, user);
    writeln!(stream, "{hello}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let welcome: serde_json::Value = serde_json::from_str(&line).unwrap();
    welcome["counts"].clone()
}

/// Gets an action and gives the path of its output.
fn link(peer: &mut Peer, action: u8, body: &[u8]) -> PathBuf {
    assert_eq!(got(peer, action).unwrap(), body);
    let name: String = Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    peer.directory.join(name)
}

#[test]
fn every_attack_on_the_daemon_is_harmless() {
    let mut failed = Vec::new();
    for (sentence, attack) in ATTACKS {
        let tried = std::panic::catch_unwind(|| attack(&Stage::new()));
        println!(
            "{}: {sentence}",
            if tried.is_ok() { "harmless" } else { "HARMFUL" }
        );
        if tried.is_err() {
            failed.push(sentence);
        }
    }
    println!(
        "attacks: {}/{} harmless",
        ATTACKS.len() - failed.len(),
        ATTACKS.len()
    );
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Two users in dev shells, two builds and a service's user at once.
#[test]
fn everybody_gets_what_builds_have_put_and_what_is_their_own() {
    const SERVICE: u32 = 31_003;
    let stage = Stage::new();
    let (build, _) = stage.register("hooked", "on");
    let names = [
        "build of the hook",
        "build alone",
        "alice",
        "mallory",
        "service",
    ];
    let mut peers = [
        stage.enter(BUILDER, &build).unwrap(),
        stage.peer(ALLOCATED),
        stage.peer(ALICE),
        stage.peer(MALLORY),
        stage.peer(SERVICE),
    ];
    for (at, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.put(at as u8, names[at].as_bytes()), 's');
    }
    println!("{:<18} gets the entries of: {}", "", names.join(", "));
    for (at, peer) in peers.iter_mut().enumerate() {
        let row: Vec<_> = (0..names.len()).map(|of| got(peer, of as u8)).collect();
        let shown: Vec<_> = row
            .iter()
            .map(|got| if got.is_some() { "yes" } else { "no" })
            .collect();
        println!("{:<18} {}", names[at], shown.join(" "));
        for (of, got) in row.into_iter().enumerate() {
            let expected = (of < 2 || of == at).then(|| names[of].as_bytes().to_vec());
            assert_eq!(got, expected, "{} gets what {} put", names[at], names[of]);
        }
    }
}

/// A daemon that is started again knows whose each build is.
#[test]
fn a_restarted_daemon_refuses_a_build_to_other_users_too() {
    let mut stage = Stage::new();
    let (build, _) = stage.register("hooked", "readonly");
    drop(stage.enter(BUILDER, &build).unwrap());
    let own = stage.peer(ALICE).build;
    stage.daemon.restart();
    assert!(stage.enter(ALLOCATED, &build).is_err());
    assert!(stage.enter(MALLORY, &own).is_err());
    assert!(stage.enter(ALICE, &own).is_ok());
}

/// What an audit is for: a cache that was made wrong on purpose.
#[test]
fn an_audit_finds_what_is_wrong_in_the_cache_and_removes_it() {
    let stage = Stage::new();
    let test_log = |n: u32| format!("# test log\ngetenv X{n}\n").into_bytes();
    stage.put(BUILDER, 1, b"wrong bytes");
    stage.put(BUILDER, 2, b"right bytes");
    stage.put(BUILDER, 3, &test_log(1));
    let (build, _) = stage.register("audited", "audit");
    let mut audit = stage.enter(BUILDER, &build).unwrap();
    for (action, body) in [
        (1, b"right bytes".to_vec()),
        (2, b"right bytes".to_vec()),
        (3, test_log(2)),
        (4, b"new".to_vec()),
    ] {
        assert_eq!(audit.get(action), 'm', "it is a cold build");
        assert_eq!(audit.put(action, &body), 's');
        let name: String = Sha256::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(std::fs::read(audit.directory.join(name)).unwrap(), body);
    }
    let counted = counts(&stage, BUILDER, serde_json::json!({"build": build}));
    assert_eq!(
        (&counted["compared"], &counted["different"]),
        (&2.into(), &1.into())
    );
    assert_eq!(stage.got(BUILDER, 1), None, "what differs is removed");
    assert_eq!(stage.got(BUILDER, 2).unwrap(), b"right bytes");
    assert_eq!(stage.got(BUILDER, 4).unwrap(), b"new");
    // Without an audit, a put over another output is counted.
    stage.put(BUILDER, 2, b"other bytes");
    drop(audit);
    stage.daemon.wait_until("it is counted", || {
        stage.daemon.stats()["since_start"]["replaced"] == 1
    });
    assert_eq!(stage.daemon.stats()["since_start"]["different"], 1);
}

/// With few descriptors there are few connections.
#[test]
fn users_cannot_have_the_connections_that_are_kept_for_builds() {
    let daemon = Daemon::start_by("ulimit -n 640; exec \"$@\"");
    let held: Vec<_> = [ALICE, MALLORY, MALLORY + 1]
        .into_iter()
        .flat_map(|user| (0..40).map(move |_| user))
        .map(|user| raw_as(&daemon, user))
        .collect();
    let refused = Peer::hello_as(&daemon, ALICE, r#"{"version":1}"#).unwrap_err();
    assert!(refused.contains("too many connections"), "{refused}");
    let mut build = Peer::hello_as(&daemon, BUILDER, r#"{"version":1}"#).unwrap();
    assert_eq!(build.put(1, b"right"), 's');
    assert_eq!(got(&mut build, 1).unwrap(), b"right");
    drop(held);
}

#[test]
fn without_shared_inodes_no_two_builds_have_the_same_file() {
    use std::os::unix::fs::MetadataExt;
    for (options, is_shared) in [(&[][..], true), (&["--no-shared-inodes"], false)] {
        let daemon = Daemon::start_for_builder_with(options);
        let inode = |user: u32| {
            let mut peer = Peer::hello_as(&daemon, user, r#"{"version":1}"#).unwrap();
            assert_eq!(peer.put(1, b"right"), 's');
            let path = link(&mut peer, 1, b"right");
            (std::fs::metadata(path).unwrap().ino(), peer)
        };
        let [(first, _one), (second, _two)] = [BUILDER, ALLOCATED].map(inode);
        assert_eq!(first == second, is_shared, "{options:?}");
    }
}
