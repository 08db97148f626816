//! The data plane of reflector and relay: one thread that owns the UDP sockets, the relay's table
//! and all that a datagram needs, so nothing on its way takes a lock.
//!
//! A wildcard socket answers from the address it was asked at, and a relayed datagram leaves from
//! the address at which its receiver has bound its allocation: a NAT lets nothing else in.
//!
//! What the kernel has merged stays together: a train is looked up once and leaves as one send,
//! with the mark in the IP header that it came with.

mod sockets;

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use host_services::OsEntropy;
use host_services::poll::{Wait, poll};
use host_services::udp::{ADDRESSED, Received, recv_batch};
use nat_traversal::reflector::{KIND_REQUEST, ReflectorLimiter};
use nat_traversal::relay::{KIND_ACK, KIND_BIND, RelayRun, TrainOrigin, is_relayed};

use self::sockets::{Exit, Sockets};
use crate::relay::RelayDesk;

/// Trains that one call receives.
const BATCH: usize = 16;

/// The largest train that the kernel hands over.
const BUFFER: usize = 65_536;

/// After a failed receive, so that an error that lasts does not take a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// How often what has lapsed is removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long the way to a bound address is remembered: members bind again every half minute.
const WAY_LIFETIME: Duration = Duration::from_secs(120);

/// Ways: one for each allocation and some that have moved.
const MAX_WAYS: usize = 16_384;

/// The thread's state. Nobody else has any of it.
pub(crate) struct DataPlane {
    sockets: Sockets,
    desk: RelayDesk,
    limiter: ReflectorLimiter,
    ways: Ways,
    counters: Arc<Counters>,
    /// A train each.
    buffers: Vec<Box<[u8]>>,
    /// The bell of the control plane, then the sockets.
    waits: Vec<Wait>,
    swept: Instant,
}

/// By which socket and own address bound addresses were last heard. Bounded by [`MAX_WAYS`],
/// emptied by [`Ways::sweep`].
#[derive(Default)]
struct Ways(HashMap<SocketAddr, (Exit, Instant)>);

/// What the data plane did, since its start. The thread writes, others read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reflected: AtomicU64,
    unknown: AtomicU64,
    send_failed: AtomicU64,
    relayed: AtomicU64,
    relayed_bytes: AtomicU64,
    relay_delayed: AtomicU64,
    relay_over_quota: AtomicU64,
    relay_refused: AtomicU64,
    allocations: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) reflected: u64,
    pub(crate) unknown: u64,
    pub(crate) send_failed: u64,
    pub(crate) relayed: u64,
    pub(crate) relayed_bytes: u64,
    /// Had to wait because of the quota; they were relayed.
    pub(crate) relay_delayed: u64,
    /// Dropped because of the quota.
    pub(crate) relay_over_quota: u64,
    /// Wrong or not allowed.
    pub(crate) relay_refused: u64,
    pub(crate) allocations: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            reflected: read(&self.reflected),
            unknown: read(&self.unknown),
            send_failed: read(&self.send_failed),
            relayed: read(&self.relayed),
            relayed_bytes: read(&self.relayed_bytes),
            relay_delayed: read(&self.relay_delayed),
            relay_over_quota: read(&self.relay_over_quota),
            relay_refused: read(&self.relay_refused),
            allocations: read(&self.allocations),
        }
    }
}

impl DataPlane {
    /// Binds `addrs`, or none.
    pub(crate) fn bind(addrs: &[SocketAddr], desk: RelayDesk) -> Result<Self> {
        let now = Instant::now();
        let sockets = Sockets::bind(addrs)?;
        let fds = std::iter::once(desk.waker.as_raw_fd()).chain(sockets.fds());
        let waits = fds.map(Wait::readable).collect();
        Ok(Self {
            sockets,
            desk,
            waits,
            limiter: ReflectorLimiter::new(now),
            ways: Ways::default(),
            counters: Arc::default(),
            buffers: vec![vec![0; BUFFER].into_boxed_slice(); BATCH],
            swept: now,
        })
    }

    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(mut self) -> Result<Arc<Counters>> {
        let counters = self.counters.clone();
        std::thread::Builder::new()
            .name("data-plane".into())
            .spawn(move || {
                loop {
                    self.turn();
                }
            })
            .context("cannot start the data plane's thread")?;
        Ok(counters)
    }

    /// Waits, serves the control plane, takes a batch of each socket that has something, and
    /// releases what waited long enough.
    fn turn(&mut self) {
        let now = Instant::now();
        let due = self.desk.server.release_at();
        let sweep = self.swept + SWEEP_EVERY;
        let until = due.map_or(sweep, |due| due.min(sweep));
        poll(&mut self.waits, Some(until.saturating_duration_since(now)));
        let now = Instant::now();
        for place in 0..self.waits.len() {
            let found = self.waits.get(place).is_some_and(Wait::is_ready);
            match (found, place.checked_sub(1)) {
                (true, None) => self.take_orders(now),
                (true, Some(socket)) => self.receive(socket, now),
                (false, _) => {}
            }
        }
        let (sockets, ways) = (&mut self.sockets, &self.ways);
        let mut send = |run: RelayRun<'_>| sockets.send_run(now, ways.to(run.to, sockets), run);
        self.desk.server.poll_release(now, &mut send);
        if now >= sweep {
            self.swept = now;
            self.desk.server.handle_timeout(now);
            self.ways.sweep(now);
            self.sockets.sweep(now);
        }
        self.publish();
    }

