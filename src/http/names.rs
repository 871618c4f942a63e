//! Host names, looked up once for many requests.
//!
//! ureq asks for the address before each request, even for one that goes over a connection that
//! is open already. A lookup is a thread and two packets, and one lost packet is five seconds
//! (resolv.conf(5), `timeout`); a program has hundreds of modules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// For so long an address is used: hosts are moved within minutes, not seconds.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The addresses of hosts; a copy of it shares them.
#[derive(Debug, Default)]
pub struct Names<R = DefaultResolver>(Arc<Lookup<R>>);

#[derive(Debug, Default)]
struct Lookup<R> {
    resolver: R,
    known: Mutex<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl<R> Names<R> {
    /// Looks all of them up again, for some may have moved.
    pub fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, ResolvedSocketAddrs)>> {
        let known = self.0.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Clone for Names<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Resolver> Resolver for Names<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // The port is a part of what is found, and the scheme decides on it.
        let key = format!("{:?} {:?}", uri.scheme(), uri.authority());
        if let Some((since, found)) = self.known().get(&key)
            && since.elapsed() < KEPT_FOR
        {
            return Ok(found.clone());
        }
        let found = self.0.resolver.resolve(uri, config, timeout)?;
        self.known().insert(key, (Instant::now(), found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// Gives another address each time.
    #[derive(Debug, Default)]
    struct Counting(AtomicU16);

    impl Resolver for Counting {
        fn resolve(
            &self,
            uri: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            if uri.host() == Some("nowhere.test") {
                return Err(ureq::Error::HostNotFound);
            }
            let mut found = self.empty();
            found.push(([127, 0, 0, 1], n).into());
            Ok(found)
        }
    }

    #[test]
    fn a_host_is_looked_up_once_until_it_may_have_moved() {
        let names = Names::<Counting>::default();
        let port = |url: &str| {
            let found = names.resolve(
                &url.parse().unwrap(),
                &Config::default(),
                NextTimeout::default(),
            );
            found.map(|found| found[0].port()).ok()
        };
        assert_eq!(port("https://a.test/x"), Some(0));
        assert_eq!(port("https://a.test/y"), Some(0));
        assert_eq!(port("http://a.test/x"), Some(1));
        assert_eq!(port("https://a.test:8443/x"), Some(2));
        names.forget();
        assert_eq!(port("https://a.test/x"), Some(3));
        assert_eq!(port("https://nowhere.test/"), None);
        assert_eq!(port("https://nowhere.test/"), None, "a failure is not kept");
        assert_eq!(names.0.resolver.0.load(Ordering::Relaxed), 6);
    }
}
