//! One LAN behind two nodes of a network: who carries its frames (docs/adr/0031).
//!
//! Two nodes that are bridged onto one LAN are a loop: what one takes from the LAN into the overlay the
//! other puts back onto it. The LAN, and all bridges on it, are one *segment*, and exactly one node is its
//! *forwarder*. The others are *shut*: they carry nothing between the overlay and their bridge, and their
//! own guests go by the LAN, as on any switch. This holds for each VLAN by itself.
//!
//! Nobody configures segments. Each node writes [`Beacon`]s into its bridges and hears those of others. A
//! beacon counts once it repeats the reader's own challenge: a recording does not. Whoever ranks highest
//! among those heard is the forwarder ([`Rank`], RFC 8584's highest random weight):
//!
//! - A forwarder that hears a node of higher rank shuts at once and says so.
//! - The node of highest rank opens once nobody that it hears forwards any more, so there are never two.
//! - Silence, or a last word, makes room for the next.
//!
//! The own beacon that comes back by another port is a loop that no election can break: [`shut`].
//!
//! Order of calls: any `handle_*`, then [`Segment::handle_timeout`], then drain `poll_event`, put what they
//! say into effect, then drain `poll_frame`: a beacon must not say what is not true yet.

mod beacon;
mod door;
pub mod shut;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::Entropy;
use crate::ethernet::VlanId;
use crate::ids::{NetworkId, PeerId};
use crate::membership::hmac_sha256;

pub use beacon::{
    BEACON_ETHERTYPE, Beacon, BeaconError, BeaconKey, Echo, MAX_ECHOES, SegmentId, is_for_nodes,
    is_teaching, teaching_frame,
};
use door::Door;

/// Beacons of a node that hears no other.
const ALONE: Duration = Duration::from_secs(1);
/// Beacons while others are heard: five within [`SILENT`], so that one beacon in five may be lost.
const SHARED: Duration = Duration::from_millis(200);
/// Beacons of a node that listens before it opens.
const LISTENING: Duration = Duration::from_millis(30);
/// Two beacons of one VLAN are at least so far apart, whatever hurries them.
const MIN_GAP: Duration = Duration::from_millis(10);
/// A node that was not heard for so long is gone. A take-over takes this and 400 ms for the question to
/// the old owner of each MAC, which must be 2 s at most.
const SILENT: Duration = Duration::from_secs(1);
/// A node that may just have been plugged into a LAN carries nothing for so long: a beacon, an answer, and
/// two more tries.
const LISTEN: Duration = Duration::from_millis(120);
/// A challenge is answered for at most twice as long; so long a counter must be remembered.
const CHALLENGE_LIFE: Duration = Duration::from_secs(30);
/// A VLAN without claims in which nobody else is heard is forgotten after this.
const DOOR_IDLE: Duration = Duration::from_secs(600);
/// VLANs with a forwarder of their own, the untagged one among them; any further go with the untagged one.
pub const MAX_VLANS: usize = 16;
/// Suspicions that hurry a beacon: so many at once, and one more each second.
const MAX_SUSPICIONS: u32 = 10;
/// The own beacon is reported as come back so often at most.
const RETURN_EVERY: Duration = Duration::from_millis(100);
/// A port is being shut: what comes back meanwhile tells nothing new. The kernel takes a few milliseconds.
const CUT: Duration = Duration::from_secs(1);
/// Events and frames that wait to be polled: one of each kind for each VLAN.
const MAX_OUTPUTS: usize = 4 * MAX_VLANS;

/// What the node has to do about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentEvent {
    /// This node is the forwarder of the VLAN from now on.
    Opened(VlanId),
    /// This node carries nothing of the VLAN from now on.
    Shut(VlanId),
    /// Others are heard than before: [`Segment::report`].
    Changed(VlanId),
    /// A beacon of this very node came back: its bridge is part of a loop.
    Returned(VlanId),
}

/// One VLAN of the segment, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The VLAN.
    pub vlan: VlanId,
    /// This node carries its frames.
    pub open: bool,
    /// The other nodes on it, and whether each says that it forwards.
    pub others: Vec<(SegmentId, bool)>,
}

