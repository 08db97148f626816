//! LANs that several nodes of a network are plugged into: one carries the frames, the others stand by
//! (`docs/adr/0031-one-forwarder-for-each-lan.md`). The decisions are those of
//! [`overlay_proto::segment`]; here is what follows from them.
//!
//! Only the forwarder claims. A node that opens takes over the claims of the nodes that it hears, and of
//! those that it no longer hears if they are dead; one that was shut keeps its claims for a moment, so that
//! no MAC is unknown in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_proto::Entropy;
use overlay_proto::directory::Entry;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, EvidenceClass, MacAddr, VlanId};
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::NetworkSecret;
use overlay_proto::segment::{
    Beacon, BeaconError, BeaconKey, Segment, SegmentEvent, SegmentId, is_teaching, teaching_frame,
};
use overlay_proto::switching::{MacKey, NetIndex, VlanSet};

use super::Networks;
use crate::attachment::Attachment;
use crate::node::networks::network::Network;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::views::{Beyond, Own};

/// Claims of a VLAN that was shut are withdrawn after this; by then the forwarder has taken them over.
const HAND_OVER: Duration = Duration::from_millis(500);

/// MACs beyond the overlay that switches are taught at one take-over; the rest they learn from frames.
const MAX_TAUGHT: usize = 1024;

/// The LAN behind one network's bridge, as far as other nodes are on it.
#[derive(Debug)]
pub(crate) struct SharedLan {
    /// Who is on it, and who forwards.
    pub(crate) machine: Segment,
    /// The members by their names in beacons. As many as the roster has.
    members: BTreeMap<SegmentId, PeerId>,
    /// The source addresses of their beacons.
    macs: BTreeSet<MacAddr>,
    /// The directory's version that the VLANs and members were read from.
    seen_version: u64,
    /// VLANs that were shut, and when their claims are withdrawn. Bounded as the machine's VLANs.
    release: BTreeMap<VlanId, Instant>,
}

impl SharedLan {
    pub(crate) fn new(machine: Segment) -> Self {
        Self {
            machine,
            members: BTreeMap::new(),
            macs: BTreeSet::new(),
            seen_version: u64::MAX,
            release: BTreeMap::new(),
        }
    }

    /// What the fast path is told: `None` is nothing.
    pub(crate) fn standby(&self) -> Option<Arc<VlanSet>> {
        let mut set = if self.machine.is_shut(VlanId::UNTAGGED) {
            VlanSet::all()
        } else {
            VlanSet::none()
        };
        for (vlan, shut) in self.machine.vlans() {
            set.set(vlan, shut);
        }
        (set != VlanSet::none()).then(|| Arc::new(set))
    }

    /// Is `mac` the source of beacons? No guest has it.
    pub(crate) fn is_beacon_mac(&self, mac: MacAddr) -> bool {
        self.macs.contains(&mac)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let release = self.release.values().min().copied();
        [self.machine.poll_timeout(), release]
            .into_iter()
            .flatten()
            .min()
    }

    /// Which member `id` is.
    pub(crate) fn peer(&self, id: &SegmentId) -> Option<PeerId> {
        self.members.get(id).copied()
    }
}

/// May this attachment have a port to a LAN that others are on as well? VM taps have none.
pub(crate) fn is_exposed(record: &Attachment) -> bool {
    record.nic.is_some() || !record.bridge_is_ours
}

impl Networks {
    /// Does this node carry nothing of `vlan`?
    pub(crate) fn stands_by(&self, net: NetIndex, vlan: VlanId) -> bool {
        let network = self.all.get(usize::from(net.0));
        network.is_some_and(|network| network.lan.machine.is_shut(vlan))
    }

