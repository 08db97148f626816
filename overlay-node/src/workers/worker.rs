//! The loop of one worker: wait, read the sockets, read the taps, write to the taps, send to the
//! sockets.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use host_services::entropy::OsEntropy;
use host_services::poll::{Wait, poll};
use nat_traversal::entropy::Entropy as _;
use nat_traversal::path::Path;
use node_core::punt::charges::Charges;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{DropCounters, Fib};
use overlay_proto::wire::Lane;
use tap_bridge::offload::{HEADROOM, Marks};

use super::delivery::{Delivery, Taps};
use super::handoff::PuntSender;
use super::inbox::{GroBatch, Inbox};
use super::incoming::Incoming;
use super::load::Load;
use super::outbox::Outbox;
use super::outgoing::Outgoing;
use super::pool::{Mailbox, TapSet, WorkerConfig};
use super::punt::{Context, Punt};
use super::readahead::{Readahead, Tap};
use super::sparse::SparseFlows;
use super::sys;

/// How often incomplete fragmented frames are checked for their timeout, while there are any.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// The time slice that a worker asks the scheduler for, ns. A worker shares its core with the guests.
/// With the scheduler's default of some milliseconds, a small frame that wakes the worker would wait
/// until the running guest has used up its slice. In this time a worker moves about four GSO frames.
const SLICE_NS: u64 = 100_000;

/// A worker that slept longer than this, in ms, counts as idle before its turn. What wakes an idle
/// worker is mostly a single frame, so the worker forwards one frame before it reads a batch.
const REST_MS: u64 = 1;

/// What a worker shares with the rest of the node.
struct Shared {
    fib: Arc<ArcSwap<Fib>>,
    drops: Arc<DropCounters>,
    punts: PuntSender,
    charges: Charges,
    epoch: Instant,
    me: PeerId,
    mailbox: Arc<Mailbox>,
}

/// One thread's part of the data path: what it shares, and what it owns.
pub(super) struct Worker {
    shared: Shared,
    path: DataPath,
}

/// Everything that moves frames. It belongs to this thread alone.
struct DataPath {
    taps: Taps,
    /// One for the IPv4 socket, one for the IPv6 socket.
    inboxes: [Inbox; 2],
    readahead: Readahead,
    sparse: SparseFlows,
    lane: Lane,
    marks: Marks,
    outbox: Outbox,
    outgoing: Outgoing,
    incoming: Incoming,
    /// When incomplete frames were last checked for their timeout.
    swept: Instant,
    /// When the last turn began, ms.
    turned_ms: u64,
    /// Was the worker idle before this turn? See [`REST_MS`].
    rested: bool,
    /// What the last turn has moved.
    load: Load,
    /// The descriptors that [`DataPath::wait`] polls, in this order: mailbox, sockets, taps. It is
    /// emptied when the taps change, and filled again by the next wait.
    waits: Vec<Wait>,
}

impl Worker {
    pub(super) fn new(config: WorkerConfig, mailbox: Arc<Mailbox>, incoming: Incoming) -> Self {
        let mut worker = Self {
            shared: Shared {
                fib: config.fib,
                drops: config.drops,
                punts: config.punts,
                charges: Charges::new(random()),
                epoch: config.epoch,
                me: config.me,
                mailbox,
            },
            path: DataPath {
                taps: Taps::default(),
                inboxes: [Inbox::new(), Inbox::new()],
                readahead: Readahead::default(),
                sparse: SparseFlows::new(),
                lane: config.lane,
                marks: config.marks,
                outbox: Outbox::new(config.sockets, config.marks),
                outgoing: Outgoing::new(),
                incoming,
                swept: Instant::now(),
                turned_ms: 0,
                rested: false,
                load: Load::default(),
                waits: Vec::new(),
            },
        };
        worker.path.change_taps(config.taps, &worker.shared.drops);
        worker
    }

