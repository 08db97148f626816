//! A simulated host around a node: what it carries out for it, and how inputs reach it. The real one is
//! `overlay-node/src/shell/`; this one keeps to its order of things.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use control_proto::admission::gates::MemberState;
use control_proto::admission::{Gatekeeper, MemberGate, meeting};
use nat_traversal::path::Path;
use node_core::api::{Request, Response};
use node_core::control::GateState;
use node_core::node::effects::{CallId, Datagram, Effect, TapFrame};
use node_core::node::host_orders::{HostTask, Tap};
use node_core::node::networks::interfaces::Kept;
use node_core::node::networks::looped_ports::PortSet;
use node_core::node::switchboard::answers::Answer;
use node_core::node::switchboard::run::Node;
use node_core::node::tick::Tick;
use node_core::node::users::leaving::Leaving;
use node_core::node::users::operations::Operation;
use node_core::store::{Done, Refused, Write, WriteId};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::bridge::FdbNews;
use overlay_proto::ethernet::{EthernetFrame, MacAddr};
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::NodeKey;
use overlay_proto::switching::NetIndex;

use super::disk::Disk;
use super::fast_path::{FastPath, Out};
use super::guests::GuestId;
use super::look::{Bridges, host_view};
use super::{Event, Surroundings};
use crate::net::topology::{HostId, Lost};

/// Time for the kernel to finish what it began before a look at the bridges.
const SETTLE: Duration = Duration::from_millis(50);

/// What a look at the host takes.
const LOOK: Duration = Duration::from_millis(1);

/// A bridge forgets who has said nothing for so long: Linux's default.
const AGEING: Duration = Duration::from_secs(300);

/// The shortest time between two turns of a node without an input: what a turn takes.
const TURN: Duration = Duration::from_micros(50);

/// Who a frame on a bridge is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A guest on this bridge.
    Guest(GuestId),
    /// A guest elsewhere.
    Peer,
    /// The node here.
    Node,
}

/// What a host is, whether its node runs or not.
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) name: String,
    pub(super) key: NodeKey,
    /// Of its data socket.
    pub(super) port: u16,
    /// By how many seconds its wall clock is ahead, or behind.
    pub(super) ahead: i64,
    /// It takes no revocation list.
    pub(super) is_deaf: bool,
    pub(super) bridges: Bridges,
    pub(super) disk: Disk,
    /// Answers to users; [`super::World::take_replies`] takes them.
    pub(super) replies: Vec<(CallId, Response)>,
    /// Counts the starts of the node: what belongs to an earlier run comes to nobody.
    pub(super) run: u32,
    pub(super) running: Option<Running>,
}

/// A node that runs.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) fast: FastPath,
    pub(super) gate: MemberGate,
    /// The bootstraps that it dials, and stays connected to.
    pub(super) dials: Vec<PeerId>,
    /// Which run it is, once the node has said so.
    pub(super) incarnation: Option<u32>,
    /// When it began.
    pub(super) began: Duration,
    /// Turns without an input in the second at hand.
    pub(super) idle_turns: (u64, u32),
}

impl Running {
    /// Each input begins with it: nothing of it counts that the gate knows to be revoked.
    fn begin(&mut self, tick: Tick) {
        let held = self.gate.revocations();
        if !Arc::ptr_eq(&held, &self.node.standing.revocations.held) {
            self.node.handle_revocations(tick, held);
        }
    }

    fn net_of(&self, network: &NetworkName) -> Option<NetIndex> {
        let mut networks = self.node.networks.all.iter();
        let found = networks.find(|one| one.secret.name == *network)?;
        Some(found.index)
    }

    fn name_of(&self, net: NetIndex) -> Option<NetworkName> {
        let network = self.node.networks.all.get(usize::from(net.0))?;
        Some(network.secret.name.clone())
    }
}

impl Host {
    pub(super) fn peer(&self) -> PeerId {
        self.key.peer_id()
    }

