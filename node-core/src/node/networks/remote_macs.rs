//! The MACs of other hosts in the forwarding database of the bridge here.
//!
//! The bridge does not learn at the overlay's port: a bridge that filters no VLANs learns by MAC alone,
//! and a frame from elsewhere with the MAC of a guest here, under any tag, would take the guest away
//! from its neighbours. Instead the node writes what the directory says, as control planes of EVPN do:
//! an entry at the overlay's port, which does not age, for each MAC that another host claims. The
//! bridge still learns at its other ports, so a guest that comes here is found there at once.
//!
//! What the bridge learns of a MAC that another host claims may be a frame that proves nothing
//! (`docs/adr/0010`). If the claim has not moved here a moment later, the entry is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overlay_proto::ethernet::bridge::FdbEntry;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::switching::{MacKey, NetIndex};

use super::Networks;
use crate::node::effects::Effect;
use crate::node::host_orders::HostTask;
use crate::node::outside::Outside;
use crate::node::tick::Tick;

/// How long what the bridge has learnt of another host's MAC stands: a guest that came here is
/// claimed within this.
const HOLD: Duration = Duration::from_secs(1);

/// An entry that the kernel refused is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// The entries as the kernel should have them. In the kernel's terms: a bridge that does not filter
/// VLANs has every MAC untagged.
#[derive(Debug, Default)]
struct Table {
    /// At the overlay's port. Bound: the live claims of the network, and what one look found; removed
    /// when the claim is another's or ends.
    written: BTreeSet<MacKey>,
    /// Not to be written before. Bound: what was in `written`; removed with the claim.
    not_before: BTreeMap<MacKey, Instant>,
}

/// What to change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries that go.
    pub remove: Vec<MacKey>,
    /// Entries that come.
    pub write: Vec<MacKey>,
}

impl Changes {
    const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.write.is_empty()
    }
}

impl Table {
    /// What to change now; noted as done.
    fn plan(&mut self, now: Instant, wanted: &BTreeSet<MacKey>) -> Changes {
        self.not_before.retain(|key, _| wanted.contains(key));
        let (written, not_before) = (&self.written, &self.not_before);
        let may = |key: &&MacKey| not_before.get(key).is_none_or(|at| *at <= now);
        let changes = Changes {
            remove: written.difference(wanted).copied().collect(),
            write: wanted.difference(written).filter(may).copied().collect(),
        };
        for key in &changes.remove {
            self.written.remove(key);
        }
        for key in &changes.write {
            self.not_before.remove(key);
            self.written.insert(*key);
        }
        changes
    }

    /// `key` is no longer at our port.
    fn lost(&mut self, key: MacKey, again: Instant) -> bool {
        let had = self.written.remove(&key);
        if had {
            self.not_before.insert(key, again);
        }
        had
    }
}

/// The other hosts' MACs on one bridge.
#[derive(Debug, Default)]
pub(crate) struct RemoteMacs {
    /// Bridge and overlay's port, by their numbers; 0 before the first look.
    place: (u32, u32),
    /// The MACs of the bridge and its ports: the host's own, whoever claims them.
    own: BTreeSet<MacAddr>,
    table: Table,
    /// The version of the directory that the table shows; `None`: look at it again.
    version: Option<u64>,
    /// Changes are being made.
    under_way: bool,
}

impl RemoteMacs {
    /// Something else than a claim changed what is wanted.
    pub(crate) fn look_again(&mut self) {
        self.version = None;
    }

    /// What the bridge learnt of other hosts' MACs was what a loop brought.
    pub(crate) fn write_at_once(&mut self) {
        self.table.not_before.clear();
        self.version = None;
    }

    /// A look at the links, with `whole` at the database, too.
    pub(crate) fn looked(
        &mut self,
        place: (u32, u32),
        own: BTreeSet<MacAddr>,
        whole: Option<&[FdbEntry]>,
    ) {
        if self.place != place {
            // Made anew: nothing of ours is there.
            self.table = Table::default();
            self.version = None;
        }
        if self.own != own {
            self.version = None;
        }
        self.place = place;
        self.own = own;
        if let Some(entries) = whole {
            let at_our_port = entries.iter().filter(|entry| entry.port == place.1);
            self.table.written = at_our_port.map(key_of).collect();
            self.version = None;
        }
    }

    /// The bridge has learnt a MAC, or moved it.
    pub(crate) fn learnt(&mut self, now: Instant, entry: &FdbEntry) {
        if entry.port != self.place.1 && self.table.lost(key_of(entry), now + HOLD) {
            self.version = None;
        }
    }

    /// The bridge has forgotten a MAC.
    pub(crate) fn gone(&mut self, now: Instant, entry: &FdbEntry) {
        if entry.port == self.place.1 && self.table.lost(key_of(entry), now) {
            self.version = None;
        }
    }

