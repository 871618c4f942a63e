//! Who may do what: decided from the user at the other end of a connection and from who registered the build, never from what
//! the peer says of itself.
//!
//! A build shares the tier of Nix's builds when the hook registered it, or when its user is one of Nix's build users or is
//! trusted. Everybody else reads that tier and has one of their own.

use crate::cache::tier::{Secret, Tier};
use crate::error::{Error, Result};
use crate::fs;
use crate::log;
use crate::mode::Mode;
use crate::sync::lock;
use crate::sys;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the members of the build users' group are read again, when an unknown user comes.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What the administrator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The group of the users that Nix builds as.
    pub build_users_group: String,
    /// The users that Nix builds as when it allocates them itself.
    pub build_uids: Range<u32>,
    /// Further users whose builds feed Nix's builds: uids or names.
    pub trusted_users: Vec<String>,
    /// Derivation names, with `*` for anything, whose builds may only read.
    pub readonly_names: Vec<String>,
    /// Derivation names, with `*` for anything, whose builds get nothing and put nothing.
    pub off_names: Vec<String>,
    /// One registered build in so many is an audit; none if it is 0.
    pub audit_one_in: u64,
    /// Nobody gets a link to a file of the store: all get copies.
    pub no_shared_inodes: bool,
}

impl Default for Options {
    fn default() -> Self {
        // The defaults of nix.conf(5): build-users-group on NixOS and of the installers, start-id and id-count.
        Self {
            build_users_group: "nixbld".into(),
            build_uids: 872_415_232..872_415_232 + 8_388_608,
            trusted_users: Vec::new(),
            readonly_names: Vec::new(),
            off_names: Vec::new(),
            audit_one_in: 0,
            no_shared_inodes: false,
        }
    }
}

/// Who may do what.
#[derive(Debug)]
pub struct Policy {
    options: Options,
    /// The daemon's own user.
    own: u32,
    secret: Secret,
    builders: Mutex<Builders>,
    /// How many builds the hook has registered.
    registered: AtomicU64,
}

#[derive(Debug, Default)]
struct Builders {
    users: HashSet<u32>,
    trusted: HashSet<u32>,
    /// Users that other users may become; `None` when the file that says so cannot be read.
    subordinate: Option<Vec<Subordinate>>,
    read: Option<Instant>,
}

/// Users that another one may become in a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subordinate {
    users: Range<u32>,
    /// Who may; `None` for one whom only a name service knows.
    owner: Option<u32>,
}

impl Subordinate {
    /// The user whom limits count all of these as.
    fn account(&self) -> u32 {
        self.owner.unwrap_or(self.users.start)
    }
}

impl Policy {
    /// What follows from these options.
    pub fn new(options: Options, secret: Secret) -> Self {
        let policy = Self {
            secret,
            options,
            own: sys::effective_uid(),
            builders: Mutex::default(),
            registered: AtomicU64::new(0),
        };
        policy.read_again();
        policy
    }

    /// Whether a user is one that Nix builds as.
    pub fn is_builder(&self, user: u32) -> bool {
        self.is_allocated(user) || self.is_in(|builders| &builders.users, user)
    }

    /// Whether Nix allocates this user to a build, and nobody else could have become it. Nobody is, as long as that is not known.
    fn is_allocated(&self, user: u32) -> bool {
        if !self.options.build_uids.contains(&user) {
            return false;
        }
        self.refresh();
        let builders = lock(&self.builders);
        let subordinate = builders.subordinate.as_deref();
        subordinate.is_some_and(|all| all.iter().all(|one| !one.users.contains(&user)))
    }

    /// The user whom limits count this one as: whoever may become it in a user namespace, for tens of thousands of users would
    /// have limits of their own otherwise.
    pub fn account(&self, user: u32) -> u32 {
        let builders = lock(&self.builders);
        let mut subordinate = builders.subordinate.iter().flatten();
        subordinate
            .find(|one| one.users.contains(&user))
            .map_or(user, Subordinate::account)
    }

