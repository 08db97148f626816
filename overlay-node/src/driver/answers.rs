//! Between the slow path and the control plane: its events, and questions with their answers.

use std::time::Duration;

use control_plane::messages::Allocation;
use control_plane::{ControlEvent, ControlHandle};
use nat_traversal::host::HostView;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::Chain;
use overlay_proto::switching::{MacKey, NetIndex};

use super::bridges::BridgeLook;
use super::looped_ports::PortSet;
use super::node::Tick;
use super::reasons::Greeted;
use super::receipts::Outcome;
use super::run::Driver;

/// After a bootstrap did not take a card.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);

/// Waits before the tries to get a relay allocation: without one a pair behind two hard NATs has no
/// path at all.
const ALLOCATE_TRIES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// What a question to the control plane brought.
pub(crate) enum Answer {
    /// Cards of a network from the bootstraps; `None` if none answered.
    Cards {
        net: NetIndex,
        cards: Option<Vec<(PeerId, Vec<u8>)>>,
    },
    /// A relay allocation.
    Allocation {
        infra: PeerId,
        allocation: Option<Allocation>,
    },
    /// What the DHT holds about a MAC.
    Record {
        net: NetIndex,
        key: MacKey,
        record: Option<Vec<u8>>,
    },
    /// What became of a greeting.
    Greeted { peer: PeerId, greeted: Greeted },
    /// By how much the clock of a bootstrap is ahead of ours, in seconds.
    Clock { infra: PeerId, ahead_s: i64 },
    /// What the bridges look like; `None` if the kernel did not tell.
    Bridges(Option<Vec<BridgeLook>>),
    /// A port that is part of a loop was shut or opened, or the kernel refused.
    PortSet(PortSet),
    /// What the host's network looks like, and how long looking took; `None` if the kernel did not tell.
    Host(Option<Box<(HostView, Duration)>>),
    /// What a witness said about a certificate of ours.
    Receipt { chain: Box<Chain>, outcome: Outcome },
}

impl Driver {
    /// Something happened on the control plane.
    pub(crate) fn handle_control_event(&mut self, tick: Tick, event: ControlEvent) {
        match event {
            ControlEvent::InfraUp {
                peer,
                remote,
                mut data_addrs,
            } => {
                // The relay is bound at the first: where the bootstrap was reached there is a way.
                data_addrs.sort_by_key(|addr| addr.ip() != remote.ip());
                tracing::info!(bootstrap = %peer, ?data_addrs, "bootstrap is up");
                self.take_receipts(tick, peer);
                self.underlay.add_infra(tick.now, peer, &data_addrs);
                self.ask_for_allocation(tick, peer);
                self.ask_the_time(peer);
                self.infra.insert(peer);
                for network in &mut self.networks {
                    network.register_at = None;
                    network.directory.handle_dht_ready(tick.now);
                    self.touched_networks.insert(network.index);
                }
            }
            ControlEvent::InfraDown { peer } => {
                tracing::info!(bootstrap = %peer, "bootstrap is down");
                self.infra.remove(&peer);
                if self.infra.is_empty() {
                    self.networks
                        .iter_mut()
                        .for_each(|n| n.directory.handle_dht_lost());
                }
            }
            ControlEvent::Signal { from, envelope } => self.handle_signal(tick, from, &envelope),
            ControlEvent::RevocationsGrew => self.follow_revocations(tick),
            ControlEvent::Twins { addrs: [a, b], .. } => self.handle_twin(tick, a, b),
            ControlEvent::Refused { addr, reason } => self.note_refused(&addr, &reason),
            ControlEvent::Unreachable { addr, reason } => self.note_unreachable(addr, reason),
            other => tracing::debug!(event = ?other, "control plane"),
        }
    }

    /// An answer came to what was asked with [`Driver::ask`].
    pub(crate) fn handle_answer(&mut self, tick: Tick, answer: Answer) {
        match answer {
            Answer::Cards { net, cards: None } => {
                if let Some(network) = self.networks.get_mut(usize::from(net.0)) {
                    network.register_at = Some(tick.now + REGISTER_AGAIN);
                }
            }
            Answer::Cards {
                net,
                cards: Some(cards),
            } => {
                for (_, bytes) in cards {
                    self.open_and_learn(tick, net, &bytes);
                }
            }
            Answer::Allocation { infra, allocation } => match allocation {
                Some(allocation) => {
                    self.underlay.add_allocation(tick.now, infra, &allocation);
                    self.fib_stale = true;
                    let known: Vec<PeerId> = self.peers.keys().copied().collect();
                    self.permit(&known);
                }
                None => tracing::warn!(bootstrap = %infra, "no relay allocation"),
            },
            Answer::Greeted { peer, greeted } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.greeted = Some(greeted);
                }
            }
            Answer::Clock { infra, ahead_s } => self.handle_clock(tick, infra, ahead_s),
            Answer::Bridges(seen) => self.handle_looks(tick, seen),
            Answer::PortSet(set) => self.handle_port_set(tick, &set),
            Answer::Host(seen) => self.handle_host(tick, seen.map(|seen| *seen)),
            Answer::Record { net, key, record } => {
                self.handle_record(tick, net, key, record.as_deref());
            }
            Answer::Receipt { chain, outcome } => self.handle_receipt(tick, *chain, outcome),
        }
    }

    /// What the DHT has for a MAC; there is no more to come.
    fn handle_record(&mut self, tick: Tick, net: NetIndex, key: MacKey, record: Option<&[u8]>) {
        let Some(network) = self.networks.get_mut(usize::from(net.0)) else {
            return;
        };
        for answer in record.map(Some).into_iter().chain([None]) {
            let taken = network
                .directory
                .handle_dht_result(tick.now, tick.wall, key, answer);
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
        self.touch_network(net);
    }

    /// Asks for an allocation at the relay of `infra`.
    pub(crate) fn ask_for_allocation(&mut self, tick: Tick, infra: PeerId) {
        self.underlay.note_asked(tick.now, infra);
        self.ask(move |control| async move {
            for wait in ALLOCATE_TRIES {
                tokio::time::sleep(wait).await;
                if let Ok(allocation) = control.allocate(infra).await {
                    let allocation = Some(allocation);
                    return Some(Answer::Allocation { infra, allocation });
                }
            }
            Some(Answer::Allocation {
                infra,
                allocation: None,
            })
        });
    }

    /// Asks the control plane in a task of its own; the answer comes to [`Driver::handle_answer`].
    /// One for which there is no place any more is dropped and counted.
    pub(crate) fn ask<F, Fut>(&self, question: F)
    where
        F: FnOnce(ControlHandle) -> Fut,
        Fut: Future<Output = Option<Answer>> + Send + 'static,
    {
        let Some(place) = self.questions.enter() else {
            return self.drops.count(DropReason::ControlOverflow);
        };
        let future = question(self.control.clone());
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let _turn = place.turn().await;
            if let Some(answer) = future.await {
                let _ = answers.send(answer).await;
            }
        });
    }
}