    /// Runs until the mailbox orders it to stop.
    pub(super) fn run(&mut self) {
        if let Err(error) = sys::ask_for_slice(SLICE_NS) {
            tracing::debug!(%error, "no short slice for a worker");
        }
        loop {
            if let Some(orders) = self.shared.mailbox.take() {
                if orders.stop {
                    return;
                }
                if let Some(taps) = orders.taps {
                    self.path.change_taps(taps, &self.shared.drops);
                }
            }
            let slept = self.path.wait(&self.shared.mailbox);
            if std::mem::take(&mut self.path.load).is_flood() {
                std::thread::yield_now();
            }
            self.turn(slept);
        }
    }

    /// Runs one turn. The `Fib` loaded at its beginning serves the whole turn.
    fn turn(&mut self, slept: bool) {
        let shared = &self.shared;
        let fib = shared.fib.load();
        let now = Instant::now();
        let since = now.saturating_duration_since(shared.epoch);
        let context = Context {
            fib: &fib,
            drops: &shared.drops,
            punts: &shared.punts,
            charges: &shared.charges,
            me: shared.me,
            now,
            now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        self.path.turn(&context, slept);
    }
}

impl DataPath {
    /// Reads the sockets and the taps and forwards the packets of sparse flows at once. Then forwards
    /// one batch of the waiting rest in each direction.
    fn turn(&mut self, context: &Context<'_>, slept: bool) {
        // The turns of a busy worker can be longer than `REST_MS`, too: only one that slept was idle.
        self.rested = slept && context.now_ms.saturating_sub(self.turned_ms) > REST_MS;
        self.turned_ms = context.now_ms;
        self.receive(context);
        self.read_taps(context);
        self.deliver_batch(context);
        self.send_batch(context);
        if self.incoming.waits_for_pieces()
            && context.now.saturating_duration_since(self.swept) >= HOUSEKEEPING
        {
            self.swept = context.now;
            self.incoming.handle_timeout(context);
        }
    }

    /// Reads the sockets, and delivers at once what came on an express lane, the lane of sparse flows.
    fn receive(&mut self, context: &Context<'_>) {
        let (incoming, sockets) = (&mut self.incoming, self.outbox.sockets());
        for (socket, inbox) in sockets.both().into_iter().zip(&mut self.inboxes) {
            let Some(socket) = socket.filter(|_| inbox.is_readable) else {
                continue;
            };
            inbox.read(socket, self.rested, context.drops);
            if inbox.has_express() {
                let mut delivery = Delivery::new(*context, &mut self.taps, self.marks);
                for (path, mark, datagram) in datagrams(inbox.express(context.drops)) {
                    delivery.outer_mark = mark;
                    incoming.handle_datagram(&mut delivery, path, datagram);
                }
                delivery.flush();
            }
        }
    }

    /// Delivers the next few GRO batches of each socket.
    fn deliver_batch(&mut self, context: &Context<'_>) {
        if self.inboxes.iter().all(Inbox::is_empty) {
            return;
        }
        let mut delivery = Delivery::new(*context, &mut self.taps, self.marks);
        for inbox in &mut self.inboxes {
            for (path, mark, datagram) in datagrams(inbox.next_batch(context.drops)) {
                delivery.outer_mark = mark;
                self.load.add(datagram.len());
                self.incoming.handle_datagram(&mut delivery, path, datagram);
            }
        }
        delivery.flush();
    }

    /// Reads the taps, and sends the frames of sparse flows at once. A tap whose device is gone is
    /// removed.
    fn read_taps(&mut self, context: &Context<'_>) {
        let (readahead, sparse) = (&mut self.readahead, &mut self.sparse);
        let (now, waits) = ((context.now_ms, self.rested), &mut self.waits);
        let (outgoing, outbox, lane) = (&mut self.outgoing, &mut self.outbox, self.lane.express());
        self.taps.0.retain_mut(|tap| {
            if !tap.is_readable {
                return true;
            }
            let net = tap.net;
            let read = readahead.read(tap, now, sparse, |header, buffer| {
                outgoing.handle_frame(context, (net, lane), header, buffer, outbox);
            });
            match read {
                Ok(refused) => {
                    context
                        .drops
                        .add(DropReason::MalformedFrame, refused as u64);
                    true
                }
                Err(error) => {
                    // Nobody else notices that the device is gone. If the punt queue is full, the tap
                    // stays: reading it fails again in the next turn, and the slow path is told then.
                    if !context.punt(Punt::TapLost { net }) {
                        return true;
                    }
                    tracing::warn!(%error, net = net.0, "a tap is gone");
                    let forgotten = readahead.forget(tap);
                    context.drops.add(DropReason::TapError, forgotten);
                    waits.clear();
                    false
                }
            }
        });
        self.outbox.flush(context);
    }

