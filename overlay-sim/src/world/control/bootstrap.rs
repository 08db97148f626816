//! One bootstrap: [`Server`] and [`InfraGate`] as `farlan-bootstrap` runs them, in virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use control_proto::admission::hello::Hello;
use control_proto::admission::{
    Admitted, AdmittedTable, Counter, Gatekeeper, InfraGate, Refusal, meeting,
};
use control_proto::messages::{Presence, Request, Response};
use control_proto::records::{Records, SignedRecords};
use control_proto::serving::{Asker, Means, Server, Step, Times, answer_of_forward};
use node_core::control::{BootstrapAddr, ControlEvent};
use node_core::questions::Failure;
use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::membership::{Chain, ListState, NodeKey, RootStore, SignedPart, SignedRoot};

use super::books::{Learnt, MemoryBooks};
use super::data_plane::DataPlane;
use super::lies::{Lies, Mood, StoreMood};
use crate::net::random::stream;
use crate::net::topology::{Delivery, HostId};
use crate::world::host::Host;
use crate::world::{Event, Surroundings};

/// UDP of reflector and relay, and where control connections go.
const DATA_PORT: u16 = 22_611;
const CONTROL_PORT: u16 = 22_612;

/// A control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    host: HostId,
    run: u32,
    /// Where it comes from. The NAT in front is left out: twins are told apart by their runs.
    seen: SocketAddr,
}

/// What a bootstrap has said, and how long it took beyond the way there and back.
pub(super) type Said = (Result<Response, Failure>, Duration);

/// Where a bootstrap is, and who.
#[derive(Debug, Clone)]
pub(in crate::world) struct Place {
    pub(in crate::world) host: HostId,
    pub(in crate::world) ips: [IpAddr; 2],
    pub(in crate::world) key: NodeKey,
}

/// A bootstrap.
pub(in crate::world) struct Bootstrap {
    place: Place,
    name: PeerId,
    overlay: OverlayId,
    witness: Arc<Counter<MemoryBooks>>,
    learnt: Learnt,
    gate: InfraGate,
    admitted: AdmittedTable,
    server: Server,
    records: Records,
    data: DataPlane,
    /// Who is connected. Bound: the hosts.
    up: BTreeMap<PeerId, Link>,
    lies: Lies,
    /// How many greetings it was asked to carry.
    greetings: u64,
}

impl Bootstrap {
    pub(in crate::world) fn new(
        seed: u64,
        place: Place,
        overlay: OverlayId,
        around: &Surroundings,
    ) -> Self {
        let now = around.clock.instant();
        let entropy = stream(seed, &format!("bootstrap {}", place.host.number()));
        let (learnt, name) = (Learnt::default(), place.key.peer_id());
        let witness = Arc::new(Counter::new(place.key.clone(), MemoryBooks::default()));
        let gate = gate(overlay, place.ips, &witness, &learnt);
        let admitted = AdmittedTable::default();
        Self {
            server: Server::new(name, true, admitted.clone(), gate.revocations(), now),
            place,
            name,
            overlay,
            witness,
            learnt,
            gate,
            admitted,
            records: records(overlay),
            data: DataPlane::new(entropy, now),
            up: BTreeMap::new(),
            lies: Lies::default(),
            greetings: 0,
        }
    }

    pub(in crate::world) const fn peer(&self) -> PeerId {
        self.name
    }

    pub(in crate::world) const fn host(&self) -> HostId {
        self.place.host
    }

    /// Where it is dialled.
    pub(in crate::world) fn addr_of(ip: IpAddr, peer: PeerId) -> String {
        format!("/ip4/{ip}/tcp/{CONTROL_PORT}/p2p/{peer}")
    }

    fn addr(&self) -> BootstrapAddr {
        let [ip, _] = self.place.ips;
        BootstrapAddr::new(&Self::addr_of(ip, self.name))
    }

    /// How it is from now on.
    pub(in crate::world) fn set_mood(&mut self, mood: Mood) {
        self.witness.books().is_full = mood == Mood::FullDisk;
        self.lies.mood = mood;
    }

    /// How its DHT is from now on.
    pub(in crate::world) const fn set_store(&mut self, mood: StoreMood) {
        self.lies.store = mood;
    }

    /// From now on it shows cards that are old.
    pub(in crate::world) const fn show_first_cards(&mut self) {
        self.lies.shows_first = true;
    }

    /// How many greetings it was asked to carry.
    pub(in crate::world) const fn greetings(&self) -> u64 {
        self.greetings
    }