    /// Whether builds of this user that registered themselves feed Nix's builds.
    pub fn is_trusted(&self, user: u32) -> bool {
        user == 0
            || user == self.own
            || self.is_builder(user)
            || self.is_in(|builders| &builders.trusted, user)
    }

    /// The tier of a build of this user.
    pub fn tier(&self, user: u32, is_hooked: bool) -> Tier {
        if is_hooked || self.is_trusted(user) {
            Tier::Shared
        } else {
            Tier::Own(user, self.secret)
        }
    }

    /// Whether this user gets copies, because it could change the store's own files, or because nobody gets links.
    pub fn gets_copies(&self, user: u32) -> bool {
        user == 0 || user == self.own || self.options.no_shared_inodes
    }

    /// Whether builds get links to the store's own files at all.
    pub fn links(&self) -> bool {
        !self.options.no_shared_inodes
    }

    /// The mode of a build of this name that says so of itself.
    pub fn mode(&self, name: &str, said: Mode) -> Mode {
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        let decided = if matches(&self.options.off_names) {
            Mode::Off
        } else if matches(&self.options.readonly_names) {
            Mode::Readonly
        } else {
            Mode::On
        };
        decided.max(said)
    }

    /// The mode of a build that the hook registers.
    pub fn hooked_mode(&self, name: &str, said: Mode) -> Mode {
        let mode = self.mode(name, said);
        let nth = self.registered.fetch_add(1, Ordering::Relaxed) + 1;
        let every = self.options.audit_one_in;
        let is_audited = every > 0 && nth.is_multiple_of(every);
        mode.max(if is_audited { Mode::Audit } else { Mode::On })
    }

    fn is_in(&self, which: fn(&Builders) -> &HashSet<u32>, user: u32) -> bool {
        let is_listed = || which(&lock(&self.builders)).contains(&user);
        is_listed() || {
            self.refresh();
            is_listed()
        }
    }

    /// Reads who the users are again, if that was some time ago.
    fn refresh(&self) {
        let read = lock(&self.builders).read;
        if read.is_none_or(|read| read.elapsed() >= READ_AGAIN_AFTER) {
            self.read_again();
        }
    }

    /// Reads who the users are: from the files that every host has, and not by way of a name service, which may not answer.
    fn read_again(&self) {
        let read = |path: &str| text(fs::read(Path::new(path)));
        let group = read("/etc/group").unwrap_or_default();
        let passwd = read("/etc/passwd").unwrap_or_default();
        let members = members(&group, &passwd, &self.options.build_users_group);
        let trusted = self.options.trusted_users.iter();
        let trusted = trusted.filter_map(|user| user.parse().ok().or_else(|| uid(&passwd, user)));
        let subuid = read("/etc/nsswitch.conf").and_then(|switch| match says_subuid(&switch) {
            true => read("/etc/subuid"),
            false => Err(Error::input(
                "/etc/nsswitch.conf has another source of subordinate users than /etc/subuid",
            )),
        });
        let mut builders = lock(&self.builders);
        if let Err(e) = &subuid
            && (builders.subordinate.is_some() || builders.read.is_none())
        {
            log::warn(format!(
                "not trusting the users that Nix allocates to builds, since somebody else may be able to become them: {}",
                e.chain()
            ));
        }
        *builders = Builders {
            users: members.unwrap_or_default(),
            trusted: trusted.collect(),
            subordinate: subuid.ok().map(|subuid| subordinate(&subuid, &passwd)),
            read: Some(Instant::now()),
        };
    }
}

/// Whether /etc/subuid says all, as nsswitch.conf(5) has it.
fn says_subuid(nsswitch: &str) -> bool {
    let mut lines = nsswitch
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let sources = lines.find_map(|line| line.trim().strip_prefix("subid:"));
    sources.is_none_or(|sources| sources.split_whitespace().eq(["files"]))
}

