//! Everything a node keeps of its membership, as one value for one file of mode 0600.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::chain::{Chain, Member};
use super::codec;
use super::epoch::{EpochKeys, OldEpoch, SignedEpoch};
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

const VERSION: u8 = 2;
/// Before networks had more than one epoch.
const WITHOUT_EPOCHS: u8 = 1;
/// Far above what the bounds allow, far below what hurts.
const MAX_BYTES: usize = 64 * 1024;

/// What version 1 holds, and the first part of version 2.
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

/// Version 2: what each network keeps of its epochs, in the order of the networks.
#[derive(Serialize, Deserialize)]
struct KeptWithEpochs {
    kept: Kept,
    epochs: Vec<EpochKeys>,
}

/// A node's membership in one overlay. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    roots: RootStore,
    overlay_secret: OverlaySecret,
    networks: Vec<NetworkSecret>,
    /// One for each of the networks, in their order.
    epochs: Vec<EpochKeys>,
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
            epochs: networks.iter().map(|_| EpochKeys::default()).collect(),
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

    /// The epoch before the current one of `network`, as long as its key is kept:
    /// [`OLD_KEY_KEPT`](super::OLD_KEY_KEPT).
    #[must_use]
    pub fn old_epoch(&self, network: &NetworkId, wall: UnixTime) -> Option<&OldEpoch> {
        let now = self.roots.now(wall);
        let old = self.epoch_keys(network)?.old.as_ref();
        old.filter(|old| old.is_kept_at(now))
    }

    /// The current epoch of `network` as the authority signed it, for members that missed its
    /// start; `None` if the key came by invite. A secret.
    #[must_use]
    pub fn signed_epoch(&self, network: &NetworkId) -> Option<&SignedEpoch> {
        self.epoch_keys(network)?.signed.as_ref()
    }

    /// Takes an epoch that is newer than the one here, or the signature of the one that came by
    /// invite; the key before stays beside it. `false`: nothing has changed, because it is known,
    /// older, or of a network that this node is not in. After `true` keep the membership on disk.
    ///
    /// # Errors
    /// A bad signature, an unknown or retired root version, or a rival of the current epoch.
    pub fn take_epoch(
        &mut self,
        signed: &SignedEpoch,
        wall: UnixTime,
    ) -> Result<bool, MembershipError> {
        let part = signed.verify(&self.roots)?;
        self.roots.raise_floor(part.issued);
        let now = self.roots.now(wall);
        let networks = self.networks.iter_mut().zip(&mut self.epochs);
        let Some((secret, keys)) = networks.into_iter().find(|(n, _)| n.id == part.network) else {
            return Ok(false);
        };
        if part.epoch < secret.epoch || (part.epoch == secret.epoch && keys.signed.is_some()) {
            return Ok(false);
        }
        if part.epoch == secret.epoch && part.key != secret.epoch_key {
            return Err(MembershipError::Invalid("signed epoch"));
        }
        begin_epoch(secret, keys, (part.epoch, part.key), now);
        keys.signed = Some(signed.clone());
        Ok(true)
    }

    /// Erases keys of former epochs that are kept no longer, and certificates that have ended if
    /// there is another. After `true` keep the membership on disk.
    pub fn forget_ended(&mut self, wall: UnixTime) -> bool {
        let now = self.roots.now(wall);
        let mut changed = false;
        for keys in &mut self.epochs {
            if keys.old.take_if(|old| !old.is_kept_at(now)).is_some() {
                changed = true;
            }
        }
        let (ended, lasting): (Vec<_>, Vec<_>) = self
            .chains
            .drain(..)
            .partition(|chain| chain.has_ended(now));
        changed |= !(ended.is_empty() || lasting.is_empty());
        // One stays in any case: it says what this node was, and when that ended.
        self.chains = if lasting.is_empty() { ended } else { lasting };
        changed
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
    /// keeps the certificates that are still needed and have not ended. On an error nothing has
    /// changed.
    ///
    /// # Errors
    /// [`MembershipError::OtherOverlay`], [`MembershipError::NetworkNameTaken`], a full store.
    pub fn merge(&mut self, newer: Self, wall: UnixTime) -> Result<Merged, MembershipError> {
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
        let now = next.roots.now(wall);
        let mut merged = Merged::default();
        for network in &newer.networks {
            next.take_network(network, now, &mut merged)?;
        }
        next.take_bootstraps(newer.bootstraps);
        next.name = newer.name.or(next.name);
        // The same invite once more brings nothing; the certificate here may have its receipt.
        let known = |chain: &Chain| self.chains.iter().any(|k| k.is_same_but_receipt(chain));
        let new = newer.chains.into_iter().filter(|chain| !known(chain));
        next.chains.splice(0..0, new);
        next.forget_ended(wall);
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
        let epochs = self.epochs.clone();
        Zeroizing::new(codec::encode(VERSION, &KeptWithEpochs { kept, epochs }))
    }

    /// Reads [`Membership::to_bytes`], also of the version before. Dates are judged when
    /// certificates are used.
    ///
    /// # Errors
    /// Malformed, of a later version, or beyond a bound.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipError> {
        let KeptWithEpochs { kept, epochs } = if bytes.first() == Some(&WITHOUT_EPOCHS) {
            let kept: Kept = codec::decode("membership", WITHOUT_EPOCHS, MAX_BYTES, bytes)?;
            let epochs = kept.networks.iter().map(|_| EpochKeys::default()).collect();
            KeptWithEpochs { kept, epochs }
        } else {
            codec::decode("membership", VERSION, MAX_BYTES, bytes)?
        };
        let bounded = (1..=MAX_CHAINS).contains(&kept.chains.len())
            && kept.networks.len() <= MAX_MEMBER_NETWORKS
            && kept.networks.len() == epochs.len()
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
            epochs,
            chains: chains.collect::<Result<_, _>>()?,
            bootstraps: kept.bootstraps,
            name: kept.name,
        })
    }

    fn epoch_keys(&self, network: &NetworkId) -> Option<&EpochKeys> {
        let index = self.networks.iter().position(|own| own.id == *network)?;
        self.epochs.get(index)
    }

    fn networks_of<'a>(&'a self, chain: &'a Chain) -> impl Iterator<Item = NetworkId> + 'a {
        let ids = self.networks.iter().map(|network| network.id);
        ids.filter(|id| chain.names(id))
    }

    fn take_network(
        &mut self,
        network: &NetworkSecret,
        now: UnixTime,
        merged: &mut Merged,
    ) -> Result<(), MembershipError> {
        let mut known = self.networks.iter_mut().zip(&mut self.epochs);
        if let Some((known, keys)) = known.find(|(known, _)| known.id == network.id) {
            if network.epoch > known.epoch {
                begin_epoch(known, keys, (network.epoch, network.epoch_key), now);
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
        self.epochs.push(EpochKeys::default());
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

/// The key of the epoch before stays beside the new one. The caller knows whether it is signed.
fn begin_epoch(
    secret: &mut NetworkSecret,
    keys: &mut EpochKeys,
    (epoch, key): (u64, [u8; 32]),
    now: UnixTime,
) {
    if epoch > secret.epoch {
        keys.old = Some(OldEpoch::new(secret.epoch_key, now));
        keys.signed = None;
        secret.epoch = epoch;
        secret.epoch_key = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::test_authority::{BORN, TestOverlay};

    #[test]
    fn a_file_of_the_version_before_loads() {
        let mut overlay = TestOverlay::new(61, &["lab", "home"]);
        let (_, membership) = overlay.member(&["lab", "home"]);
        let kept = Kept {
            roots: membership.roots.above(0).to_vec(),
            floor: membership.roots.floor(),
            overlay_secret: membership.overlay_secret.clone(),
            networks: membership.networks.clone(),
            chains: membership.chains.iter().map(Chain::encode).collect(),
            bootstraps: membership.bootstraps.clone(),
            name: membership.name.clone(),
        };
        let old = codec::encode(WITHOUT_EPOCHS, &kept);
        assert_eq!(Membership::from_bytes(&old).unwrap(), membership);
        let new = membership.to_bytes();
        assert_eq!(new.first(), Some(&VERSION));
        assert_eq!(Membership::from_bytes(&new).unwrap(), membership);
        // Neither version is taken for the other, and a later one is named as such.
        let mut wrong = old.clone();
        wrong[0] = VERSION;
        assert!(Membership::from_bytes(&wrong).is_err());
        wrong[0] = VERSION + 1;
        assert_eq!(
            Membership::from_bytes(&wrong),
            Err(MembershipError::LaterVersion("membership"))
        );
        let epochs = vec![EpochKeys::default()];
        let short = codec::encode(VERSION, &KeptWithEpochs { kept, epochs });
        assert!(Membership::from_bytes(&short).is_err());
    }

    #[test]
    fn a_certificate_that_has_ended_makes_room_for_its_renewal() {
        let mut overlay = TestOverlay::new(62, &["lab", "home"]);
        let (node, mut membership) = overlay.member(&["lab", "home"]);
        let old = membership.chain().unwrap().clone();
        let renew = |overlay: &mut TestOverlay| {
            let mut request = overlay.request(&["lab"]);
            request.member_until = UnixTime(request.member_until.0 * 2);
            overlay.issue(request).unwrap().accept(&node, BORN).unwrap()
        };
        // In time: the old one is shown until the new one has its receipt.
        membership.merge(renew(&mut overlay), BORN).unwrap();
        assert_eq!(membership.chain(), Some(&old));
        // Too late: the old one is worth nothing, and would only be refused.
        let ended = UnixTime(BORN.0 + 1_000 * 3_600 + 601);
        let mut late = membership.clone();
        assert!(late.forget_ended(ended));
        assert!(!late.chain().unwrap().has_receipt());
        assert!(!late.forget_ended(ended));
        let (_, mut alone) = overlay.member(&["lab"]);
        assert!(!alone.forget_ended(ended));
        assert!(alone.chain().is_some());
    }
}
