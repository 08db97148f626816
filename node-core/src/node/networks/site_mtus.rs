//! How large the guests' packets may be at each site.
//!
//! A network has no router that would tell a guest "too big": what is larger than a site's tap or bridge
//! carries is lost there, without a word. So members tell each other the MTU of their tap, when a
//! session begins to share a network and when it changes, and a warning names the smallest.

use std::collections::BTreeMap;

use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

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

impl Node {
    /// Our taps have these MTUs now; the members are told what has changed.
    pub(crate) fn note_own_mtus(&mut self, tick: Tick, mtus: &[(NetworkName, u32)]) {
        let mut now = BTreeMap::new();
        for network in &self.networks.all {
            let own = mtus.iter().find(|(name, _)| *name == network.secret.name);
            now.extend(own.map(|(_, mtu)| (network.secret.id, *mtu)));
        }
        let before = std::mem::replace(&mut self.networks.site_mtus.own, now);
        let ids = self.networks.all.iter().map(|network| network.secret.id);
        let now = &self.networks.site_mtus.own;
        let changed: Vec<NetworkId> = ids.filter(|id| before.get(id) != now.get(id)).collect();
        let peers: Vec<PeerId> = self.peers.known.keys().copied().collect();
        for peer in peers.into_iter().filter(|_| !changed.is_empty()) {
            let shared = self.peers.tunnels.current(peer).map(|session| {
                let shared = session.networks.iter().map(|shared| shared.network);
                shared.filter(|id| changed.contains(id)).collect::<Vec<_>>()
            });
            self.tell_mtus(tick, peer, &shared.unwrap_or_default());
        }
        let peers = &self.peers.known;
        self.networks
            .site_mtus
            .theirs
            .retain(|(_, peer), _| peers.contains_key(peer));
        self.warn_of_mtus(tick);
    }

    /// A session with `peer` shares `networks`: says how large the packets of guests here may be.
    pub(crate) fn tell_mtus(&mut self, tick: Tick, peer: PeerId, networks: &[NetworkId]) {
        for id in networks {
            let message = PeerMessage::GuestMtu {
                network: NetworkTag::from(id),
                // 0: nothing is attached here.
                mtu: self.networks.site_mtus.own.get(id).copied().unwrap_or(0),
            };
            self.send_message(tick, peer, &message);
        }
    }

    /// `peer` says how large the packets of its guests may be.
    pub(crate) fn handle_guest_mtu(&mut self, tick: Tick, peer: PeerId, tag: NetworkTag, mtu: u32) {
        let Some(network) = self.shared_network(peer, tag) else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        let key = (network, peer);
        let before = if mtu == 0 {
            self.networks.site_mtus.theirs.remove(&key)
        } else {
            self.networks.site_mtus.theirs.insert(key, mtu)
        };
        if before.unwrap_or(0) != mtu {
            self.warn_of_mtus(tick);
        }
    }

    fn warn_of_mtus(&mut self, tick: Tick) {
        let mut found = Vec::new();
        for network in &self.networks.all {
            let (id, name) = (network.secret.id, &network.secret.name);
            let Some(&own) = self.networks.site_mtus.own.get(&id) else {
                found.push((name.to_string(), None));
                continue;
            };
            let theirs = self.networks.site_mtus.theirs.iter();
            let theirs: Vec<(PeerId, u32)> = theirs
                .filter(|((of, peer), _)| *of == id && network.directory.member(peer).is_some())
                .map(|((_, peer), mtu)| (*peer, *mtu))
                .collect();
            // Mostly all are the same: nobody has to be called by name then.
            if theirs.iter().all(|(_, mtu)| *mtu == own) {
                found.push((name.to_string(), None));
                continue;
            }
            let theirs = theirs.into_iter();
            let theirs: Vec<(String, u32)> = theirs
                .map(|(peer, mtu)| (self.host_name(peer), mtu))
                .collect();
            let mut sites = vec![Site {
                host: None,
                mtu: own,
            }];
            sites.extend(theirs.iter().map(|(host, mtu)| Site {
                host: Some(host),
                mtu: *mtu,
            }));
            found.push((name.to_string(), differ(name, &sites)));
        }
        for (name, text) in found {
            self.outside
                .warnings
                .set(tick.now, Topic::SiteMtu, &name, text);
        }
    }

    fn host_name(&self, id: PeerId) -> String {
        let name = self
            .peers
            .known
            .get(&id)
            .and_then(|peer| self.name_of(peer));
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| id.to_string())
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
}
