//! The bridges of the attached networks: what they have learnt, and which of their ports live.
//!
//! A guest that only talks to neighbours on this host sends nothing through our tap; the bridge
//! knows it all the same. News of its forwarding database ([`FdbNews`]) become ordinary evidence,
//! but only for a MAC that nobody else claims: what the bridge learnt may be a frame that proves
//! nothing (a paused migration target leaks some), so it never contests.
//!
//! News say that a MAC was forgotten, not why: it aged, or its port is gone. So a *look* at all
//! links follows, beside the slow path; what was behind a port without carrier is withdrawn. The
//! same look runs with the housekeeping, for the MACs that the bridge had forgotten before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overlay_proto::ethernet::bridge::{FDB_MAX_LEARNED, FdbEntry, FdbNews};
use overlay_proto::ethernet::{EvidenceClass, MacAddr, VlanId};
use overlay_proto::switching::{MacKey, NetIndex, PortId};

use super::Networks;
use crate::node::effects::Effect;
use crate::node::host_orders::BridgeLook;
use crate::node::host_orders::BridgeOrder;
use crate::node::host_orders::HostTask;
use crate::node::networks::group_queries::GroupQueries;
use crate::node::networks::network::Network;
use crate::node::networks::remote_macs::RemoteMacs;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::views::Own;
use crate::node::warnings::Topic;

/// MACs behind the ports of one bridge: as many as one network may hold.
pub(crate) const MAX_LEARNED: usize = FDB_MAX_LEARNED as usize;

/// Entries of one bridge's database that are looked at: those of our own guests and of all others.
pub const MAX_DUMPED: usize = 4 * MAX_LEARNED;

/// Between two looks at the whole database because news of it were lost: a guest that makes MACs up
/// overruns them all the time, and each look costs the kernel and us a walk through what it made up.
const WHOLE_EVERY: Duration = Duration::from_secs(30);

/// The look that is under way.
#[derive(Debug, Default)]
pub struct Looks {
    under_way: bool,
    /// Another one is wanted after it; `Some(true)`: with the whole database.
    next: Option<bool>,
    /// When the whole database was last asked for because news were lost, and whether that is due again.
    lost_news: Paced,
}

/// Lets something that costs much happen, however often it is wanted, once in [`WHOLE_EVERY`].
#[derive(Debug, Default)]
struct Paced {
    last: Option<Instant>,
    owed: bool,
}

impl Paced {
    /// Its time may have come. `true`: now.
    fn take(&mut self, now: Instant) -> bool {
        let rested = self
            .last
            .is_none_or(|at| now.duration_since(at) >= WHOLE_EVERY);
        if !(self.owed && rested) {
            return false;
        }
        (self.owed, self.last) = (false, Some(now));
        true
    }
}

/// A bridge as last seen, and the MACs behind its ports.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    index: u32,
    tap: u32,
    untagged: Option<VlanId>,
    ports: BTreeSet<u32>,
    /// Bound: [`MAX_LEARNED`]; removed when the port is gone, or once the bridge has forgotten a
    /// MAC that is not ours.
    learned: BTreeMap<MacKey, Learned>,
    /// The names of its ports, by number, as of the last look. Bound: a Linux bridge has at most 1,023.
    names: BTreeMap<u32, String>,
    /// MACs that were last behind a port which is shut: what is still under way from them counts for nothing. Bound:
    /// [`MAX_LEARNED`]; removed when the bridge hears them elsewhere, or the port is open or gone.
    held: BTreeMap<MacKey, PortId>,
    /// It forwards a multicast group only to ports that asked for it.
    pub(crate) snoops: bool,
    pub(crate) queries: GroupQueries,
    pub(crate) remote: RemoteMacs,
    /// MACs that are claimed here and elsewhere in another VLAN, as the `Fib` shows them. Bound: the
    /// live claims of the network; made anew with each `Fib`.
    pub(crate) rivals: BTreeSet<MacAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Learned {
    port: u32,
    /// The bridge has it still; else it is the last port it was behind.
    current: bool,
}

impl Bridge {
    /// Does the bridge have `key` behind a live port other than our tap?
    pub(crate) fn has(&self, key: &MacKey) -> bool {
        let learned = self.learned.get(&self.slot(*key));
        learned.is_some_and(|one| one.current && self.ports.contains(&one.port))
    }

    /// Under which key the bridge knows `key`: one that does not filter VLANs learns by MAC alone.
    fn slot(&self, key: MacKey) -> MacKey {
        let vlan = if self.untagged.is_some() {
            key.vlan
        } else {
            VlanId::UNTAGGED
        };
        MacKey { vlan, ..key }
    }