    /// When the node wants its next turn.
    pub(super) fn due(&self, around: &Surroundings) -> Option<Duration> {
        let running = self.running.as_ref()?;
        let due = running.node.next_wakeup(around.clock.instant());
        let soon = around.clock.now() + TURN;
        Some(around.clock.time_of(due).max(soon))
    }

    /// An input, and the turn that follows it.
    pub(super) fn enter(&mut self, around: &mut Surroundings, input: impl FnOnce(&mut Node, Tick)) {
        let Some(running) = &mut self.running else {
            return;
        };
        let tick = around.tick(self.ahead);
        running.begin(tick);
        input(&mut running.node, tick);
        running.fast.handle_timeout(tick.now);
        running.node.take_turn(tick);
        self.act(around, tick);
    }

    /// A user asks.
    pub(super) fn call(&mut self, around: &mut Surroundings, call: CallId, request: Request) {
        self.enter(around, |node, tick| node.handle_call(tick, call, request));
    }

    /// A datagram has come.
    pub(super) fn arrive(&mut self, around: &mut Surroundings, from: SocketAddr, bytes: &mut [u8]) {
        let Some(running) = &mut self.running else {
            return;
        };
        let now = around.clock.instant();
        let outs = running.fast.arrive(now, Path::direct(from), bytes);
        self.carry_out(around, outs);
    }

    /// A guest here sends a frame.
    pub(super) fn take_guest_frame(
        &mut self,
        around: &mut Surroundings,
        (guest, network): (GuestId, &NetworkName),
        frame: &[u8],
    ) {
        let now = around.clock.now();
        let learned = self.bridges.with(|bridges| {
            let bridge = bridges.iter_mut().find(|one| one.network == *network)?;
            let port = bridge.guests.get_mut(&guest.0)?;
            let first = port.heard.replace(now).is_none();
            let mac = port.mac;
            first.then(|| bridge.entry(guest.0, mac))
        });
        if let Some(entry) = learned {
            let (host, run) = (self.id, self.run);
            let learned = Event::Learned { host, run, entry };
            around.queue.push(now + LOOK, learned);
            let ages = Event::Ages { host, guest };
            around.queue.push(now + AGEING, ages);
        }
        let is_here = self.to_guests(around, network, frame, Origin::Guest(guest));
        if is_here || !self.bridges.is_attached(network) {
            return;
        }
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(net) = running.net_of(network) else {
            return;
        };
        let age = around.clock.now().saturating_sub(running.began);
        let now_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let outs = running.fast.leave(now_ms, net, frame);
        self.carry_out(around, outs);
    }

    /// The bridge forgets a guest that has said nothing for [`AGEING`]; else it looks again later.
    pub(super) fn age(&mut self, around: &mut Surroundings, guest: GuestId) {
        let now = around.clock.now();
        let gone = self.bridges.with(|bridges| {
            let mut ports = bridges.iter_mut();
            let bridge = ports.find(|one| one.guests.contains_key(&guest.0))?;
            let port = bridge.guests.get_mut(&guest.0)?;
            let until = port.heard? + AGEING;
            if until > now {
                return Some(Err(until));
            }
            let mac = port.mac;
            port.heard = None;
            Some(Ok(bridge.entry(guest.0, mac)))
        });
        match gone {
            Some(Ok(entry)) => self.enter(around, |node, tick| {
                node.handle_fdb_news(tick, FdbNews::Gone(entry));
            }),
            Some(Err(until)) => {
                let host = self.id;
                around.queue.push(until, Event::Ages { host, guest });
            }
            None => {}
        }
    }

