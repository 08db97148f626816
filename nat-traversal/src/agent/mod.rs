//! From the candidates of one peer to the path its frames take.
//!
//! Traffic flows over the first path on which the handshake came through, mostly a relay. Meanwhile
//! the agent sends sealed challenges to every address the filter admits, in bursts that both sides
//! start at about the same time, so that each side's probe opens its own NAT for the other's. A
//! path is *proven* when a challenge was answered on it, and only then may it be chosen
//! ([`choose()`]); data from a new address only makes the agent ask there. The chosen path is asked
//! every 15 s, or quickly once frames go out and nothing comes back; when it dies, the reserves have
//! been asked already and one of them takes over. Without a direct path the burst is repeated, with
//! back-off from 5 s to 10 min.
//!
//! On the chosen path padded challenges find how large a datagram passes (the module `mtu`).
//!
//! Each side chooses what it sends on. The controlling side's challenges say what it uses, and the
//! other side follows where nothing speaks against it.

mod budget;
mod choose;
mod credit;
mod machine;
mod message;
mod mtu;
#[cfg(test)]
mod mtu_tests;
mod probing;
mod reason;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod simulation_tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use budget::ProbeBudget;
pub use choose::{PathOption, Tier, choose};
pub use message::{MAX_PROBE_LEN, PROBE_LEN, ProbeError, ProbeMessage};
pub use reason::{ChoiceReason, FallbackReason, Rung};

use crate::candidate::{Candidate, CandidateFilter, MAX_CANDIDATES};
use crate::entropy::Entropy;
use crate::nat_kind::Mapping;
use crate::path::{Path, PathKind, SocketId};
use crate::sizes;
use machine::{Climb, Situation, Traffic};
use probing::{Mode, Probed};

/// Events that wait for the driver; older ones are dropped first.
const MAX_EVENTS: usize = 32;

/// A probe to seal and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// On which path.
    pub path: Path,
    /// What.
    pub message: ProbeMessage,
    /// For [`ProbeMessage::encode`]: bytes of the message, without what sealing adds
    /// ([`sizes::SEALING`]) and without a relay header.
    pub padded_len: usize,
}

/// What the driver must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// Send on this path from now on.
    Chosen {
        /// The path.
        path: Path,
        /// Its RTT, if measured.
        rtt: Option<Duration>,
        /// Why.
        why: ChoiceReason,
    },
    /// The chosen path, which only a handshake had come by, has answered: any amount may be sent there.
    Proven {
        /// The path.
        path: Path,
    },
    /// No path works. The agent goes on searching.
    Lost,
    /// Datagrams on the chosen path may have another size than before: the new
    /// [`PathAgent::path_mtu_payload`].
    Mtu {
        /// The path.
        path: Path,
        /// The largest sealed datagram, in bytes.
        payload: usize,
    },
    /// The peer, on a proven direct path, sees our socket at `addr`: feed the NAT kind with it.
    Observed {
        /// Our socket.
        socket: SocketId,
        /// The peer's address.
        observer: SocketAddr,
        /// Our address as the peer sees it.
        addr: SocketAddr,
    },
}

/// The agent of one peer. Memory: at most 32 paths with 8 open challenges each.
///
/// Inputs are `set_*` and `handle_*`, in any order; each takes the time, which never goes back.
/// After every input call `poll_transmit` and `poll_event` until both are empty, then wait until
/// `poll_timeout` and call `handle_timeout`. `handle_probe` and `handle_traffic` take only what a
/// session with this very peer has authenticated. Report traffic once a second, not per frame.
#[derive(Debug)]
pub struct PathAgent {
    controlling: bool,
    clock: Instant,
    paths: BTreeMap<Path, Probed>,
    chosen: Option<Path>,
    /// What the controlling side sends on.
    preferred: Option<Path>,
    relay: Option<Path>,
    candidates: Candidates,
    situation: Situation,
    traffic: Traffic,
    climb: Climb,
    /// Paths on which a challenge is to leave; each at most once.
    queue: VecDeque<Path>,
    /// Addresses whose answers the budget has not been told yet; at most 32.
    answered: Vec<IpAddr>,
    /// The path MTU that the driver was told last, in bytes of the sealed datagram.
    told_mtu: usize,
    events: VecDeque<PathEvent>,
}

