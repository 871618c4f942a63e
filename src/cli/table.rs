//! Every subcommand and every option, said once. The parser, the help, the man page and the shells' completions are made
//! from this table. A new option is one entry here; a new subcommand is one entry and a handler in `commands`.

use super::arguments::Arguments;
use super::{Command, commands};
use crate::config::{CACHE_DIR, LISTEN, RUNTIME_DIR};
use crate::error::Result;

/// What an option or an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is a switch.
    Nothing,
    /// A directory.
    Dir,
    /// A file.
    File,
    /// A program.
    Program,
    /// A size, as in 20G.
    Size,
    /// An age or a time limit, as in 60d.
    Age,
    /// Another text, under this name in the help.
    Text(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl Takes {
    /// What the help shows in its place.
    pub fn placeholder(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Dir => "DIR".into(),
            Self::File => "FILE".into(),
            Self::Program => "PROGRAM".into(),
            Self::Size => "SIZE".into(),
            Self::Age => "AGE".into(),
            Self::Text(name) => name.into(),
            Self::OneOf(words) => words.join("|"),
        }
    }

    /// Whether a shell completes it with the names of files.
    pub fn is_path(self) -> bool {
        matches!(self, Self::Dir | Self::File | Self::Program)
    }

    /// All that it can be, where that is known.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::OneOf(words) => words,
            _ => &[],
        }
    }
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it does. Completions show it up to the first `;`, `:` or `(`.
    pub help: &'static str,
    /// What it is when nothing else says so; written as on the command line, and read in the same way.
    pub default: Option<&'static str>,
    /// How the help describes a default that is not one word.
    pub usually: Option<&'static str>,
    /// Environment variables that stand in for it, the first that is set and not empty.
    pub env: &'static [&'static str],
    /// Options that make no sense beside it.
    pub conflicts: &'static [&'static str],
    /// Options without one of which it means nothing.
    pub requires: &'static [&'static str],
    /// It may be given several times; otherwise the last one counts.
    pub repeats: bool,
}

impl Flag {
    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn usually(mut self, what: &'static str) -> Self {
        self.usually = Some(what);
        self
    }

    const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    const fn conflicts(mut self, names: &'static [&'static str]) -> Self {
        self.conflicts = names;
        self
    }

    const fn requires(mut self, names: &'static [&'static str]) -> Self {
        self.requires = names;
        self
    }

    /// It may be given several times.
    const fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }
}

const fn flag(name: &'static str, takes: Takes, help: &'static str) -> Flag {
    Flag {
        name,
        takes,
        help,
        default: None,
        usually: None,
        env: &[],
        conflicts: &[],
        requires: &[],
        repeats: false,
    }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    flag(name, Takes::Nothing, help)
}

/// A word that is not an option.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Under this name in the help.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// It cannot be left out.
    pub required: bool,
    /// What it is.
    pub help: &'static str,
}

/// A command and what it does.
pub type Example = (&'static str, &'static str);

/// A subcommand.
#[derive(Clone, Copy)]
pub struct Subcommand {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line of the main help.
    pub brief: &'static str,
    /// How it is called, when that is not `nix-gocacheprog NAME [OPTION...] ARGUMENT...`.
    pub usage: Option<&'static str>,
    /// What it does, in paragraphs.
    pub about: &'static [&'static str],
    /// What it takes besides options, in this order.
    pub arguments: &'static [Argument],
    /// Its options, in groups that other subcommands may share.
    pub flags: &'static [&'static [Flag]],
    /// What is to be said after the options, in paragraphs.
    pub notes: &'static [&'static str],
    /// Commands to try.
    pub examples: &'static [Example],
    /// The exit code for a command line that is wrong. Nix ends every build when its hook fails, so that one's is 0.
    pub misuse: u8,
    /// Makes a command of what was given.
    pub handler: fn(&Arguments) -> Result<Command>,
}

impl Subcommand {
    /// All its options.
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().copied().flatten()
    }
}

/// What the program is, in one line.
pub const ABOUT: &str = "Go's build cache and module cache inside sandboxed Nix builds.";

