//! Greetings: our card, shown to one member through a third party.

use crate::questions::Question;
use overlay_proto::directory::{
    OpenedCard, RoutedSignal, Signal, SignedCard, open_signal, seal_signal, signal_is_for,
};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::switching::NetIndex;

use super::Introductions;
use super::cards::{Author, Keys};
use crate::node::outside::Outside;
use crate::node::tick::Tick;

/// What came through a third party.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A member shows its card, for a network.
    Hello(NetIndex, Box<OpenedCard>),
    /// The sender goes.
    Bye,
}

impl Introductions {
    /// A signal came through a third party, for `me`. `networks`: those of the membership.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn open<'a>(
        &mut self,
        (from, me): (PeerId, PeerId),
        envelope: &[u8],
        overlay: &OverlayId,
        mut networks: impl Iterator<Item = Keys<'a>>,
    ) -> Result<Heard, DropReason> {
        let found = networks.find_map(|network| {
            let mut keys = network.of_greetings();
            let key = keys.find(|key| signal_is_for(envelope, key))?;
            Some((network, key))
        });
        let (network, epoch_key) = found.ok_or(DropReason::UnknownNetwork)?;
        let routed = open_signal(envelope, &from, &me, overlay, epoch_key)?;
        if !self.inbox.accept(from, routed.sequence) {
            return Err(DropReason::Replayed);
        }
        match routed.signal {
            Signal::Hello(card) => {
                let card = OpenedCard::open(&card, overlay, &network.id)?;
                Ok(Heard::Hello(network.net, Box::new(card)))
            }
            Signal::Bye => Ok(Heard::Bye),
        }
    }
}

/// Shows `card` to a member through a third party. `false`: there is no number for it, or it cannot be sealed.
pub(crate) fn greet(
    tick: Tick,
    out: &mut Outside,
    author: &Author<'_>,
    (to, epoch_key): (PeerId, &[u8; 32]),
    card: SignedCard,
) -> bool {
    let next = out.store.sequences.next(tick.wall);
    out.store.refill_sequences(tick.wall);
    let Some(sequence) = next else {
        // A later run might use the number again; the user is told of the disk.
        tracing::debug!("nobody is greeted before the disk takes numbers");
        return false;
    };
    let routed = RoutedSignal {
        from: author.me,
        to,
        sequence,
        signal: Signal::Hello(card),
    };
    let (overlay, entropy) = (&author.overlay, &mut out.entropy);
    match seal_signal(&routed, author.key, overlay, epoch_key, entropy) {
        Ok(envelope) => {
            out.asking.put(Question::Greet { to, envelope });
            true
        }
        Err(reason) => {
            out.drops.count(reason);
            false
        }
    }
}