/// What a file says, whatever is in its comments; nothing when it is not there.
fn text(read: Result<Vec<u8>>) -> Result<String> {
    match read {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == Some(ErrorKind::NotFound) => Ok(String::new()),
        Err(e) => Err(e),
    }
}

/// The members of a group, as group(5) and passwd(5) have them; `None` when there is no such group.
fn members(group: &str, passwd: &str, name: &str) -> Option<HashSet<u32>> {
    let line = group.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
    })?;
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?;
    let listed = fields.next().unwrap_or_default().split(',');
    let listed = listed.filter_map(|user| uid(passwd, user));
    let primary = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?;
        (fields.next()? == gid).then(|| uid.parse().ok())?
    });
    Some(listed.chain(primary).collect())
}

fn uid(passwd: &str, user: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The users that others may become, as subuid(5) has them: name or uid, first uid, count. What is root's is nobody
/// else's: the Nix of a container may build as such users.
fn subordinate(subuid: &str, passwd: &str) -> Vec<Subordinate> {
    let range = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let owner = uid(passwd, owner).or_else(|| owner.parse().ok());
        let mut number = || strtoul(fields.next()?);
        let (first, count) = (number()?, number()?);
        let user = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
        (owner != Some(0)).then_some(Subordinate {
            users: user(first)..user(first.saturating_add(count)),
            owner,
        })
    };
    subuid.lines().filter_map(range).collect()
}

/// A number as newuidmap(1) reads it, with strtoul(3): also hexadecimal and octal ones, and with blanks before them.
fn strtoul(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix('0').unwrap_or_default() {
        "" => (text, 10),
        rest => match rest.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None => (rest, 8),
        },
    };
    // What is too large for it is the largest.
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    is_number.then(|| u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}

