//! The control plane in virtual time: bootstraps, which are hosts on the internet and do not know each other.
//!
//! A bootstrap is the real one: the gate, the server and the witness of `control-proto`, the reflector and the relay of
//! `nat-traversal`. What goes over TCP takes a fixed time here, and does not get lost while
//! [`tcp_reachable`](crate::net::topology::Net::tcp_reachable) says that there is a way. Whom a question is put to, and what its
//! answer is made of, is as in `control-plane/src/handle.rs`.
//!
//! - `bootstrap`: one of them. `data_plane`: its reflector and relay; `books`: its disk; `lies`: how it does harm.

mod books;
mod bootstrap;
mod data_plane;
mod lies;

use std::time::Duration;

use control_proto::messages::{self, RefusedReason, Request, Response};
use control_proto::records::{RecordRules, SignedRecords};
use nat_traversal::relay::RelayKey;
use node_core::control::{BootstrapAddr, ControlEvent};
use node_core::node::switchboard::answers::Answer;
use node_core::questions::{Allocation, Failure, Outcome, Question, QuestionId};
use overlay_proto::ids::PeerId;

use self::bootstrap::Said;
pub(super) use self::bootstrap::{Bootstrap, Place};
pub use self::lies::{Mood, StoreMood};
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
}

/// All bootstraps of a world, by their places.
pub(super) struct Control {
    pub(super) all: Vec<Bootstrap>,
    /// What a record must be to count.
    pub(super) rules: SignedRecords,
}

impl Control {
    /// The bootstrap on that host.
    pub(super) fn at(&mut self, host: HostId) -> Option<&mut Bootstrap> {
        self.all.iter_mut().find(|one| one.host() == host)
    }

    /// The host's connections are gone with its process.
    pub(super) fn forget(&mut self, host: HostId) {
        for one in &mut self.all {
            one.forget(host);
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
                one.forget(host.id);
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
        } = asked;
        let now = around.clock.now();
        let patience = question.patience();
        if let Some(running) = &mut from.running {
            match &question {
                Question::SetBootstraps(addrs) => {
                    let addrs = addrs.iter().map(|addr| BootstrapAddr::new(addr));
                    running.dials = addrs.filter_map(|addr| addr.peer()).collect();
                    let again = false;
                    around.queue.push(now, Event::Dial { host, run, again });
                }
                Question::SetIncarnation(incarnation) => running.incarnation = Some(*incarnation),
                _ => {}
            }
        }
        let (outcome, late) = self.answer(around, from, question);
        let wait = match outcome {
            Outcome::Failed(Failure::NoAnswer) => patience,
            _ => around.config.control_delay + late,
        };
        let answer = Answer::Asked(id, outcome);
        around
            .queue
            .push(now + wait, Event::Answer { host, run, answer });
    }

    /// What comes of a question, and how long it takes beyond the way there and back.
    fn answer(
        &mut self,
        around: &mut Surroundings,
        from: &Host,
        question: Question,
    ) -> (Outcome, Duration) {
        let single = question.infra();
        let request = match question {
            Question::SetBootstraps(_) => return (Outcome::Done, Duration::ZERO),
            Question::SetIncarnation(_) => {
                for one in self.reached(around, from) {
                    one.present(around, from);
                }
                return (Outcome::Done, Duration::ZERO);
            }
            Question::FollowRevocations => {
                self.push_lists(around, from);
                return (Outcome::Done, Duration::ZERO);
            }
            Question::Greet { to, envelope } => return self.forward(around, from, to, &envelope),
            Question::GetRecord { dht_key, .. } => {
                let found = self.look_up(around, from, dht_key);
                return (Outcome::Record(found), Duration::ZERO);
            }
            Question::Register {
                rendezvous, card, ..
            } => {
                return (
                    self.register(around, from, rendezvous, &card),
                    Duration::ZERO,
                );
            }
            Question::PutRecord { dht_key, record } => {
                if !self.rules.check(&dht_key, &record) {
                    return (Outcome::Failed(Failure::Refused), Duration::ZERO);
                }
                let (key, value) = (dht_key, record);
                Request::PutRecord { key, value }
            }
            Question::Allocate { .. } => Request::Allocate,
            Question::Permit {
                allocation, peers, ..
            } => Request::Permit { allocation, peers },
            Question::Receipt { chain, .. } => {
                let chain = chain.encode();
                Request::Receipt { chain }
            }
            Question::Clock { .. } => Request::Clock,
        };
        let mut outcome = Outcome::Failed(Failure::NotConnected);
        for one in self.reached(around, from) {
            if single.is_none_or(|infra| infra == one.peer()) {
                let (said, _) = one.ask(around, from, request.clone());
                let next = said.map_or_else(Outcome::Failed, whole);
                if matches!(outcome, Outcome::Failed(_)) {
                    outcome = next;
                }
            }
        }
        (outcome, Duration::ZERO)
    }