    /// Is this run of the host connected?
    pub(in crate::world) fn has(&self, host: &Host) -> bool {
        let link = self.up.get(&host.peer());
        link.is_some_and(|link| (link.host, link.run) == (host.id, host.run))
    }

    /// Is it connected, and is there a way?
    pub(super) fn is_reached(&self, around: &Surroundings, host: &Host) -> bool {
        self.has(host) && around.net.tcp_reachable(host.id, self.place.host)
    }

    /// Is the node named in a list that it has?
    pub(in crate::world) fn names(&self, peer: PeerId) -> bool {
        self.gate.revocations().names_node(peer)
    }

    /// A member that has no node here asks for the receipt of its invite.
    ///
    /// # Errors
    /// It is not let in.
    pub(in crate::world) fn receipt_for(
        &mut self,
        around: &Surroundings,
        peer: PeerId,
        shown: (&RootStore, &Chain),
    ) -> Result<Option<SignedPart>> {
        let admitted = self.gate.admit(peer, &hello(shown), false, around.wall())?;
        match admitted {
            Admitted::Member { receipt, .. } => Ok(receipt),
            Admitted::Infra { .. } => Ok(None),
        }
    }

    /// A member that has no node here connects, lays a card down and is gone.
    pub(in crate::world) fn plant_card(
        &mut self,
        around: &Surroundings,
        peer: PeerId,
        shown: (&RootStore, &Chain),
        request: Request,
    ) {
        let now = around.clock.instant();
        // Whoever is revoked is not let in.
        let Ok(admitted) = self.gate.admit(peer, &hello(shown), false, around.wall()) else {
            return;
        };
        self.admitted.insert(peer, admitted, false, now);
        self.server.handle_connected(peer, now);
        self.lies.listen(peer, &request);
        let asker = Asker { peer, seen: None };
        self.serve(around, |server, times, means| {
            server.handle_request(times, asker, request, means)
        });
        self.server.handle_disconnected(peer);
    }

    /// The connection of a host is gone with its process.
    pub(super) fn forget(&mut self, host: HostId) {
        let gone = self.up.iter().find(|(_, link)| link.host == host);
        if let Some(peer) = gone.map(|(peer, _)| *peer) {
            self.hang_up(peer);
        }
    }

    /// It restarts: what is on its disk stays, what it held in memory is gone.
    pub(in crate::world) fn restart(&mut self, around: &mut Surroundings) {
        for (_, link) in std::mem::take(&mut self.up) {
            self.tell_down(around, link, Duration::ZERO);
        }
        let now = around.clock.instant();
        self.gate = gate(self.overlay, self.place.ips, &self.witness, &self.learnt);
        self.admitted = AdmittedTable::default();
        let (admitted, followed) = (self.admitted.clone(), self.gate.revocations());
        self.server = Server::new(self.name, true, admitted, followed, now);
        self.records = records(self.overlay);
        self.data.restart();
    }

    /// The host dials, or its connection is looked at.
    pub(super) fn dial(&mut self, around: &mut Surroundings, host: &mut Host) {
        let reachable = around.net.tcp_reachable(host.id, self.place.host);
        let peer = self.name;
        let event = match (self.has(host), reachable) {
            (true, true) => return,
            (true, false) => {
                self.hang_up(host.peer());
                ControlEvent::InfraDown { peer }
            }
            (false, true) => match self.meet(around, host) {
                Some(event) => event,
                None => return,
            },
            (false, false) => ControlEvent::Unreachable {
                addr: self.addr(),
                reason: "no way".to_owned(),
            },
        };
        let is_up = matches!(event, ControlEvent::InfraUp { .. });
        host.enter(around, |node, tick| node.handle_control_event(tick, event));
        if is_up {
            self.present(around, host);
        }
    }

    /// The host says which run of its node it is, and may hear that there is another one.
    pub(super) fn present(&mut self, around: &mut Surroundings, host: &Host) {
        let running = host.running.as_ref();
        let Some(incarnation) = running.and_then(|running| running.incarnation) else {
            return;
        };
        let (said, _) = self.ask(around, host, Request::Present { incarnation });
        if let Ok(Response::Present(Presence {
            seen,
            twin: Some(twin),
        })) = said
        {
            let addrs = [seen, twin];
            let event = ControlEvent::Twins { addrs };
            let (host, run) = (host.id, host.run);
            let at = around.clock.now() + around.config.control_delay;
            around.queue.push(at, Event::Control { host, run, event });
        }
    }