    /// The bridge of `network` gives a frame to the guests it is for. `true`: it is for one that is known to be here, and
    /// goes to nobody else.
    fn to_guests(
        &self,
        around: &mut Surroundings,
        network: &NetworkName,
        frame: &[u8],
        origin: Origin,
    ) -> bool {
        let Ok(parsed) = EthernetFrame::parse(frame) else {
            return true;
        };
        let dst = parsed.dst();
        let (guests, known) = self.bridges.with(|bridges| {
            let bridge = bridges.iter().find(|one| one.network == *network);
            let all = bridge.into_iter().flat_map(|one| &one.guests);
            let hears = |mac: MacAddr| dst.is_group() || mac == dst;
            let sender = |id: u32| origin == Origin::Guest(GuestId(id));
            let hearing = all.filter(|(id, port)| hears(port.mac) && !sender(**id));
            let hearing: Vec<_> = hearing
                .map(|(id, port)| (GuestId(*id), port.heard.is_some()))
                .collect();
            let known = !dst.is_group() && hearing.iter().any(|(_, heard)| *heard);
            (hearing, known)
        });
        for (guest, _) in guests {
            let at = around.clock.now();
            let network = (origin != Origin::Node).then_some(network);
            around.guests.deliver(at, guest, network, frame);
            if let Some((late, frame)) = around.guests.answer(guest, frame) {
                around.queue.push(at + late, Event::Says { guest, frame });
            }
        }
        known
    }

    /// What the fast path made of a frame or datagram.
    fn carry_out(&mut self, around: &mut Surroundings, outs: Vec<Out>) {
        let mut punts = Vec::new();
        for out in outs {
            match out {
                Out::Punt(punt) => punts.push(punt),
                Out::Send(to, bytes) => {
                    if let (Err(reason), Some(running)) =
                        (self.send(around, to, bytes), &self.running)
                    {
                        running.node.outside.drops.count(reason);
                    }
                }
                Out::Write(net, frame, counters) => {
                    let network = self.running.as_ref().and_then(|one| one.name_of(net));
                    if let Some(network) = network.filter(|one| self.bridges.is_attached(one)) {
                        counters.received(frame.len());
                        self.to_guests(around, &network, &frame, Origin::Peer);
                    }
                }
            }
        }
        if !punts.is_empty() {
            self.enter(around, |node, tick| {
                for punt in punts {
                    node.handle_punt(tick, punt);
                }
            });
        }
    }

