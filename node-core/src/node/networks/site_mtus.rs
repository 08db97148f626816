//! How large the guests' packets may be at each site.
//!
//! A network has no router that would tell a guest "too big": what is larger than a site's tap or bridge
//! carries is lost there, without a word. So members tell each other the MTU of their tap, when a
//! session begins to share a network and when it changes, and a warning names the smallest.

use std::collections::BTreeMap;

use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use super::Networks;
use super::network::Network;

/// The MTUs as far as they are known.
#[derive(Debug, Default)]
pub struct SiteMtus {
    /// Of our own taps. Bound: the attachments.
    own: BTreeMap<NetworkId, u32>,
    /// What members said. Bound: the peers of each network; removed with the peer.
    theirs: BTreeMap<(NetworkId, PeerId), u32>,
}

/// The MTU at one member's host.
#[derive(Debug, Clone, Copy)]
struct Site<'a> {
    /// Its name; `None` is this host.
    host: Option<&'a str>,
    mtu: u32,
}

/// What to warn of where sites differ.
fn differ(network: &NetworkName, sites: &[Site<'_>]) -> Option<String> {
    let least = sites.iter().min_by_key(|site| site.mtu)?;
    // Of equals the first: this host, which the reader knows.
    let most = sites.iter().rev().max_by_key(|site| site.mtu)?;
    if least.mtu == most.mtu {
        return None;
    }
    let name = |site: &Site<'_>| {
        site.host
            .map_or("this host".to_owned(), |host| format!("host {host}"))
    };
    Some(format!(
        "network {network} has an MTU of {} at {}, of {} at {}: larger packets than {} are lost on the way \
         to the smallest; give the bridges of all sites one MTU",
        least.mtu,
        name(least),
        most.mtu,
        name(most),
        least.mtu
    ))
}

impl SiteMtus {
    /// Our own taps have these now. The networks in which that has changed.
    fn set_own(
        &mut self,
        now: BTreeMap<NetworkId, u32>,
        all: impl Iterator<Item = NetworkId>,
    ) -> Vec<NetworkId> {
        let before = std::mem::replace(&mut self.own, now);
        all.filter(|id| before.get(id) != self.own.get(id))
            .collect()
    }

    /// What the members of `network` are told of this site.
    pub(crate) fn message(&self, network: &NetworkId) -> PeerMessage<'static> {
        PeerMessage::GuestMtu {
            network: NetworkTag::from(network),
            // 0: nothing is attached here.
            mtu: self.own.get(network).copied().unwrap_or(0),
        }
    }

    /// `peer` says how large the packets of its guests in `network` may be. `true`: it said another number before.
    pub(crate) fn take(&mut self, peer: PeerId, network: NetworkId, mtu: u32) -> bool {
        let key = (network, peer);
        let before = if mtu == 0 {
            self.theirs.remove(&key)
        } else {
            self.theirs.insert(key, mtu)
        };
        before.unwrap_or(0) != mtu
    }

    /// Forgets what peers said that are not known any more.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&PeerId) -> bool) {
        self.theirs.retain(|(_, peer), _| is_known(peer));
    }
}

impl Networks {
    /// Our taps have these MTUs now. The networks whose members are to be told.
    pub(crate) fn set_own_mtus(&mut self, mtus: &[(NetworkName, u32)]) -> Vec<NetworkId> {
        let mut now = BTreeMap::new();
        for network in &self.all {
            let own = mtus.iter().find(|(name, _)| *name == network.secret.name);
            now.extend(own.map(|(_, mtu)| (network.secret.id, *mtu)));
        }
        let ids = self.all.iter().map(|network| network.secret.id);
        self.site_mtus.set_own(now, ids)
    }

    /// Each network, and what to warn of if its sites differ. `called`: the name of a member's host.
    pub(crate) fn find_odd_mtus(
        &self,
        called: impl Fn(PeerId) -> String,
    ) -> Vec<(String, Option<String>)> {
        let found = self.all.iter().map(|network| {
            let text = self.find_odd_mtu(network, &called);
            (network.secret.name.to_string(), text)
        });
        found.collect()
    }

    fn find_odd_mtu(
        &self,
        network: &Network,
        called: &impl Fn(PeerId) -> String,
    ) -> Option<String> {
        let id = network.secret.id;
        let own = *self.site_mtus.own.get(&id)?;
        let theirs = self.site_mtus.theirs.iter();
        let theirs: Vec<(PeerId, u32)> = theirs
            .filter(|((of, peer), _)| *of == id && network.directory.member(peer).is_some())
            .map(|((_, peer), mtu)| (*peer, *mtu))
            .collect();
        // Mostly all are the same: nobody has to be called by name then.
        if theirs.iter().all(|(_, mtu)| *mtu == own) {
            return None;
        }
        let theirs = theirs.into_iter().map(|(peer, mtu)| (called(peer), mtu));
        let theirs: Vec<(String, u32)> = theirs.collect();
        let mut sites = vec![Site {
            host: None,
            mtu: own,
        }];
        sites.extend(theirs.iter().map(|(host, mtu)| Site {
            host: Some(host),
            mtu: *mtu,
        }));
        differ(&network.secret.name, &sites)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_named_with_its_host() {
        let lab: NetworkName = "lab".parse().unwrap();
        let site = |host, mtu| Site { host, mtu };
        let here = site(None, 9000);
        assert_eq!(differ(&lab, &[]), None);
        assert_eq!(differ(&lab, &[here]), None);
        assert_eq!(differ(&lab, &[here, site(Some("oak"), 9000)]), None);
        let text = differ(
            &lab,
            &[here, site(Some("oak"), 9000), site(Some("elm"), 1500)],
        )
        .unwrap();
        assert!(
            text.contains("1500 at host elm, of 9000 at this host"),
            "{text}"
        );
        let text = differ(&lab, &[site(None, 1400), site(Some("oak"), 1500)]).unwrap();
        assert!(
            text.contains("1400 at this host, of 1500 at host oak"),
            "{text}"
        );
    }

    #[test]
    fn members_are_told_what_has_changed_and_what_they_say_counts_once() {
        let (lab, home) = (NetworkId([1; 32]), NetworkId([2; 32]));
        let mut mtus = SiteMtus::default();
        let mut set = |now: &[(NetworkId, u32)]| {
            let now = now.iter().copied().collect();
            mtus.set_own(now, [lab, home].into_iter())
        };
        assert_eq!(set(&[(lab, 1500)]), [lab]);
        assert!(set(&[(lab, 1500)]).is_empty());
        // Detached there, attached here.
        assert_eq!(set(&[(home, 9000)]), [lab, home]);
        let said = |mtus: &SiteMtus, id| match mtus.message(&id) {
            PeerMessage::GuestMtu { mtu, .. } => mtu,
            _ => unreachable!(),
        };
        assert_eq!((said(&mtus, lab), said(&mtus, home)), (0, 9000));
        let peer = PeerId([7; 32]);
        assert!(!mtus.take(peer, lab, 0), "never heard of, as before");
        assert!(mtus.take(peer, lab, 1400) && !mtus.take(peer, lab, 1400));
        assert!(mtus.take(peer, lab, 0));
        assert!(mtus.take(peer, lab, 1400));
        mtus.retain(|id| *id != peer);
        assert!(mtus.theirs.is_empty());
    }
}
