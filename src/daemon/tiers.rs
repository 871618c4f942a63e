//! Tiers: whose puts a session may get.
//!
//! Nix's builds share one tier. Everybody else has a tier by uid: gets look there and then in the shared tier, puts stay
//! there, and nothing of it reaches the usage history or the remote. So no local process decides what a build of Nix
//! contains. The kernel says who a peer is (`SO_PEERCRED`); nothing that a peer says about itself counts.
//!
//! Content is stored once, whatever the tier: an action of a user's tier has another key, and its output is the same file.

use crate::id::ActionId;
use crate::log;
use crate::sync::lock;
use crate::sys;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Keeps this use of the hash from others.
const LABEL: &[u8] = b"nix-gocacheprog: an action of a user's tier\0";

/// The uids that Nix hands out with `auto-allocate-uids`: `start-id` and `id-count` have these defaults on Linux
/// (src/libstore/globals.hh).
const AUTO_ALLOCATED: std::ops::Range<u32> = 872_415_232..872_415_232 + 8_388_608;

/// The user database is read again for an unknown user, but not more often than this.
const READ_EVERY: Duration = Duration::from_secs(10);

/// Whose puts a session may get, and who gets its puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// That of Nix's builds.
    Shared,
    /// That of one user.
    User(u32),
}

/// Who feeds the shared tier, besides root and the daemon's own user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The group of Nix's build users, as `build-users-group` in nix.conf.
    pub build_users_group: String,
    /// Further users, by name or uid.
    pub users: Vec<String>,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            build_users_group: "nixbld".into(),
            users: Vec::new(),
        }
    }
}

/// Tells who is in which tier.
#[derive(Debug)]
pub struct Tiers {
    trust: Trust,
    /// Where the user database is.
    etc: PathBuf,
    own: u32,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    uids: BTreeSet<u32>,
    read: Option<Instant>,
}

impl Tiers {
    /// Tiers by this machine's user database.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            etc: "/etc".into(),
            own: sys::effective_uid(),
            known: Mutex::default(),
        }
    }

    /// The tier of a peer.
    pub fn of(&self, uid: u32) -> Tier {
        if uid == 0 || uid == self.own || AUTO_ALLOCATED.contains(&uid) || self.is_known(uid) {
            Tier::Shared
        } else {
            Tier::User(uid)
        }
    }

    fn is_known(&self, uid: u32) -> bool {
        let mut known = lock(&self.known);
        if known.uids.contains(&uid) {
            return true;
        }
        if known.read.is_none_or(|read| read.elapsed() >= READ_EVERY) {
            *known = Known {
                uids: self.read(),
                read: Some(Instant::now()),
            };
        }
        known.uids.contains(&uid)
    }

    /// The build users and the trusted ones, as passwd(5) and group(5) have them.
    fn read(&self) -> BTreeSet<u32> {
        let table = |name: &str| {
            let path = self.etc.join(name);
            let text = std::fs::read(&path).unwrap_or_else(|e| {
                log::debug(|| format!("cannot read {}: {e}", path.display()));
                Vec::new()
            });
            String::from_utf8_lossy(&text).into_owned()
        };
        let (passwd, group) = (table("passwd"), table("group"));
        let group = group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&self.trust.build_users_group.as_str()));
        let gid = group
            .as_ref()
            .and_then(|fields| fields.get(2)?.parse::<u32>().ok());
        let members: BTreeSet<&str> = group
            .as_ref()
            .and_then(|fields| fields.get(3))
            .map(|members| members.split(',').collect())
            .unwrap_or_default();
        let mut uids: BTreeSet<u32> = self
            .trust
            .users
            .iter()
            .filter_map(|user| user.parse().ok())
            .collect();
        for line in passwd.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, primary, ..] = fields[..] else {
                continue;
            };
            let (Ok(uid), primary) = (uid.parse(), primary.parse::<u32>().ok()) else {
                continue;
            };
            let is_build_user = members.contains(name) || (gid.is_some() && primary == gid);
            if is_build_user || self.trust.users.iter().any(|user| user == name) {
                uids.insert(uid);
            }
        }
        uids
    }
}

impl Tier {
    /// The key under which an action is put.
    pub fn key(self, action: &ActionId) -> ActionId {
        match self {
            Self::Shared => *action,
            Self::User(uid) => {
                let hash = Sha256::new().chain_update(LABEL);
                let hash = hash.chain_update(uid.to_le_bytes()).chain_update(action.0);
                ActionId(hash.finalize().into())
            }
        }
    }

    /// The keys under which an action that a client asks for is looked up, in this order.
    pub fn look_up(self, actions: Vec<ActionId>) -> Vec<ActionId> {
        match self {
            Self::Shared => actions,
            Self::User(_) => actions
                .iter()
                .flat_map(|action| [self.key(action), *action])
                .collect(),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("shared"),
            Self::User(uid) => write!(f, "user {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn tiers(dir: &TestDir, users: &[&str]) -> Tiers {
        std::fs::write(
            dir.path().join("passwd"),
            "root:x:0:0::/root:/bin/sh\nnixbld1:x:30001:30000::/var/empty:/bin/false\n\
             primary:x:30002:30000::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\nbroken\n\
             ci:x:1001:1001::/home/ci:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("group"),
            "wheel:x:10:alice\nnixbld:x:30000:nixbld1\nalice:x:1000:\n",
        )
        .unwrap();
        Tiers {
            etc: dir.path().into(),
            own: 500,
            ..Tiers::new(Trust {
                users: users.iter().map(|user| user.to_string()).collect(),
                ..Trust::default()
            })
        }
    }

    #[test]
    fn only_root_the_daemon_and_builds_of_nix_share() {
        let dir = TestDir::new();
        let tiers = tiers(&dir, &[]);
        for uid in [0, 500, 30_001, 30_002, 872_415_232, 880_803_839] {
            assert_eq!(tiers.of(uid), Tier::Shared, "{uid}");
        }
        for uid in [1000, 1001, 30_003, 65_534, 872_415_231, 880_803_840] {
            assert_eq!(tiers.of(uid), Tier::User(uid), "{uid}");
        }
    }

    #[test]
    fn a_trusted_user_is_known_by_name_or_number() {
        let dir = TestDir::new();
        let tiers = tiers(&dir, &["ci", "1000"]);
        assert_eq!(tiers.of(1001), Tier::Shared);
        assert_eq!(tiers.of(1000), Tier::Shared);
        assert_eq!(tiers.of(65_534), Tier::User(65_534));
    }

    #[test]
    fn a_user_puts_under_keys_of_their_own_and_reads_the_shared_ones_second() {
        let action = ActionId([7; 32]);
        let (alice, bob) = (Tier::User(1000), Tier::User(1001));
        assert_eq!(Tier::Shared.key(&action), action);
        assert_ne!(alice.key(&action), action);
        assert_ne!(alice.key(&action), bob.key(&action));
        assert_eq!(alice.look_up(vec![action]), [alice.key(&action), action]);
        assert_eq!(Tier::Shared.look_up(vec![action]), [action]);
    }
}