    /// The fast path dropped a frame of `vlan` because this node stands by.
    pub(crate) fn note_standby_vlan(&mut self, tick: Tick, net: NetIndex, vlan: VlanId) {
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network.lan.machine.handle_vlan(tick.now, vlan);
        }
    }

    /// There may be a loop at the bridge of `net`: a beacon goes out as soon as it may and comes back if so.
    pub(crate) fn ask_for_loop(&mut self, now: Instant, net: NetIndex, vlan: VlanId) {
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network.lan.machine.handle_suspicion(now, vlan);
        }
    }

    /// A frame with the beacons' ethertype came from the tap. `true`: it is a frame as all others, of another network or
    /// overlay, whose nodes find their loops through this one.
    pub(crate) fn handle_beacon(
        &mut self,
        tick: Tick,
        out: &Outside,
        net: NetIndex,
        bytes: &[u8],
    ) -> bool {
        let Ok(frame) = EthernetFrame::parse(bytes) else {
            out.drops.count(DropReason::MalformedFrame);
            return false;
        };
        if is_teaching(&frame) {
            return false;
        }
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return false;
        };
        let machine = &mut network.lan.machine;
        match Beacon::parse(&frame, machine.keys()) {
            Ok(beacon) => machine.handle_beacon(tick.now, &beacon),
            Err(BeaconError::Foreign) => return true,
            Err(BeaconError::Malformed) => out.drops.count(DropReason::MalformedFrame),
        }
        false
    }

    /// A network was attached or detached.
    pub(crate) fn follow_attachment(&mut self, now: Instant) {
        for network in &mut self.all {
            let machine = &mut network.lan.machine;
            match &network.attached {
                Some(record) if !machine.is_attached() => {
                    machine.handle_attached(now, is_exposed(record));
                }
                Some(_) => {}
                None => {
                    machine.handle_detached();
                    network.lan.release.clear();
                }
            }
        }
    }

    /// A LAN is about to be plugged into `name`, or was: it is listened to before anything is carried. `true`: the workers
    /// are to know it now.
    pub(crate) fn listen_first(
        &mut self,
        now: Instant,
        out: &mut Outside,
        name: &NetworkName,
    ) -> bool {
        let network = self.all.iter_mut().find(|n| n.secret.name == *name);
        let network = network.filter(|network| network.attached.is_some());
        let Some(network) = network else {
            return false;
        };
        network.lan.machine.handle_ports_changed(now, true);
        out.fib_stale = true;
        true
    }

    /// Tells the LANs of `name`, or of all networks, that this node carries nothing any more.
    pub(crate) fn say_goodbye(&mut self, out: &mut Outside, name: Option<&NetworkName>) {
        let mut last = Vec::new();
        for network in &mut self.all {
            if name.is_none_or(|name| *name == network.secret.name) {
                let frames = network.lan.machine.handle_detached();
                last.extend(frames.into_iter().map(|frame| (network.index, frame)));
            }
        }
        for (net, frame) in last {
            self.write_tap(net, &frame, out);
        }
    }

    /// The next thing that the segment of `net` tells. What it says to the LAN goes out after the `Fib` shows it:
    /// [`Networks::send_beacons`].
    pub(crate) fn poll_segment(&mut self, net: NetIndex) -> Option<SegmentEvent> {
        let network = self.all.get_mut(usize::from(net.0))?;
        network.lan.machine.poll_event()
    }

    /// Timers of the segment of `net`.
    pub(crate) fn handle_segment_timeout(
        &mut self,
        now: Instant,
        net: NetIndex,
        entropy: &mut dyn Entropy,
    ) {
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            let machine = &mut network.lan.machine;
            if machine.poll_timeout().is_some_and(|due| due <= now) {
                machine.handle_timeout(now, entropy);
            }
        }
    }

    /// Writes the beacons that are due.
    pub(crate) fn send_beacons(&mut self, out: &mut Outside) {
        for net in self.indices() {
            while let Some(frame) = self
                .all
                .get_mut(usize::from(net.0))
                .and_then(|network| network.lan.machine.poll_frame())
            {
                self.write_tap(net, &frame, out);
            }
        }
    }

    /// What is looked at every second: who can be reached, which VLANs there are, claims that came late.
    pub(crate) fn look_at_segment(&mut self, tick: Tick, net: NetIndex, beyond: Beyond) {
        self.refresh_segment(tick, net, beyond);
        let Some(network) = self.all.get(usize::from(net.0)) else {
            return;
        };
        for report in network.lan.machine.report() {
            if report.open {
                self.take_claims(tick, net, report.vlan);
            }
        }
    }

    fn refresh_segment(&mut self, tick: Tick, net: NetIndex, beyond: Beyond) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let id = network.secret.id;
        let old = network.old_epoch.as_ref();
        let old = old.and_then(|old| old.read_at(beyond.time));
        let keys = [Some(&network.secret.epoch_key), old];
        let keys = keys.into_iter().flatten().map(BeaconKey::of).collect();
        let lan = &mut network.lan;
        lan.machine.handle_keys(keys);
        lan.machine.handle_connected(tick.now, beyond.connected);
        let version = network.directory.version();
        if lan.seen_version == version {
            return;
        }
        lan.seen_version = version;
        for entry in network.directory.entries(tick.now) {
            lan.machine.handle_vlan(tick.now, entry.key.vlan);
        }
        let members = network.directory.members();
        let members = members.map(|member| member.entry.node);
        lan.members = members
            .map(|peer| (SegmentId::of(&id, peer), peer))
            .collect();
        lan.macs = lan.members.keys().map(SegmentId::mac).collect();
    }

    /// This node carries the frames of `vlan` from now on.
    pub(crate) fn handle_opened(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
        vlan: VlanId,
    ) {
        out.fib_stale = true;
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network.bridge.remote.look_again();
            network.lan.release.remove(&vlan);
        }
        self.take_over(tick, out, own, net, vlan);
    }

    /// This node stands by in `vlan` from now on.
    pub(crate) fn handle_shut(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        net: NetIndex,
        vlan: VlanId,
    ) {
        out.fib_stale = true;
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network.bridge.remote.look_again();
            network.lan.release.insert(vlan, tick.now + HAND_OVER);
            let own = own_vlans(network);
            let concerns = |one| follows(&own, vlan, one);
            network.directory.handle_standby(concerns);
        }
        self.unlearn_tap(out, net);
    }

    /// Others are heard in `vlan` than before.
    pub(crate) fn handle_others_changed(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        (own, beyond): (Own, Beyond),
        net: NetIndex,
        vlan: VlanId,
    ) {
        // The roster names who was heard.
        if let Some(network) = self.all.get_mut(usize::from(net.0)) {
            network.lan.seen_version = u64::MAX;
        }
        self.refresh_segment(tick, net, beyond);
        if !self.stands_by(net, vlan) {
            self.take_over(tick, out, own, net, vlan);
        }
    }

    /// This node is the forwarder of `vlan`, or others are heard there than before.
    fn take_over(&mut self, tick: Tick, out: &mut Outside, own: Own, net: NetIndex, vlan: VlanId) {
        self.take_claims(tick, net, vlan);
        self.miss_neighbours(tick, net, vlan);
        let Some(network) = self.all.get(usize::from(net.0)) else {
            return;
        };
        let (lan, vlans) = (&network.lan, own_vlans(network));
        let former = lan.machine.remembered(vlan);
        let former: Vec<PeerId> = former.iter().filter_map(|id| lan.peer(id)).collect();
        let (mut ours, mut beyond) = (Vec::new(), Vec::new());
        for entry in network.directory.entries(tick.now) {
            if !follows(&vlans, vlan, entry.key.vlan) || entry.owner == own.me {
                continue;
            }
            if !former.contains(&entry.owner) {
                beyond.push(entry.key);
            } else if network.bridge.has(&entry.key) {
                ours.push(entry.key);
            }
        }
        let unclaimed = network.bridge.keys().filter(|key| {
            follows(&vlans, vlan, key.vlan) && network.directory.owner(tick.now, key).is_none()
        });
        let unclaimed: Vec<MacKey> = unclaimed.collect();
        for key in ours {
            // Its owner is asked first: it may be alive behind a cable that was cut.
            self.hear_learned(tick, own, net, key);
        }
        for key in unclaimed {
            self.feed_learned(tick, own, net, key);
        }
        for key in beyond.into_iter().take(MAX_TAUGHT) {
            self.forget_on_bridge(tick, out, net, key);
            self.write_tap(net, &teaching_frame(key.mac, key.vlan), out);
        }
        self.touch(net);
    }

    /// What nodes claim of the LAN that are no longer heard there: most stations speak to their neighbours
    /// alone, and the bridge here has never seen them.
    fn miss_neighbours(&mut self, tick: Tick, net: NetIndex, vlan: VlanId) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let gone = network.lan.machine.just_gone(tick.now, vlan);
        let gone: Vec<PeerId> = gone.iter().filter_map(|id| network.lan.peer(id)).collect();
        let own = own_vlans(network);
        for owner in gone {
            let concerns = |one| follows(&own, vlan, one);
            network
                .directory
                .handle_owner_silent(tick.now, owner, concerns);
        }
    }

    /// Claims what nodes claim that are on the LAN of which this node is the forwarder.
    fn take_claims(&mut self, tick: Tick, net: NetIndex, vlan: VlanId) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let others = neighbours(network, vlan);
        if others.is_empty() {
            return;
        }
        let own = own_vlans(network);
        let theirs =
            |entry: &Entry| others.contains(&entry.owner) && follows(&own, vlan, entry.key.vlan);
        let entries: Vec<Entry> = network
            .directory
            .entries(tick.now)
            .filter(|entry| theirs(entry))
            .collect();
        for entry in &entries {
            // What cannot be claimed is told when a frame of it comes.
            let _ = network.directory.handle_local_frame(
                tick.now,
                entry.key,
                EvidenceClass::Announced,
                &entry.ips,
            );
        }
        if !entries.is_empty() {
            tracing::info!(network = %network.secret.name, macs = entries.len(), "took over");
            self.touch(net);
        }
    }

    /// Withdraws what this node still claims in VLANs that were shut a moment ago.
    pub(crate) fn release_claims(&mut self, tick: Tick, net: NetIndex) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let due = network
            .lan
            .release
            .iter()
            .filter(|(_, at)| **at <= tick.now);
        let due: Vec<VlanId> = due.map(|(vlan, _)| *vlan).collect();
        for vlan in due {
            network.lan.release.remove(&vlan);
            if !network.lan.machine.is_shut(vlan) {
                continue;
            }
            let own = own_vlans(network);
            let keys: Vec<MacKey> = network
                .local
                .keys()
                .copied()
                .filter(|key| follows(&own, vlan, key.vlan))
                .collect();
            network.directory.handle_port_lost(tick.now, &keys);
            self.touched.insert(net);
        }
    }
}

