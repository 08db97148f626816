//! Around the slow path ([`node_core::node`]): one task that hands inputs in, and does what is wanted of sockets, taps,
//! workers, disk, host, control plane and users. It decides nothing. Where to look:
//!
//! - `startup`: from a state directory to a running node; `farlan up`.
//! - `asking`: carries out questions to the control plane; `gate`: what its gate learns, and is to go by.
//! - `storing`: carries out writes, on a thread of its own.
//! - `host_tasks`: looks at the host and changes of it; `bridge_looks`, `bridge_orders`; `operating`: what users ask for.
//! - `interface_looks`, `firewall_watch`: taps, bridges and the firewall's rule are kept as they are recorded.
//! - `taps`: those that are open. `kernel_sight`: what can be seen of the host at once.
//! - `watches`: news of the kernel. `generation`: does time go on? `flood`: memory goes back.

mod asking;
mod bridge_looks;
mod bridge_orders;
mod firewall_watch;
mod flood;
mod gate;
mod generation;
mod host_tasks;
#[cfg(test)]
mod house;
mod interface_looks;
mod kernel_sight;
mod operating;
mod startup;
mod storing;
mod taps;
mod watches;

pub use self::startup::up;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use control_plane::admission::MemberGate;
use control_plane::{ControlEvent, ControlHandle};
use host_services::readiness::notify;
use node_core::attachment::Attachment;
use node_core::store::Refused;
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::{Fib, NetIndex};
use tap_bridge::{FdbWatch, HostWatch};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use self::asking::carry_out;
use self::firewall_watch::FirewallWatch;
use self::flood::{Flood, release_free_memory};
use self::gate::member_state;
use self::generation::TimeWatch;
use self::host_tasks::HostTasks;
use self::interface_looks::{InterfaceLooks, Outcome, of_record};
use self::storing::StoreThread;
use self::taps::Taps;
use self::watches::{next_change, next_news};
use crate::attachments::{self, AttachmentRecord};
use crate::control_socket::server::ControlCall;
use crate::state::{StateDir, wall_clock};
use crate::workers::{Punted, SlowSender, WorkerPool};
use node_core::api::{Request, Response};
use node_core::node::candidates::host::ANYWHERE;
use node_core::node::effects::{CallId, Datagram, Effect, TapFrame};
use node_core::node::switchboard::answers::Answer;
use node_core::node::switchboard::run::Node;
use node_core::node::tick::Tick;
use node_core::node::users::leaving::Leaving;
use node_core::punt::Punt;

/// Punts handled before the outputs of the machines are drained: long enough to amortize, short
/// enough that a flood of punts does not hold up a handshake.
const PUNT_BATCH: usize = 64;

/// How often the clocks, the interfaces and the gate's root documents are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long what waits for the disk may take when the node ends.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// How long the control plane may take to close its connections.
const STOP: Duration = Duration::from_secs(2);

/// The time it is.
pub(crate) fn read_clocks() -> Tick {
    Tick {
        now: Instant::now(),
        wall: wall_clock(),
    }
}

/// Where inputs come from.
pub(crate) struct Inputs {
    pub(crate) punted: Punted,
    pub(crate) control: mpsc::Receiver<ControlEvent>,
    pub(crate) answers: mpsc::Receiver<Answer>,
    pub(crate) calls: mpsc::Receiver<ControlCall>,
    /// What the looks at the interfaces brought.
    pub(crate) interfaces: mpsc::Receiver<Outcome>,
    /// News of the bridges; `None` where there are none to be had.
    pub(crate) fdb: Option<FdbWatch>,
    /// News of the host's addresses and routes; `None` where there are none to be had.
    pub(crate) host: Option<HostWatch>,
}

