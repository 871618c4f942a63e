//! Tiers: whose puts a build may get. Nix's builds share one tier. Every other user has one of their own, and reads the shared
//! one behind it.
//!
//! A lower tier costs the store nothing: its actions stand under other keys, and outputs are stored once for all.

use crate::error::Result;
use crate::fs;
use crate::id::ActionId;
use crate::sha256::Sha256;
use crate::sys;
use std::path::Path;

/// What a key of a lower tier is made from.
const KEY: &[u8] = b"nix-gocacheprog tier 1\0";

/// Whose puts a build may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// That of Nix's builds.
    #[default]
    Shared,
    /// This user's own.
    Own(u32, Secret),
}

/// What nobody but the daemon knows, so that nobody can name a key of another tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// That of a cache, made when there is none. Without the one before, what lower tiers have put is not found any more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(cache: &Path) -> Result<Self> {
        let path = cache.join("tiers");
        if let Ok(bytes) = fs::read(&path)
            && let Ok(secret) = bytes.try_into()
        {
            return Ok(Self(secret));
        }
        let mut secret = [0; 32];
        sys::random(&mut secret)?;
        fs::replace(&path, &secret, 0o600)?;
        Ok(Self(secret))
    }
}

impl Tier {
    /// The key under which an action of this tier is put.
    pub fn key(self, action: &ActionId) -> ActionId {
        match self {
            Self::Shared => *action,
            Self::Own(user, secret) => ActionId(
                Sha256::new()
                    .chain_update(KEY)
                    .chain_update(secret.0)
                    .chain_update(user.to_le_bytes())
                    .chain_update(action.0)
                    .finalize(),
            ),
        }
    }

    /// The keys under which an action is looked up, in this order.
    pub fn keys(self, action: &ActionId) -> impl Iterator<Item = ActionId> {
        let own = (self != Self::Shared).then(|| self.key(action));
        own.into_iter().chain([*action])
    }

    /// Its name, for a person.
    pub fn name(self) -> String {
        match self {
            Self::Shared => "shared".into(),
            Self::Own(user, _) => format!("user {user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn every_user_has_keys_of_their_own_and_the_shared_tier_those_of_go() {
        let action = ActionId([7; 32]);
        assert_eq!(Tier::Shared.key(&action), action);
        assert_eq!(Tier::Shared.keys(&action).collect::<Vec<_>>(), [action]);
        let dir = TestDir::new();
        let secret = Secret::open(dir.path()).unwrap();
        let key = |user, secret| Tier::Own(user, secret).key(&action);
        let [one, two] = [1000, 1001].map(|user| key(user, secret));
        assert!(one != two && one != action && two != action);
        let keys: Vec<_> = Tier::Own(1000, secret).keys(&action).collect();
        assert_eq!(keys, [one, action]);
        assert_ne!(key(1000, Secret::default()), one, "it cannot be computed");
        // A cache outlives its daemon.
        assert_eq!(key(1000, Secret::open(dir.path()).unwrap()), one);
        std::fs::write(dir.path().join("tiers"), "damaged").unwrap();
        assert_ne!(Secret::open(dir.path()).unwrap(), secret);
    }
}