    /// Sends the oldest batch that was read from each tap.
    fn send_batch(&mut self, context: &Context<'_>) {
        let (outgoing, outbox, lane) = (&mut self.outgoing, &mut self.outbox, self.lane);
        let load = &mut self.load;
        for tap in &mut self.taps.0 {
            let net = tap.net;
            self.readahead.next_batch(tap, |header, buffer| {
                load.add(buffer.len().saturating_sub(HEADROOM));
                outgoing.handle_frame(context, (net, lane), header, buffer, outbox);
            });
            outbox.flush(context);
        }
    }

    /// Replaces the tap queues with `taps`. Frames that were read from a tap and wait stay with it if
    /// `taps` still has a queue of its network; the others are dropped and counted.
    fn change_taps(&mut self, taps: TapSet, drops: &DropCounters) {
        self.waits.clear();
        let taps = taps.into_iter().map(|(net, queue)| Tap::new(net, queue));
        let old = std::mem::replace(&mut self.taps, Taps(taps.collect()));
        for mut tap in old.0 {
            match self.taps.0.iter_mut().find(|new| new.net == tap.net) {
                Some(new) => new.takes_over(&mut tap),
                None => {
                    let forgotten = self.readahead.forget(&mut tap);
                    drops.add(DropReason::TapError, forgotten);
                }
            }
        }
    }

    /// Is there work that does not depend on new input?
    fn is_busy(&self) -> bool {
        let mut inboxes = self.inboxes.iter();
        let mut taps = self.taps.0.iter();
        inboxes.any(|inbox| !inbox.is_empty())
            || taps.any(|tap| tap.is_readable || tap.has_backlog())
    }

    /// Waits until a descriptor can be read, or the housekeeping is due; with work left it only polls.
    /// Marks the sockets and taps that can be read. Returns whether the thread may have slept.
    fn wait(&mut self, mailbox: &Mailbox) -> bool {
        let timeout = if self.is_busy() {
            Some(Duration::ZERO)
        } else if self.incoming.waits_for_pieces() {
            Some(HOUSEKEEPING)
        } else {
            None
        };
        if self.waits.is_empty() {
            // `poll` skips a negative descriptor, so a missing address family keeps its place in the
            // list.
            let sockets = self.outbox.sockets().both();
            let sockets = sockets.map(|socket| socket.map_or(-1, AsRawFd::as_raw_fd));
            let taps = self.taps.0.iter().map(|tap| tap.queue.as_raw_fd());
            let fds = [mailbox.as_raw_fd()].into_iter().chain(sockets).chain(taps);
            self.waits.extend(fds.map(Wait::readable));
        }
        poll(&mut self.waits, timeout);
        let mut found = self.waits.iter().map(Wait::is_ready);
        if found.next() == Some(true) {
            mailbox.quiet();
        }
        for inbox in &mut self.inboxes {
            inbox.is_readable |= found.next().unwrap_or(false);
        }
        for tap in &mut self.taps.0 {
            tap.is_readable |= found.next().unwrap_or(false);
        }
        timeout != Some(Duration::ZERO)
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    OsEntropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// All datagrams of the GRO `batches`, each with the path it came by and its mark (TOS or traffic
/// class).
fn datagrams<'a>(
    batches: impl Iterator<Item = GroBatch<'a>>,
) -> impl Iterator<Item = (Path, u8, &'a mut [u8])> {
    batches.flat_map(|batch| {
        let (path, mark) = (Path::direct(batch.from), batch.mark);
        batch.map(move |datagram| (path, mark, datagram))
    })
}
