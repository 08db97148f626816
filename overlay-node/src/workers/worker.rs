//! The threads: wait, drain the sockets, drain the taps, send, and again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nat_traversal::path::Path;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{DropCounters, Fib, NetIndex};
use overlay_proto::wire::{Lane, PieceBudget};
use tap_bridge::FrameQueue;
use tokio::sync::mpsc;

use super::delivery::{Delivery, Taps};
use super::inbox::Inbox;
use super::incoming::Incoming;
use super::outbox::Outbox;
use super::outgoing::Outgoing;
use super::punt::{Context, Punt};
use super::readahead::{Readahead, Tap};
use super::sparse::SparseFlows;
use super::sys;
use super::udp::UdpSockets;

/// How often partial frames are looked through while there are any.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// The turn on its core that a worker asks the scheduler for, ns. A worker shares its core with the
/// guests: with the default of some milliseconds, a small frame that wakes it waits until whoever
/// runs has had theirs. It moves about four super-frames in one.
const SLICE_NS: u64 = 100_000;

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
    /// When the process began: what `LocalMac` counts from.
    pub epoch: Instant,
    /// The worker's own lane in every session; not 0, which is the slow path's.
    pub lane: Lane,
    /// This node.
    pub me: PeerId,
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
struct Mailbox {
    /// Ends the wait of an idle worker.
    wake: File,
    /// Tells a busy one, which never waits.
    pending: AtomicBool,
    orders: Mutex<Orders>,
}

/// The newest orders only: each replaces the one before.
#[derive(Default)]
struct Orders {
    stop: bool,
    taps: Option<TapSet>,
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
        if let Err(error) = (&self.wake).write(&1_u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot wake a worker");
        }
        // Last: whoever sees it finds the counter to clear, so none is left to keep the worker awake.
        self.pending.store(true, Ordering::Release);
    }

    /// The orders, if there are any.
    fn take(&self) -> Option<Orders> {
        if !self.pending.swap(false, Ordering::Acquire) {
            return None;
        }
        // Fails when the counter is 0 already: then there is nothing to clear.
        let _ = (&self.wake).read(&mut [0; 8]);
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut *orders))
    }
}

struct Worker {
    taps: Taps,
    fib: Arc<ArcSwap<Fib>>,
    drops: Arc<DropCounters>,
    punts: mpsc::Sender<Punt>,
    epoch: Instant,
    me: PeerId,
    mailbox: Arc<Mailbox>,
    /// Of the IPv4 and of the IPv6 socket.
    inboxes: [Inbox; 2],
    readahead: Readahead,
    sparse: SparseFlows,
    lane: Lane,
    outbox: Outbox,
    outgoing: Outgoing,
    incoming: Incoming,
    /// When partial frames were last looked through.
    swept: Instant,
    /// What [`Worker::wait`] waits for, kept for its memory.
    waits: Vec<libc::pollfd>,
}

impl Worker {
    fn new(config: WorkerConfig, mailbox: Arc<Mailbox>, incoming: Incoming) -> Self {
        let mut worker = Self {
            taps: Taps::default(),
            fib: config.fib,
            drops: config.drops,
            punts: config.punts,
            epoch: config.epoch,
            me: config.me,
            mailbox,
            inboxes: [Inbox::new(), Inbox::new()],
            readahead: Readahead::default(),
            sparse: SparseFlows::new(),
            lane: config.lane,
            outbox: Outbox::new(config.sockets),
            outgoing: Outgoing::new(),
            incoming,
            swept: Instant::now(),
            waits: Vec::new(),
        };
        worker.change_taps(config.taps);
        worker
    }

    /// Until told to stop.
    fn run(&mut self) {
        if let Err(error) = sys::ask_for_slice(SLICE_NS) {
            tracing::debug!(%error, "no short slice for a worker");
        }
        loop {
            if let Some(orders) = self.mailbox.take() {
                if orders.stop {
                    return;
                }
                if let Some(taps) = orders.taps {
                    self.change_taps(taps);
                }
            }
            if !self.turn() && !self.has_backlog() {
                self.wait();
            }
        }
    }