    /// Forgets what was behind ports that live no more, and what the bridge has forgotten, unless it
    /// is one of `local`. Returns those of `local`, in all their VLANs, whose port is gone.
    fn lose<'a>(&mut self, local: impl Iterator<Item = &'a MacKey> + Clone) -> Vec<MacKey> {
        let slots: BTreeSet<MacKey> = local.clone().map(|key| self.slot(*key)).collect();
        let ports = &self.ports;
        let mut gone = BTreeSet::new();
        self.learned.retain(|slot, learned| {
            let alive = ports.contains(&learned.port);
            if !alive {
                gone.insert(*slot);
            }
            alive && (learned.current || slots.contains(slot))
        });
        local
            .filter(|key| gone.contains(&self.slot(**key)))
            .copied()
            .collect()
    }

    /// Nothing that it has is here any more: the network was detached from it. The next attachment looks anew.
    pub(crate) fn leave(&mut self) {
        self.index = 0;
        self.ports.clear();
        self.learned.clear();
        self.names.clear();
        self.held.clear();
    }

    /// The name of the interface behind which `key` is, or was last.
    pub(crate) fn interface_of(&self, key: &MacKey) -> Option<&str> {
        let learned = self.learned.get(&self.slot(*key))?;
        self.name_of(learned.port)
    }

    /// The name of the port with this number.
    pub(crate) fn name_of(&self, port: u32) -> Option<&str> {
        self.names.get(&port).map(String::as_str)
    }

    /// `key` was behind `port`, which is shut.
    pub(crate) fn hold(&mut self, key: &MacKey, port: PortId) {
        let slot = self.slot(*key);
        self.learned.remove(&slot);
        if self.held.len() < MAX_LEARNED {
            self.held.insert(slot, port);
        }
    }

    /// `port` is open, or gone.
    pub(crate) fn release(&mut self, port: PortId) {
        self.held.retain(|_, held| *held != port);
    }

    /// Is `key` behind a port that is shut?
    pub(crate) fn is_held(&self, key: &MacKey) -> bool {
        !self.held.is_empty() && self.held.contains_key(&self.slot(*key))
    }

    /// How many are.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// The VLAN that untagged frames belong to, where the bridge filters VLANs.
    pub(crate) const fn untagged(&self) -> Option<VlanId> {
        self.untagged
    }

    /// What the bridge has behind live ports other than our tap.
    pub(crate) fn keys(&self) -> impl Iterator<Item = MacKey> {
        let learned = self.learned.iter();
        learned
            .filter(|(_, one)| one.current && self.ports.contains(&one.port))
            .map(|(key, _)| *key)
    }

    fn key_of(&self, entry: &FdbEntry) -> MacKey {
        let vlan = if Some(entry.vlan) == self.untagged {
            VlanId::UNTAGGED
        } else {
            entry.vlan
        };
        MacKey {
            vlan,
            mac: entry.mac,
        }
    }

    /// Notes that `entry` was learnt; `false` if it is behind our own tap, or there is no room.
    fn learn(&mut self, entry: &FdbEntry) -> bool {
        let key = self.key_of(entry);
        self.held.remove(&key);
        if entry.port == self.tap {
            self.learned.remove(&key);
            return false;
        }
        let room = self.learned.len() < MAX_LEARNED || self.learned.contains_key(&key);
        if room {
            let learned = Learned {
                port: entry.port,
                current: true,
            };
            self.learned.insert(key, learned);
        }
        room
    }
}

impl Network {
    /// Notes that `entry` was learnt; `false` if nothing comes of it.
    fn learn(&mut self, entry: &FdbEntry) -> bool {
        let key = self.bridge.key_of(entry);
        if let Some(port) = self.shut_port(entry.port) {
            self.bridge.hold(&key, port);
            return false;
        }
        let before = self.bridge.learned.get(&key).map(|one| one.port);
        let is_here = self.bridge.learn(entry);
        if before != Some(entry.port) {
            self.tell_ports(|local| self.bridge.slot(*local) == key);
        }
        is_here
    }
}

impl Networks {
    /// A bridge on this host learnt or forgot something.
    pub(crate) fn handle_fdb_news(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        news: FdbNews,
    ) {
        self.note_fdb_news(tick, out, &news);
        match news {
            FdbNews::Learned(entry) => {
                let Some(net) = self.bridge_of(&entry) else {
                    return;
                };
                let Some(network) = self.all.get_mut(usize::from(net.0)) else {
                    return;
                };
                let key = network.bridge.key_of(&entry);
                if network.learn(&entry) {
                    let bridge = &network.bridge;
                    // A port that came up after the last look. What came by it may have left by another.
                    if !bridge.ports.contains(&entry.port) {
                        self.ask_for_loop(tick.now, net, VlanId::UNTAGGED);
                        self.look_at_bridges(tick.now, out, false);
                    }
                    self.feed_learned(tick, own, net, key);
                }
            }
            FdbNews::Gone(entry) => {
                let Some(net) = self.bridge_of(&entry) else {
                    return;
                };
                self.forgotten_by_bridge(tick, out, net, &entry);
            }
            FdbNews::Overrun => {
                self.looks.lost_news.owed = true;
                self.look_at_bridges(tick.now, out, false);
            }
        }
    }

