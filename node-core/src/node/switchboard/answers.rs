//! Between the slow path and the control plane: its events, and questions with their answers.

use std::time::{Duration, Instant};

use crate::control::ControlEvent;
use crate::questions::{Answered, Failure, Outcome, Question, QuestionId};
use crate::reasons::Greeted;
use crate::store::WriteId;
use nat_traversal::host::HostView;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::NetworkId;
use overlay_proto::switching::{MacKey, NetIndex};

use crate::node::effects::{CallId, Effect};
use crate::node::host_orders::BridgeLook;
use crate::node::networks::attaching::Recalled;
use crate::node::networks::looped_ports::PortSet;
use crate::node::storing;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// What came of something that a task was sent for.
pub enum Answer {
    /// A question to the control plane.
    Asked(QuestionId, Outcome),
    /// A write is on disk, or the disk refused.
    Written(WriteId, storing::Outcome),
    /// What the bridges look like; `None` if the kernel did not tell.
    Bridges(Option<Vec<BridgeLook>>),
    /// A port that is part of a loop was shut or opened, or the kernel refused.
    PortSet(PortSet),
    /// Entries of other hosts' MACs are written; those that the kernel refused.
    RemoteMacs(NetIndex, Vec<MacKey>),
    /// What the disk knows of a network.
    Recalled(NetworkId, anyhow::Result<Recalled>),
    /// Moved addresses stay, with what to tell the user; or why not.
    Confirmed(CallId, anyhow::Result<String>),
    /// What a user asked for is done, with what to tell; or why not.
    Operated(anyhow::Result<String>),
    /// It was tried to bring moved addresses back; the record says whether they are.
    MoveEnded,
    /// What the host's network looks like, and how long looking took; `None` if the kernel did not tell.
    Host(Option<Box<(HostView, Duration)>>),
}

impl Node {
    /// Something happened on the control plane.
    pub fn handle_control_event(&mut self, tick: Tick, event: ControlEvent) {
        match event {
            ControlEvent::InfraUp {
                peer,
                remote,
                mut data_addrs,
                chain,
            } => {
                // The relay is bound at the first: where the bootstrap was reached there is a way.
                data_addrs.sort_by_key(|addr| addr.ip() != remote.ip());
                tracing::info!(bootstrap = %peer, ?data_addrs, "bootstrap is up");
                self.take_receipts(peer, &chain);
                self.candidates
                    .underlay
                    .add_infra(tick.now, peer, &data_addrs);
                self.candidates
                    .ask_for_allocation(tick, &mut self.outside, peer);
                self.outside.asking.put(Question::Clock { infra: peer });
                self.candidates.infra.insert(peer);
                self.introductions.schedule.renew();
                for network in &mut self.networks.all {
                    network.directory.handle_dht_ready(tick.now);
                    self.networks.touched.insert(network.index);
                }
                self.seek_anew(tick);
            }
            ControlEvent::InfraDown { peer } => {
                tracing::info!(bootstrap = %peer, "bootstrap is down");
                self.candidates.infra.remove(&peer);
                // It is asked anew when it is up again.
                self.outside
                    .asking
                    .cancel(|question| question.infra() == Some(peer));
                if !self.candidates.is_any_up() {
                    self.networks
                        .all
                        .iter_mut()
                        .for_each(|n| n.directory.handle_dht_lost());
                }
            }
            ControlEvent::Signal { from, envelope } => self.handle_signal(tick, from, &envelope),
            ControlEvent::Twins { addrs: [a, b] } => {
                self.standing
                    .handle_twin(tick, &mut self.outside, &self.users.state_dir, (a, b))
            }
            ControlEvent::Refused { addr, reason } => self.standing.note_refused(&addr, &reason),
            ControlEvent::Unreachable { addr, reason } => {
                self.candidates.note_unreachable(addr, reason)
            }
        }
    }