    /// Reads all there is, lets pass what may, and handles one batch of what waits in each direction;
    /// false when there was nothing.
    fn turn(&mut self) -> bool {
        let fib = self.fib.load_full();
        let now = Instant::now();
        let since = now.saturating_duration_since(self.epoch);
        let context = Context {
            fib: &fib,
            drops: &Arc::clone(&self.drops),
            punts: &self.punts.clone(),
            me: self.me,
            now,
            now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        let mut moved = self.receive(&context);
        moved |= self.read_taps(&context);
        moved |= self.deliver_batch(&context);
        self.send_batch(&context);
        if self.incoming.waits_for_pieces()
            && now.saturating_duration_since(self.swept) >= HOUSEKEEPING
        {
            self.swept = now;
            self.incoming.handle_timeout(&context);
        }
        moved
    }

    /// Reads the sockets, and delivers what came on express lanes.
    fn receive(&mut self, context: &Context<'_>) -> bool {
        let mut came = false;
        let sockets = self.outbox.sockets();
        for (socket, inbox) in sockets.both().into_iter().zip(&mut self.inboxes) {
            let Some(socket) = socket else { continue };
            inbox.read(socket, context.drops);
            came |= !inbox.is_empty();
            while inbox.has_express() {
                let mut delivery = Delivery::new(*context, &mut self.taps);
                for (from, datagram) in inbox.express(context.drops) {
                    let path = Path::direct(from);
                    self.incoming.handle_datagram(&mut delivery, path, datagram);
                }
                delivery.flush();
            }
        }
        came
    }

    /// Delivers the next few trains.
    fn deliver_batch(&mut self, context: &Context<'_>) -> bool {
        let mut moved = false;
        let mut delivery = Delivery::new(*context, &mut self.taps);
        for inbox in &mut self.inboxes {
            for (from, datagram) in inbox.next_batch(context.drops) {
                moved = true;
                let path = Path::direct(from);
                self.incoming.handle_datagram(&mut delivery, path, datagram);
            }
        }
        delivery.flush();
        moved
    }

    /// Reads the taps, and sends the frames of sparse flows. A tap that is gone is let go.
    fn read_taps(&mut self, context: &Context<'_>) -> bool {
        let mut came = false;
        let (readahead, sparse) = (&mut self.readahead, &mut self.sparse);
        let (outgoing, outbox, lane) = (&mut self.outgoing, &mut self.outbox, self.lane.express());
        self.taps.0.retain_mut(|tap| {
            let net = tap.net;
            let read = readahead.read(tap, context.now_ms, sparse, |header, buffer| {
                outgoing.handle_frame(context, (net, lane), header, buffer, outbox);
            });
            match read {
                Ok(read) => {
                    let refused = read.refused as u64;
                    context.drops.add(DropReason::MalformedFrame, refused);
                    came |= read.frames > 0;
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, net = net.0, "a tap is gone");
                    let forgotten = readahead.forget(tap);
                    context.drops.add(DropReason::TapError, forgotten);
                    context.punt(Punt::TapLost { net });
                    false
                }
            }
        });
        self.outbox.flush(context);
        came
    }

    /// Sends the oldest batch of each tap.
    fn send_batch(&mut self, context: &Context<'_>) {
        let (outgoing, outbox, lane) = (&mut self.outgoing, &mut self.outbox, self.lane);
        for tap in &mut self.taps.0 {
            let net = tap.net;
            self.readahead.next_batch(tap, |header, buffer| {
                outgoing.handle_frame(context, (net, lane), header, buffer, outbox);
            });
            outbox.flush(context);
        }
    }

    /// Takes the queues of `orders`; frames that wait stay with their tap.
    fn change_taps(&mut self, taps: TapSet) {
        let taps = taps.into_iter().map(|(net, queue)| Tap::new(net, queue));
        let old = std::mem::replace(&mut self.taps, Taps(taps.collect()));
        for mut tap in old.0 {
            match self.taps.0.iter_mut().find(|new| new.net == tap.net) {
                Some(new) => new.takes_over(&mut tap),
                None => {
                    let forgotten = self.readahead.forget(&mut tap);
                    self.drops.add(DropReason::TapError, forgotten);
                }
            }
        }
    }

    /// Does anything wait to be handled that was read already?
    fn has_backlog(&self) -> bool {
        self.inboxes.iter().any(|inbox| !inbox.is_empty())
            || self.taps.0.iter().any(Tap::has_backlog)
    }

    /// Until there is something to do.
    fn wait(&mut self) {
        let sockets = self.outbox.sockets();
        let sockets = [&sockets.v4, &sockets.v6].into_iter().flatten();
        let taps = self.taps.0.iter().map(|tap| tap.queue.as_raw_fd());
        let descriptors = std::iter::once(self.mailbox.wake.as_raw_fd())
            .chain(sockets.map(AsRawFd::as_raw_fd))
            .chain(taps);
        self.waits.clear();
        self.waits.extend(descriptors.map(sys::readable));
        let timeout_ms = if self.incoming.waits_for_pieces() {
            libc::c_int::try_from(HOUSEKEEPING.as_millis()).unwrap_or(libc::c_int::MAX)
        } else {
            -1
        };
        sys::poll(&mut self.waits, timeout_ms);
    }
}