/// What the main help and the man page say after the subcommands.
pub const NOTES: &[&str] = &[
    "`nix-gocacheprog help SUBCOMMAND` explains a subcommand. Started under the name `client` or `hook`, the program \
     runs that subcommand. A size is a number and a unit, as in 500M, 20G or 1.5GiB; so is an age, as in 90s, 36h or 60d.",
];

/// Options that every subcommand understands.
pub const GENERAL: [Flag; 2] = [
    switch("help", "print this help"),
    switch("version", "print the version"),
];

/// Files, for the man page.
pub const FILES: &[(&str, &str)] = &[
    (CACHE_DIR, "The cache."),
    (
        "~/.cache/nix-gocacheprog",
        "A user's private cache, for `go` commands and proxies that find no daemon.",
    ),
    (
        "/run/nix-gocacheprog/build/sock",
        "The daemon's socket for builds.",
    ),
    (
        "/run/nix-gocacheprog/control/sock",
        "The daemon's socket for root and the hook.",
    ),
    (
        "/etc/nix/nix.conf",
        "Nix's configuration; `install` adds a marked block to it.",
    ),
    (
        "/usr/local/lib/nix-gocacheprog",
        "Files of `install`, with a record for `uninstall`.",
    ),
];

/// Environment variables, for the man page.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "NIX_GOCACHEPROG",
        "In a derivation or a shell: `on`, `readonly`, `audit` or `off`; anything else means `off`.",
    ),
    (
        "NIX_GOCACHEPROG_TESTS",
        "In a derivation: with `run`, tests run even if their results are cached.",
    ),
    (
        "NIX_GOCACHEPROG_CLIENT",
        "In a derivation: the path of the client, if it is neither where the hook mounts it nor installed on the host.",
    ),
    (
        "NIX_GOCACHEPROG_CACHE_DIR",
        "The cache directory, unless `--cache-dir` says otherwise.",
    ),
    (
        "NIX_GOCACHEPROG_RUNTIME_DIR",
        "The directory of the sockets, unless `--runtime-dir` says otherwise.",
    ),
    (
        "NIX_GOCACHEPROG_LOG",
        "With `debug`, each request is logged.",
    ),
    (
        "CACHE_DIRECTORY, RUNTIME_DIRECTORY, LISTEN_FDS, CREDENTIALS_DIRECTORY",
        "Set by systemd for the daemon.",
    ),
    (
        "GOPROXY, GOAUTH, NETRC, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE, NIX_SSL_CERT_FILE",
        "Used by the proxy as by `go`.",
    ),
    (
        "NO_COLOR, TERM",
        "With NO_COLOR set, or TERM=dumb, output has no colour.",
    ),
];

/// Exit codes, for the man page.
pub const EXIT_STATUS: &[(&str, &str)] = &[
    (
        "0",
        "Success. The hook always exits 0, or with the code of the hook that it chains.",
    ),
    (
        "1",
        "Failure, or `doctor` or `verify` found something wrong.",
    ),
    ("2", "The command line is wrong; nothing was done."),
];

const NAMED_CACHE: Flag = flag("cache-dir", Takes::Dir, "where the cache is")
    .default(CACHE_DIR)
    .env(&["NIX_GOCACHEPROG_CACHE_DIR", "CACHE_DIRECTORY"]);

const SOCKETS: Flag = flag("runtime-dir", Takes::Dir, "where the daemon's sockets are")
    .default(RUNTIME_DIR)
    .env(&["NIX_GOCACHEPROG_RUNTIME_DIR", "RUNTIME_DIRECTORY"]);

/// The sockets that a client or a proxy looks for, in a sandbox and outside.
const NEAREST_SOCKETS: Flag = flag("runtime-dir", Takes::Dir, "where the daemon's sockets are")
    .usually("/gocache/run in a sandbox, else /run/nix-gocacheprog")
    .env(&["NIX_GOCACHEPROG_RUNTIME_DIR"]);

/// The daemon's own.
const PLACE: &[Flag] = &[NAMED_CACHE, SOCKETS];

