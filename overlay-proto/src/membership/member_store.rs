//! Everything a node keeps of its membership, as one value for one file of mode 0600.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::chain::{Chain, Member};
use super::codec;
use super::error::MembershipError;
use super::invite::bootstrap_peer;
use super::issue::MAX_BOOTSTRAPS;
use super::keys::OverlaySecret;
use super::network::NetworkSecret;
use super::root::{RootStore, SignedRoot};
use crate::ids::{NetworkId, NetworkName, OverlayId, PeerId};
use crate::time::UnixTime;

/// Certificates that a node keeps: one for each invite whose networks no other covers.
pub const MAX_CHAINS: usize = 8;
/// Networks that a node is in.
pub const MAX_MEMBER_NETWORKS: usize = 64;
/// Bootstraps from all invites.
const MAX_KEPT_BOOTSTRAPS: usize = 2 * MAX_BOOTSTRAPS;

const VERSION: u8 = 1;
/// Far above what the bounds allow, far below what hurts.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Kept {
    roots: Vec<SignedRoot>,
    floor: UnixTime,
    overlay_secret: OverlaySecret,
    networks: Vec<NetworkSecret>,
    chains: Vec<Vec<u8>>,
    bootstraps: Vec<String>,
    name: Option<String>,
}

/// A node's membership in one overlay. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    roots: RootStore,
    overlay_secret: OverlaySecret,
    networks: Vec<NetworkSecret>,
    /// Never empty, newest first.
    chains: Vec<Chain>,
    bootstraps: Vec<String>,
    name: Option<String>,
}

/// What [`Membership::merge`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Networks that the node was not in before.
    pub added: Vec<NetworkName>,
    /// Networks it was in already.
    pub known: Vec<NetworkName>,
}

impl Membership {
    pub(super) fn of_invite(
        roots: RootStore,
        overlay_secret: OverlaySecret,
        networks: Vec<NetworkSecret>,
        chain: Chain,
        bootstraps: Vec<String>,
        name: Option<String>,
    ) -> Self {
        Self {
            roots,
            overlay_secret,
            networks,
            chains: vec![chain],
            bootstraps,
            name,
        }
    }

    /// The overlay.
    #[must_use]
    pub const fn overlay(&self) -> OverlayId {
        self.roots.overlay()
    }

    /// The root documents and the clock's floor.
    #[must_use]
    pub const fn roots(&self) -> &RootStore {
        &self.roots
    }

    /// To take newer root documents and raise the floor; keep the membership on disk afterwards.
    pub const fn roots_mut(&mut self) -> &mut RootStore {
        &mut self.roots
    }

    /// The overlay's secret.
    #[must_use]
    pub const fn overlay_secret(&self) -> &OverlaySecret {
        &self.overlay_secret
    }

    /// The networks, oldest first; at most [`MAX_MEMBER_NETWORKS`].
    #[must_use]
    pub fn networks(&self) -> &[NetworkSecret] {
        &self.networks
    }

    /// The network of that name.
    #[must_use]
    pub fn network(&self, name: &NetworkName) -> Option<&NetworkSecret> {
        self.networks.iter().find(|network| network.name == *name)
    }

    /// The certificate to show where no network is meant: of those with a receipt the one that
    /// names most of the node's networks, the newest of equals. If none has a receipt yet, the
    /// newest, which only its witness will look at.
    #[must_use]
    pub fn chain(&self) -> Option<&Chain> {
        // `max_by_key` takes the last of equals; the newest is first.
        self.chains
            .iter()
            .rev()
            .filter(|chain| chain.has_receipt())
            .max_by_key(|chain| self.networks_of(chain).count())
            .or_else(|| self.chains.first())
    }

    /// The newest certificate with a receipt that names `network`.
    #[must_use]
    pub fn chain_for(&self, network: &NetworkId) -> Option<&Chain> {
        self.chains
            .iter()
            .find(|chain| chain.has_receipt() && chain.names(network))
    }

    /// The certificates that still need the receipt of their witness, newest first.
    pub fn without_receipt(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(|chain| !chain.has_receipt())
    }

    /// Takes the receipt that `chain` carries, if the certificate is one of this node's; those that
    /// it covers now are dropped. Keep the membership on disk afterwards.
    ///
    /// # Errors
    /// [`MembershipError::ReceiptMissing`], or [`MembershipError::ReceiptInvalid`] for a receipt
    /// that is not this node's; whether it counts is for [`Chain::verify`].
    pub fn take_receipt(&mut self, chain: Chain) -> Result<(), MembershipError> {
        if !chain.has_receipt() {
            return Err(MembershipError::ReceiptMissing);
        }
        let own = self
            .chains
            .iter_mut()
            .find(|own| own.is_same_but_receipt(&chain))
            .ok_or(MembershipError::ReceiptInvalid)?;
        *own = chain;
        self.drop_covered_chains()
    }

    /// All certificates, newest first; at most [`MAX_CHAINS`].
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// What this node's own certificate says at `wall`; its receipt may still be to come.
    ///
    /// # Errors
    /// As [`Chain::apply`].
    pub fn own_member(&self, wall: UnixTime) -> Result<Member, MembershipError> {
        self.chain()
            .ok_or(MembershipError::Invalid("membership"))?
            .apply(&self.roots, wall)
            .map(|application| application.member)
    }