    /// Both say their hellos, as `control-plane/src/admission/exchange.rs` carries them. `None`: its node does not run.
    fn meet(&mut self, around: &mut Surroundings, host: &mut Host) -> Option<ControlEvent> {
        let (walls, peer) = ((around.wall_of(host.ahead), around.wall()), host.peer());
        let refused = |addr, reason: &dyn ToString| {
            let reason = reason.to_string();
            Some(ControlEvent::Refused { addr, reason })
        };
        let gate = &host.running.as_ref()?.gate;
        let hello = gate.own_hello();
        if self.gate.wants_lists(peer, &hello, walls.1) {
            meeting::take_lists(&self.gate, &meeting::lists_of(gate));
        }
        let verdict = self.gate.admit(peer, &hello, false, walls.1);
        let answer = self.gate.answer(&verdict);
        self.follow_revocations(around);
        if self.lies.mood == Mood::Mute {
            let (addr, reason) = (self.addr(), "no answer".to_owned());
            return Some(ControlEvent::Unreachable { addr, reason });
        }
        let Some(answer) = answer else {
            return refused(self.addr(), &"it closed the connection");
        };
        if meeting::lists_follow(&answer, &hello) {
            host.learn_lists(around, &meeting::lists_of(&self.gate));
        }
        // What the node heard may have ended it.
        let gate = &host.running.as_ref()?.gate;
        match (gate.admit(self.name, &answer, true, walls.0), verdict) {
            (Ok(Admitted::Infra { data_addrs }), Ok(admitted)) => {
                let chain = gate.chain();
                self.connect(around, host, admitted);
                let [ip, _] = self.place.ips;
                Some(ControlEvent::InfraUp {
                    peer: self.name,
                    remote: SocketAddr::new(ip, CONTROL_PORT),
                    data_addrs,
                    chain,
                })
            }
            (Err(refusal), _) | (_, Err(refusal)) => refused(self.addr(), &refusal),
            (Ok(Admitted::Member { .. }), _) => refused(self.addr(), &Refusal::WrongRole),
        }
    }

    /// A link is up. The one that the same node had before is closed, as the listener of the real one does it.
    fn connect(&mut self, around: &mut Surroundings, host: &Host, admitted: Admitted) {
        let (now, peer) = (around.clock.instant(), host.peer());
        self.admitted.insert(peer, admitted, false, now);
        self.server.handle_connected(peer, now);
        let [ip, _] = self.place.ips;
        let source = around.net.source_for(host.id, ip).unwrap_or(ip);
        let link = Link {
            host: host.id,
            run: host.run,
            seen: SocketAddr::new(source, host.port),
        };
        if let Some(older) = self.up.insert(peer, link).filter(|older| *older != link) {
            self.tell_down(around, older, around.config.control_delay);
        }
    }

    /// A request of a host that is connected.
    pub(super) fn ask(&mut self, around: &mut Surroundings, from: &Host, request: Request) -> Said {
        let peer = from.peer();
        self.lies.listen(peer, &request);
        if let Request::Forward { .. } = request {
            self.greetings += 1;
        }
        let seen = self.up.get(&peer).map(|link| link.seen);
        let (asker, asked) = (Asker { peer, seen }, request.clone());
        let step = self.serve(around, |server, times, means| {
            server.handle_request(times, asker, request, means)
        });
        self.follow_revocations(around);
        let (answer, late) = match step {
            Step::Answer(answer) | Step::Twins { answer, .. } => (answer, Duration::ZERO),
            // It has no use for an envelope of its own, as the real one.
            Step::Take { .. } => (Response::Delivered, Duration::ZERO),
            Step::Forward { to, request, until } => {
                let answer = self.forward(around, to, request);
                let until = around.clock.time_of(until);
                let late = answer.is_none().then(|| until - around.clock.now());
                let said = answer.and_then(|reached| reached.then_some(Response::Delivered));
                (answer_of_forward(said), late.unwrap_or_default())
            }
        };
        if self.lies.mood == Mood::Mute {
            return (Err(Failure::NoAnswer), Duration::ZERO);
        }
        (Ok(self.lies.twist(&asked, answer)), late)
    }

    /// Brings a request to `to`: `false` where it is not connected, `None` where it does not answer.
    fn forward(&mut self, around: &mut Surroundings, to: PeerId, request: Request) -> Option<bool> {
        let Some(link) = self.up.get(&to).copied() else {
            return Some(false);
        };
        if !around.net.tcp_reachable(link.host, self.place.host) {
            return None;
        }
        if let Request::Deliver { from, envelope } = request {
            self.lies.overhear(from, to, envelope.clone());
            deliver(around, link, from, envelope);
        }
        Some(true)
    }

