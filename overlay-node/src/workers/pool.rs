//! The threads: starting them, stopping them, and giving them other taps.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{DropCounters, Fib, NetIndex};
use overlay_proto::wire::{Lane, PieceBudget};
use tap_bridge::FrameQueue;
use tap_bridge::offload::Marks;
use tokio::sync::mpsc;

use super::incoming::Incoming;
use super::punt::Punt;
use super::sys;
use super::udp::UdpSockets;
use super::worker::Worker;

/// One queue of each tap, with its network.
pub type TapSet = Vec<(NetIndex, Box<dyn FrameQueue>)>;

/// What one worker works with.
pub struct WorkerConfig {
    /// Its sockets.
    pub sockets: UdpSockets,
    /// Its queue of each tap.
    pub taps: TapSet,
    /// The current snapshot; the slow path replaces it.
    pub fib: Arc<ArcSwap<Fib>>,
    /// Drops by reason, shared by all.
    pub drops: Arc<DropCounters>,
    /// To the slow path. Bounded: what does not fit is dropped as `punt_overflow`.
    pub punts: mpsc::Sender<Punt>,
    /// To the slow path, for what finds loops alone: in one the other queue is full of what goes round.
    pub beacons: mpsc::Sender<Punt>,
    /// When the process began: what `LocalMac` counts from.
    pub epoch: Instant,
    /// The worker's own lane in every session; not 0, which is the slow path's.
    pub lane: Lane,
    /// This node.
    pub me: PeerId,
    /// What of a frame's mark its datagram gets.
    pub marks: Marks,
}

/// Running workers. Dropping it stops them.
#[derive(Debug)]
pub struct WorkerPool(Vec<Running>);

#[derive(Debug)]
struct Running {
    /// `None` once joined.
    thread: Option<JoinHandle<()>>,
    mailbox: Arc<Mailbox>,
}

/// Orders for one worker. The lock is taken when there is one, never while frames move.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Ends the wait of an idle worker.
    wake: File,
    /// Tells a busy one, which never waits.
    pending: AtomicBool,
    orders: Mutex<Orders>,
}

/// The newest orders only: each replaces the one before.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) stop: bool,
    pub(super) taps: Option<TapSet>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let taps = self.taps.as_ref().map(Vec::len);
        let mut shown = f.debug_struct("Orders");
        shown
            .field("stop", &self.stop)
            .field("taps", &taps)
            .finish()
    }
}

impl WorkerPool {
    /// Starts one thread for each configuration.
    ///
    /// # Errors
    /// The system has no thread or descriptor left; nothing runs then.
    pub fn start(configs: Vec<WorkerConfig>) -> io::Result<Self> {
        let budget = PieceBudget::default();
        let workers = configs.len();
        let mut pool = Self(Vec::with_capacity(workers));
        for config in configs {
            let mailbox = Arc::new(Mailbox {
                wake: sys::eventfd()?,
                pending: AtomicBool::new(false),
                orders: Mutex::default(),
            });
            let name = format!("farlan-lane-{}", config.lane.0);
            let incoming = Incoming::new(budget.clone(), workers);
            let mut worker = Worker::new(config, Arc::clone(&mailbox), incoming);
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || worker.run())?;
            pool.0.push(Running {
                thread: Some(thread),
                mailbox,
            });
        }
        Ok(pool)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives worker number `worker` other tap queues; it lets go of those it has. Taps that stay
    /// should come as clones of the same queue, so that no waiting frame is lost.
    pub fn set_taps(&self, worker: usize, taps: TapSet) {
        if let Some(running) = self.0.get(worker) {
            running.mailbox.order(|orders| orders.taps = Some(taps));
        }
    }

    /// Stops all workers and waits for them.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        for running in &self.0 {
            running.mailbox.order(|orders| orders.stop = true);
        }
        for running in &mut self.0 {
            if let Some(thread) = running.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Mailbox {
    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        // Before the wake-up: a worker that wakes at once, on this very core, must find the order.
        self.pending.store(true, Ordering::Release);
        if let Err(error) = (&self.wake).write(&1_u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot wake a worker");
        }
    }

    /// What to wait for; who was woken by it calls [`Self::quiet`] before looking for orders.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Lets the next wait last.
    pub(super) fn quiet(&self) {
        // Fails when the counter is 0 already: then there is nothing to clear.
        let _ = (&self.wake).read(&mut [0; 8]);
    }

    /// The orders, if there are any.
    pub(super) fn take(&self) -> Option<Orders> {
        if !self.pending.swap(false, Ordering::Acquire) {
            return None;
        }
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut *orders))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use host_services::poll::{Wait, poll};

    use super::*;

    /// The waker may be held up right behind the wake-up for as long as the woken thread runs.
    #[test]
    fn who_is_woken_finds_the_order_and_then_sleeps() {
        let mailbox = Arc::new(Mailbox {
            wake: sys::eventfd().unwrap(),
            pending: AtomicBool::new(false),
            orders: Mutex::default(),
        });
        let (taken, is_taken) = mpsc::channel();
        let own = Arc::clone(&mailbox);
        let worker = std::thread::spawn(move || {
            for in_vain in 0.. {
                poll(&mut [Wait::readable(own.as_raw_fd())], None);
                own.quiet();
                if let Some(orders) = own.take() {
                    if orders.stop {
                        return in_vain;
                    }
                    taken.send(()).unwrap();
                }
            }
            0
        });
        for _ in 0..1_000 {
            mailbox.order(|orders| orders.taps = None);
            is_taken.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        mailbox.order(|orders| orders.stop = true);
        assert_eq!(worker.join().unwrap(), 1_000);
    }
}
