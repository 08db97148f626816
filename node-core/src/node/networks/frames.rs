//! Frames that the fast path could not place.

use overlay_proto::directory::{LateFrame, LateVerdict, LocalVerdict, Resolution};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, classify};
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::switching::{MacKey, NetIndex, PuntReason};
use overlay_proto::wire::Forwarded;

use super::Networks;
use crate::floods::Flood;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::views::Own;

/// The parts of a frame that the slow path decides by.
struct Addresses {
    src: MacKey,
    dst: MacKey,
}

impl Addresses {
    fn of(frame: &EthernetFrame<'_>) -> Self {
        let vlan = frame.vlan();
        Self {
            src: MacKey {
                vlan,
                mac: frame.src(),
            },
            dst: MacKey {
                vlan,
                mac: frame.dst(),
            },
        }
    }
}

/// A frame, and where it is to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Addressed {
    /// Its destination.
    pub(crate) dst: MacKey,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

impl Addressed {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let frame = EthernetFrame::parse(&bytes).ok()?;
        let dst = Addresses::of(&frame).dst;
        Some(Self { dst, bytes })
    }
}

/// Where a frame of a guest here goes.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Way {
    /// Nowhere, or not yet.
    None,
    /// To the host that has its destination.
    To(PeerId, Vec<u8>),
    /// To all members.
    ToAll(Vec<u8>),
}

/// What becomes of a frame from a peer.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Delivery {
    /// It waits, or was dropped.
    None,
    /// It is for the tap here.
    Here(Vec<u8>),
    /// Its destination has moved, and it is passed on.
    Onward {
        /// To whom.
        to: PeerId,
        /// How often it will have been passed on.
        hops: u8,
        /// Whose it is.
        mark: Forwarded,
        /// The frame.
        bytes: Vec<u8>,
    },
}

/// Frames that waited for what the directory has learnt.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// From peers, whose claims have come.
    pub(crate) arrived: Vec<(PeerId, Addressed)>,
    /// From guests here.
    pub(crate) leaving: Vec<Addressed>,
}

impl Networks {
    /// A frame from a local tap whose source or destination the `Fib` did not know. It is returned if it may leave: after the
    /// claims that the directory has to tell.
    pub(crate) fn handle_local_frame(
        &mut self,
        tick: Tick,
        out: &Outside,
        own: Own,
        net: NetIndex,
        bytes: Vec<u8>,
    ) -> Option<Addressed> {
        let refuse = |reason| {
            out.drops.count(reason);
            None
        };
        let Ok(frame) = EthernetFrame::parse(&bytes) else {
            return refuse(DropReason::MalformedFrame);
        };
        let Addresses { src, dst } = Addresses::of(&frame);
        if !src.mac.is_claimable() {
            return refuse(DropReason::MacReserved);
        }
        if dst.mac.is_bridge_reserved() && !(dst.mac.is_bpdu() && self.carries_bpdus(net)) {
            return refuse(DropReason::BridgeReserved);
        }
        if self.stands_by(net, src.vlan) {
            return refuse(DropReason::StandingBy);
        }
        let evidence = classify(&frame);
        let network = self.all.get_mut(usize::from(net.0))?;
        if network.bridge.is_held(&src) {
            // It was on its way when its port was shut.
            return refuse(DropReason::PortShut);
        }
        let owner = network.directory.owner(tick.now, &src);
        if owner.is_some_and(|owner| owner != own.me) {
            // It moved here, or it went round by a LAN that another node is plugged into as well.
            network.lan.machine.handle_suspicion(tick.now, src.vlan);
        }
        network.lan.machine.handle_vlan(tick.now, src.vlan);
        let is_answer = dst.mac == own.probe_mac;
        if src.mac == own.probe_mac || (is_answer && network.local.contains_key(&src)) {
            // A guest answers our own question; the workers have noted that they heard it.
            self.learn_addresses(tick, own, net, &bytes);
            return None;
        }
        let ips: Vec<_> = evidence.ips.iter().collect();
        let directory = &mut network.directory;
        let verdict = if evidence.whole_machine {
            directory.handle_machine_frame(tick.now, src, evidence.class)
        } else {
            directory.handle_local_frame(tick.now, src, evidence.class, &ips)
        };
        self.touched.insert(net);
        match verdict {
            // For us alone: a guest that nobody claimed answers our question.
            _ if is_answer => None,
            LocalVerdict::Forward => Some(Addressed { dst, bytes }),
            LocalVerdict::Hold => {
                let left = network.waiting.for_owner.push(tick.now, src, bytes);
                out.drops.add(DropReason::PendingOverflow, left);
                None
            }
            LocalVerdict::Drop(reason) => refuse(reason),
        }
    }

