//! Cards: ours, and how those of others are opened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::questions::Question;
use nat_traversal::candidate::Candidate;
use overlay_proto::Entropy;
use overlay_proto::directory::{
    Card, OpenedCard, Signed, SignedCard, SignedRosterEntry, open_card, seal_card,
};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, OverlayId, PeerId};
use overlay_proto::membership::{NodeKey, OldEpoch, rendezvous_blind};
use overlay_proto::switching::NetIndex;
use overlay_proto::time::UnixTime;

use crate::node::outside::Outside;

/// Cards at the rendezvous live 10 min; laid down again at less than half of it.
const REGISTER_EVERY: Duration = Duration::from_secs(240);

/// After a bootstrap did not take a card.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);

/// New cards are laid down within this, so that the members of a network do not all come at once;
/// as with the claims, less than the 5 s of DIRECTORY.md.
const LAY_JITTER: Duration = Duration::from_secs(4);

/// When our card of each network is laid down again; at once where nothing is said. Bound: the networks of the
/// membership.
#[derive(Debug, Default)]
pub struct Schedule(BTreeMap<NetIndex, Instant>);

impl Schedule {
    /// When that of `net` is; `None`: at once.
    #[must_use]
    pub fn next(&self, net: NetIndex) -> Option<Instant> {
        self.0.get(&net).copied()
    }

    /// That of `net` is not laid down before `at`.
    pub fn put_off(&mut self, net: NetIndex, at: Instant) {
        self.0.insert(net, at);
    }

    /// All say something else than what lies there.
    pub(crate) fn renew(&mut self) {
        self.0.clear();
    }

    /// That of `net` has to be laid down under another key.
    pub(crate) fn renew_soon(&mut self, now: Instant, net: NetIndex, entropy: &mut dyn Entropy) {
        let jitter = entropy.next_u32() % 1_000;
        self.put_off(net, now + LAY_JITTER * jitter / 1_000);
    }

    /// Nobody took that of `net`.
    pub(crate) fn try_again(&mut self, now: Instant, net: NetIndex) {
        self.put_off(net, now + REGISTER_AGAIN);
    }

    /// Is that of `net` to be laid down now? It counts as done then.
    pub(crate) fn take_due(&mut self, now: Instant, net: NetIndex) -> bool {
        let due = self.next(net).is_none_or(|at| at <= now);
        if due {
            self.put_off(net, now + REGISTER_EVERY);
        }
        due
    }
}

/// This node, as it signs what others are to know of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author<'a> {
    /// Its name.
    pub(crate) me: PeerId,
    pub(crate) key: &'a NodeKey,
    pub(crate) overlay: OverlayId,
    /// Its signed x25519 static.
    pub(crate) static_document: &'a [u8],
    /// What people call it.
    pub(crate) name: &'a str,
}

impl Author<'_> {
    /// Our card for one network, signed. `entry`: in its roster, by the certificate `chain`.
    pub(crate) fn card(
        &self,
        entry: SignedRosterEntry,
        chain: Vec<u8>,
        (sequence, candidates): (u64, &[Candidate]),
    ) -> Option<SignedCard> {
        let card = Card {
            entry,
            chain,
            static_document: self.static_document.to_vec(),
            candidates: candidates.to_vec(),
            sequence,
            name: self.name.to_owned(),
        };
        Signed::seal(&card, self.key, &self.overlay).ok()
    }
}

/// A network and its keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) net: NetIndex,
    pub(crate) id: NetworkId,
    /// Of its epoch.
    pub(crate) newest: &'a [u8; 32],
    /// The epoch before, while its key is kept.
    pub(crate) old: Option<&'a OldEpoch>,
}

impl<'a> Keys<'a> {
    /// Those under which cards are laid down and read at `now`.
    fn of_cards(&self, now: UnixTime) -> impl Iterator<Item = &'a [u8; 32]> + use<'a> {
        let old = self.old.and_then(|old| old.read_at(now));
        std::iter::once(self.newest).chain(old)
    }

    /// Those under which greetings are opened: one under the old key is from a member that was off when the
    /// epoch changed.
    pub(super) fn of_greetings(&self) -> impl Iterator<Item = &'a [u8; 32]> + use<'a> {
        std::iter::once(self.newest).chain(self.old.map(OldEpoch::key))
    }
}

/// Lays `card` down at the bootstraps; under the old name, too, as long as members look there that missed the
/// change.
pub(crate) fn lay_down(out: &mut Outside, keys: &Keys<'_>, now: UnixTime, card: &SignedCard) {
    for epoch_key in keys.of_cards(now) {
        let Ok(card) = seal_card(card, epoch_key, &mut out.entropy) else {
            continue;
        };
        out.asking.put(Question::Register {
            net: keys.net,
            rendezvous: rendezvous_blind(epoch_key),
            card,
        });
    }
}

/// Opens what lay at a rendezvous.
pub(crate) fn open(
    bytes: &[u8],
    keys: &Keys<'_>,
    overlay: &OverlayId,
    now: UnixTime,
) -> Result<OpenedCard, DropReason> {
    let mut keys_of_cards = keys.of_cards(now);
    let first = keys_of_cards.next().ok_or(DropReason::UnknownNetwork)?;
    open_card(bytes, first, overlay, &keys.id).or_else(|reason| {
        open_card(
            bytes,
            keys_of_cards.next().ok_or(reason)?,
            overlay,
            &keys.id,
        )
    })
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use overlay_proto::SeededEntropy;

    use super::*;

    const LAB: NetIndex = NetIndex(0);
    const DEN: NetIndex = NetIndex(1);

    #[test]
    fn a_card_is_laid_down_at_once_then_before_it_ends_and_soon_when_nobody_took_it() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        assert!(schedule.take_due(now, LAB) && !schedule.take_due(now, LAB));
        assert!(schedule.take_due(now, DEN));
        schedule.try_again(now, DEN);
        let soon = now + REGISTER_AGAIN;
        assert!(!schedule.take_due(soon, LAB) && schedule.take_due(soon, DEN));
        assert!(schedule.take_due(now + REGISTER_EVERY, LAB));
        schedule.renew();
        assert!(schedule.take_due(now, LAB) && schedule.take_due(now, DEN));
    }

    #[test]
    fn new_cards_of_a_network_are_spread_over_less_than_five_seconds() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        let mut entropy = SeededEntropy::new(1);
        let mut late = 0;
        for _ in 0..100 {
            schedule.renew_soon(now, LAB, &mut entropy);
            late += u32::from(!schedule.take_due(now + LAY_JITTER / 2, LAB));
            schedule.renew_soon(now, LAB, &mut entropy);
            assert!(schedule.take_due(now + LAY_JITTER, LAB));
        }
        assert!((30..70).contains(&late), "{late}");
    }
}