/// Those of the daemon that a person asks: `commands::target` finds the ones that `install` has recorded.
const INSTALLED_PLACE: &[Flag] = &[
    NAMED_CACHE.usually("where it is installed, else /var/cache/nix-gocacheprog"),
    SOCKETS.usually("where they are installed, else /run/nix-gocacheprog"),
];

const ASKS_THE_DAEMON: &str = "Asks the daemon or, if none is running, works on the cache directory itself. Needs root, \
                               unless the daemon is your own.";

const NEEDS_ROOT: &str = "Needs root, unless the daemon is your own.";

const MAX_SIZE: Flag = flag(
    "max-size",
    Takes::Size,
    "disk space for the cache; the least recently used entries are evicted first",
)
.default("20G")
.env(&["NIX_GOCACHEPROG_MAX_SIZE"]);

const MAX_AGE: Flag = flag("max-age", Takes::Age, "evict entries unused for this long")
    .default("60d")
    .env(&["NIX_GOCACHEPROG_MAX_AGE"]);

const MIN_FREE: Flag = flag(
    "min-free",
    Takes::Size,
    "free space to leave on the file system",
)
.usually("5% of it, at most 10G")
.env(&["NIX_GOCACHEPROG_MIN_FREE"]);

/// The cache of a team, behind the daemon's own.
const REMOTE: &[Flag] = &[
    flag(
        "remote",
        Takes::Text("URL"),
        "a cache shared by several machines: bazel-remote, any HTTP server that stores what is PUT, or an object store \
         as s3://BUCKET/PREFIX?endpoint=URL&region=NAME",
    ),
    flag(
        "remote-mode",
        Takes::OneOf(&["read", "write", "read-write"]),
        "whether the daemon reads from the remote, writes to it, or both",
    )
    .default("read")
    .requires(&["remote"]),
    flag(
        "remote-credentials",
        Takes::File,
        "a file with user:password, a token, or S3 keys as `aws configure` writes them (default: netrc, or the sources \
         that AWS's own tools use)",
    )
    .requires(&["remote"]),
    flag(
        "remote-ca",
        Takes::File,
        "trust the certificates in FILE instead of the system's",
    )
    .requires(&["remote"]),
    flag(
        "remote-cert",
        Takes::File,
        "client certificate for the remote",
    )
    .requires(&["remote"]),
    flag(
        "remote-key",
        Takes::File,
        "private key of that certificate",
    )
    .requires(&["remote"]),
    flag(
        "remote-secret-key-file",
        Takes::File,
        "sign what is uploaded, with a key as `nix-store --generate-binary-cache-key` writes it; without \
         --remote-trusted-public-keys, use only entries signed by this key",
    )
    .requires(&["remote"]),
    flag(
        "remote-trusted-public-keys",
        Takes::Text("KEYS"),
        "use only entries signed by one of these keys (NAME:BASE64, separated by spaces)",
    )
    .requires(&["remote"]),
    switch(
        "remote-insecure-http",
        "allow plain http to another machine; anyone on the path can then change what builds get",
    )
    .requires(&["remote"]),
];

/// A subcommand that takes nothing and explains nothing more.
const PLAIN: Subcommand = Subcommand {
    name: "",
    brief: "",
    usage: None,
    about: &[],
    arguments: &[],
    flags: &[],
    notes: &[],
    examples: &[],
    misuse: 2,
    handler: commands::help,
};