/// The addresses of both sides that may be tried.
#[derive(Debug)]
struct Candidates {
    /// Which of the peer's may be.
    filter: CandidateFilter,
    /// At most 4 times [`MAX_CANDIDATES`].
    local: Vec<Candidate>,
    /// At most [`MAX_CANDIDATES`].
    remote: Vec<Candidate>,
    /// Of the newest list of the peer.
    remote_seq: Option<u64>,
}

impl PathAgent {
    /// An agent that knows nothing. `controlling` must differ between the two sides (the lower
    /// peer id controls).
    #[must_use]
    pub fn new(now: Instant, filter: CandidateFilter, controlling: bool) -> Self {
        Self {
            controlling,
            clock: now,
            paths: BTreeMap::new(),
            chosen: None,
            preferred: None,
            relay: None,
            candidates: Candidates {
                filter,
                local: Vec::new(),
                remote: Vec::new(),
                remote_seq: None,
            },
            situation: Situation::default(),
            traffic: Traffic::default(),
            climb: Climb::default(),
            queue: VecDeque::new(),
            answered: Vec::new(),
            told_mtu: sizes::SAFE_DATAGRAM,
            events: VecDeque::new(),
        }
    }

    /// What the filter knows has changed: subnets, own reflexive addresses, overlay prefixes.
    pub fn set_filter(&mut self, now: Instant, filter: CandidateFilter) {
        self.clock = now;
        if filter != self.candidates.filter {
            self.candidates.filter = filter;
            self.rebuild(now);
        }
    }

    /// The host's way out is another one: what failed before may work now, and what worked may not.
    pub fn handle_way_changed(&mut self, now: Instant) {
        self.clock = now;
        self.suspect_chosen();
        self.climb.restart();
        self.start_burst(now, true);
    }

    /// Our own candidates. They say which address families we speak; a change means that the host
    /// may be in another network, so everything is probed again.
    pub fn set_local_candidates(&mut self, now: Instant, local: &[Candidate]) {
        self.clock = now;
        if self.candidates.local == local {
            return;
        }
        let moved = !self.candidates.local.is_empty();
        self.candidates.local = local.iter().copied().take(4 * MAX_CANDIDATES).collect();
        self.rebuild(now);
        if moved {
            self.suspect_chosen();
            self.start_burst(now, true);
        }
    }

    /// The peer's candidates, with the number of its list; a list that is not newer is ignored.
    /// Gives how many were refused (`candidate_refused`).
    pub fn set_remote_candidates(&mut self, now: Instant, remote: &[Candidate], seq: u64) -> usize {
        self.clock = now;
        if self.candidates.remote_seq.is_some_and(|last| seq <= last) {
            return 0;
        }
        self.candidates.remote_seq = Some(seq);
        self.candidates.remote = remote.iter().copied().take(MAX_CANDIDATES).collect();
        let refused = self.rebuild(now);
        self.climb.restart();
        self.start_burst(now, true);
        refused + remote.len().saturating_sub(MAX_CANDIDATES)
    }

    /// The relayed path to use when there is no direct one; none when the allocation is lost.
    pub fn set_relay(&mut self, now: Instant, relay: Option<Path>) {
        self.clock = now;
        let relay = relay.filter(|path| path.kind() == PathKind::Relayed);
        if let Some(old) = self.relay.filter(|old| Some(*old) != relay) {
            self.relay = None;
            self.forget(now, old);
        }
        self.relay = relay;
        if let Some(path) = relay {
            self.meet(path, true);
            if let Some(probed) = self.paths.get_mut(&path) {
                probed.listed = true;
                if !probed.proven && probed.mode == Mode::Rest {
                    probed.burst(now);
                }
            }
        }
    }

