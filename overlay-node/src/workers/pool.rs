//! Starts and stops the worker threads, and gives them other taps.

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

use super::handoff::PuntSender;
use super::incoming::Incoming;
use super::sys;
use super::udp::UdpSockets;
use super::worker::Worker;

/// One queue of each tap, with its network.
pub type TapSet = Vec<(NetIndex, Box<dyn FrameQueue>)>;

/// Everything that one worker needs.
pub struct WorkerConfig {
    /// Its sockets.
    pub sockets: UdpSockets,
    /// Its queue of each tap.
    pub taps: TapSet,
    /// The current snapshot of the forwarding database. The slow path replaces it.
    pub fib: Arc<ArcSwap<Fib>>,
    /// Counters of drops by reason, shared by all workers.
    pub drops: Arc<DropCounters>,
    /// The way to the slow path. It is bounded; what does not fit is dropped as `punt_overflow`.
    pub punts: PuntSender,
    /// The start of the process: the times in `LocalMac` count from here.
    pub epoch: Instant,
    /// The worker's own lane in every session. Lane 0 belongs to the slow path.
    pub lane: Lane,
    /// The id of this node.
    pub me: PeerId,
    /// Which parts of a frame's mark (DSCP, ECN) are copied to its datagram.
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

/// Orders for one worker. Its lock is taken only when there is an order, not for frames.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Wakes a worker that sleeps in `poll`.
    wake: File,
    /// Tells a busy worker, which does not sleep.
    pending: AtomicBool,
    orders: Mutex<Orders>,
}

/// The latest orders. A new order replaces an older one of the same kind.
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
    /// The system has no thread or descriptor left. Then no worker runs.
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

    /// The number of workers.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Are there no workers?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces the tap queues of worker number `worker`. For a tap that stays, pass a clone of the same
    /// queue, so that no frame in it is lost.
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
        // Set before the wake-up: a worker may wake immediately, on this very core, and must then find
        // the order.
        self.pending.store(true, Ordering::Release);
        if let Err(error) = (&self.wake).write(&1_u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot wake a worker");
        }
    }

    /// The descriptor to poll. A worker that it woke calls [`Self::quiet`] before it looks for orders.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Resets the wake-up, so that the next poll can sleep.
    pub(super) fn quiet(&self) {
        // The read fails if the counter is already 0. Then there is nothing to reset.
        let _ = (&self.wake).read(&mut [0; 8]);
    }

    /// Takes the orders, if there are any.
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

    /// The thread that gives an order may be preempted right after the wake-up, while the woken thread
    /// runs.
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
