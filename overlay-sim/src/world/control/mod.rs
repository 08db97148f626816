//! A stub of the control plane: bootstraps, which are hosts on the internet and do not know each other.
//!
//! What goes over TCP in the real one takes a fixed time here, and does not get lost while [`tcp_reachable`](crate::net::topology::Net::tcp_reachable) says that
//! there is a way; reflectors and relays are the real machines, behind UDP on the virtual network. Whom a question is put to, and
//! what its answer is made of, is as in `control-plane/src/handle.rs`.

mod bootstrap;
mod records;
mod rendezvous;

use std::time::Duration;

use node_core::control::{BootstrapAddr, ControlEvent};
use node_core::node::switchboard::answers::Answer;
use node_core::questions::{Failure, Outcome, Question, QuestionId};
use overlay_proto::ids::PeerId;

pub(super) use self::bootstrap::Bootstrap;
pub use self::bootstrap::Mood;
pub use self::records::StoreMood;
use super::host::Host;
use super::{Event, Surroundings};
use crate::net::topology::HostId;

/// How often a node that is not connected dials, and a connection is looked at.
pub(super) const DIAL_EVERY: Duration = Duration::from_secs(5);

/// A question on its way.
pub(super) struct Asked {
    pub(super) host: HostId,
    pub(super) run: u32,
    pub(super) id: QuestionId,
    pub(super) question: Question,
    /// The revocation lists of the gate of whoever asks.
    pub(super) lists: Vec<Vec<u8>>,
}

/// All bootstraps of a world, by their places.
pub(super) struct Control {
    pub(super) all: Vec<Bootstrap>,
}

impl Control {
    /// The bootstrap on that host.
    pub(super) fn at(&mut self, host: HostId) -> Option<&mut Bootstrap> {
        self.all.iter_mut().find(|one| one.host == host)
    }

    /// The host's connections are gone with its process.
    pub(super) fn forget(&mut self, peer: PeerId) {
        for one in &mut self.all {
            one.forget(peer);
        }
    }

    /// The host dials those that it should be connected to, and its connections are looked at.
    pub(super) fn dial(&mut self, around: &mut Surroundings, host: &mut Host) {
        for one in &mut self.all {
            let wanted = host.running.as_ref();
            let wanted = wanted.is_some_and(|running| running.dials.contains(&one.peer()));
            if wanted {
                one.dial(around, host);
            } else if one.has(host) {
                let peer = one.peer();
                one.forget(host.peer());
                let event = ControlEvent::InfraDown { peer };
                host.enter(around, |node, tick| node.handle_control_event(tick, event));
            }
        }
    }

    /// A question has come.
    pub(super) fn handle(&mut self, around: &mut Surroundings, asked: Asked, from: &mut Host) {
        let Asked {
            host,
            run,
            id,
            question,
            lists,
        } = asked;
        let now = around.clock.now();
        let patience = question.patience();
        if let (Question::SetBootstraps(addrs), Some(running)) = (&question, &mut from.running) {
            let addrs = addrs.iter().map(|addr| BootstrapAddr::new(addr));
            running.dials = addrs.filter_map(|addr| addr.peer()).collect();
            let again = false;
            around.queue.push(now, Event::Dial { host, run, again });
        }
        let outcome = self.answer(around, from, question, &lists);
        let wait = match outcome {
            Outcome::Failed(Failure::NoAnswer) => patience,
            _ => around.config.control_delay,
        };
        let answer = Answer::Asked(id, outcome);
        around
            .queue
            .push(now + wait, Event::Answer { host, run, answer });
    }

    fn answer(
        &mut self,
        around: &mut Surroundings,
        from: &Host,
        question: Question,
        lists: &[Vec<u8>],
    ) -> Outcome {
        if let Question::SetBootstraps(_) | Question::SetIncarnation(_) = question {
            return Outcome::Done;
        }
        let asks = question.infra();
        let asked = self.all.iter_mut();
        let asked = asked.filter(|one| asks.is_none_or(|infra| infra == one.peer()));
        let mut outcome = Outcome::Failed(Failure::NotConnected);
        for one in asked {
            if !one.is_reached(around, from) {
                continue;
            }
            let next = one.answer(around, from, question.clone(), lists);
            if matches!(question, Question::Greet { .. }) && next == Outcome::Done {
                return next;
            }
            outcome = together(outcome, next);
        }
        outcome
    }
}

/// What the answers of two bootstraps to one question are together.
fn together(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Cards(mut cards), Outcome::Cards(more)) => {
            let new = more.into_iter().filter(|card| !cards.contains(card));
            let new: Vec<_> = new.collect();
            cards.extend(new);
            Outcome::Cards(cards)
        }
        (Outcome::Record(Some(first)), _) => Outcome::Record(Some(first)),
        (Outcome::Failed(Failure::NotConnected) | Outcome::Record(None), other) => other,
        (Outcome::Failed(failure), Outcome::Failed(_)) => Outcome::Failed(failure),
        (Outcome::Failed(_), other) => other,
        (one, _) => one,
    }
}