    /// The changes under way are made, but for what the kernel refused.
    fn handle_written(&mut self, now: Instant, refused: Vec<MacKey>) {
        self.under_way = false;
        for key in refused {
            self.table.lost(key, now + AGAIN);
        }
    }

    fn is_due(&self, now: Instant, version: u64) -> bool {
        if self.under_way {
            return false;
        }
        let held = self.table.not_before.values().any(|at| *at <= now);
        self.place.1 != 0 && (self.version != Some(version) || held)
    }

    fn next(&self) -> Option<Instant> {
        let held = self.table.not_before.values().min().copied();
        held.filter(|_| !self.under_way)
    }
}

/// The entries that the claims ask for; `claims` are keys and whether they are ours. `untagged` is the
/// VLAN of untagged frames where the bridge filters VLANs.
fn wanted(
    claims: impl Iterator<Item = (MacKey, bool)>,
    untagged: Option<VlanId>,
    own: &BTreeSet<MacAddr>,
) -> BTreeSet<MacKey> {
    let mut here = BTreeSet::new();
    let mut wanted = BTreeSet::new();
    for (key, local) in claims {
        let vlan = match untagged {
            // Such a bridge knows no frame without a VLAN.
            Some(VlanId::UNTAGGED) if key.vlan == VlanId::UNTAGGED => continue,
            Some(untagged) if key.vlan == VlanId::UNTAGGED => untagged,
            Some(_) => key.vlan,
            None => VlanId::UNTAGGED,
        };
        let key = MacKey { vlan, ..key };
        if local {
            here.insert(key);
        } else if !own.contains(&key.mac) {
            wanted.insert(key);
        }
    }
    wanted.retain(|key| !here.contains(key));
    wanted
}

const fn key_of(entry: &FdbEntry) -> MacKey {
    MacKey {
        vlan: entry.vlan,
        mac: entry.mac,
    }
}

impl Networks {
    /// Lets the bridges know the MACs of other hosts as the directories do, beside the slow path.
    pub(crate) fn tell_bridges_of_remote_macs(&mut self, tick: Tick, out: &mut Outside) {
        for network in &mut self.all {
            let version = network.directory.version();
            let untagged = network.bridge.untagged();
            let remote = &mut network.bridge.remote;
            if network.attached.is_none() || !remote.is_due(tick.now, version) {
                continue;
            }
            remote.version = Some(version);
            let claims = network.directory.entries(tick.now);
            // Where this node stands by, the way to them is the LAN.
            let lan = &network.lan.machine;
            let claims = claims.filter(|entry| !lan.is_shut(entry.key.vlan));
            // What may be behind this bridge is left where the bridge has it.
            let directory = &network.directory;
            let claims = claims.filter(|entry| !directory.is_deserted(&entry.owner, &entry.key));
            let claims = claims.map(|entry| (entry.key, entry.local));
            let wanted = wanted(claims, untagged, &remote.own);
            let changes = remote.table.plan(tick.now, &wanted);
            if changes.is_empty() {
                continue;
            }
            remote.under_way = true;
            let (net, port) = (network.index, remote.place.1);
            let task = HostTask::Remote { net, port, changes };
            out.effects.push(Effect::Host(task));
        }
    }

    /// What came of changes of the entries of `net`.
    pub(crate) fn handle_remote_written(
        &mut self,
        tick: Tick,
        net: NetIndex,
        refused: Vec<MacKey>,
    ) {
        if let Some(bridge) = self.bridge_mut(net) {
            bridge.remote.handle_written(tick.now, refused);
        }
    }

