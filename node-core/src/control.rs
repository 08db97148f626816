//! What the control plane tells the node, and what its gate goes by, as data (ADR 43).
//!
//! The gate keeps the one book of revocations and root documents, because an admission may teach it. Newer ones are
//! inputs of their own, which come before an event that may depend on them.

use std::fmt;
use std::net::SocketAddr;

use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Membership, Revocations, RootStore, bootstrap_peer};

use crate::shown::{NoChain, bootstraps_to_dial, own_chain};

/// Where a bootstrap is dialled, as an invite or the control plane writes it: a place, and usually the name of who is
/// there, `/ip4/192.0.2.1/tcp/22611/p2p/PEER`. Whether the place can be dialled is not known here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootstrapAddr {
    text: String,
    peer: Option<PeerId>,
}

impl BootstrapAddr {
    /// The address that `text` is.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            peer: bootstrap_peer(text),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who is there; `None` if the address does not end with the name of one node.
    #[must_use]
    pub const fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// The address without the name at its end.
    #[must_use]
    pub fn place(&self) -> &str {
        let split = self.text.split_once("/p2p/");
        split.map_or(&*self.text, |(place, _)| place)
    }
}

impl fmt::Display for BootstrapAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Something happened on the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// A bootstrap is connected and has proved its role.
    InfraUp {
        /// The bootstrap.
        peer: PeerId,
        /// Where the control connection goes.
        remote: SocketAddr,
        /// Its reflector and relay addresses (UDP), as usable from here; a few.
        data_addrs: Vec<SocketAddr>,
        /// The own certificate as the gate shows it, encoded: with the receipt that this bootstrap may have given.
        chain: Vec<u8>,
    },
    /// The last connection to a bootstrap is gone; it is dialled again.
    InfraDown {
        /// The bootstrap.
        peer: PeerId,
    },
    /// An envelope arrived.
    Signal {
        /// Who sent it, according to the one who carried it; only the seal inside proves it.
        from: PeerId,
        /// At most 8 KiB.
        envelope: Vec<u8>,
    },
    /// A dialled bootstrap did not admit us, or we did not admit it.
    Refused {
        /// What was dialled.
        addr: BootstrapAddr,
        /// One line for people.
        reason: String,
    },
    /// A dialled bootstrap cannot be reached; it is dialled again.
    Unreachable {
        /// What was dialled.
        addr: BootstrapAddr,
        /// One line for people.
        reason: String,
    },
    /// Another machine has our identity.
    Twins {
        /// Where this one is connected from, and the other one.
        addrs: [SocketAddr; 2],
    },
}

/// What the gate is to go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateState {
    /// The root documents; newer ones that the gate has learnt meanwhile stay.
    pub roots: RootStore,
    /// The own certificate, encoded.
    pub chain: Vec<u8>,
    /// The bootstraps that are let in: those that are dialled.
    pub bootstraps: Vec<PeerId>,
}

impl GateState {
    /// What it is with `membership` and `revocations`, at the node `me`.
    ///
    /// # Errors
    /// [`NoChain`].
    pub fn of(
        membership: &Membership,
        revocations: &Revocations,
        me: PeerId,
    ) -> Result<Self, NoChain> {
        let bootstraps = bootstraps_to_dial(membership, revocations, me);
        Ok(Self {
            roots: membership.roots().clone(),
            chain: own_chain(membership, revocations, me)?.encode(),
            bootstraps: bootstraps.iter().filter_map(BootstrapAddr::peer).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_place_and_who_is_there() {
        let peer = PeerId([7; 32]);
        for place in ["/ip4/192.0.2.1/tcp/22611", "/ip6/2001:db8::1/udp/1/quic-v1"] {
            let text = format!("{place}/p2p/{peer}");
            let addr = BootstrapAddr::new(&text);
            assert_eq!((addr.place(), addr.peer()), (place, Some(peer)));
            assert_eq!((addr.text(), addr.to_string()), (&*text, text.clone()));
        }
    }

    #[test]
    fn an_address_that_names_nobody_has_no_peer() {
        let peer = PeerId([7; 32]);
        let place = "/ip4/192.0.2.1/tcp/22611";
        for text in [
            String::new(),
            place.to_owned(),
            format!("{place}/p2p/"),
            format!("{place}/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"),
            format!("{place}/p2p/{peer}/tcp/1"),
            format!("{place}/p2p/{peer}/p2p-circuit/p2p/{peer}"),
            format!("{place}/p2p/{peer} "),
            format!("p2p/{peer}"),
        ] {
            let addr = BootstrapAddr::new(&text);
            assert_eq!((addr.peer(), addr.text()), (None, &*text));
        }
        assert_eq!(BootstrapAddr::new(place).place(), place);
    }
}