    fn carries_bpdus(&self, net: NetIndex) -> bool {
        let network = self.all.get(usize::from(net.0));
        network.is_some_and(|network| network.switches().bpdu)
    }

    /// A frame of one of our guests tells an address of it, or that the machine has come here; the fast
    /// path has sent it.
    pub(crate) fn learn_addresses(&mut self, tick: Tick, own: Own, net: NetIndex, bytes: &[u8]) {
        let Ok(frame) = EthernetFrame::parse(bytes) else {
            return;
        };
        let Addresses { src, .. } = Addresses::of(&frame);
        if self.stands_by(net, src.vlan) {
            return;
        }
        let evidence = classify(&frame);
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if network.directory.owner(tick.now, &src) == Some(own.me) {
            let ips: Vec<_> = evidence.ips.iter().collect();
            let directory = &mut network.directory;
            // Our claim stands, so the verdict is to forward, which was done.
            let _ = if evidence.whole_machine {
                directory.handle_machine_frame(tick.now, src, evidence.class)
            } else {
                directory.handle_local_frame(tick.now, src, evidence.class, &ips)
            };
            self.touch(net);
        }
    }

    /// Where a frame whose source is ours goes. It waits where the directory has to ask first.
    pub(crate) fn find_way(
        &mut self,
        tick: Tick,
        out: &Outside,
        net: NetIndex,
        frame: Addressed,
    ) -> Way {
        let Addressed { dst, bytes } = frame;
        if dst.mac.is_group() {
            return Way::ToAll(bytes);
        }
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return Way::None;
        };
        match network.directory.resolve(tick.now, dst) {
            Resolution::Local => return Way::None,
            Resolution::Remote(peer, _) => return Way::To(peer, bytes),
            Resolution::Pending => {}
            Resolution::Negative => {
                if !network.directory.handle_unknown_frame(tick.now, dst) {
                    out.drops.count(DropReason::UnknownMac);
                    return Way::None;
                }
            }
        }
        let left = network.waiting.for_lookup.push(tick.now, dst, bytes);
        out.drops.add(DropReason::PendingOverflow, left);
        self.touch(net);
        Way::None
    }

    /// A frame waits for a session with `peer`.
    pub(crate) fn wait_for_session(
        &mut self,
        tick: Tick,
        out: &Outside,
        net: NetIndex,
        peer: PeerId,
        bytes: Vec<u8>,
    ) {
        let left = self.for_session.push(tick.now, (net, peer), bytes);
        out.drops.add(DropReason::PendingOverflow, left);
    }

    /// Gives `send` the broadcasts of `net` that `peer` has not had, until one is not sent (`false`).
    pub(crate) fn offer_floods(
        &mut self,
        tick: Tick,
        net: NetIndex,
        peer: PeerId,
        mut send: impl FnMut(NetworkId, &[u8]) -> bool,
    ) {
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            let id = network.secret.id;
            let floods = &mut network.floods;
            floods.offer(tick.now, peer, |frame| send(id, frame));
        }
    }

    /// Keeps a broadcast for those that have not had it.
    pub(crate) fn keep_flood(&mut self, out: &Outside, net: NetIndex, flood: Flood) {
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            let lost = network.floods.push(flood);
            out.drops.add(DropReason::PendingOverflow, lost);
        }
    }

    /// A frame from `peer` that the fast path would not deliver.
    pub(crate) fn handle_peer_frame(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
        (peer, reason): (PeerId, PuntReason),
        bytes: Vec<u8>,
    ) -> Delivery {
        let Ok(frame) = EthernetFrame::parse(&bytes) else {
            out.drops.count(DropReason::MalformedFrame);
            return Delivery::None;
        };
        let Addresses { src, dst } = Addresses::of(&frame);
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return Delivery::None;
        };
        let owner = network.directory.owner(tick.now, &src);
        match reason {
            PuntReason::SourceNotClaimed if owner != Some(peer) => {
                // The claim may be on its way; it reaches us on another lane than the frame.
                let left = network.waiting.for_claim.push(tick.now, (peer, src), bytes);
                out.drops.add(DropReason::SourceNotClaimed, left);
                // A source that is not known here may be known to others: they are asked, as for a destination.
                let _ = network.directory.resolve(tick.now, src);
                self.touch(net);
                Delivery::None
            }
            _ => self.deliver(tick, out, own, net, (peer, Addressed { dst, bytes })),
        }
    }

    /// What becomes of a frame of `peer` whose source is claimed.
    pub(crate) fn deliver(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
        (peer, frame): (PeerId, Addressed),
    ) -> Delivery {
        let Addressed { dst, bytes } = frame;
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return Delivery::None;
        };
        if !dst.mac.is_group() && network.directory.owner(tick.now, &dst) != Some(own.me) {
            let late = LateFrame {
                dst,
                from: peer,
                origin: peer,
                hops: 0,
                mark: None,
            };
            return self.handle_late(tick, out, net, &late, bytes);
        }
        if dst.mac.is_group() && network.lan.machine.is_shut(dst.vlan) {
            out.drops.count(DropReason::StandingBy);
            return Delivery::None;
        }
        Delivery::Here(bytes)
    }

    /// A frame that `peer` passes on for another node.
    pub(crate) fn handle_forwarded(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
        (peer, hops, mark): (PeerId, u8, Forwarded),
        bytes: Vec<u8>,
    ) -> Delivery {
        let Ok(frame) = EthernetFrame::parse(&bytes) else {
            out.drops.count(DropReason::MalformedFrame);
            return Delivery::None;
        };
        let Addresses { src, dst } = Addresses::of(&frame);
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return Delivery::None;
        };
        let origin = network.directory.owner(tick.now, &src);
        let Some(origin) = origin.filter(|origin| *origin != own.me) else {
            out.drops.count(DropReason::SourceNotClaimed);
            return Delivery::None;
        };
        let late = LateFrame {
            dst,
            from: peer,
            origin,
            hops,
            mark: Some(mark),
        };
        self.handle_late(tick, out, net, &late, bytes)
    }

    fn handle_late(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        net: NetIndex,
        late: &LateFrame,
        bytes: Vec<u8>,
    ) -> Delivery {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return Delivery::None;
        };
        let verdict = network.directory.late_frame(tick.now, late);
        self.touch(net);
        let reason = match verdict {
            LateVerdict::Deliver => return Delivery::Here(bytes),
            // The forwarder writes it, too, and one copy is enough.
            LateVerdict::Undecided if self.stands_by(net, late.dst.vlan) => DropReason::StandingBy,
            LateVerdict::Undecided if self.has_undecided_port(net) => {
                // An entry from when it was elsewhere would send the frame back to our tap.
                self.free_on_bridge(out, net, late.dst);
                return Delivery::Here(bytes);
            }
            LateVerdict::Undecided => DropReason::UnknownMac,
            LateVerdict::Forward { to, hops, mark } => {
                return Delivery::Onward {
                    to,
                    hops,
                    mark,
                    bytes,
                };
            }
            LateVerdict::Drop(reason) => reason,
        };
        out.drops.count(reason);
        Delivery::None
    }

    /// The frames of `net` that may go on, by what its directory knows now.
    pub(crate) fn take_ready(&mut self, tick: Tick, own: Own, net: NetIndex) -> Ready {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return Ready::default();
        };
        let (directory, waiting) = (&network.directory, &mut network.waiting);
        let mut ready = Ready::default();
        for (peer, src) in waiting.for_claim.keys() {
            if directory.owner(tick.now, &src) == Some(peer) {
                let frames = waiting.for_claim.take((peer, src)).into_iter();
                let frames = frames.filter_map(Addressed::parse);
                ready.arrived.extend(frames.map(|frame| (peer, frame)));
            }
        }
        for src in waiting.for_owner.keys() {
            if directory.owner(tick.now, &src) == Some(own.me) {
                let frames = waiting.for_owner.take(src).into_iter();
                ready.leaving.extend(frames.filter_map(Addressed::parse));
            }
        }
        for dst in waiting.for_lookup.keys() {
            if directory.owner(tick.now, &dst).is_some() {
                let frames = waiting.for_lookup.take(dst).into_iter();
                let frames = frames.map(|bytes| Addressed { dst, bytes });
                ready.leaving.extend(frames);
            }
        }
        ready
    }

    /// Drops what waited too long.
    pub(crate) fn expire_waiting(&mut self, tick: Tick, out: &Outside) {
        let drops = &out.drops;
        for network in &mut self.all {
            drops.add(DropReason::NoSession, network.floods.expire(tick.now));
            drops.add(
                DropReason::UnknownMac,
                network.waiting.for_lookup.expire(tick.now),
            );
            drops.add(
                DropReason::MacHeldElsewhere,
                network.waiting.for_owner.expire(tick.now),
            );
            drops.add(
                DropReason::SourceNotClaimed,
                network.waiting.for_claim.expire(tick.now),
            );
        }
        drops.add(DropReason::NoSession, self.for_session.expire(tick.now));
    }
}

#[cfg(test)]
mod tests;