    /// What is known of the two NATs and of UDP at large; it only changes the reason given.
    pub const fn set_nat(&mut self, local: Mapping, remote: Mapping, udp_blocked: bool) {
        self.situation.local = local;
        self.situation.remote = remote;
        self.situation.udp_blocked = udp_blocked;
    }

    /// A handshake with the peer finished over `path`: it is usable at once, on credit ([`Self::can_send`]) if
    /// nothing was answered there. `received`: bytes of the datagram that says so.
    pub fn handle_established(&mut self, now: Instant, path: Path, received: usize) {
        self.clock = now;
        let direct = path.kind() == PathKind::Direct;
        if direct && self.candidates.filter.admit_source(path.remote).is_err() {
            // It came through the overlay itself. The session is good, this way to it is not.
            self.start_burst(now, true);
            return;
        }
        self.make_room();
        let tier = self.tier(&path);
        let first = self.chosen.is_none();
        let probed = self.paths.entry(path);
        let probed = probed.or_insert_with(|| Probed::new(&path, tier, false));
        if direct && !probed.has_answered() {
            probed.credit.get_or_insert_default().receive(received);
        }
        probed.proven = true;
        probed.heard = Some(now);
        // Challenges before the first session could not be sealed: their silence says nothing.
        probed.unanswered = 0;
        self.settle(path);
        self.rechoose(now, Some(ChoiceReason::Established));
        if self.chosen != Some(path) {
            // The peer has restarted, and this is where it is now: does the old path still work?
            self.suspect_chosen();
        }
        if first {
            for probed in self.paths.values_mut().filter(|probed| !probed.proven) {
                probed.burst(now);
            }
            self.start_burst(now, true);
        }
    }

    /// A probe from the peer came on `path`. An answer, if due, is to be sent at once.
    pub fn handle_probe(
        &mut self,
        now: Instant,
        path: Path,
        message: ProbeMessage,
    ) -> Option<Outgoing> {
        self.clock = now;
        let known = self.paths.contains_key(&path);
        match message {
            ProbeMessage::Challenge { id, in_use, climb } => {
                self.handle_challenge(now, path, in_use, climb);
                let direct = path.kind() == PathKind::Direct;
                Some(Outgoing {
                    path,
                    message: ProbeMessage::answer(id, direct.then_some(path.remote)),
                    padded_len: PROBE_LEN,
                })
            }
            ProbeMessage::Answer { id, observed } => {
                if known {
                    self.handle_answer(now, path, id, observed);
                } else {
                    // Its NAT answers from another address than the one asked: ask that one.
                    self.ask_back(now, path);
                }
                None
            }
        }
    }

    /// Authenticated frames came on `path` since the last report.
    pub fn handle_traffic(&mut self, now: Instant, path: Path) {
        self.clock = now;
        let chosen = self.chosen == Some(path);
        match self.paths.get_mut(&path) {
            Some(probed) => {
                probed.heard = Some(now);
                if chosen && probed.mode == Mode::Urgent {
                    probed.calm();
                }
            }
            None => {
                // The peer's address has changed, most likely: ask both the new and the old one.
                self.ask_back(now, path);
                if path.kind() == PathKind::Direct {
                    self.suspect_chosen();
                }
            }
        }
    }

    /// Something authentic of `bytes` came on `path`.
    pub fn handle_received(&mut self, path: Path, bytes: usize) {
        let credit = self.paths.get_mut(&path);
        if let Some(credit) = credit.and_then(|probed| probed.credit.as_mut()) {
            credit.receive(bytes);
        }
    }

    /// `bytes` are sent on `path`. Need not be told for a path that is [open](Self::is_open).
    pub fn note_sent(&mut self, path: Path, bytes: usize) {
        let credit = self.paths.get_mut(&path);
        if let Some(credit) = credit.and_then(|probed| probed.credit.as_mut()) {
            credit.send(bytes);
        }
    }

    /// Frames were sent to the peer since the last report.
    pub fn handle_sent(&mut self, now: Instant) {
        self.clock = now;
        self.traffic.sent(now);
    }