    /// Those that the host is connected with, and can reach.
    fn reached<'a>(
        &'a mut self,
        around: &Surroundings,
        host: &Host,
    ) -> impl Iterator<Item = &'a mut Bootstrap> + use<'a> {
        let reached = |one: &&mut Bootstrap| one.is_reached(around, host);
        let reached: Vec<_> = self.all.iter_mut().filter(reached).collect();
        reached.into_iter()
    }

    /// All that the gate of the host holds goes to all that it is connected with: those that know it are not disturbed.
    fn push_lists(&mut self, around: &mut Surroundings, from: &Host) {
        let Some(running) = &from.running else { return };
        for one in self.reached(around, from) {
            for list in control_proto::admission::meeting::lists_of(&running.gate) {
                // Who does not answer asks for them when it is back.
                let _ = one.ask(around, from, Request::Revocations { list });
            }
        }
    }

    /// The card is laid down everywhere; what all have shown comes back.
    fn register(
        &mut self,
        around: &mut Surroundings,
        from: &Host,
        rendezvous: [u8; 32],
        card: &[u8],
    ) -> Outcome {
        let (mut all, mut outcome) = (Vec::new(), Err(Failure::NotConnected));
        for one in self.reached(around, from) {
            let card = card.to_vec();
            let (said, _) = one.ask(around, from, Request::Register { rendezvous, card });
            match said {
                Ok(Response::Cards(cards)) => {
                    outcome = Ok(());
                    let own = from.peer();
                    for shown in cards {
                        if shown.0 != own && !all.contains(&shown) {
                            all.push(shown);
                        }
                    }
                }
                Ok(other) if outcome.is_err() => outcome = Err(unexpected(&other)),
                Err(failure) if outcome.is_err() => outcome = Err(failure),
                _ => {}
            }
        }
        outcome.map_or_else(Outcome::Failed, |()| Outcome::Cards(all))
    }

    /// An envelope goes by one bootstrap after the other, until one has brought it.
    fn forward(
        &mut self,
        around: &mut Surroundings,
        from: &Host,
        to: PeerId,
        envelope: &[u8],
    ) -> (Outcome, Duration) {
        let (mut last, mut late) = (Failure::NotConnected, Duration::ZERO);
        for one in self.reached(around, from) {
            let envelope = envelope.to_vec();
            let (said, more): Said = one.ask(around, from, Request::Forward { to, envelope });
            late += more;
            match said {
                Ok(Response::Delivered) => return (Outcome::Done, late),
                Ok(Response::NotConnected) => {}
                Ok(other) => last = unexpected(&other),
                Err(failure) => last = failure,
            }
        }
        (Outcome::Failed(last), late)
    }

    /// The first record that counts.
    fn look_up(
        &mut self,
        around: &mut Surroundings,
        from: &Host,
        key: [u8; 32],
    ) -> Option<Vec<u8>> {
        let rules = self.rules;
        self.reached(around, from).find_map(|one| {
            match one.ask(around, from, Request::GetRecord { key }) {
                (Ok(Response::Record(Some(value))), _) if rules.check(&key, &value) => Some(value),
                _ => None,
            }
        })
    }
}

/// An answer in the words of the slow path.
fn whole(response: Response) -> Outcome {
    match response {
        Response::Done => Outcome::Done,
        Response::Allocation(messages::Allocation { id, key, .. }) => {
            let key = RelayKey(key);
            Outcome::Allocation(Allocation { id, key })
        }
        Response::Receipt(outcome) => Outcome::Receipt(outcome),
        Response::Clock(millis) => Outcome::Clock(millis),
        other => Outcome::Failed(unexpected(&other)),
    }
}

/// As `overlay-node/src/shell/asking.rs` says it.
const fn unexpected(response: &Response) -> Failure {
    match response {
        Response::NotConnected => Failure::NotConnected,
        Response::Refused(RefusedReason::RateLimited | RefusedReason::Busy) => Failure::Busy,
        _ => Failure::Refused,
    }
}