    /// The bridge of `net` forgot a MAC: it aged, or its port is gone. Until a look at the ports tells,
    /// nobody is told from memory that the MAC is alive.
    fn forgotten_by_bridge(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        net: NetIndex,
        entry: &FdbEntry,
    ) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let bridge = &mut network.bridge;
        let key = bridge.key_of(entry);
        let learned = bridge.learned.get_mut(&key);
        let Some(learned) = learned.filter(|one| one.port == entry.port) else {
            return;
        };
        learned.current = false;
        let local = network.local.keys().copied();
        let doubtful: Vec<MacKey> = local.filter(|one| bridge.slot(*one) == key).collect();
        network.directory.handle_port_doubt(tick.now, &doubtful);
        self.look_at_bridges(tick.now, out, false);
    }

    /// Looks at the ports of the bridges, with `whole`, or when news were lost, at all they have learnt,
    /// too. One look at a time; a wish meanwhile is granted after it.
    pub(crate) fn look_at_bridges(&mut self, now: Instant, out: &mut Outside, whole: bool) {
        if self.looks.under_way {
            self.looks.next = Some(whole || self.looks.next == Some(true));
            return;
        }
        let wanted: Vec<(NetIndex, String, String)> = self
            .all
            .iter()
            .filter_map(|network| Some((network.index, network.attached.as_ref()?)))
            .map(|(net, record)| (net, record.bridge.clone(), record.tap.clone()))
            .collect();
        if wanted.is_empty() {
            return;
        }
        self.looks.under_way = true;
        let whole = self.looks.lost_news.take(now) || whole;
        let look = HostTask::LookAtBridges { wanted, whole };
        out.effects.push(Effect::Host(look));
    }

    /// What a look saw; `None`: nothing.
    pub(crate) fn handle_looks(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        seen: Option<Vec<BridgeLook>>,
    ) {
        self.looks.under_way = false;
        for mut look in seen.into_iter().flatten() {
            self.note_port(tick, out, &mut look);
            self.handle_look(tick, out, own, look);
        }
        self.forget_port_warnings(out);
        if let Some(whole) = self.looks.next.take() {
            self.look_at_bridges(tick.now, out, whole);
        }
    }

    fn handle_look(&mut self, tick: Tick, out: &mut Outside, own: Own, look: BridgeLook) {
        let net = look.net;
        // It may have been detached since the look was asked for: what the bridge has is not here then.
        let network = self.all.get_mut(usize::from(net.0));
        let Some(network) = network.filter(|network| network.attached.is_some()) else {
            return;
        };
        let bridge = &mut network.bridge;
        if bridge.index != look.bridge {
            // Made anew; what the old one knew comes from the database of the new one.
            bridge.learned.clear();
        }
        bridge.index = look.bridge;
        bridge.tap = look.tap;
        bridge.untagged = look.untagged;
        let more = look.ports.difference(&bridge.ports).next().is_some();
        if more {
            network.lan.machine.handle_ports_changed(tick.now, false);
        }
        bridge.ports = look.ports;
        bridge.names = look.names;
        if let Some(entries) = &look.fdb {
            let text = look.more.then(|| {
                format!(
                    "the bridge {} of network {} has more than {MAX_DUMPED} MACs; those beyond are \
                     reached only if they send to the overlay. If a guest makes MACs up, stop it: \
                     `bridge fdb show` names its port",
                    network
                        .attached
                        .as_ref()
                        .map_or("?", |record| &record.bridge),
                    network.secret.name
                )
            });
            let about = network.secret.name.to_string();
            out.warnings.set(tick.now, Topic::Learned, &about, text);
            for learned in bridge.learned.values_mut() {
                learned.current = false;
            }
            for entry in entries {
                network.learn(entry);
            }
        }
        let (bridge, local) = (&mut network.bridge, &network.local);
        let lost = bridge.lose(local.keys());
        let here: Vec<MacKey> = bridge
            .learned
            .iter()
            .filter(|(key, one)| one.current && !local.contains_key(key))
            .map(|(key, _)| *key)
            .collect();
        if !lost.is_empty() {
            tracing::info!(network = %network.secret.name, macs = lost.len(), "a port is gone");
            network.directory.handle_port_lost(tick.now, &lost);
        }
        if more {
            let rests = |key: &MacKey| bridge.is_held(key);
            network.directory.handle_port_up_but(tick.now, rests);
        }
        network.tell_ports(|_| true);
        for key in here {
            self.feed_learned(tick, own, net, key);
        }
        self.touch(net);
    }

    /// The bridge has `key`: evidence, unless somebody else claims it.
    pub(crate) fn feed_learned(&mut self, tick: Tick, own: Own, net: NetIndex, key: MacKey) {
        let me = own.me;
        let network = self.all.get(usize::from(net.0));
        let owner = network.and_then(|network| network.directory.owner(tick.now, &key));
        if owner.unwrap_or(me) == me {
            self.hear_learned(tick, own, net, key);
        }
    }

    /// The bridge has `key`, which is evidence also against who claims it.
    pub(crate) fn hear_learned(&mut self, tick: Tick, own: Own, net: NetIndex, key: MacKey) {
        if !key.mac.is_claimable() || key.mac == own.probe_mac {
            return;
        }
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let is_shut = network.lan.machine.is_shut(key.vlan) || network.bridge.is_held(&key);
        if is_shut || network.lan.is_beacon_mac(key.mac) {
            return;
        }
        // What cannot be claimed is told when a frame of it comes.
        let _ = network
            .directory
            .handle_local_frame(tick.now, key, EvidenceClass::Ordinary, &[]);
        self.touch(net);
    }

    /// Another node has given `key` up: is it here, known to the bridge alone?
    pub(crate) fn claim_if_on_bridge(&mut self, tick: Tick, own: Own, net: NetIndex, key: MacKey) {
        if self.bridge_mut(net).is_some_and(|bridge| bridge.has(&key)) {
            self.feed_learned(tick, own, net, key);
        }
    }

    /// Is there a port that a station could be behind which nobody has heard yet?
    pub(crate) fn has_undecided_port(&self, net: NetIndex) -> bool {
        let network = self.all.get(usize::from(net.0));
        network.is_some_and(|network| {
            // Never looked at: there may be ports.
            let unseen = network.bridge.index == 0;
            network.attached.is_some() && (unseen || !network.bridge.ports.is_empty())
        })
    }

    /// `key` has left this host: a stale entry would keep its frames from our tap.
    pub(crate) fn forget_on_bridge(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        net: NetIndex,
        key: MacKey,
    ) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let heard = network.local.get(&key);
        let heard = heard.is_some_and(|local| local.last_heard_ms() != 0);
        let bridge = &mut network.bridge;
        let key = bridge.slot(key);
        let mut held = network.directory.held_here(tick.now, key.mac);
        let still_here = held.any(|other| bridge.slot(other) == key);
        drop(held);
        if still_here {
            // In another VLAN, which is the same to this bridge. Its frames from elsewhere are no
            // twins, though, until the bridge hears it here again; unless it never sent in the VLAN
            // that is lost: that was the bridge's word for the others.
            if let Some(learned) = bridge.learned.get_mut(&key).filter(|_| heard) {
                learned.current = false;
            }
            return;
        }
        let (port, known) = (bridge.tap, bridge.learned.remove(&key).is_some());
        if known {
            order(out, BridgeOrder::Replace { port, key });
        }
    }

    /// `key` has come to this host: it is no longer behind our tap.
    pub(crate) fn free_on_bridge(&mut self, out: &mut Outside, net: NetIndex, key: MacKey) {
        let Some(bridge) = self.bridge_mut(net) else {
            return;
        };
        let (port, key) = (bridge.tap, bridge.slot(key));
        if port != 0 {
            order(out, BridgeOrder::Delete { port, key });
        }
    }

    /// Our tap leads nowhere any more: the bridge forgets what was beyond it.
    pub(crate) fn unlearn_tap(&mut self, out: &mut Outside, net: NetIndex) {
        let port = self.bridge_mut(net).map_or(0, |bridge| bridge.tap);
        if port != 0 {
            self.flush_port(out, port);
        }
    }

    /// A bridge forgets what it has learnt at `port`, an interface index.
    pub(crate) fn flush_port(&mut self, out: &mut Outside, port: u32) {
        order(out, BridgeOrder::Flush { port });
    }

    pub(crate) fn bridge_of(&self, entry: &FdbEntry) -> Option<NetIndex> {
        let mut networks = self.all.iter();
        let network = networks.find(|n| n.attached.is_some() && n.bridge.index == entry.bridge)?;
        Some(network.index)
    }

    pub(crate) fn bridge_mut(&mut self, net: NetIndex) -> Option<&mut Bridge> {
        let network = self.all.get_mut(usize::from(net.0))?;
        Some(&mut network.bridge)
    }
}

/// Refused, the bridge keeps what it has until it hears more, as switches do; it is looked at.
fn order(out: &mut Outside, order: BridgeOrder) {
    out.effects.push(Effect::Order(order));
}

#[cfg(test)]
mod tests;