/// What the slow path reaches the outside by.
pub(crate) struct Outside {
    pub(crate) control: ControlHandle,
    pub(crate) gate: Arc<MemberGate>,
    pub(crate) answers: mpsc::Sender<Answer>,
    pub(crate) sender: SlowSender,
    pub(crate) workers: WorkerPool,
    pub(crate) fib: Arc<ArcSwap<Fib>>,
    pub(crate) taps: Taps,
    pub(crate) firewall: FirewallWatch,
    pub(crate) store: StoreThread,
    pub(crate) state: StateDir,
    pub(crate) host: HostTasks,
    pub(crate) interfaces: InterfaceLooks,
}

/// Users who wait for their answers. Bound: the control socket's connections; whoever has gone is forgotten with the
/// next who comes.
#[derive(Default)]
struct Calls {
    next: u64,
    open: BTreeMap<CallId, oneshot::Sender<Response>>,
}

impl Calls {
    fn put(&mut self, answer: oneshot::Sender<Response>) -> CallId {
        self.open.retain(|_, answer| !answer.is_closed());
        let id = CallId(self.next);
        self.next += 1;
        self.open.insert(id, answer);
        id
    }

    fn answer(&mut self, id: CallId, response: Response) {
        if let Some(answer) = self.open.remove(&id) {
            // The user may have gone; there is nobody to tell then.
            let _ = answer.send(response);
        }
    }
}

/// The slow path and its outside.
pub(crate) struct Shell {
    pub(crate) node: Node,
    pub(super) outside: Outside,
    calls: Calls,
    time: TimeWatch,
    next_look: Instant,
}

impl Shell {
    pub(crate) fn new(node: Node, outside: Outside, now: Instant) -> Self {
        Self {
            node,
            outside,
            calls: Calls::default(),
            time: TimeWatch::start(),
            next_look: now,
        }
    }

    /// Runs until `stop` completes. Taps and bridges stay as they are.
    pub(crate) async fn run(mut self, mut inputs: Inputs, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut punts = Vec::with_capacity(PUNT_BATCH);
        let mut flood = Flood::default();
        loop {
            let due = self.node.next_wakeup(Instant::now());
            let sleep = tokio::time::sleep_until(due.min(self.next_look).into());
            tokio::select! {
                () = &mut stop => break,
                some = inputs.punted.wait() => {
                    if !some { break }
                    let tick = self.begin();
                    flood.note(inputs.punted.take(&mut punts, PUNT_BATCH));
                    for punt in punts.drain(..) {
                        self.handle_punt(tick, punt);
                    }
                }
                Some(event) = inputs.control.recv() => {
                    self.handle_control_event(event);
                }
                Some(answer) = inputs.answers.recv() => {
                    self.handle_answer(answer);
                }
                Some(outcome) = inputs.interfaces.recv() => {
                    let tick = self.begin();
                    self.handle_looked(tick, outcome);
                }
                Some((request, answer)) = inputs.calls.recv() => {
                    self.handle_call(request, answer);
                }
                Some(news) = next_news(&mut inputs.fdb) => {
                    flood.note(1);
                    let tick = self.begin();
                    self.node.handle_fdb_news(tick, news);
                }
                Some(()) = next_change(&mut inputs.host) => self.node.look_at_host(),
                () = sleep => {}
            }
            let tick = self.begin();
            self.look_around(tick);
            self.node.take_turn(tick);
            self.act(tick);
            if flood.is_over(tick.now) {
                release_free_memory();
            }
            if self
                .node
                .users
                .leaving
                .as_ref()
                .is_some_and(Leaving::is_over)
            {
                break;
            }
        }
        self.stop(&mut inputs.answers).await;
    }

    /// A user asks; `answer` gets what there is to say, now or later.
    pub(crate) fn handle_call(&mut self, request: Request, answer: oneshot::Sender<Response>) {
        let tick = self.begin();
        let call = self.open_call(answer);
        self.node.handle_call(tick, call, request);
    }

    /// A task came back.
    pub(crate) fn handle_answer(&mut self, answer: Answer) {
        let tick = self.begin();
        self.node.handle_answer(tick, answer);
    }

