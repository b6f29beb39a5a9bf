//! From a listed name to the addresses that may be connected to.
//!
//! The connection is made to what is given back here and to nothing else, so that there is no moment
//! between the check of an address and its use.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::decide::outbound::AllowList;

/// Looks names up for connections to one port.
pub(in crate::plugin) struct Resolver {
    allowed: Arc<AllowList>,
    port: u16,
    lookups: Arc<Semaphore>,
}

/// A name leads to no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct NotPublic {
    pub(super) name: String,
    /// With the address, and the line that would grant it.
    pub(super) why: String,
}

impl Resolver {
    pub(super) fn new(allowed: &Arc<AllowList>, port: u16, lookups: Arc<Semaphore>) -> Self {
        Self {
            allowed: Arc::clone(allowed),
            port,
            lookups,
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let (allowed, lookups) = (Arc::clone(&self.allowed), Arc::clone(&self.lookups));
        let port = self.port;
        Box::pin(async move {
            let turn = lookups.acquire_owned().await?;
            let asked = name.clone();
            let found = tokio::task::spawn_blocking(move || {
                // Held until the look-up ends, even where nobody waits for it any more.
                let _turn = turn;
                (asked.as_str(), port)
                    .to_socket_addrs()
                    .map(Iterator::collect::<Vec<_>>)
            });
            let (kept, refused) = permitted(&allowed, &name, found.await??);
            if let (true, Some(why)) = (kept.is_empty(), refused) {
                return Err(NotPublic { name, why }.into());
            }
            let addresses: Addrs = Box::new(kept.into_iter());
            Ok(addresses)
        })
    }
}

/// The addresses that may be connected to, and why one of the others may not.
fn permitted(
    allowed: &AllowList,
    name: &str,
    found: Vec<SocketAddr>,
) -> (Vec<SocketAddr>, Option<String>) {
    let mut refused = None;
    let mut kept = Vec::with_capacity(found.len());
    for address in found {
        match allowed.may_connect(name, address) {
            Ok(()) => kept.push(address),
            Err(why) => refused = Some(why),
        }
    }
    (kept, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Capabilities, Destination};

    /// A name may have public addresses and private ones, by mistake or by malice.
    #[test]
    fn only_what_is_public_is_kept() {
        let allowed = AllowList::new(Capabilities {
            http: vec![Destination::parse("a.test").unwrap()],
            ..Capabilities::default()
        });
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (public, private) = (address("93.184.216.34:443"), address("10.0.0.1:443"));
        let (kept, refused) = permitted(&allowed, "a.test", vec![private, public]);
        assert_eq!(kept, [public]);
        assert!(refused.unwrap().contains("10.0.0.1"));
        assert_eq!(permitted(&allowed, "a.test", vec![]), (vec![], None));
    }
}
