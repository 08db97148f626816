//! Which bootstraps are up, and which do not answer; the allocations at their relays.

use overlay_proto::ids::PeerId;

use super::Candidates;
use crate::control::BootstrapAddr;
use crate::node::effects::{Datagram, Effect};
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::questions::Question;
use crate::underlay::UnderlayEvent;

/// Addresses that are remembered as silent; invites name 8 at most each.
const MAX_UNREACHABLE: usize = 64;

/// What others have to know of the own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CandidatesOutput {
    /// Everybody who was told the list is told anew.
    Changed,
    /// What must not be sent to is another set.
    FilterChanged,
}

impl Candidates {
    /// Is the bootstrap `infra` connected now?
    pub(crate) fn is_up(&self, infra: PeerId) -> bool {
        self.infra.contains(&infra)
    }

    /// Is any bootstrap connected?
    pub(crate) fn is_any_up(&self) -> bool {
        !self.infra.is_empty()
    }

    /// Those that are connected now.
    pub(crate) fn up(&self) -> impl Iterator<Item = PeerId> {
        self.infra.iter().copied()
    }

    /// An address of a bootstrap does not answer; it is dialled again and again. `status` shows why, and
    /// warns if no bootstrap is up at all.
    pub(crate) fn note_unreachable(&mut self, addr: BootstrapAddr, reason: String) {
        if self.unreachable.len() < MAX_UNREACHABLE || self.unreachable.contains_key(&addr) {
            self.unreachable.insert(addr, reason);
        }
    }

    /// The bootstrap `infra` answers: none of its addresses is called silent any more.
    pub(crate) fn forget_unreachable(&mut self, infra: PeerId) {
        self.unreachable.retain(|at, _| at.peer() != Some(infra));
    }

    /// Asks for an allocation at the relay of `infra`.
    pub(crate) fn ask_for_allocation(&mut self, tick: Tick, out: &mut Outside, infra: PeerId) {
        self.underlay.note_asked(tick.now, infra);
        out.asking.put(Question::Allocate { infra });
    }

    /// Bootstraps whose relay did not give or bind an allocation are asked again.
    pub(crate) fn renew_allocations(&mut self, tick: Tick, out: &mut Outside) {
        for infra in self.underlay.without_relay(tick.now) {
            if self.is_up(infra) {
                self.ask_for_allocation(tick, out, infra);
            }
        }
    }

    /// What goes to reflectors and relays now.
    pub(crate) fn settle(&mut self, tick: Tick, out: &mut Outside) {
        while let Some(datagram) = self.underlay.poll_transmit(tick.now) {
            out.effects.push(Effect::Send(Datagram {
                to: datagram.to,
                bytes: datagram.bytes,
                probe: None,
            }));
        }
    }

    /// What others have to know. To be asked until there is nothing more.
    pub(crate) fn poll(&mut self, tick: Tick, out: &mut Outside) -> Option<CandidatesOutput> {
        loop {
            match self.underlay.poll_event()? {
                UnderlayEvent::CandidatesChanged => return Some(CandidatesOutput::Changed),
                UnderlayEvent::FilterChanged => return Some(CandidatesOutput::FilterChanged),
                UnderlayEvent::RelayBound(infra) => {
                    tracing::debug!(bootstrap = %infra, "the relay answers");
                }
                UnderlayEvent::RelayLost(infra) => {
                    tracing::warn!(bootstrap = %infra, "the relay does not answer");
                    if self.is_up(infra) {
                        self.ask_for_allocation(tick, out, infra);
                    }
                }
            }
        }
    }
}