    /// Brings what it passed on once more.
    pub(in crate::world) fn replay(&self, around: &mut Surroundings) {
        for (from, to, envelope) in self.lies.heard() {
            if let Some(link) = self.up.get(to).copied() {
                deliver(around, link, *from, envelope.clone());
            }
        }
    }

    /// Its timers. When it is due again is returned.
    pub(in crate::world) fn handle_timeout(&mut self, around: &mut Surroundings) -> Duration {
        self.data.handle_timeout(around.clock.instant());
        let connected: Vec<PeerId> = self.up.keys().copied().collect();
        let ended = self.serve(around, |server, times, means| {
            server.handle_timeout(times, &connected, means)
        });
        for peer in ended {
            self.disconnect(around, peer);
        }
        around.clock.time_of(self.server.poll_timeout())
    }

    /// A datagram for reflector or relay.
    pub(in crate::world) fn arrive(&mut self, around: &mut Surroundings, delivery: Delivery) {
        self.data.arrive(around, self.place.host, delivery);
    }

    /// Has the gate learnt more? Then whoever is named is cut off, and all others who are connected are told.
    fn follow_revocations(&mut self, around: &mut Surroundings) {
        if self.server.has_followed(&self.gate) {
            return;
        }
        let connected: Vec<PeerId> = self.up.keys().copied().collect();
        let followed = self.serve(around, |server, _, means| {
            server.follow_revocations(&connected, means)
        });
        for peer in followed.cut_off {
            self.disconnect(around, peer);
        }
        let at = around.clock.now() + around.config.control_delay;
        for link in followed.told.iter().filter_map(|peer| self.up.get(peer)) {
            let (host, run, lists) = (link.host, link.run, followed.lists.clone());
            around.queue.push(at, Event::Lists { host, run, lists });
        }
    }

    /// A call to the server, with all that it needs.
    fn serve<T>(
        &mut self,
        around: &Surroundings,
        call: impl FnOnce(&mut Server, Times, &mut Means<'_>) -> T,
    ) -> T {
        let now = around.clock.instant();
        let times = Times {
            now,
            wall: Duration::from_nanos(around.wall_nanos_of(0)),
        };
        let desk = self.data.desk(now);
        let mut means = Means {
            gate: &self.gate,
            relay: Some(&desk),
            records: &mut self.records,
        };
        call(&mut self.server, times, &mut means)
    }

    /// It closes the connection of `peer`, which hears of it.
    fn disconnect(&mut self, around: &mut Surroundings, peer: PeerId) {
        if let Some(link) = self.hang_up(peer) {
            self.tell_down(around, link, around.config.control_delay);
        }
    }

    fn hang_up(&mut self, peer: PeerId) -> Option<Link> {
        self.server.handle_disconnected(peer);
        self.up.remove(&peer)
    }

    fn tell_down(&self, around: &mut Surroundings, link: Link, delay: Duration) {
        let Link { host, run, .. } = link;
        let event = ControlEvent::InfraDown { peer: self.name };
        let at = around.clock.now() + delay;
        around.queue.push(at, Event::Control { host, run, event });
    }
}

fn deliver(around: &mut Surroundings, to: Link, from: PeerId, envelope: Vec<u8>) {
    let Link { host, run, .. } = to;
    let at = around.clock.now() + around.config.control_delay;
    let event = ControlEvent::Signal { from, envelope };
    around.queue.push(at, Event::Control { host, run, event });
}

fn gate(
    overlay: OverlayId,
    ips: [IpAddr; 2],
    witness: &Arc<Counter<MemoryBooks>>,
    learnt: &Learnt,
) -> InfraGate {
    let data = ips.map(|ip| SocketAddr::new(ip, DATA_PORT)).to_vec();
    let (known, witness) = (learnt.load(), Arc::clone(witness));
    let shelf = Arc::new(learnt.clone());
    InfraGate::new(overlay, data, known, Some(witness), Some(shelf))
}

fn records(overlay: OverlayId) -> Records {
    Records::new(Arc::new(SignedRecords { overlay }))
}

/// The hello of a member that has no gate of its own.
fn hello((roots, chain): (&RootStore, &Chain)) -> Vec<u8> {
    let documents = roots.above(0).iter().map(SignedRoot::encode);
    Hello::Member {
        roots: documents.collect(),
        chain: chain.encode(),
        root_number: roots.newest().version,
        lists: ListState::default(),
    }
    .encode()
}