    fn take_orders(&mut self, now: Instant) {
        let mut wakes = [0; 64];
        loop {
            match self.desk.waker.read(&mut wakes) {
                Ok(0) => break,
                Err(error) if error.kind() != ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        self.desk.serve(now);
    }

    fn receive(&mut self, index: usize, now: Instant) {
        let mut metas = [Received::NOTHING; BATCH];
        let Some(socket) = self.sockets.get(index) else {
            return;
        };
        let slots = self.buffers.iter_mut().map(AsMut::as_mut);
        let count = match recv_batch::<BATCH, ADDRESSED>(socket, slots, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => {
                // Such as an ICMP error of an earlier send, which concerns nobody.
                tracing::debug!(%error, "cannot receive");
                std::thread::sleep(ERROR_PAUSE);
                return;
            }
        };
        let mut buffers = std::mem::take(&mut self.buffers);
        for (buffer, meta) in buffers.iter_mut().zip(&metas).take(count) {
            let train = meta.len.and_then(|len| buffer.get_mut(..len));
            match (train, meta.from) {
                (Some(train), Some(from)) => self.handle_train(now, index, (from, meta), train),
                _ => count_one(&self.counters.unknown),
            }
        }
        self.buffers = buffers;
    }

    /// Relayed datagrams that follow each other stay together; all others are answered singly.
    fn handle_train(
        &mut self,
        now: Instant,
        index: usize,
        (from, meta): (SocketAddr, &Received),
        train: &mut [u8],
    ) {
        let segment = meta.segment.unwrap_or(BUFFER);
        let exit = Exit {
            socket: index,
            local: meta.local,
        };
        let mark = meta.mark;
        let mut rest = train;
        while !rest.is_empty() {
            let relayed = rest.chunks(segment).take_while(|one| is_relayed(one));
            let len = relayed.map(<[u8]>::len).sum();
            if len > 0 {
                let (together, others) = rest.split_at_mut(len);
                let (sockets, ways) = (&mut self.sockets, &self.ways);
                let mut send =
                    |run: RelayRun<'_>| sockets.send_run(now, ways.to(run.to, sockets), run);
                let origin = TrainOrigin { from, mark };
                let server = &mut self.desk.server;
                server.forward_train(now, origin, together, segment, &mut send);
                rest = others;
            } else {
                let (one, others) = rest.split_at_mut(segment.min(rest.len()));
                self.handle_single(now, exit, from, one);
                rest = others;
            }
        }
    }

    fn handle_single(&mut self, now: Instant, exit: Exit, from: SocketAddr, datagram: &mut [u8]) {
        match datagram.first() {
            Some(&KIND_REQUEST) => {
                if let Ok(answer) = self.limiter.answer(now, from, datagram) {
                    count_one(&self.counters.reflected);
                    self.sockets.send(exit, from, 0, &answer);
                }
            }
            Some(&KIND_BIND) => {
                let server = &mut self.desk.server;
                match server.handle_datagram(now, &mut OsEntropy, from, datagram) {
                    Ok(output) => {
                        // Who is only challenged may be at any number of addresses.
                        if output.bytes.first() == Some(&KIND_ACK) {
                            self.ways.remember(from, exit, now);
                        }
                        self.sockets.send(exit, output.to, 0, output.bytes);
                    }
                    Err(_) => count_one(&self.counters.relay_refused),
                }
            }
            _ => count_one(&self.counters.unknown),
        }
    }

    /// Shows others the numbers.
    fn publish(&self) {
        let stats = self.desk.server.stats();
        let counters = &self.counters;
        for (counter, value) in [
            (&counters.relayed, stats.forwarded),
            (&counters.relayed_bytes, stats.forwarded_bytes),
            (&counters.relay_delayed, stats.delayed),
            (&counters.relay_over_quota, stats.over_quota),
            (&counters.relay_refused, stats.refused),
            (&counters.send_failed, self.sockets.failed),
            (&counters.allocations, self.desk.server.len() as u64),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
    }
}

impl Ways {
    /// Only after a bind whose MAC was right, so that strangers cannot fill the map.
    fn remember(&mut self, addr: SocketAddr, exit: Exit, now: Instant) {
        if self.0.len() < MAX_WAYS || self.0.contains_key(&addr) {
            self.0.insert(addr, (exit, now));
        }
    }

    fn to(&self, to: SocketAddr, sockets: &Sockets) -> Exit {
        let known = self.0.get(&to).map(|(exit, _)| *exit);
        known.unwrap_or_else(|| sockets.any_for(to))
    }

    fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, (_, heard)| now - *heard < WAY_LIFETIME);
    }
}

fn count_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod coturn_tests;
#[cfg(test)]
mod tests;