    /// From now on `answer` waits.
    pub(crate) fn open_call(&mut self, answer: oneshot::Sender<Response>) -> CallId {
        self.calls.put(answer)
    }

    /// A worker's word that a tap is gone may be late.
    fn handle_punt(&mut self, tick: Tick, punt: Punt) {
        match &punt {
            Punt::TapLost { net } if !self.outside.taps.lose(*net) => {}
            _ => self.node.handle_punt(tick, punt),
        }
    }

    /// Taps and bridges were compared with the record; a tap that was made again is opened again.
    fn handle_looked(&mut self, tick: Tick, outcome: Outcome) {
        self.outside.interfaces.end();
        let ready = outcome
            .as_ref()
            .map_or_else(|_| Vec::new(), |kept| kept.ready.clone());
        self.node.handle_kept(tick, outcome.map(of_record));
        self.keep_taps(tick, &ready);
    }

    /// What is looked at every second: does time go on as it should, are taps and bridges as they should be, has the
    /// gate newer root documents?
    fn look_around(&mut self, tick: Tick) {
        if tick.now < self.next_look {
            return;
        }
        self.next_look = tick.now + LOOK;
        self.look_at_interfaces(tick.now);
        self.look_at_roots();
        if let Some(why) = self.time.look() {
            self.node.end_all_sessions(tick, why);
        }
    }

    /// Looks at the host's addresses and ways out before the node starts.
    pub(crate) async fn look_at_host_first(&mut self, tick: Tick) {
        if let Some((view, took)) = self.outside.host.look_at_host(&ANYWHERE).await {
            self.node.take_view(tick, view, took);
        }
    }

    fn look_at_interfaces(&mut self, now: Instant) {
        let known = (&self.outside.state, &self.node.standing.identity.membership);
        let waiting = self.node.networks.interfaces.waiting();
        self.outside.interfaces.look(now, known, waiting);
    }

    /// Does what the slow path wants. What comes of it at once may make it want more.
    pub(crate) fn act(&mut self, tick: Tick) {
        while let Some(effect) = self.node.outside.effects.pop() {
            match effect {
                Effect::Publish(fib) => self.outside.fib.store(fib),
                Effect::Send(datagram) => self.send(tick, &datagram),
                Effect::Write(frame) => self.write(&frame),
                Effect::OpenTaps => self.open_taps(tick),
                Effect::KeepPassage => {
                    let dir = self.outside.state.path();
                    self.outside.firewall.check(tick.now, dir);
                }
                Effect::Operate(operation) => {
                    let state = self.outside.state.clone();
                    let membership = self.node.standing.identity.membership.clone();
                    let answers = self.outside.answers.clone();
                    operating::begin(state, membership, operation, answers);
                }
                Effect::Host(task) => self.outside.host.begin(task),
                Effect::Order(order) => {
                    if !self.outside.host.order(order) {
                        self.node.look_at_bridges(tick.now, true);
                    }
                }
                Effect::LookAtMove => {
                    let left = attachments::waits(self.outside.state.path());
                    self.node.handle_move(tick.now, left);
                }
                Effect::LookAtRecords => {
                    if let Ok(records) = attachments::load(self.outside.state.path()) {
                        let records: Vec<_> = records.iter().map(Attachment::from).collect();
                        self.node.handle_records(&records);
                    }
                }
                Effect::LookAtInterfaces => {
                    self.outside.interfaces.look_soon();
                    self.look_at_interfaces(tick.now);
                }
                Effect::SetGate(state) => self.outside.gate.set(member_state(*state)),
                Effect::Ask(id, question) => {
                    let asked = carry_out(self.outside.control.clone(), question);
                    let answers = self.outside.answers.clone();
                    tokio::spawn(async move {
                        // The slow path may have ended.
                        let _ = answers.send(Answer::Asked(id, asked.await)).await;
                    });
                }
                Effect::Keep(id, write) => {
                    if !self.outside.store.begin(id, write) {
                        let gone = Refused::Disk("the store has ended".to_owned());
                        self.node.outside.store.handle_written(tick, id, Err(gone));
                    }
                }
                Effect::Reply(call, response) => self.calls.answer(call, counted(response)),
            }
        }
    }

