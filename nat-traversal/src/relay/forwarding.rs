//! Relayed datagrams, a *train* at a time: the datagrams of one size that the kernel has merged.
//!
//! A train comes from one address and mostly is of one session. So who it is from, whether it may
//! pass and where it goes is looked up once for a *run* of datagrams with the same header, and
//! what passes leaves as one send. Each datagram's MAC is checked and written anew by itself.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use super::codec::{KIND_RELAYED, check_relayed, re_mac, route_of};
use super::server::{RelayServer, live};
use super::{RelayError, RelayKey};
use crate::path::{AllocationId, RelayRoute};
use crate::wire_bytes::canonical;

/// Datagrams of one size, the last may be shorter, on their way to one address: one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayRun<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes of each datagram but the last.
    pub segment: usize,
    /// The IP header's TOS or traffic class, as they came.
    pub mark: u8,
    /// The datagrams behind each other.
    pub bytes: &'a [u8],
}

/// A train as it came: where from, and with which mark.
#[derive(Debug, Clone, Copy)]
pub struct TrainOrigin {
    /// The sender.
    pub from: SocketAddr,
    /// The IP header's TOS or traffic class.
    pub mark: u8,
}

/// A session through the relay, allowed to pass.
pub(super) struct Leg {
    route: RelayRoute,
    sender_key: RelayKey,
    receiver_key: RelayKey,
    pub(super) to: SocketAddr,
}

impl Leg {
    /// The allocation of whoever sends.
    pub(super) const fn sender(&self) -> AllocationId {
        self.route.peer
    }

    /// Is the datagram of this session, and its MAC right? Then it gets the receiver's.
    fn carries(&self, datagram: &mut [u8]) -> bool {
        let passes = route_of(datagram) == Ok(self.route)
            && check_relayed(datagram, &self.sender_key).is_ok();
        if passes {
            re_mac(datagram, &self.receiver_key);
        }
        passes
    }
}

impl RelayServer {
    /// A train of relayed datagrams, each `segment` bytes but the last. They are made ready in
    /// place; what may leave now goes to `send`, what comes too early waits for
    /// [`Self::poll_release`], the rest is dropped and counted.
    pub fn forward_train(
        &mut self,
        now: Instant,
        origin: TrainOrigin,
        train: &mut [u8],
        segment: usize,
        send: &mut dyn FnMut(RelayRun<'_>),
    ) {
        let segment = segment.clamp(1, train.len().max(1));
        let mut start = 0;
        while start < train.len() {
            let rest = train.get_mut(start..).unwrap_or_default();
            let first = rest.get_mut(..segment.min(rest.len())).unwrap_or_default();
            match self.admit(now, origin.from, first) {
                Ok(leg) => {
                    let len = run_length(&leg, rest, segment);
                    let run = RelayRun {
                        to: leg.to,
                        segment,
                        mark: origin.mark,
                        bytes: rest.get(..len).unwrap_or_default(),
                    };
                    self.shape(now, &leg, run, send);
                    start += len;
                }
                Err(_) => {
                    self.stats.refused += 1;
                    start += segment;
                }
            }
        }
    }

    /// What has waited long enough goes to `send`.
    pub fn poll_release(&mut self, now: Instant, send: &mut dyn FnMut(RelayRun<'_>)) {
        let Self {
            allocations,
            shaped,
            held,
            stats,
            ..
        } = self;
        // An allocation that has ended took along what waited in it.
        *held = 0;
        shaped.retain(|id| {
            let Some(own) = allocations.get_mut(id) else {
                return false;
            };
            let lost = own.shaper.release(now, send);
            stats.over_quota += lost;
            stats.forwarded -= lost;
            *held += own.shaper.held();
            own.shaper.held() > 0
        });
    }

    /// When [`Self::poll_release`] has something to send; `None` when nothing waits.
    #[must_use]
    pub fn release_at(&self) -> Option<Instant> {
        let waiting = self.shaped.iter().filter_map(|id| self.allocations.get(id));
        waiting.filter_map(|own| own.shaper.release_at()).min()
    }

    /// Checks a relayed datagram, writes the receiver's MAC, and says which session it is of.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<Leg, RelayError> {
        // As the receiver sees it: `peer` is the sender.
        let route = route_of(datagram)?;
        let sender = live(&mut self.allocations, route.peer, now)?;
        check_relayed(datagram, &sender.key)?;
        if sender.bound != Some(canonical(from)) {
            return Err(RelayError::NotBound);
        }
        let (sender_owner, sender_key) = (sender.owner, sender.key);
        let receiver = live(&mut self.allocations, route.own, now)?;
        let (to, receiver_key, receiver_owner) = (receiver.bound, receiver.key, receiver.owner);
        if !receiver.permits.contains(&sender_owner) {
            return Err(RelayError::NotPermitted);
        }
        let sender = live(&mut self.allocations, route.peer, now)?;
        if !sender.permits.contains(&receiver_owner) {
            return Err(RelayError::NotPermitted);
        }
        let to = to.ok_or(RelayError::NotBound)?;
        re_mac(datagram, &receiver_key);
        Ok(Leg {
            route,
            sender_key,
            receiver_key,
            to,
        })
    }

    /// Sends what the owner's rate lets pass, and lets wait what there is room for.
    fn shape(
        &mut self,
        now: Instant,
        leg: &Leg,
        run: RelayRun<'_>,
        send: &mut dyn FnMut(RelayRun<'_>),
    ) {
        let Some(sender) = self.allocations.get_mut(&leg.route.peer) else {
            return;
        };
        let passing = sender.shaper.pass(now, run.bytes.len(), run.segment);
        let (now_part, later) = run.bytes.split_at(passing);
        if !now_part.is_empty() {
            send(RelayRun {
                bytes: now_part,
                ..run
            });
        }
        let mut waiting = 0;
        if !later.is_empty() {
            let before = sender.shaper.held();
            let in_all = self.config.queue_bytes_in_all.saturating_sub(self.held);
            let room = self.config.queue_bytes.min(before + in_all);
            let run = RelayRun {
                bytes: later,
                ..run
            };
            waiting = sender.shaper.hold(now, &run, room);
            self.held += sender.shaper.held() - before;
            if before == 0 && waiting > 0 {
                self.shaped.push(leg.route.peer);
            }
        }
        let count = |len: usize| len.div_ceil(run.segment.max(1)) as u64;
        let passed = passing + waiting;
        self.stats.forwarded += count(passed);
        self.stats.forwarded_bytes += passed as u64;
        self.stats.delayed += count(waiting);
        self.stats.over_quota += count(run.bytes.len() - passed);
    }
}

/// How many bytes of `rest`, whole datagrams from its start, are of the session; the first is, and
/// is ready.
fn run_length(leg: &Leg, rest: &mut [u8], segment: usize) -> usize {
    let place = |index: usize, len: usize| -> Range<usize> {
        (index * segment).min(len)..((index + 1) * segment).min(len)
    };
    let mut index = 1;
    loop {
        let len = rest.len();
        let datagram = rest.get_mut(place(index, len)).unwrap_or_default();
        if datagram.is_empty() || !leg.carries(datagram) {
            return place(index, len).start;
        }
        index += 1;
    }
}

/// Is a datagram one of those that [`RelayServer::forward_train`] takes?
#[must_use]
pub fn is_relayed(datagram: &[u8]) -> bool {
    datagram.first() == Some(&KIND_RELAYED)
}