/// The LAN behind one network's bridge on this node. See the [module](self).
#[derive(Debug)]
pub struct Segment {
    network: NetworkId,
    me: SegmentId,
    run: u64,
    counter: u64,
    /// Ours of now and of before.
    challenges: [u64; 2],
    renew_at: Instant,
    /// The first one is that of the current epoch.
    keys: Vec<BeaconKey>,
    connected: bool,
    /// By VLAN; bound [`MAX_VLANS`], removed after [`DOOR_IDLE`]. Empty while nothing is attached.
    doors: BTreeMap<VlanId, Door>,
    /// What is left of [`MAX_SUSPICIONS`], and when one was given back last.
    suspicions: (u32, Instant),
    /// The own beacon is not reported before.
    report_return_at: Option<Instant>,
    /// Nor one that was said before this one: copies of those come out of queues long after a loop was cut.
    report_after: u64,
    events: VecDeque<SegmentEvent>,
    frames: VecDeque<Vec<u8>>,
}

/// Higher forwards. Nodes that reach nobody come last.
type Rank = (bool, Weight, SegmentId);

/// Different in each VLAN, so that a trunk's VLANs are shared out, and no node's loss moves the VLANs of
/// the others.
type Weight = [u8; 8];

fn weight(network: &NetworkId, vlan: VlanId, id: SegmentId) -> Weight {
    let vlan = vlan.get().to_be_bytes();
    let hash = hmac_sha256(&network.0, &[b"forwarder", &vlan, &id.0]);
    let (weight, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
    *weight
}

impl Segment {
    /// Nothing is attached yet.
    #[must_use]
    pub fn new(now: Instant, network: NetworkId, me: PeerId, entropy: &mut dyn Entropy) -> Self {
        Self {
            network,
            me: SegmentId::of(&network, me),
            run: entropy.next_u64(),
            counter: 0,
            challenges: [entropy.next_u64(), entropy.next_u64()],
            renew_at: now + CHALLENGE_LIFE,
            keys: Vec::new(),
            connected: false,
            doors: BTreeMap::new(),
            suspicions: (MAX_SUSPICIONS, now),
            report_return_at: None,
            report_after: 0,
            events: VecDeque::new(),
            frames: VecDeque::new(),
        }
    }

    /// The keys of beacons: of the current epoch, then of the one before while it counts.
    pub fn handle_keys(&mut self, keys: Vec<BeaconKey>) {
        self.keys = keys;
    }

    /// The keys of beacons.
    #[must_use]
    pub fn keys(&self) -> &[BeaconKey] {
        &self.keys
    }

    /// The name of this node in its beacons.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        self.me
    }

    /// Is a bridge attached?
    #[must_use]
    pub fn is_attached(&self) -> bool {
        !self.doors.is_empty()
    }

    /// A bridge is attached, or is another one than before. `exposed`: it may have a port to a LAN, so
    /// nothing is carried until it was listened to.
    pub fn handle_attached(&mut self, now: Instant, exposed: bool) {
        if self.doors.is_empty() {
            self.add_door(now, VlanId::UNTAGGED, !exposed);
        } else {
            self.handle_ports_changed(now, exposed);
        }
    }

    /// A port was added to the bridge or has carrier again. `exposed`: and it leads to a LAN.
    pub fn handle_ports_changed(&mut self, now: Instant, exposed: bool) {
        for (vlan, door) in &mut self.doors {
            door.hurry(now);
            if exposed {
                door.listen_until = now + LISTEN;
                if std::mem::take(&mut door.open) {
                    self.events.push_back(SegmentEvent::Shut(*vlan));
                }
            }
        }
    }

    /// Nothing is attached any more, or this node stops: the last beacons, to be written before the tap goes.
    pub fn handle_detached(&mut self) -> Vec<Vec<u8>> {
        let doors = std::mem::take(&mut self.doors);
        self.events.clear();
        self.frames.clear();
        let mut last = Vec::new();
        for (vlan, mut door) in doors {
            door.open = false;
            self.say(vlan, &door, true, &mut last);
        }
        last
    }

    /// Does this node have a session with another member? One without must not be the forwarder if
    /// another has.
    pub fn handle_connected(&mut self, now: Instant, connected: bool) {
        if self.connected == connected {
            return;
        }
        self.connected = connected;
        for door in self.doors.values_mut() {
            door.hurry(now);
        }
        self.judge_all(now);
    }

    /// Frames of this VLAN were seen, on either side.
    pub fn handle_vlan(&mut self, now: Instant, vlan: VlanId) {
        let Some(untagged) = self.doors.get(&VlanId::UNTAGGED) else {
            return;
        };
        let open = untagged.open;
        if let Some(door) = self.doors.get_mut(&vlan) {
            door.used = now;
        } else if self.doors.len() < MAX_VLANS {
            self.add_door(now, vlan, open);
        }
    }

    /// A frame came from the bridge that may have gone round: another node claims its source, or it came
    /// again and again, or by a port that is new.
    pub fn handle_suspicion(&mut self, now: Instant, vlan: VlanId) {
        let (left, since) = &mut self.suspicions;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            *since = now;
            *left = (*left + 1).min(MAX_SUSPICIONS);
        }
        if *left == 0 {
            return;
        }
        if let Some(door) = self.doors.get_mut(&vlan)
            && door.hurry(now)
        {
            *left -= 1;
        }
    }

    /// A port of the bridge is being shut because the own beacon came back by it.
    pub fn handle_port_shut(&mut self, now: Instant) {
        self.report_return_at = Some(now + CUT);
    }

    /// Ports of the bridge forward or are shut now that were not before: only beacons from now on tell
    /// whether there is a loop, and the next one is not waited for.
    pub fn handle_port_set(&mut self, now: Instant) {
        self.report_return_at = None;
        self.report_after = self.counter;
        for door in self.doors.values_mut() {
            door.hurry(now);
        }
    }

    /// A beacon of this network came from the bridge.
    pub fn handle_beacon(&mut self, now: Instant, beacon: &Beacon) {
        if beacon.id == self.me {
            let said = self.report_after + 1..=self.counter;
            if beacon.run == self.run && said.contains(&beacon.counter) {
                self.note_return(now, beacon.vlan);
            }
            return;
        }
        self.handle_vlan(now, beacon.vlan);
        let Some(door) = self.doors.get_mut(&beacon.vlan) else {
            return;
        };
        let (me, challenges) = (self.me, self.challenges);
        let is_ours = |echo: &Echo| echo.id == me && challenges.contains(&echo.challenge);
        let proves = beacon.echoes.iter().any(is_ours);
        let weight = || weight(&self.network, beacon.vlan, beacon.id);
        if door.hear(now, beacon, proves, weight) {
            self.judge(now, beacon.vlan);
        }
    }

    /// Timers: beacons that are due, nodes that fell silent.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if now >= self.renew_at {
            self.renew_at = now + CHALLENGE_LIFE;
            self.challenges = [entropy.next_u64(), self.challenges[0]];
        }
        self.doors.retain(|vlan, door| {
            door.forget(now);
            let idle = now.saturating_duration_since(door.used) >= DOOR_IDLE;
            *vlan == VlanId::UNTAGGED || !idle || !door.live().is_empty()
        });
        self.judge_all(now);
        let due = self
            .doors
            .iter()
            .filter(|(_, door)| door.next_beacon <= now);
        let due: Vec<VlanId> = due.map(|(vlan, _)| *vlan).collect();
        for vlan in due {
            let Some(mut door) = self.doors.remove(&vlan) else {
                continue;
            };
            door.beacon_sent(now);
            let mut frames = Vec::new();
            self.say(vlan, &door, false, &mut frames);
            self.doors.insert(vlan, door);
            if self.frames.len() < MAX_OUTPUTS {
                self.frames.extend(frames);
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.doors.values().map(Door::deadline).min()
    }

    /// What has to be done.
    pub fn poll_event(&mut self) -> Option<SegmentEvent> {
        self.events.pop_front()
    }

    /// A frame for the bridge.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    /// Does this node carry nothing of `vlan`?
    #[must_use]
    pub fn is_shut(&self, vlan: VlanId) -> bool {
        let door = self.doors.get(&vlan);
        let door = door.or_else(|| self.doors.get(&VlanId::UNTAGGED));
        door.is_some_and(|door| !door.open)
    }

    /// The VLANs that have a forwarder of their own, and whether this node is shut there.
    pub fn vlans(&self) -> impl Iterator<Item = (VlanId, bool)> {
        self.doors.iter().map(|(vlan, door)| (*vlan, !door.open))
    }

    /// Where others are heard.
    #[must_use]
    pub fn report(&self) -> Vec<SegmentReport> {
        let shared = self
            .doors
            .iter()
            .filter(|(_, door)| !door.live().is_empty());
        shared
            .map(|(vlan, door)| SegmentReport {
                vlan: *vlan,
                open: door.open,
                others: door.others(),
            })
            .collect()
    }

    /// Everybody who was heard in `vlan` within the last minute, those among them that are gone, too.
    #[must_use]
    pub fn remembered(&self, vlan: VlanId) -> BTreeSet<SegmentId> {
        let door = self.doors.get(&vlan);
        door.map_or_else(BTreeSet::new, Door::remembered)
    }

    /// Who was proved to be in `vlan` within the last seconds and is gone: dead, cut off, or it left.
    #[must_use]
    pub fn just_gone(&self, now: Instant, vlan: VlanId) -> BTreeSet<SegmentId> {
        let door = self.doors.get(&vlan);
        door.map_or_else(BTreeSet::new, |door| door.just_gone(now))
    }

    /// May this node act first where several are part of one loop? It ranks highest in `vlan`.
    #[must_use]
    pub fn is_first(&self, now: Instant, vlan: VlanId) -> bool {
        let door = self.doors.get(&vlan);
        door.is_none_or(|door| door.best_other(now) < Some(self.own_rank(door)))
    }

    fn add_door(&mut self, now: Instant, vlan: VlanId, open: bool) {
        let weight = weight(&self.network, vlan, self.me);
        let door = Door::new(now, weight, open, now + LISTEN);
        self.doors.insert(vlan, door);
    }

    const fn own_rank(&self, door: &Door) -> Rank {
        (self.connected, door.own_weight, self.me)
    }

    fn judge_all(&mut self, now: Instant) {
        let vlans: BTreeSet<VlanId> = self.doors.keys().copied().collect();
        for vlan in vlans {
            self.judge(now, vlan);
        }
    }

    /// Opens or shuts `vlan` as the rules in the [module](self) say.
    fn judge(&mut self, now: Instant, vlan: VlanId) {
        let Some(door) = self.doors.get(&vlan) else {
            return;
        };
        let first = door.best_other(now) < Some(self.own_rank(door));
        let other_forwards = door.live_at(now).any(|(_, heard)| heard.forwards);
        let Some(door) = self.doors.get_mut(&vlan) else {
            return;
        };
        if door.note_live(now) {
            self.events.push_back(SegmentEvent::Changed(vlan));
        }
        let open = if door.open {
            first
        } else {
            first && !other_forwards && now >= door.listen_until
        };
        if open != door.open {
            door.open = open;
            door.hurry(now);
            self.events.push_back(if open {
                SegmentEvent::Opened(vlan)
            } else {
                SegmentEvent::Shut(vlan)
            });
        }
        debug_assert!(self.events.len() <= MAX_OUTPUTS, "events are not polled");
        self.events.truncate(MAX_OUTPUTS);
    }

    fn note_return(&mut self, now: Instant, vlan: VlanId) {
        if self.report_return_at.is_none_or(|at| at <= now) {
            self.report_return_at = Some(now + RETURN_EVERY);
            self.events.push_back(SegmentEvent::Returned(vlan));
        }
    }

    /// One beacon under each key: a node that does not know the new epoch yet must not take over.
    fn say(&mut self, vlan: VlanId, door: &Door, leaving: bool, frames: &mut Vec<Vec<u8>>) {
        for key in &self.keys {
            self.counter += 1;
            let beacon = Beacon {
                vlan,
                id: self.me,
                run: self.run,
                counter: self.counter,
                challenge: self.challenges[0],
                forwards: door.open,
                connected: self.connected,
                leaving,
                echoes: door.echoes(),
            };
            frames.push(beacon.to_frame(key));
        }
    }
}