/// The VLANs that have a forwarder of their own.
fn own_vlans(network: &Network) -> BTreeSet<VlanId> {
    network.lan.machine.vlans().map(|(vlan, _)| vlan).collect()
}

/// Has `vlan` the forwarder of `of`? VLANs that are not in `own` go with the untagged one.
fn follows(own: &BTreeSet<VlanId>, of: VlanId, vlan: VlanId) -> bool {
    vlan == of || of == VlanId::UNTAGGED && !own.contains(&vlan)
}

/// The nodes that are heard in `vlan`.
fn neighbours(network: &Network, vlan: VlanId) -> Vec<PeerId> {
    let reports = network.lan.machine.report();
    let here = reports.iter().filter(|report| report.vlan == vlan);
    let ids = here.flat_map(|report| report.others.iter());
    ids.filter_map(|(id, _)| network.lan.peer(id)).collect()
}

/// The machine of a network that is new here.
pub(crate) fn new_segment(
    now: Instant,
    secret: &NetworkSecret,
    me: PeerId,
    entropy: &mut dyn Entropy,
) -> SharedLan {
    let mut machine = Segment::new(now, secret.id, me, entropy);
    machine.handle_keys(vec![BeaconKey::of(&secret.epoch_key)]);
    SharedLan::new(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_without_a_forwarder_of_their_own_go_with_the_untagged_one() {
        let vlan = |id| VlanId::new(id).unwrap();
        let own = BTreeSet::from([VlanId::UNTAGGED, vlan(10)]);
        let untagged = VlanId::UNTAGGED;
        assert!(follows(&own, untagged, untagged) && follows(&own, untagged, vlan(20)));
        assert!(!follows(&own, untagged, vlan(10)));
        assert!(follows(&own, vlan(10), vlan(10)));
        assert!(!follows(&own, vlan(10), vlan(20)) && !follows(&own, vlan(10), untagged));
    }
}