    /// A datagram leaves by the data socket.
    fn send(
        &self,
        around: &mut Surroundings,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) -> Result<(), DropReason> {
        let source = around.net.source_for(self.id, to.ip());
        let source = source.ok_or(DropReason::SocketError)?;
        let from = SocketAddr::new(source, self.port);
        match around
            .net
            .send(around.clock.now(), self.id, from, to, bytes)
        {
            Err(Lost::TooLarge) => Err(DropReason::DatagramTooLarge),
            Err(Lost::NoRoute | Lost::NotOwnAddress) => Err(DropReason::SocketError),
            // Lost on the way: nobody is told.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Does what the node wants. What comes of it at once may make it want more.
    pub(super) fn act(&mut self, around: &mut Surroundings, tick: Tick) {
        while let Some(running) = &mut self.running
            && let Some(effect) = running.node.outside.effects.pop()
        {
            self.act_on(around, tick, effect);
        }
        let left = |running: &Running| {
            running
                .node
                .users
                .leaving
                .as_ref()
                .is_some_and(Leaving::is_over)
        };
        if self.running.as_ref().is_some_and(left) {
            self.running = None;
        }
    }

    fn act_on(&mut self, around: &mut Surroundings, tick: Tick, effect: Effect) {
        let (host, run) = (self.id, self.run);
        let Some(running) = &mut self.running else {
            return;
        };
        let now = around.clock.now();
        match effect {
            Effect::Publish(fib) => running.fast.fib = fib,
            Effect::Send(datagram) => self.send_own(around, tick, datagram),
            Effect::Write(frame) => self.write_own(around, &frame),
            Effect::OpenTaps => self.open_taps(tick),
            Effect::KeepPassage => {}
            Effect::Operate(operation) => {
                let at = now + around.config.change_delay;
                let operate = Event::Operate {
                    host,
                    run,
                    operation,
                };
                around.queue.push(at, operate);
            }
            Effect::Host(task) => {
                let pause = match &task {
                    HostTask::LookAtBridges { .. } => SETTLE,
                    HostTask::LookAtHost { pause, .. } => *pause,
                    _ => LOOK,
                };
                around
                    .queue
                    .push(now + pause, Event::Task { host, run, task });
            }
            // Its frames go by where the guests are.
            Effect::Order(_) => {}
            Effect::LookAtMove => running.node.handle_move(tick.now, Ok(None)),
            Effect::LookAtRecords => {
                let records = self.bridges.records();
                running.node.handle_records(&records);
            }
            Effect::LookAtInterfaces => self.look_at_interfaces(tick),
            Effect::SetGate(state) => running.gate.set(member_state(*state)),
            Effect::Ask(id, question) => {
                around.ask(self.id, self.run, (id, question));
            }
            Effect::Keep(id, write) => {
                let delay = self.disk.delay();
                let at = now + delay.unwrap_or(around.config.disk_delay);
                around.queue.push(
                    at,
                    Event::Written {
                        host,
                        run,
                        id,
                        write,
                    },
                );
            }
            Effect::Reply(call, response) => self.replies.push((call, response)),
        }
    }

    fn send_own(&mut self, around: &mut Surroundings, tick: Tick, datagram: Datagram) {
        let sent = self.send(around, datagram.to, datagram.bytes);
        if let (Err(reason), Some(running)) = (sent, &mut self.running) {
            let probe = datagram.probe.as_deref();
            running.node.handle_unsent(tick, reason, probe);
        }
    }

    fn write_own(&mut self, around: &mut Surroundings, frame: &TapFrame) {
        let network = self.running.as_ref().and_then(|one| one.name_of(frame.net));
        if let Some(network) = network.filter(|one| self.bridges.is_attached(one)) {
            let origin = frame.from.as_ref().map_or(Origin::Node, |_| Origin::Peer);
            self.to_guests(around, &network, &frame.bytes, origin);
            if let Some(counters) = &frame.from {
                counters.received(frame.bytes.len());
            }
        }
    }

    /// The taps of all networks that have a bridge here are open.
    pub(super) fn open_taps(&mut self, tick: Tick) {
        let Some(running) = &mut self.running else {
            return;
        };
        let records = self.bridges.records();
        let taps = running.node.networks.all.iter().map(|network| {
            let record = records
                .iter()
                .find(|one| one.network == network.secret.name);
            let tap = record.map_or(Tap::None, |one| Tap::Open(Box::new(one.clone())));
            (network.index, tap)
        });
        let opened = Ok(taps.collect());
        let opened = running.node.handle_taps(tick, opened);
        running.node.handle_opened_taps(tick, opened);
    }

    /// Taps and bridges are as recorded.
    pub(super) fn look_at_interfaces(&mut self, tick: Tick) {
        let records = self.bridges.records();
        let networks = records.iter().map(|one| one.network.clone());
        let kept = Kept {
            recorded: networks.clone().collect(),
            mtus: networks.map(|name| (name, 1_500)).collect(),
            ready: records.clone(),
            ..Kept::default()
        };
        if let Some(running) = &mut self.running {
            running.node.handle_kept(tick, Ok(kept));
        }
    }

    /// A task's time has come.
    pub(super) fn do_task(&mut self, around: &mut Surroundings, task: HostTask) {
        let answer = match task {
            HostTask::LookAtBridges { wanted, whole } => {
                let looks = self.bridges.with(|bridges| {
                    let looks = wanted.iter().filter_map(|(net, bridge, _)| {
                        let found = bridges.iter().find(|one| one.name() == *bridge)?;
                        Some(found.look(*net, whole))
                    });
                    looks.collect()
                });
                Answer::Bridges(Some(looks))
            }
            HostTask::LookAtHost { toward, .. } => {
                Answer::Host(Some(Box::new((self.view(around, &toward), LOOK))))
            }
            HostTask::SetForwarding { name, forwards, .. } => Answer::PortSet(PortSet {
                name,
                forwards,
                refused: false,
            }),
            HostTask::Remote { net, .. } => Answer::RemoteMacs(net, Vec::new()),
            HostTask::RollBack => Answer::MoveEnded,
            HostTask::Recall(id, name) => {
                let recalled = self.disk.recall(&id, &name);
                Answer::Recalled(id, Ok(recalled))
            }
            HostTask::Ensure => return,
            HostTask::Confirm(call) => {
                Answer::Confirmed(call, Err(anyhow!("no move waits for a confirmation")))
            }
        };
        self.enter(around, |node, tick| node.handle_answer(tick, answer));
    }

    /// What a user asked for is done: the host is changed, or cannot be.
    pub(super) fn operate(&mut self, around: &mut Surroundings, operation: &Operation) {
        let done = match operation {
            Operation::Attach(request) => self.bridges.attach(&request.network, true),
            Operation::Detach(request) => self.bridges.attach(&request.network, false),
            Operation::Leave => {
                self.bridges.detach_all();
                Ok(())
            }
        };
        let done = done.map(|()| String::new()).map_err(|error| anyhow!(error));
        self.enter(around, |node, tick| {
            node.handle_answer(tick, Answer::Operated(done));
        });
        // The program's shell looks every second.
        self.look_at_interfaces(around.tick(self.ahead));
    }

    /// A packet of a channel goes to `to`. `false`: there is no session with it.
    pub(super) fn say(&mut self, around: &mut Surroundings, to: PeerId, packet: &[u8]) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let outs = running.fast.say(to, packet);
        let said = !outs.is_empty();
        self.carry_out(around, outs);
        said
    }

    /// What the kernel tells of the host's network.
    pub(super) fn view(
        &self,
        around: &Surroundings,
        toward: &[std::net::IpAddr],
    ) -> nat_traversal::host::HostView {
        let addresses: Vec<_> = around.net.addresses(self.id).collect();
        let ways = toward.iter();
        let ways = ways.map(|to| (*to, around.net.source_for(self.id, *to)));
        let ways: Vec<_> = ways.collect();
        self.bridges.with(|all| host_view(&addresses, &ways, all))
    }

    /// A write has reached the disk.
    pub(super) fn written(&mut self, around: &mut Surroundings, id: WriteId, write: &Write) {
        let Some(running) = &mut self.running else {
            return;
        };
        let result = match write {
            Write::Revocations { .. } if self.is_deaf => Err(Refused::Content(
                "this host does not want to know".to_owned(),
            )),
            Write::Revocations { list, .. } => {
                let taken = running.gate.take_revocations(list).map(Done::Taken);
                taken.map_err(|error| Refused::Content(error.to_string()))
            }
            _ => {
                let public = running.node.standing.identity.static_public;
                let wall = around.wall_of(self.ahead);
                self.disk.write(write, wall, public)
            }
        };
        self.enter(around, |node, tick| {
            node.handle_answer(tick, Answer::Written(id, result));
        });
    }

    /// The gate learns lists in an admission or from a bootstrap.
    pub(super) fn learn_lists(&mut self, around: &mut Surroundings, lists: &[Vec<u8>]) {
        if let Some(running) = self.running.as_ref().filter(|_| !self.is_deaf) {
            meeting::take_lists(&running.gate, lists);
        }
        self.enter(around, |_, _| {});
    }
}

/// What a gate goes by from now on, in its own words.
pub(super) fn member_state(state: GateState) -> MemberState {
    let GateState {
        roots,
        chain,
        bootstraps,
    } = state;
    MemberState {
        roots,
        chain,
        bootstraps,
    }
}
