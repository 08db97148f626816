//! By which invite each member came in, for as long as something of it may be kept here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;
use overlay_proto::membership::{InviteId, Revocations};

use super::CARD_LIFETIME;

/// Members that are or were connected: twice as many as may be connected at once. Of 80 bytes each.
const MAX_ORIGINS: usize = 8_192;

/// As long as the cards and records of a member that has gone: both live 600 s.
const KEPT: Duration = CARD_LIFETIME;

/// An entry lives [`KEPT`] beyond the connection; above [`MAX_ORIGINS`] the one unseen for longest
/// goes. What it left here is then not removed when its *invite* is revoked, but lapses by itself.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<PeerId, (InviteId, Instant)>);

impl Origins {
    /// A member is connected.
    pub(super) fn note(&mut self, peer: PeerId, invite: InviteId, now: Instant) {
        if self.0.len() >= MAX_ORIGINS && !self.0.contains_key(&peer) {
            let oldest = self.0.iter().min_by_key(|(_, (_, seen))| *seen);
            if let Some(oldest) = oldest.map(|(&peer, _)| peer) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(peer, (invite, now));
    }

    /// Is `peer` out, by its name or by the invite it came with?
    pub(super) fn is_revoked(&self, peer: PeerId, all: &Revocations) -> bool {
        let invite = self.0.get(&peer).map(|(invite, _)| *invite);
        all.names_node(peer) || invite.is_some_and(|invite| all.names_invite(invite))
    }

    /// The members known whom `all` names.
    pub(super) fn revoked(&self, all: &Revocations) -> Vec<PeerId> {
        let gone = |(peer, (invite, _)): (&PeerId, &(InviteId, Instant))| {
            all.check(*peer, *invite).is_err().then_some(*peer)
        };
        self.0.iter().filter_map(gone).collect()
    }

    /// Removes those that were gone for long; the `connected` stay.
    pub(super) fn sweep(&mut self, now: Instant, connected: impl Fn(&PeerId) -> bool) {
        self.0.retain(|peer, (_, seen)| {
            if connected(peer) {
                *seen = now;
            }
            now.saturating_duration_since(*seen) < KEPT
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let (mut all, now) = (Origins::default(), crate::some_instant());
        let peer = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            PeerId(bytes)
        };
        for n in 0..MAX_ORIGINS + 5 {
            let later = now + Duration::from_millis(u64::try_from(n).unwrap());
            all.note(peer(n), InviteId([1; 32]), later);
        }
        assert_eq!(all.0.len(), MAX_ORIGINS);
        assert!(!all.0.contains_key(&peer(4)) && all.0.contains_key(&peer(5)));
        let late = now + 2 * KEPT;
        all.sweep(late, |connected| *connected == peer(9));
        assert_eq!(all.0.len(), 1);
        all.sweep(late + KEPT, |_| false);
        assert!(all.0.is_empty());
    }
}