/// All subcommands, in the groups of the main help.
pub const SUBCOMMANDS: &[&[Subcommand]] = &[
    &[
        Subcommand {
            name: "daemon",
            brief: "own the cache and serve builds",
            about: &["Own the cache and serve builds on two sockets: RUNTIME/build/sock for builds, \
                      RUNTIME/control/sock for root and the hook."],
            flags: &[
                PLACE,
                &[
                    MAX_SIZE,
                    MAX_AGE,
                    MIN_FREE,
                    flag(
                        "idle-exit",
                        Takes::Age,
                        "when started by systemd, exit after this long without a build",
                    )
                    .default("10m"),
                    flag(
                        "metrics-file",
                        Takes::File,
                        "write metrics to FILE, four times a minute, for node_exporter's textfile collector",
                    )
                    .env(&["NIX_GOCACHEPROG_METRICS_FILE"]),
                ],
                &[
                    flag(
                        "trusted-user",
                        Takes::Text("USER"),
                        "let Nix's builds use what USER stores; a name or a UID",
                    )
                    .repeats(),
                    flag(
                        "build-users-group",
                        Takes::Text("GROUP"),
                        "the group of Nix's build users",
                    )
                    .default("nixbld"),
                    flag(
                        "readonly-name",
                        Takes::Text("PATTERN"),
                        "builds with a matching name only read the cache; * matches anything",
                    )
                    .repeats(),
                    flag(
                        "off-name",
                        Takes::Text("PATTERN"),
                        "builds with a matching name run without the cache",
                    )
                    .repeats(),
                    flag(
                        "audit-one-in",
                        Takes::Text("N"),
                        "compile every Nth build that the hook registers from scratch, and compare it with the cache",
                    ),
                    switch(
                        "no-shared-inodes",
                        "give builds copies of outputs instead of hard links",
                    ),
                ],
                REMOTE,
            ],
            notes: &[
                "If systemd passes sockets named `build` and `control`, the daemon uses them instead of its own. \
                 With NIX_GOCACHEPROG_LOG=debug it logs each request.",
            ],
            examples: &[(
                "nix-gocacheprog daemon --cache-dir /tmp/cache --runtime-dir /tmp/run",
                "Run a daemon of your own, to try it out.",
            )],
            handler: commands::daemon,
            ..PLAIN
        },
        Subcommand {
            name: "client",
            brief: "serve `go` as its GOCACHEPROG, with the daemon behind it",
            usage: Some("GOCACHEPROG=\"nix-gocacheprog client\" go build ./..."),
            about: &["Serve `go` on stdin and stdout as its GOCACHEPROG. Without a daemon it serves the build from a \
                      private cache."],
            flags: &[&[
                NEAREST_SOCKETS,
                flag("cache-dir", Takes::Dir, "where the private cache is").usually(
                    "in the build's own directory or, outside of a Nix build, ~/.cache/nix-gocacheprog, where it is \
                     kept within the daemon's default limits",
                ),
                flag(
                    "give-up-after",
                    Takes::Age,
                    "continue without a daemon that has been silent for this long",
                )
                .default("60s"),
                switch("summary", "print one line about what the cache did for this build, and exit"),
                flag(
                    "stamp",
                    Takes::Dir,
                    "give each file below DIR an mtime derived from its content, so that `go` can tell files apart, and exit. \
                     The setup hook does this while `go` runs. Fails, and changes nothing, if a link leads out of DIR. In a \
                     Nix build, also scan the source for C and assembler, for the clients of the next `go` commands",
                )
                .requires(&["times"]),
                switch("restore", "restore the times of all files not written to since, and exit")
                    .requires(&["times"])
                    .conflicts(&["stamp"]),
                flag("times", Takes::File, "the file that stores the original times, for --stamp and --restore").requires(&["stamp", "restore"]),
            ]],
            notes: &[
                "With NIX_GOCACHEPROG=readonly in the environment, the build reads the shared cache and stores its \
                 results in a private one.",
            ],
            handler: commands::client,
            ..PLAIN
        },
        Subcommand {
            name: "hook",
            brief: "print the sandbox mounts for a build, as Nix's pre-build-hook",
            about: &["Register a build with the daemon and print the sandbox mounts for it. Nix calls this when nix.conf \
                      says `pre-build-hook = PATH`, where PATH is this program under the name `hook`."],
            arguments: &[
                Argument {
                    name: "DRV",
                    takes: Takes::File,
                    required: true,
                    help: "the derivation",
                },
                Argument {
                    name: "CHROOT",
                    takes: Takes::Dir,
                    required: false,
                    help: "the chroot of its build",
                },
            ],
            flags: &[&[
                SOCKETS,
                flag(
                    "chain",
                    Takes::Program,
                    "another pre-build-hook to run first, with the same arguments; Nix gets both answers. Nix passes no \
                     options, so set pre-build-hook to a script with exec nix-gocacheprog hook --chain PROGRAM \"$@\"",
                ),
            ]],
            notes: &[
                "It always exits with 0, within a second. If anything is wrong, it prints nothing, and the build runs \
                 without the shared cache. A chained PROGRAM adds its own time; if it fails, the hook exits with its code.",
            ],
            misuse: 0,
            handler: commands::hook,
            ..PLAIN
        },
        Subcommand {
            name: "proxy",
            brief: "run a Go module proxy that caches what it downloads",
            about: &["Run a Go module proxy in front of the upstreams that GOPROXY lists. Files that never change are \
                      cached by the daemon or, without a daemon, in a directory of this user. Prints its URL once it \
                      accepts connections."],
            flags: &[&[
                flag("listen", Takes::Text("ADDR"), "address to listen on; port 0 means any free port").default(LISTEN),
                flag(
                    "build",
                    Takes::Text("PID"),
                    "serve one build: exit when this process does, cache nothing without a daemon, and answer 404 to \
                     what fails, so that `go` tries the list behind this proxy, as in GOPROXY=\"URL|$GOPROXY\". \
                     The URL contains a random token, and requests without it get a 404",
                ),
                flag(
                    "token-file",
                    Takes::File,
                    "a file with the token that every URL must contain: GOPROXY=http://HOST:PORT/TOKEN",
                ),
                flag(
                    "offline",
                    Takes::Nothing,
                    "contact no upstream: answer from the cache and from the last answers of upstreams",
                ),
                NEAREST_SOCKETS,
                flag("cache-dir", Takes::Dir, "where modules are cached without a daemon")
                    .usually("~/.cache/nix-gocacheprog/modules"),
                flag(
                    "max-size",
                    Takes::Size,
                    "disk space for that directory; the least recently used files are evicted first",
                )
                .default("20G"),
                flag("max-age", Takes::Age, "evict files there unused for this long").default("60d"),
                flag(
                    "connect-limit",
                    Takes::Age,
                    "how long connecting to an upstream may take",
                )
                .default("10s"),
                flag("read-limit", Takes::Age, "how long an upstream may be silent").default("60s"),
            ]],
            notes: &[
                "GOPROXY, GOAUTH=netrc, NETRC, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE and NIX_SSL_CERT_FILE \
                 mean what they mean to `go`. When it exits, it logs how many requests it has answered and sent.",
            ],
            examples: &[(
                "nix-gocacheprog proxy --listen 10.0.0.1:3000",
                "Share one proxy with everybody who can reach this address.",
            )],
            handler: commands::proxy,
            ..PLAIN
        },
    ],
    &[
        Subcommand {
            name: "stats",
            brief: "show the cache's size, hits and largest users",
            about: &["Show the cache's size, its hits and misses, and the builds that use it most."],
            flags: &[
                &[
                    switch("json", "print JSON for programs: sizes in bytes, times in seconds"),
                    switch("builds", "list builds that have ended"),
                    flag("since", Takes::Age, "list builds that ended within this time").default("1d"),
                    switch("prometheus", "print metrics in the text format of Prometheus").conflicts(&["json", "builds"]),
                ],
                INSTALLED_PLACE,
            ],
            notes: &[ASKS_THE_DAEMON],
            examples: &[("nix-gocacheprog stats --since 7d", "See the builds of a week.")],
            handler: commands::stats,
            ..PLAIN
        },
        Subcommand {
            name: "top",
            brief: "watch the running builds",
            about: &["Show the running builds with their rates, refreshed in place until `q` or Ctrl-C. If stdout is not a \
                      terminal, it prints a plain line for each build every second."],
            flags: &[INSTALLED_PLACE],
            notes: &[NEEDS_ROOT],
            handler: commands::top,
            ..PLAIN
        },
        Subcommand {
            name: "why",
            brief: "explain why builds missed",
            about: &["Show what the last builds missed, what was different from the build before, and which packages were \
                      compiled. Root may ask about every build, other users about what they ran themselves outside of \
                      Nix."],
            arguments: &[Argument {
                name: "BUILD",
                takes: Takes::Text("BUILD"),
                required: false,
                help: "the name of a derivation, with or without its version, or the first digits of a build's ID, at least 4",
            }],
            flags: &[
                &[flag("since", Takes::Age, "how far back to look").default("30d")],
                INSTALLED_PLACE,
            ],
            notes: &["Asks the daemon or, if none is running, reads the cache directory itself."],
            examples: &[("nix-gocacheprog why hello", "See why the last builds of hello missed.")],
            handler: commands::why,
            ..PLAIN
        },
        Subcommand {
            name: "report",
            brief: "write an HTML page about what the cache did",
            about: &["Write one self-contained HTML page: hits, misses and compiling saved by day, size, largest users, \
                      last builds. It loads nothing and runs no script."],
            flags: &[
                &[
                    flag("since", Takes::Age, "how far back to look").default("30d"),
                    flag("output", Takes::File, "write to FILE instead of stdout"),
                ],
                INSTALLED_PLACE,
            ],
            notes: &[ASKS_THE_DAEMON],
            examples: &[("nix-gocacheprog report --output report.html", "See the last 30 days.")],
            handler: commands::report,
            ..PLAIN
        },
        Subcommand {
            name: "gc",
            brief: "evict unused entries",
            about: &["Evict entries until the cache is within the daemon's limits, least recently used first and down to 90% \
                      of the size limit, and remove outputs without an entry. What running builds use stays."],
            flags: &[
                &[
                    flag("max-size", Takes::Size, "evict down to this size"),
                    flag("max-age", Takes::Age, "evict entries unused for this long"),
                    switch("all", "evict everything").conflicts(&["max-size", "max-age"]),
                    switch("dry-run", "only show what would be evicted"),
                ],
                INSTALLED_PLACE,
            ],
            notes: &[ASKS_THE_DAEMON],
            examples: &[
                ("nix-gocacheprog gc --max-size 5G", "Make room now."),
                ("nix-gocacheprog gc --all --dry-run", "See how much could be freed."),
            ],
            handler: commands::gc,
            ..PLAIN
        },
        Subcommand {
            name: "verify",
            brief: "check the cache for damage",
            about: &["Compare the hash of every output with its name, and look for actions whose output is missing. \
                      Lists all damage, and fails if there is any."],
            flags: &[
                &[switch("repair", "remove what is damaged; the next build stores it again")],
                INSTALLED_PLACE,
            ],
            notes: &[ASKS_THE_DAEMON],
            handler: commands::verify,
            ..PLAIN
        },
        Subcommand {
            name: "export",
            brief: "write what builds use to a file",
            usage: Some("sudo nix-gocacheprog export --builds NAME... FILE"),
            about: &["Write the outputs that builds of these names use to FILE, as one compressed file for `import`: for a new \
                      machine, or one without a network. A name stands for all its versions."],
            arguments: &[Argument {
                name: "FILE",
                takes: Takes::File,
                required: true,
                help: "the file to write",
            }],
            flags: &[
                &[
                    flag("builds", Takes::Text("NAME"), "the name of a derivation").repeats(),
                    flag(
                        "secret-key-file",
                        Takes::File,
                        "sign everything, with a key as `nix-store --generate-binary-cache-key` writes it",
                    ),
                ],
                INSTALLED_PLACE,
            ],
            examples: &[(
                "sudo nix-gocacheprog export --builds hello --builds world --secret-key-file key go-cache.zst",
                "Give two programs' outputs to another machine.",
            )],
            handler: commands::export,
            ..PLAIN
        },
        Subcommand {
            name: "import",
            brief: "put what `export` wrote into the cache",
            usage: Some("sudo nix-gocacheprog import [OPTION...] FILE"),
            about: &["Put the outputs in FILE into the daemon's cache, for Nix's builds. Each is checked against its hash. With \
                      --trusted-public-keys it stops at the first record that none of these keys has signed."],
            arguments: &[Argument {
                name: "FILE",
                takes: Takes::File,
                required: true,
                help: "what `export` has written",
            }],
            flags: &[
                &[flag(
                    "trusted-public-keys",
                    Takes::Text("KEYS"),
                    "take only what one of these keys has signed (NAME:BASE64, separated by spaces)",
                )],
                INSTALLED_PLACE,
            ],
            notes: &["Without keys, anyone who can change FILE decides what builds here get. Needs root and a running daemon."],
            handler: commands::import,
            ..PLAIN
        },
        Subcommand {
            name: "flush",
            brief: "wait until everything is uploaded to the remote",
            about: &["Wait until the daemon has uploaded everything to its remote, for a machine that is about to go \
                      away. Fails if something is left when the time is up, or if the daemon has given up on something."],
            flags: &[
                &[flag("timeout", Takes::Age, "how long to wait").default("5m")],
                INSTALLED_PLACE,
            ],
            notes: &[NEEDS_ROOT],
            handler: commands::flush,
            ..PLAIN
        },
    ],
    &[
        Subcommand {
            name: "install",
            brief: "install on this host (not on NixOS) and set up Nix",
            usage: Some("sudo nix-gocacheprog install [OPTION...]"),
            about: &["Install on this host: the program, systemd's units, a user for the daemon, and a block in nix.conf. \
                      Run it again at any time: it changes only what is missing or out of date. An existing \
                      pre-build-hook is kept and runs first. Finally it runs `doctor`."],
            flags: &[
                &[
                    flag(
                        "mode",
                        Takes::OneOf(&["hook", "static"]),
                        "hook gives each build its own mounts, by Nix's pre-build-hook; static gives every build the \
                         same mounts, for Lix, which ignores the hook's output",
                    )
                    .usually("as it was; at first hook, or static with Lix"),
                    flag(
                        "cache-dir",
                        Takes::Dir,
                        "where to put the daemon's cache; builds must be able to pass through the directories above it",
                    )
                    .usually("/var/cache/nix-gocacheprog, or where it is already"),
                    flag("max-size", Takes::Size, "disk space for the cache").usually("20G, or as it was"),
                    flag("max-age", Takes::Age, "evict entries unused for this long").usually("60d, or as it was"),
                    flag("min-free", Takes::Size, "free space to leave on the file system")
                        .usually("5% of it, at most 10G, or as it was"),
                    flag(
                        "metrics-file",
                        Takes::File,
                        "where the daemon writes metrics for node_exporter, in a folder that its user may write to",
                    )
                    .usually("nowhere, or as it was"),
                    switch("no-remote", "remove the daemon's remote").conflicts(&["remote"]),
                    switch("user", "install for your own single-user Nix, without root"),
                    switch("dry-run", "only show the changes"),
                ],
                REMOTE,
            ],
            notes: &[
                "With a remote, the daemon has access to the network. Name files by absolute paths; they may be readable \
                 by root only, because systemd passes them to the daemon.",
            ],
            examples: &[
                ("sudo nix-gocacheprog install --dry-run", "See what it would change."),
                (
                    "sudo nix-gocacheprog install --remote https://cache.example.com --remote-mode read",
                    "Read from a cache that other machines fill.",
                ),
            ],
            handler: commands::install,
            ..PLAIN
        },
        Subcommand {
            name: "uninstall",
            brief: "undo `install`",
            usage: Some("sudo nix-gocacheprog uninstall [OPTION...]"),
            about: &["Undo all changes of `install`, and ask whether to remove the cache too."],
            flags: &[&[
                switch("remove-cache", "remove the cache without asking").conflicts(&["keep-cache"]),
                switch("keep-cache", "keep the cache and its user without asking"),
                switch("user", "remove what `install --user` has created"),
                switch("dry-run", "only show the changes"),
            ]],
            handler: commands::uninstall,
            ..PLAIN
        },
        Subcommand {
            name: "ci start",
            brief: "set up a CI machine for one run",
            usage: Some("sudo nix-gocacheprog ci start [OPTION...]"),
            about: &["Set up this machine for one run of a CI system: make the changes of `install` and start a daemon, with \
                      or without systemd. Says whether the daemon and the remote answer. `ci finish` undoes all of it, \
                      even if `ci start` was interrupted."],
            flags: &[
                &[
                    flag(
                        "mode",
                        Takes::OneOf(&["hook", "static"]),
                        "as for `install`",
                    )
                    .usually("hook, or static with Lix"),
                    flag(
                        "cache-dir",
                        Takes::Dir,
                        "the cache, which the CI system may restore before and save after the run; it belongs to the daemon's \
                         user until `ci finish`",
                    )
                    .usually("/var/cache/nix-gocacheprog, which `ci finish` removes"),
                    flag("max-size", Takes::Size, "disk space for the cache").usually("20G"),
                ],
                REMOTE,
            ],
            notes: &["Files named here may be readable by root only."],
            examples: &[(
                "sudo nix-gocacheprog ci start --remote https://cache.example.com --remote-mode read-write",
                "Fill a team's cache from a CI machine.",
            )],
            handler: commands::ci_start,
            ..PLAIN
        },
        Subcommand {
            name: "ci finish",
            brief: "upload, report what the cache did, and undo `ci start`",
            usage: Some("sudo nix-gocacheprog ci finish [OPTION...]"),
            about: &["Wait until everything is uploaded, print what the cache did for the builds of this run, and undo what \
                      `ci start` did. Undoes it even if not everything is uploaded in time, but then fails. What the remote \
                      refuses is only reported."],
            flags: &[&[
                flag(
                    "timeout",
                    Takes::Age,
                    "how long to wait for uploads, and then for Nix builds that are still running",
                )
                .default("5m"),
                flag("summary", Takes::File, "add the summary to FILE, as Markdown").env(&["GITHUB_STEP_SUMMARY"]),
            ]],
            handler: commands::ci_finish,
            ..PLAIN
        },
        Subcommand {
            name: "doctor",
            brief: "check the installation and say how to fix it",
            about: &["Check the program, its sockets, the daemon, Nix's configuration and the cache, and say how to fix \
                      what is wrong. Fails if anything is."],
            flags: &[&[switch("json", "print JSON for programs")], INSTALLED_PLACE],
            handler: commands::doctor,
            ..PLAIN
        },
    ],
    &[
        Subcommand {
            name: "help",
            brief: "explain a subcommand",
            about: &["Explain a subcommand, or list them all."],
            arguments: &[Argument {
                name: "SUBCOMMAND",
                takes: Takes::Text("SUBCOMMAND"),
                required: false,
                help: "what to explain",
            }, Argument {
                name: "ACTION",
                takes: Takes::Text("ACTION"),
                required: false,
                help: "its second word, if it has one",
            }],
            handler: commands::help,
            ..PLAIN
        },
        Subcommand {
            name: "man",
            brief: "print all of this as a man page",
            usage: Some("nix-gocacheprog man >nix-gocacheprog.1"),
            about: &["Print the man page."],
            handler: commands::man,
            ..PLAIN
        },
        Subcommand {
            name: "completions",
            brief: "print shell completions",
            about: &["Print a shell script that completes the command line of this program."],
            arguments: &[Argument {
                name: "SHELL",
                takes: Takes::OneOf(&["bash", "zsh", "fish"]),
                required: true,
                help: "the shell",
            }],
            examples: &[
                (
                    "nix-gocacheprog completions bash >~/.local/share/bash-completion/completions/nix-gocacheprog",
                    "For Bash.",
                ),
                (
                    "nix-gocacheprog completions zsh >~/.zfunc/_nix-gocacheprog",
                    "For zsh, in a folder of $fpath.",
                ),
                (
                    "nix-gocacheprog completions fish >~/.config/fish/completions/nix-gocacheprog.fish",
                    "For fish.",
                ),
            ],
            handler: commands::completions,
            ..PLAIN
        },
    ],
];

/// The subcommand of this name.
pub fn subcommand(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS
        .iter()
        .copied()
        .flatten()
        .find(|subcommand| subcommand.name == name)
}

/// The second words of those subcommands whose first word this is.
pub fn second_words(first: &str) -> impl Iterator<Item = &'static str> {
    let all = SUBCOMMANDS.iter().copied().flatten();
    all.filter_map(move |subcommand| {
        let (before, second) = subcommand.name.split_once(' ')?;
        (before == first).then_some(second)
    })
}