    /// The next probe to send. `budget` is that of the whole node.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        budget: &mut ProbeBudget,
        entropy: &mut dyn Entropy,
    ) -> Option<Outgoing> {
        for ip in self.answered.drain(..) {
            budget.answered(now, ip);
        }
        while let Some(path) = self.queue.pop_front() {
            let in_use = self.chosen == Some(path);
            let Some(probed) = self.paths.get_mut(&path) else {
                continue;
            };
            let free = probed.proven || path.kind() == PathKind::Relayed;
            if !free && !budget.take(now, path.remote.ip()) {
                self.situation.budget_spent = true;
                continue;
            }
            let id = entropy.next_u64();
            probed.sent(now, id);
            let climb = in_use && std::mem::take(&mut self.climb.announce);
            return Some(Outgoing {
                path,
                message: ProbeMessage::Challenge { id, in_use, climb },
                padded_len: PROBE_LEN,
            });
        }
        self.poll_large(now, entropy)
    }

    /// The next challenge that shows whether its size passes: on the chosen path, which is proven,
    /// so no budget speaks against it.
    fn poll_large(&mut self, now: Instant, entropy: &mut dyn Entropy) -> Option<Outgoing> {
        let path = self.chosen?;
        let probed = self.paths.get_mut(&path)?;
        if probed.credit.is_some() {
            return None;
        }
        let size = probed.mtu.to_send()?;
        let id = entropy.next_u64();
        probed.mtu.sent(now, id, probed.rtt);
        Some(Outgoing {
            path,
            message: ProbeMessage::Challenge {
                id,
                in_use: true,
                climb: false,
            },
            padded_len: sizes::frame_of_sealed(size),
        })
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout`; an instant in the past means at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let paths = self
            .paths
            .values()
            .filter_map(|probed| probed.due_at(self.clock));
        let others = [self.suspect_at(), self.mtu_due_at(), self.climb.next];
        paths.chain(others.into_iter().flatten()).min()
    }

    /// The path to send on.
    #[must_use]
    pub const fn chosen(&self) -> Option<Path> {
        self.chosen
    }

    /// Is there a path on which any amount may be sent?
    #[must_use]
    pub fn is_open(&self) -> bool {
        let chosen = self.chosen.and_then(|path| self.paths.get(&path));
        chosen.is_some_and(|probed| probed.credit.is_none())
    }

    /// May `bytes` of UDP payload be sent on the chosen path now? `false` without one. Where a handshake alone has
    /// come from it gets three times what it sent, until it answers a challenge: [`PathEvent::Proven`].
    #[must_use]
    pub fn can_send(&self, bytes: usize) -> bool {
        let chosen = self.chosen.and_then(|path| self.paths.get(&path));
        chosen.is_some_and(|probed| probed.credit.is_none_or(|credit| credit.covers(bytes)))
    }

    /// The smoothed RTT of the chosen path, once measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.paths.get(&self.chosen?)?.rtt
    }

    /// The rung on which the chosen path stands.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        Some(match self.paths.get(&self.chosen?)?.tier {
            Tier::Near => Rung::Near,
            Tier::Direct => Rung::SimultaneousProbes,
            Tier::Relayed => Rung::Relay,
        })
    }

    /// Why there is no direct path; none when there is one.
    #[must_use]
    pub fn reason(&self) -> Option<FallbackReason> {
        if self.is_direct() {
            return None;
        }
        let searching = self.paths.iter().any(|(path, probed)| {
            path.kind() == PathKind::Direct && matches!(probed.mode, Mode::Burst(..))
        });
        Some(self.situation.reason(searching))
    }

    /// The largest sealed datagram that is proven to pass on the chosen path, in bytes: its UDP
    /// payload less the relay header. [`sizes::SAFE_DATAGRAM`] before more is proven.
    #[must_use]
    pub fn path_mtu_payload(&self) -> usize {
        let chosen = self.chosen.and_then(|path| self.paths.get(&path));
        chosen.map_or(sizes::SAFE_DATAGRAM, |probed| probed.mtu.payload())
    }
}