    fn send(&mut self, tick: Tick, datagram: &Datagram) {
        let sent = self.outside.sender.send_to(datagram.to, &datagram.bytes);
        if let Err(reason) = sent {
            let probe = datagram.probe.as_deref();
            self.node.handle_unsent(tick, reason, probe);
        }
    }

    fn write(&mut self, frame: &TapFrame) {
        match (
            self.outside.taps.write(frame.net, &frame.bytes),
            &frame.from,
        ) {
            (Ok(()), Some(counters)) => counters.received(frame.bytes.len()),
            (Ok(()), None) => {}
            (Err(reason), _) => self.node.outside.drops.count(reason),
        }
    }

    fn networks(&self) -> Vec<(NetIndex, NetworkName)> {
        let networks = self.node.networks.all.iter();
        networks
            .map(|network| (network.index, network.secret.name.clone()))
            .collect()
    }

    fn open_taps(&mut self, tick: Tick) {
        let opened = self.open_recorded(tick);
        self.node.handle_opened_taps(tick, opened);
    }

    /// Opens the taps of the attachments on disk; those that are open stay open.
    ///
    /// # Errors
    /// The record of attachments cannot be read, or taps may not be opened.
    pub(crate) fn open_recorded(&mut self, tick: Tick) -> anyhow::Result<()> {
        let networks = self.networks();
        let (taps, workers) = (&mut self.outside.taps, &self.outside.workers);
        let opened = attachments::load(self.outside.state.path())
            .and_then(|records| taps.open(workers, &networks, &records));
        self.node.handle_taps(tick, opened)
    }

    fn keep_taps(&mut self, tick: Tick, ready: &[AttachmentRecord]) {
        if !self.outside.taps.are_as(&self.networks(), ready) {
            self.open_taps(tick);
        }
    }

    /// Saves what a restart needs; taps and bridges stay, so guests only see a pause. Members are
    /// not told: their sessions end by themselves, or with the first handshake after the restart.
    async fn stop(mut self, answers: &mut mpsc::Receiver<Answer>) {
        tracing::info!("stopping");
        notify("STOPPING=1");
        self.node.say_goodbye(None);
        self.finish_writes(answers).await;
        self.outside.workers.stop();
        if tokio::time::timeout(STOP, self.outside.control.stop())
            .await
            .is_err()
        {
            tracing::warn!("the control plane did not stop in time");
        }
    }

    /// The node ends: what waits is written, as far as the disk takes it in [`LAST_WRITES`].
    pub(crate) async fn finish_writes(&mut self, answers: &mut mpsc::Receiver<Answer>) {
        let end = Instant::now() + LAST_WRITES;
        self.node.save_at_the_end(read_clocks());
        loop {
            let tick = read_clocks();
            self.node.take_written(tick);
            self.node.send_writes();
            self.act(tick);
            let left = self.node.unwritten();
            if left == 0 {
                // Of those that had no room, or that the thread did not take.
                self.node.take_written(tick);
                return self.act(tick);
            }
            match timeout_at(end.into(), answers.recv()).await {
                Ok(Some(Answer::Written(id, outcome))) => {
                    let tick = self.begin();
                    self.node.outside.store.handle_written(tick, id, outcome);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    return tracing::error!(left, "the disk is too slow: not all is saved");
                }
            }
        }
    }
}

/// What only the runtime knows is filled in.
fn counted(response: Response) -> Response {
    let Response::Status(mut status) = response else {
        return response;
    };
    status.tasks = tokio::runtime::Handle::try_current()
        .map_or(0, |runtime| runtime.metrics().num_alive_tasks());
    Response::Status(status)
}