    /// A task came back.
    pub fn handle_answer(&mut self, tick: Tick, answer: Answer) {
        match answer {
            Answer::Asked(id, outcome) => self.outside.asking.handle_outcome(tick.now, id, outcome),
            Answer::Written(id, outcome) => self.outside.store.handle_written(tick, id, outcome),
            Answer::Bridges(seen) => {
                let own = self.own();
                self.networks
                    .handle_looks(tick, &mut self.outside, own, seen);
            }
            Answer::PortSet(set) => {
                let own = self.own();
                self.networks
                    .handle_port_set(tick, &mut self.outside, own, &set);
            }
            Answer::Operated(done) => self.handle_operated(tick, done),
            Answer::RemoteMacs(net, refused) => {
                self.networks.handle_remote_written(tick, net, refused);
            }
            Answer::Recalled(id, kept) => self.handle_recalled(tick, id, kept),
            Answer::Confirmed(call, done) => self.handle_confirmed(call, done),
            Answer::MoveEnded => self.look_at_move(),
            Answer::Host(seen) => self.handle_host(tick, seen.map(|seen| *seen)),
        }
    }

    /// Tells the owners of questions what came of them.
    pub(crate) fn take_answers(&mut self, tick: Tick) {
        while let Some(Answered { question, outcome }) = self.outside.asking.poll_answer() {
            if outcome == Outcome::Failed(Failure::NoRoom) {
                self.outside.drops.count(DropReason::ControlOverflow);
            }
            self.handle_answered(tick, question, outcome);
        }
    }

    /// Hands to the shell what is to be asked now. Bound: [`MAX_ASKED`](crate::questions::MAX_ASKED), which the
    /// machine counts.
    pub fn send_questions(&mut self, now: Instant) {
        while let Some((id, question)) = self.outside.asking.poll_question(now) {
            self.outside.effects.push(Effect::Ask(id, question));
        }
    }

    fn handle_answered(&mut self, tick: Tick, question: Question, outcome: Outcome) {
        match (question, outcome) {
            (Question::Register { net, .. }, Outcome::Cards(cards)) => {
                for (_, bytes) in cards {
                    self.open_and_learn(tick, net, &bytes);
                }
            }
            (Question::Register { net, .. }, _) => {
                self.introductions.schedule.try_again(tick.now, net);
            }
            (Question::Allocate { infra }, Outcome::Allocation(allocation)) => {
                self.candidates
                    .underlay
                    .add_allocation(tick.now, infra, &allocation);
                self.outside.fib_stale = true;
                self.permit_at_new_relay();
            }
            (Question::Allocate { infra }, _) => {
                tracing::warn!(bootstrap = %infra, "no relay allocation");
            }
            (Question::Greet { to, .. }, outcome) => {
                if let Some(peer) = self.peers.known.get_mut(&to) {
                    peer.greeted = Some(match outcome {
                        Outcome::Done => Greeted::Delivered,
                        Outcome::Failed(Failure::NotConnected) => Greeted::Absent,
                        _ => Greeted::NotCarried,
                    });
                }
            }
            (Question::Clock { infra }, Outcome::Clock(millis)) => {
                self.handle_clock(tick, infra, millis);
            }
            (Question::GetRecord { net, key, .. }, outcome) => {
                let record = match outcome {
                    Outcome::Record(record) => record,
                    _ => None,
                };
                self.handle_record(tick, net, key, record.as_deref());
            }
            (Question::Receipt { chain, .. }, outcome) => {
                self.standing
                    .handle_receipt(tick, &mut self.outside, *chain, outcome);
            }
            (Question::SetBootstraps(_), Outcome::Failed(failure)) => {
                tracing::warn!(%failure, "the new bootstraps are not used");
            }
            // What is told once more with the next greeting, refresh or connection.
            (
                Question::Permit { .. }
                | Question::PutRecord { .. }
                | Question::Clock { .. }
                | Question::SetBootstraps(_)
                | Question::SetIncarnation(_)
                | Question::FollowRevocations,
                _,
            ) => {}
        }
    }

    /// What the DHT has for a MAC; there is no more to come.
    fn handle_record(&mut self, tick: Tick, net: NetIndex, key: MacKey, record: Option<&[u8]>) {
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        for answer in record.map(Some).into_iter().chain([None]) {
            let taken = network
                .directory
                .handle_dht_result(tick.now, tick.wall, key, answer);
            if let Err(reason) = taken {
                self.outside.drops.count(reason);
            }
        }
        self.touch_network(net);
    }
}