/// Whether a name matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(first) else {
        return false;
    };
    // Each part that is followed by another star is found as early as it can be, which leaves most to the others.
    let mut name = name;
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        let Some(at) = name.find(part) else {
            return false;
        };
        name = &name[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "root:x:0:\nnixbld:x:30000:nixbld1,nixbld2,gone\nnixbldother:x:5:alice\n";
    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nnixbld1:x:30001:30000::/:/bin/false\nnixbld2:x:30002:9::/:\n\
                          nixbld3:x:30003:30000::/:\nalice:x:1000:100::/home/alice:/bin/sh\n";

    #[test]
    fn build_users_are_the_members_of_their_group_by_either_file() {
        let members = |name| members(GROUP, PASSWD, name);
        assert_eq!(members("nixbld"), Some([30001, 30002, 30003].into()));
        assert_eq!(members("nixbldother"), Some([1000].into()));
        assert_eq!(members("nix"), None);
        assert_eq!(uid(PASSWD, "alice"), Some(1000));
        assert_eq!(uid(PASSWD, "bob"), None);
    }

    #[test]
    fn users_that_a_user_may_become_are_that_users() {
        let text = "alice:100000:65536\n1001:200000:10\nroot:872415232:100\nnonsense\nbob:1:2\n\n1002:4294967290:100\n";
        let of = |users, owner| Subordinate { users, owner };
        assert_eq!(
            subordinate(text, PASSWD),
            [
                of(100_000..165_536, Some(1000)),
                of(200_000..200_010, Some(1001)),
                of(1..3, None),
                of(4_294_967_290..u32::MAX, Some(1002))
            ]
        );
        let policy = Policy::new(Options::default(), Secret::default());
        let first = Options::default().build_uids.start;
        let known = |all| {
            let mut builders = lock(&policy.builders);
            builders.subordinate = all;
            builders.read = Some(Instant::now());
        };
        known(Some(vec![
            of(first..first + 10, Some(1000)),
            of(first + 20..first + 30, None),
        ]));
        assert_eq!(policy.account(first + 9), 1000);
        assert_eq!(policy.account(first + 29), first + 20);
        assert_eq!(policy.account(first + 10), first + 10);
        assert!(policy.is_builder(first + 10));
        // Whoever may become one of them is none of Nix's, also the first of those whose owner nobody knows.
        for user in [first, first + 9, first + 20, first + 29] {
            assert!(
                !policy.is_builder(user) && !policy.is_trusted(user),
                "{user}"
            );
        }
        known(None);
        assert!(
            !policy.is_builder(first + 10),
            "nobody knows who may become it"
        );
    }

    #[test]
    fn ranges_are_read_as_newuidmap_reads_them() {
        for (text, number) in [
            ("100000", Some(100_000)),
            (" 100000 ", Some(100_000)),
            ("+5", Some(5)),
            ("0x34000000", Some(872_415_232)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("", None),
            ("0x", None),
            ("-1", None),
            ("1a", None),
        ] {
            assert_eq!(strtoul(text), number, "{text:?}");
        }
        let found = subordinate("alice:0x34000000:5000000000\n", PASSWD);
        assert_eq!(found[0].users, 872_415_232..u32::MAX);
        for (text, does) in [
            ("", true),
            ("passwd: files sss\nsubid: files # no others\n", true),
            ("subid: sss\n", false),
            (" subid:\tfiles sss\n", false),
        ] {
            assert_eq!(says_subuid(text), does, "{text}");
        }
    }

    #[test]
    fn a_file_says_what_it_says_unless_it_cannot_be_read() {
        let failed = |errno| {
            Error::io(
                "read",
                "/etc/subuid",
                std::io::Error::from_raw_os_error(errno),
            )
        };
        assert_eq!(
            text(Ok(b"# \xff\nalice:1:2".to_vec()))
                .unwrap()
                .lines()
                .count(),
            2
        );
        assert_eq!(text(Err(failed(libc::ENOENT))).unwrap(), "");
        assert!(text(Err(failed(libc::EACCES))).is_err());
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, name, does) in [
            ("hello", "hello", true),
            ("hello", "hello-2", false),
            ("hello-*", "hello-2.0", true),
            ("hello-*", "othello-2.0", false),
            ("*-release", "x-release", true),
            ("*-release", "x-release-1", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "abc", true),
            ("a*bc", "abcbc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), does, "{pattern} {name}");
        }
    }

    #[test]
    fn the_strictest_that_is_said_of_a_build_counts() {
        let policy = Policy::new(
            Options {
                readonly_names: vec!["release-*".into()],
                off_names: vec!["*-secret".into()],
                audit_one_in: 3,
                ..Options::default()
            },
            Secret::default(),
        );
        assert_eq!(policy.mode("x", Mode::On), Mode::On);
        assert_eq!(policy.mode("release-1", Mode::On), Mode::Readonly);
        assert_eq!(policy.mode("release-1", Mode::Audit), Mode::Readonly);
        assert_eq!(policy.mode("release-1", Mode::Off), Mode::Off);
        assert_eq!(policy.mode("release-secret", Mode::On), Mode::Off);
        let modes: Vec<_> = (0..6).map(|_| policy.hooked_mode("x", Mode::On)).collect();
        let (on, audit) = (Mode::On, Mode::Audit);
        assert_eq!(modes, [on, on, audit, on, on, audit]);
    }

    #[test]
    fn everybody_but_builds_of_nix_and_who_is_trusted_has_a_tier_of_their_own() {
        let policy = Policy::new(
            Options {
                build_uids: 500_000..500_010,
                trusted_users: vec!["400000".into()],
                ..Options::default()
            },
            Secret::default(),
        );
        for user in [0, sys::effective_uid(), 500_000, 500_009, 400_000] {
            assert_eq!(policy.tier(user, false), Tier::Shared, "{user}");
        }
        for user in [499_999, 500_010, 400_001] {
            assert_eq!(policy.tier(user, false), Tier::Own(user, Secret::default()));
            assert_eq!(policy.tier(user, true), Tier::Shared);
            assert!(!policy.gets_copies(user));
        }
        assert!(policy.gets_copies(0) && policy.gets_copies(sys::effective_uid()));
    }
}
