//! A claim: "MAC m (VLAN v) of network n is attached here", signed by the node.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::order::Rank;
use super::signed::{Document, Signed};
use crate::drop_reason::DropReason;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::{CLOCK_TOLERANCE, Label, signer_blind};
use crate::switching::MacKey;
use crate::time::UnixTime;

/// IP addresses in a claim.
pub const MAX_IPS: usize = 16;

/// The count of contested moves at which the MAC is frozen (RFC 7432 section 15.1 has 5 in 180 s;
/// here only moves count whose loser still heard the MAC).
pub const FREEZE_AT: u8 = 6;

/// Generations that any node may use at once, whatever the overlay's age.
const FREE_GENERATIONS: u64 = 1024;
/// Generations added for each second of the overlay's life.
const GENERATIONS_PER_SECOND: u64 = 16;

/// How the node knows, and whether it still claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimKind {
    /// The operator said so.
    Pinned,
    /// Evidence of class 2 or 3: RARP, GARP, an unsolicited NA, `announce`, a hand-over.
    Announced,
    /// Any other frame.
    Learned,
    /// Not here any more: a tombstone.
    Withdrawn,
}

/// The first bytes of blind(signer) of the node that held a contested MAC before the contest.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DefenderTag(pub [u8; 8]);

impl DefenderTag {
    /// The tag of `peer`.
    #[must_use]
    pub fn of(network: &NetworkId, peer: &PeerId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = signer_blind(network, *peer);
        Self([a, b, c, d, e, f, g, h])
    }
}

/// What a claim says. There is no wall clock in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The network.
    pub network: NetworkId,
    /// The VLAN, 0 for untagged.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
    /// Grows by one with each move. Zero is what class 0 evidence may claim while nobody else does.
    pub generation: u64,
    /// How the node knows.
    pub kind: ClaimKind,
    /// Hash of the signed claim that this one replaced, zeros for none.
    pub predecessor: [u8; 32],
    /// Contested moves in a row, at most [`FREEZE_AT`].
    pub contested: u8,
    /// Who held the MAC before the contest; zeros while `contested` is 0. Only the defender may
    /// bring the count to [`FREEZE_AT`], so that it has the last word.
    pub defender: DefenderTag,
    /// Addresses seen from the MAC (ARP, ND), at most [`MAX_IPS`].
    pub ips: Vec<IpAddr>,
    /// Grows while the claim lives; a higher one starts its age anew.
    pub refresh: u64,
}

/// A claim as it was signed.
pub type SignedClaim = Signed<Claim>;

impl Document for Claim {
    const LABEL: Label = Label::new("farlan/claim/1");
    /// 16 IPv6 addresses and the largest numbers make 376.
    const MAX_BYTES: usize = 400;
    const REFUSED: DropReason = DropReason::ClaimInvalid;

    fn check(&self, signer: &PeerId) -> Result<(), DropReason> {
        if !self.mac.is_claimable() {
            return Err(DropReason::MacReserved);
        }
        let contest_sound = match self.contested {
            0 => self.defender == DefenderTag::default(),
            count if count < FREEZE_AT => true,
            FREEZE_AT => self.defender == DefenderTag::of(&self.network, signer),
            _ => false,
        };
        if self.ips.len() <= MAX_IPS && contest_sound {
            Ok(())
        } else {
            Err(DropReason::ClaimInvalid)
        }
    }
}

impl Claim {
    /// VLAN and MAC.
    #[must_use]
    pub const fn key(&self) -> MacKey {
        MacKey {
            vlan: self.vlan,
            mac: self.mac,
        }
    }

    /// Is it no tombstone?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.kind != ClaimKind::Withdrawn
    }
}

/// The highest generation that an honest node can have reached: 1,024 and 16 for each second since
/// the overlay's birth. A liar cannot own a MAC for ever.
#[must_use]
pub const fn generation_limit(birth: UnixTime, wall: UnixTime) -> u64 {
    let age = wall.plus(CLOCK_TOLERANCE).seconds_since(birth);
    FREE_GENERATIONS.saturating_add(age.saturating_mul(GENERATIONS_PER_SECOND))
}

/// A claim whose signature is good. Whether its signer may claim is not said.
#[derive(Debug, Clone)]
pub struct VerifiedClaim {
    /// What it says.
    pub claim: Claim,
    /// What to pass on.
    pub signed: SignedClaim,
    /// Its place in the order.
    pub rank: Rank,
}

impl VerifiedClaim {
    /// Checks `signed` as a claim of `network`.
    ///
    /// # Errors
    /// [`DropReason::ClaimInvalid`], [`DropReason::MacReserved`], or
    /// [`DropReason::GenerationTooFar`] above `generation_limit`.
    pub fn open(
        signed: &SignedClaim,
        overlay: &OverlayId,
        network: &NetworkId,
        generation_limit: u64,
    ) -> Result<Self, DropReason> {
        let claim = signed.open(overlay)?;
        if claim.network != *network {
            return Err(DropReason::ClaimInvalid);
        }
        if claim.generation > generation_limit {
            return Err(DropReason::GenerationTooFar);
        }
        Ok(Self {
            rank: Rank::of(&claim, signed),
            claim,
            signed: signed.clone(),
        })
    }

    /// Who claims.
    #[must_use]
    pub const fn signer(&self) -> PeerId {
        self.signed.signer()
    }

    /// The claim's name.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.rank.hash
    }

    /// May `me` bump above this claim in a contest?
    ///
    /// At [`FREEZE_AT`] nobody may; the step to it is the defender's alone.
    #[must_use]
    pub fn lets_contest(&self, me: &PeerId) -> bool {
        match self.claim.contested {
            count if count >= FREEZE_AT => false,
            count if count + 1 == FREEZE_AT => {
                self.claim.defender == DefenderTag::of(&self.claim.network, me)
            }
            _ => true,
        }
    }
}