    /// When to look at the bridges' entries again.
    pub(crate) fn next_remote_macs(&self) -> Option<Instant> {
        let attached = self.all.iter().filter(|n| n.attached.is_some());
        attached.filter_map(|n| n.bridge.remote.next()).min()
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use super::*;

    const TAP: u32 = 7;

    fn mac(last: u8) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, 0, last])
    }

    fn key(vlan: u16, last: u8) -> MacKey {
        MacKey {
            vlan: VlanId::new(vlan).unwrap(),
            mac: mac(last),
        }
    }

    fn set(keys: &[MacKey]) -> BTreeSet<MacKey> {
        keys.iter().copied().collect()
    }

    fn entry(port: u32, key: MacKey) -> FdbEntry {
        FdbEntry {
            bridge: 1,
            port,
            mac: key.mac,
            vlan: key.vlan,
        }
    }

    #[test]
    fn a_bridge_without_vlans_has_a_mac_once_and_here_if_it_is_here_in_any_vlan() {
        let claims = [
            (key(0, 1), true),
            (key(10, 1), false),
            (key(10, 2), false),
            (key(20, 2), false),
        ];
        let none = BTreeSet::new();
        let wanted_of = |untagged| wanted(claims.into_iter(), untagged, &none);
        assert_eq!(wanted_of(None), set(&[key(0, 2)]));
        let filtering = [key(10, 1), key(10, 2), key(20, 2)];
        assert_eq!(wanted_of(VlanId::new(1)), set(&filtering));
    }

    #[test]
    fn untagged_claims_are_in_the_default_vlan_and_the_hosts_own_macs_are_left_alone() {
        let claims = [(key(0, 1), false), (key(5, 2), true), (key(0, 2), false)];
        let (none, own) = (BTreeSet::new(), BTreeSet::from([mac(1)]));
        let wanted_of = |untagged, own| wanted(claims.into_iter(), VlanId::new(untagged), own);
        assert_eq!(wanted_of(1, &none), set(&[key(1, 1), key(1, 2)]));
        assert_eq!(wanted_of(1, &own), set(&[key(1, 2)]));
        // The same VLAN by its number and as the default: here wins.
        assert_eq!(wanted_of(5, &own), set(&[]));
        // No default VLAN: what comes untagged is dropped.
        assert_eq!(wanted_of(0, &own), set(&[]));
    }

    #[test]
    fn what_the_bridge_learnt_elsewhere_stands_for_a_moment() {
        let now = Instant::now();
        let mut remote = RemoteMacs {
            place: (1, TAP),
            ..RemoteMacs::default()
        };
        let wanted = set(&[key(0, 1), key(0, 2)]);
        assert_eq!(remote.table.plan(now, &wanted).write.len(), 2);
        assert!(remote.table.plan(now, &wanted).is_empty());
        remote.version = Some(3);
        remote.learnt(now, &entry(TAP, key(0, 2)));
        assert!(!remote.is_due(now, 3), "our own entry");
        remote.learnt(now, &entry(9, key(0, 1)));
        assert!(remote.is_due(now, 3));
        assert!(remote.table.plan(now, &wanted).is_empty());
        assert_eq!(remote.next(), Some(now + HOLD));
        let later = now + HOLD;
        assert_eq!(remote.table.plan(later, &wanted).write, [key(0, 1)]);
        // Claimed here meanwhile: nothing to write, and nothing is held.
        remote.learnt(later, &entry(9, key(0, 1)));
        let changes = remote.table.plan(later + HOLD, &set(&[key(0, 2)]));
        assert!(changes.is_empty());
        assert_eq!(remote.next(), None);
    }

    #[test]
    fn what_somebody_flushed_is_written_again() {
        let now = Instant::now();
        let mut remote = RemoteMacs {
            place: (1, TAP),
            ..RemoteMacs::default()
        };
        let wanted = set(&[key(0, 1)]);
        remote.table.plan(now, &wanted);
        remote.gone(now, &entry(9, key(0, 1)));
        assert!(remote.table.plan(now, &wanted).is_empty());
        remote.gone(now, &entry(TAP, key(0, 1)));
        assert_eq!(remote.table.plan(now, &wanted).write, [key(0, 1)]);
    }

    #[test]
    fn what_an_earlier_run_left_is_removed_and_a_new_bridge_gets_all() {
        let now = Instant::now();
        let mut remote = RemoteMacs::default();
        assert!(!remote.is_due(now, 1), "no bridge was seen yet");
        let left = [
            entry(TAP, key(0, 1)),
            entry(TAP, key(0, 2)),
            entry(9, key(0, 3)),
        ];
        remote.looked((1, TAP), BTreeSet::new(), Some(&left));
        assert!(remote.is_due(now, 1));
        let wanted = set(&[key(0, 2)]);
        let changes = remote.table.plan(now, &wanted);
        assert_eq!((changes.remove, changes.write), (vec![key(0, 1)], vec![]));
        remote.looked((2, TAP), BTreeSet::new(), None);
        assert_eq!(remote.table.plan(now, &wanted).write, [key(0, 2)]);
    }

    #[test]
    fn what_the_kernel_refused_is_tried_again() {
        let now = Instant::now();
        let mut remote = RemoteMacs {
            place: (1, TAP),
            ..RemoteMacs::default()
        };
        let wanted = set(&[key(0, 1)]);
        remote.table.plan(now, &wanted);
        remote.under_way = true;
        assert!(!remote.is_due(now, 1), "one change after the other");
        remote.handle_written(now, vec![key(0, 1)]);
        assert!(remote.is_due(now, 1));
        assert!(remote.table.plan(now, &wanted).is_empty());
        assert_eq!(remote.table.plan(now + AGAIN, &wanted).write, [key(0, 1)]);
    }
}
