//! Late frames: sent to where a MAC was a moment ago (DIRECTORY.md, Moves).
//!
//! ```text
//!   sender ── plain frame ──> old host ── forwarded, hops 1 ──> new host
//!                               │ its newest claim
//!   sender <────────────────────┘
//! ```
//!
//! The old host passes a frame on for ten seconds, and only by a claim that is strictly newer than
//! the one by which the frame came: that one is in the frame when it was passed on before, else it is
//! the old host's own, lost since. So generations grow along the way and no frame goes in circles.
//! The new host takes it from nobody but the node that it took the MAC from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Directory;
use crate::directory::claim::DefenderTag;
use crate::directory::messages::pack_claims;
use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, PeerId};
use crate::switching::MacKey;
use crate::wire::Forwarded;

/// How long after a move late frames are passed on, and taken.
const GRACE: Duration = Duration::from_secs(10);
/// How often a frame is passed on.
const MAX_HOPS: u8 = 2;
/// MACs that were lost, and that were gained, within the grace. More are not noted: their late frames
/// are dropped, as all were before. 96 bytes each.
const MAX_MOVES: usize = 1024;
/// A sender of late frames is told the newest claim so often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What becomes of a frame that is not for a MAC of this node, or was passed on by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateVerdict {
    /// Its destination is here, and it came as it should.
    Deliver,
    /// Its destination has moved: pass it on, so marked.
    Forward {
        /// To whom.
        to: PeerId,
        /// How often it will have been passed on.
        hops: u8,
        /// The mark.
        mark: Forwarded,
    },
    /// Nobody claims its destination: it goes to our ports, in case it is there.
    Undecided,
    /// It is dropped.
    Drop(DropReason),
}

/// A frame from a peer, as far as passing on is concerned. Its source was claimed by `origin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateFrame {
    /// Its destination.
    pub dst: MacKey,
    /// Who sealed it.
    pub from: PeerId,
    /// Who holds its source.
    pub origin: PeerId,
    /// How often it was passed on.
    pub hops: u8,
    /// The mark of the one who passed it on.
    pub mark: Option<Forwarded>,
}

#[derive(Debug)]
struct Lost {
    at: Instant,
    /// By which this node held it.
    generation: u64,
    told: Option<Instant>,
}

/// Moves of the last moments. Bound: [`MAX_MOVES`] each way; those past the grace leave when there is
/// no room, and with each sweep.
#[derive(Debug, Default)]
pub(super) struct LateFrames {
    lost: BTreeMap<MacKey, Lost>,
    gained: BTreeMap<MacKey, (Instant, PeerId)>,
}

impl LateFrames {
    /// This node lost `key`. From whom it had it stays noted: that node's late frames go on.
    pub(super) fn lost(&mut self, now: Instant, key: MacKey, generation: u64) {
        if self.lost.len() >= MAX_MOVES {
            self.expire(now);
        }
        if self.lost.len() < MAX_MOVES {
            let lost = Lost {
                at: now,
                generation,
                told: None,
            };
            self.lost.insert(key, lost);
        }
    }

    /// This node took `key` from `from`.
    pub(super) fn gained(&mut self, now: Instant, key: MacKey, from: PeerId) {
        self.lost.remove(&key);
        if self.gained.len() >= MAX_MOVES {
            self.expire(now);
        }
        if self.gained.len() < MAX_MOVES {
            self.gained.insert(key, (now, from));
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.lost.retain(|_, lost| in_grace(now, lost.at));
        self.gained.retain(|_, (at, _)| in_grace(now, *at));
    }

    /// From whom this node took the MAC, just now; it may have lost it since.
    fn predecessor(&self, now: Instant, key: &MacKey) -> Option<PeerId> {
        let (at, from) = self.gained.get(key)?;
        in_grace(now, *at).then_some(*from)
    }
}

fn in_grace(now: Instant, at: Instant) -> bool {
    now.saturating_duration_since(at) < GRACE
}

/// The origin's tag in the mark: the first bytes of its blind name in this network.
fn tag(network: &NetworkId, peer: &PeerId) -> u64 {
    u64::from_be_bytes(DefenderTag::of(network, peer).0)
}

impl Directory {
    /// A frame whose destination is not here, or that another node passed on. `Forward` and `Drop`
    /// may leave an action: the newest claim for whoever sent it.
    pub fn late_frame(&mut self, now: Instant, frame: &LateFrame) -> LateVerdict {
        match self.judge_late(now, frame) {
            Ok(verdict) => verdict,
            Err(reason) => LateVerdict::Drop(reason),
        }
    }

    fn judge_late(&mut self, now: Instant, frame: &LateFrame) -> Result<LateVerdict, DropReason> {
        let network = self.config.network;
        if let Some(mark) = frame.mark {
            // On behalf of another: only what a direct predecessor may say.
            let predecessor = self.moves.late.predecessor(now, &frame.dst);
            if predecessor != Some(frame.from) || mark.origin != tag(&network, &frame.origin) {
                return Err(DropReason::SourceNotClaimed);
            }
            if frame.hops == 0 || frame.hops > MAX_HOPS {
                return Err(DropReason::TooManyHops);
            }
        }
        let stored = self.claims.live(now, &frame.dst);
        let Some(stored) = stored else {
            return if self.takes_unasked(now, frame) {
                Ok(LateVerdict::Undecided)
            } else {
                Err(DropReason::UnknownMac)
            };
        };
        let (owner, generation) = (stored.claim.signer(), stored.claim.claim.generation);
        if owner == self.me {
            // One that was not passed on has been delivered before it came here.
            return frame
                .mark
                .map(|_| LateVerdict::Deliver)
                .ok_or(DropReason::UnknownMac);
        }
        let newest = stored.claim.signed.clone();
        let lost = self.moves.late.lost.get_mut(&frame.dst);
        let Some(lost) = lost.filter(|lost| in_grace(now, lost.at)) else {
            return Err(DropReason::UnknownMac);
        };
        let just = |told| now.saturating_duration_since(told) < TELL_EVERY;
        if !lost.told.is_some_and(just) {
            lost.told = Some(now);
            for message in pack_claims([newest]) {
                self.actions.send(frame.from, message);
            }
        }
        let came_by = frame.mark.map_or(lost.generation, |mark| mark.generation);
        if generation <= came_by || owner == frame.from || owner == frame.origin {
            return Err(DropReason::UnknownMac);
        }
        if frame.hops >= MAX_HOPS {
            return Err(DropReason::TooManyHops);
        }
        Ok(LateVerdict::Forward {
            to: owner,
            hops: frame.hops + 1,
            mark: Forwarded {
                origin: tag(&network, &frame.origin),
                sequence: 0,
                generation,
            },
        })
    }

    /// Frames for MACs that nobody claims travel beside a `who-has`: straight from the holder of their
    /// source, to a MAC that one machine can have, within the budget.
    fn takes_unasked(&mut self, now: Instant, frame: &LateFrame) -> bool {
        let straight = frame.mark.is_none() && frame.hops == 0 && frame.origin == frame.from;
        straight && frame.dst.mac.is_claimable() && self.takes_unknown(now, frame.from)
    }
}
