//! A network: the seed at the authority, the keys at its members (TRUST.md 2).

use std::fmt;

use nat_traversal::entropy::Entropy;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::epoch::SignedEpoch;
use super::error::IssueError;
use super::keys;
use super::revocation::RevocationNumber;
use super::root::RootStore;
use super::signed::AuthorityKey;
use crate::ids::{NetworkId, NetworkName};
use crate::time::UnixTime;

/// The smallest IP MTU of a network, in bytes: every IPv6 link carries it (RFC 8200 section 5).
pub const MIN_MTU: u16 = 1_280;
/// The largest IP MTU of a network, in bytes: common jumbo frames.
pub const MAX_MTU: u16 = 9_000;

/// The random 256 bits of a network, which never leave the authority. Erased on drop, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct NetworkSeed([u8; 32]);

impl fmt::Debug for NetworkSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSeed(..)")
    }
}

/// A network as the authority keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkAuthority {
    /// Its name for people.
    pub name: NetworkName,
    /// Its secret.
    pub seed: NetworkSeed,
    /// The current epoch; 1 is the first.
    pub epoch: u64,
    /// The guests' IP MTU, in bytes.
    pub mtu: u16,
}

impl NetworkAuthority {
    /// A new network in its first epoch.
    #[must_use]
    pub fn create(name: NetworkName, mtu: u16, entropy: &mut dyn Entropy) -> Self {
        let mut seed = NetworkSeed([0; 32]);
        entropy.fill(&mut seed.0);
        Self {
            name,
            seed,
            epoch: 1,
            mtu,
        }
    }

    /// The network's id.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        keys::network_id(&self.seed.0, self.name.as_str())
    }

    /// What its members hold in the current epoch.
    #[must_use]
    pub fn secret(&self) -> NetworkSecret {
        NetworkSecret {
            name: self.name.clone(),
            id: self.id(),
            epoch: self.epoch,
            epoch_key: keys::epoch_key(&self.seed.0, self.epoch),
            mtu: self.mtu,
        }
    }

    /// Starts the next epoch, whose key no former member knows; members hand it on once they hold
    /// the revocation `list`. Keep the network on disk before the answer is handed out.
    ///
    /// # Errors
    /// As [`NetworkAuthority::signed_epoch`]; then the epoch is the one before.
    pub fn next_epoch(
        &mut self,
        authority: &AuthorityKey,
        roots: &RootStore,
        list: RevocationNumber,
        now: UnixTime,
    ) -> Result<SignedEpoch, IssueError> {
        let mut next = self.clone();
        next.epoch = next.epoch.saturating_add(1);
        let signed = next.signed_epoch(authority, roots, list, now)?;
        *self = next;
        Ok(signed)
    }

    /// The current epoch for members that may have missed its start; a secret. `list` as in
    /// [`NetworkAuthority::next_epoch`].
    ///
    /// # Errors
    /// [`IssueError::NotTheAuthority`] unless `authority` is the key of the newest root document.
    pub fn signed_epoch(
        &self,
        authority: &AuthorityKey,
        roots: &RootStore,
        list: RevocationNumber,
        now: UnixTime,
    ) -> Result<SignedEpoch, IssueError> {
        if authority.public() != roots.newest().authority {
            return Err(IssueError::NotTheAuthority);
        }
        let key = keys::epoch_key(&self.seed.0, self.epoch);
        let epoch = (self.epoch, key);
        let id = self.id();
        Ok(SignedEpoch::sign(authority, roots, id, epoch, list, now))
    }
}

/// What a member of a network holds. The key is erased on drop and never shown.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct NetworkSecret {
    /// Its name for people.
    #[zeroize(skip)]
    pub name: NetworkName,
    /// Its secret name.
    #[zeroize(skip)]
    pub id: NetworkId,
    /// The epoch of the key; 1 is the first.
    pub epoch: u64,
    /// The key of the epoch.
    pub epoch_key: [u8; 32],
    /// The guests' IP MTU, in bytes.
    pub mtu: u16,
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSecret")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("epoch", &self.epoch)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}