    /// Multiaddrs of the bootstraps, each ending in `/p2p/PEERID`; newest first.
    #[must_use]
    pub fn bootstraps(&self) -> &[String] {
        &self.bootstraps
    }

    /// Is `peer` pinned as a bootstrap?
    #[must_use]
    pub fn is_bootstrap(&self, peer: PeerId) -> bool {
        self.bootstraps
            .iter()
            .any(|address| bootstrap_peer(address) == Some(peer))
    }

    /// The name that the authority signed for this node.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Takes a second membership of the same overlay and node: adds its networks and bootstraps,
    /// keeps the certificates that are still needed. On an error nothing has changed.
    ///
    /// # Errors
    /// [`MembershipError::OtherOverlay`], [`MembershipError::NetworkNameTaken`], a full store.
    pub fn merge(&mut self, newer: Self) -> Result<Merged, MembershipError> {
        if newer.overlay() != self.overlay() {
            return Err(MembershipError::OtherOverlay {
                expected: self.overlay(),
                found: newer.overlay(),
            });
        }
        let mut next = self.clone();
        for root in newer.roots.above(self.roots.newest().version) {
            next.roots.advance(root.clone())?;
        }
        next.roots.raise_floor(newer.roots.floor());
        let mut merged = Merged::default();
        for network in &newer.networks {
            next.take_network(network, &mut merged)?;
        }
        next.take_bootstraps(newer.bootstraps);
        next.name = newer.name.or(next.name);
        // The same invite once more brings nothing; the certificate here may have its receipt.
        let known = |chain: &Chain| self.chains.iter().any(|k| k.is_same_but_receipt(chain));
        let new = newer.chains.into_iter().filter(|chain| !known(chain));
        next.chains.splice(0..0, new);
        next.drop_covered_chains()?;
        *self = next;
        Ok(merged)
    }

    /// The bytes for the disk: secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let kept = Kept {
            roots: self.roots.above(0).to_vec(),
            floor: self.roots.floor(),
            overlay_secret: self.overlay_secret.clone(),
            networks: self.networks.clone(),
            chains: self.chains.iter().map(Chain::encode).collect(),
            bootstraps: self.bootstraps.clone(),
            name: self.name.clone(),
        };
        Zeroizing::new(codec::encode(VERSION, &kept))
    }

    /// Reads [`Membership::to_bytes`]. Dates are judged when certificates are used.
    ///
    /// # Errors
    /// Malformed, of a later version, or beyond a bound.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipError> {
        let kept: Kept = codec::decode("membership", VERSION, MAX_BYTES, bytes)?;
        let bounded = (1..=MAX_CHAINS).contains(&kept.chains.len())
            && kept.networks.len() <= MAX_MEMBER_NETWORKS
            && kept.bootstraps.len() <= MAX_KEPT_BOOTSTRAPS;
        if !bounded {
            return Err(MembershipError::Invalid("membership"));
        }
        let mut roots = RootStore::from_roots(kept.roots)?;
        roots.raise_floor(kept.floor);
        let chains = kept.chains.iter().map(|bytes| Chain::decode(bytes));
        Ok(Self {
            roots,
            overlay_secret: kept.overlay_secret,
            networks: kept.networks,
            chains: chains.collect::<Result<_, _>>()?,
            bootstraps: kept.bootstraps,
            name: kept.name,
        })
    }

    fn networks_of<'a>(&'a self, chain: &'a Chain) -> impl Iterator<Item = NetworkId> + 'a {
        let ids = self.networks.iter().map(|network| network.id);
        ids.filter(|id| chain.names(id))
    }

    fn take_network(
        &mut self,
        network: &NetworkSecret,
        merged: &mut Merged,
    ) -> Result<(), MembershipError> {
        if let Some(known) = self
            .networks
            .iter_mut()
            .find(|known| known.id == network.id)
        {
            if network.epoch > known.epoch {
                *known = network.clone();
            }
            merged.known.push(network.name.clone());
            return Ok(());
        }
        if self.network(&network.name).is_some() {
            return Err(MembershipError::NetworkNameTaken(network.name.clone()));
        }
        if self.networks.len() >= MAX_MEMBER_NETWORKS {
            return Err(MembershipError::Full {
                what: "networks",
                limit: MAX_MEMBER_NETWORKS,
            });
        }
        self.networks.push(network.clone());
        merged.added.push(network.name.clone());
        Ok(())
    }

    fn take_bootstraps(&mut self, mut newer: Vec<String>) {
        self.bootstraps.retain(|address| !newer.contains(address));
        newer.append(&mut self.bootstraps);
        newer.truncate(MAX_KEPT_BOOTSTRAPS);
        self.bootstraps = newer;
    }

    /// A certificate stays while it names a network that no newer one with a receipt names.
    fn drop_covered_chains(&mut self) -> Result<(), MembershipError> {
        let mut covered: Vec<NetworkId> = Vec::new();
        let mut kept = Vec::new();
        for chain in &self.chains {
            let names: Vec<_> = self.networks_of(chain).collect();
            if names.iter().any(|id| !covered.contains(id)) {
                if chain.has_receipt() {
                    covered.extend(names);
                }
                kept.push(chain.clone());
            }
        }
        if kept.len() > MAX_CHAINS {
            return Err(MembershipError::Full {
                what: "invites",
                limit: MAX_CHAINS,
            });
        }
        self.chains = kept;
        Ok(())
    }
}
