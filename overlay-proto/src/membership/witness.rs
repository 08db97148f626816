//! The witness's side of a receipt: who used an invite, and who may still (TRUST.md 4).
//!
//! The authority is offline and a delegated key can be copied, so one node counts: the witness that
//! the invite names. What it has counted is one small file for each invite; the program that keeps
//! the file must have it on disk before it hands out the receipt.
//!
//! ```text
//! uses = 1 | postcard of [ (PeerId, time) ], in the order of joining
//! ```

use serde::{Deserialize, Serialize};

use super::chain::Application;
use super::codec;
use super::date::Utc;
use super::error::MembershipError;
use super::receipt::Receipt;
use super::root::CLOCK_TOLERANCE;
use crate::ids::PeerId;
use crate::time::UnixTime;

/// The most nodes that a witness counts for one invite, whatever the invite says.
pub const MAX_USES: usize = 65_536;

const VERSION: u8 = 1;
/// 32 bytes of name and at most 10 of time for each use.
const MAX_BYTES: usize = 16 + 42 * MAX_USES;

/// Why a witness gives no receipt; travels to the node, whose operator reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum WitnessRefusal {
    /// As many nodes as the invite allows have used it.
    #[error(
        "the invite was for {0} node(s) and has been used by as many; ask the authority for another, made \
         with `farlan invite --network NETWORK`"
    )]
    UsedUp(u32),
    /// The time to join has passed.
    #[error("the invite could be used until {}; ask the authority for a new one", Utc(*.0))]
    TooLate(UnixTime),
    /// The invite names another node as its witness.
    #[error("the invite names another bootstrap as its witness; ask the authority for a new one")]
    OtherWitness,
    /// The witness could not write down the use; to be tried again.
    #[error("the witness cannot keep its books at the moment; its log says why")]
    Unable,
    /// The authority has revoked the invite, or the node.
    #[error("the authority has revoked the invite or this node; ask it for a new invite")]
    Revoked,
}

/// One node that used an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    peer: PeerId,
    time: UnixTime,
}

/// Who used one invite. At most [`MAX_USES`]; nothing is ever removed, because an invite must not
/// become usable again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InviteUses(Vec<Use>);

impl InviteUses {
    /// The receipt for the node of `application` at `now`. A node that was counted before gets the
    /// same receipt again, at any time, and nothing changes; else the uses grow by one and must be
    /// kept before the receipt is handed out.
    ///
    /// # Errors
    /// [`WitnessRefusal::UsedUp`], [`WitnessRefusal::TooLate`] (with the tolerance of all dates).
    pub fn count(
        &mut self,
        application: &Application,
        now: UnixTime,
    ) -> Result<Receipt, WitnessRefusal> {
        let member = &application.member;
        let receipt = |time| Receipt {
            peer: member.peer,
            invite: member.invite_id,
            time,
        };
        if let Some(known) = self.0.iter().find(|known| known.peer == member.peer) {
            return Ok(receipt(known.time));
        }
        if now > application.join_until.plus(CLOCK_TOLERANCE) {
            return Err(WitnessRefusal::TooLate(application.join_until));
        }
        let most = usize::try_from(application.max_nodes).map_or(MAX_USES, |n| n.min(MAX_USES));
        if self.0.len() >= most {
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            return Err(WitnessRefusal::UsedUp(most));
        }
        self.0.push(Use {
            peer: member.peer,
            time: now,
        });
        Ok(receipt(now))
    }

    /// How many nodes have used it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Has nobody used it?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes for the disk.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(VERSION, &self.0)
    }

    /// Reads [`Self::to_bytes`].
    ///
    /// # Errors
    /// Malformed, of a later version, or too long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipError> {
        codec::decode("count of an invite", VERSION, MAX_BYTES, bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::test_authority::{BORN, TestOverlay};

    #[test]
    fn trust_4_node_max_nodes_plus_one_is_refused() {
        let nodes = TestOverlay::new(41, &["lab"]).applications(2, 3);
        let mut uses = InviteUses::default();
        let first = uses.count(&nodes[0], BORN).unwrap();
        uses.count(&nodes[1], BORN).unwrap();
        let refused = uses.count(&nodes[2], BORN);
        assert_eq!(refused, Err(WitnessRefusal::UsedUp(2)));
        // The same node again, also later, and after a restart.
        let mut kept = InviteUses::from_bytes(&uses.to_bytes()).unwrap();
        let late = nodes[0]
            .join_until
            .plus(std::time::Duration::from_secs(9_999));
        assert_eq!(kept.count(&nodes[0], late), Ok(first));
        assert_eq!(kept, uses);
        assert_eq!((kept.len(), kept.is_empty()), (2, false));
    }

    #[test]
    fn trust_4_after_join_until_is_refused() {
        let nodes = TestOverlay::new(41, &["lab"]).applications(2, 1);
        let mut uses = InviteUses::default();
        let until = nodes[0].join_until;
        let late = UnixTime(until.0 + CLOCK_TOLERANCE.as_secs() + 1);
        let refused = uses.count(&nodes[0], late);
        assert_eq!(refused, Err(WitnessRefusal::TooLate(until)));
        assert!(uses.is_empty());
        assert!(uses.count(&nodes[0], until).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(uses) = InviteUses::from_bytes(&bytes) {
                prop_assert_eq!(uses.to_bytes(), bytes);
            }
        }
    }
}
