//! What the directory of a network says, and what is said to it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::questions::Question;
use overlay_proto::directory::{DirectoryAction, DirectoryMessage, Place};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{
    ArpPacket, MacAddr, NeighborAdvertisement, NeighborSolicitation, VlanId, multicast_mac,
};
use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::switching::{MacKey, NetIndex};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// How long a local probe may take: the machine wants its answer within 300 ms.
const PROBE_TIME: Duration = Duration::from_millis(250);

/// A worker notes the whole millisecond in which its turn began; a guest may have answered since.
const HEARD_SLACK: Duration = Duration::from_millis(20);

/// How often the workers' stamps are looked at while a probe is under way: nobody wakes the node
/// for an answer, and a move should not wait for the end of [`PROBE_TIME`].
const PROBE_LOOK: Duration = Duration::from_millis(20);

/// A MAC heard so lately has talked to the peers that had traffic since the last look.
const TALKED_LATELY: Duration = Duration::from_secs(2);

/// MACs and peers that are noted as talking to each other at one look, each: 4,096 pairs.
const MAX_TALKING: usize = 64;
const MAX_TALKERS: usize = 64;

/// Local probes under way at once; above it a MAC counts as silent.
const MAX_PROBES: usize = 64;

/// A question to the guests on this host: is this MAC still here?
#[derive(Debug)]
pub(crate) struct LocalProbe {
    key: MacKey,
    since: Instant,
}

impl Node {
    /// Drains the directory of `net`.
    pub(crate) fn settle_network(&mut self, tick: Tick, net: NetIndex) {
        loop {
            let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
                return;
            };
            let Some(action) = network.directory.poll_action() else {
                let lost = network.directory.take_lost();
                return self.outside.drops.add(DropReason::ControlOverflow, lost);
            };
            let id = network.secret.id;
            self.handle_directory_action(tick, net, &id, action);
        }
    }

    fn handle_directory_action(
        &mut self,
        tick: Tick,
        net: NetIndex,
        id: &NetworkId,
        action: DirectoryAction,
    ) {
        match action {
            DirectoryAction::Send { to, message } => self.send_directory(tick, &[to], id, &message),
            DirectoryAction::Broadcast { message } => {
                let members = self.members_of(net);
                self.send_directory(tick, &members, id, &message);
            }
            DirectoryAction::AskAll { key } => self.ask_all(tick, net, id, key),
            DirectoryAction::DhtGet { key, dht_key } => {
                self.outside
                    .asking
                    .put(Question::GetRecord { net, key, dht_key });
            }
            DirectoryAction::DhtPut { dht_key, record } => {
                self.outside
                    .asking
                    .put(Question::PutRecord { dht_key, record });
            }
            DirectoryAction::ProbeLocal { key, ips } => self.probe_local(tick, net, key, &ips),
            DirectoryAction::Moved { key, to, ips } => {
                tracing::info!(mac = %key.mac, vlan = key.vlan.get(), ?to, "a MAC moved");
                match to {
                    // The forwarder took it over; for our bridge it is where it was.
                    Place::Remote(_) if self.networks.stands_by(net, key.vlan) => {}
                    Place::Remote(_) => {
                        self.networks
                            .forget_on_bridge(tick, &mut self.outside, net, key);
                        self.teach_bridge(net, key, &ips);
                    }
                    Place::Local => {
                        self.networks.free_on_bridge(&mut self.outside, net, key);
                        self.networks.ask_for_groups(tick, net, key);
                    }
                }
            }
            DirectoryAction::Vacated { key } => {
                // It may come back here without a word: its frames must not go to our tap.
                self.networks.free_on_bridge(&mut self.outside, net, key);
                self.networks.claim_if_on_bridge(tick, self.own(), net, key);
            }
            DirectoryAction::Unresolved { key } => {
                let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
                    return;
                };
                let dropped = network.waiting.for_lookup.take(key).len() as u64;
                network.directory.note_dropped(tick.now, key, dropped);
                self.outside.drops.add(DropReason::UnknownMac, dropped);
            }
            DirectoryAction::HeldRefused { key, reason } => {
                let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
                    return;
                };
                let dropped = network.waiting.for_owner.take(key).len();
                self.outside.drops.add(reason, dropped as u64);
            }
            DirectoryAction::VerifyChain { node, chain } => {
                self.verify_member(tick, net, node, &chain);
            }
            DirectoryAction::RosterChanged => {
                self.meet_members(tick, net);
                self.part_from_leavers(tick, net);
            }
            // The `Fib` follows the directory's version; waiting frames are looked at after this.
            DirectoryAction::ClaimsChanged | DirectoryAction::Resolved { .. } => {}
        }
    }

    /// Asks all members who has `key`. Each gets the newest frame that waits for it, too: one that has
    /// an undecided port writes it there.
    fn ask_all(&mut self, tick: Tick, net: NetIndex, id: &NetworkId, key: MacKey) {
        let members = self.members_of(net);
        self.send_directory(tick, &members, id, &DirectoryMessage::who_has(key));
        let network = self.networks.all.get_mut(usize::from(net.0));
        let Some(frame) = network.and_then(|network| network.waiting.for_lookup.take_newest(key))
        else {
            return;
        };
        for peer in members {
            // Without a session there is nothing to wait for: the next second has its own frame.
            self.send_frame(net, peer, &frame);
        }
    }

    /// Sends a directory message to those of `peers` with a session. One without gets the same from
    /// the comparison that begins each session.
    fn send_directory(
        &mut self,
        tick: Tick,
        peers: &[PeerId],
        network: &NetworkId,
        message: &DirectoryMessage,
    ) {
        let body = match message.encode() {
            Ok(body) => body,
            Err(reason) => return self.outside.drops.count(reason),
        };
        let message = PeerMessage::Directory {
            network: NetworkTag::from(network),
            body: &body,
        };
        for &peer in peers {
            if self.peers.tunnels.current(peer).is_some() {
                self.send_message(tick, peer, &message);
            }
        }
    }

    /// A directory message came from `peer`.
    pub(crate) fn handle_directory_message(
        &mut self,
        tick: Tick,
        peer: PeerId,
        tag: NetworkTag,
        body: &[u8],
    ) {
        let Some(index) = self
            .networks
            .all
            .iter()
            .position(|network| NetworkTag::from(&network.secret.id) == tag)
        else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        if !self.shares_network(peer, index) {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        }
        self.feed_heard(index);
        let Some(network) = self.networks.all.get_mut(index) else {
            return;
        };
        let handled = DirectoryMessage::decode(body).and_then(|message| {
            network
                .directory
                .handle_message(tick.now, tick.wall, peer, message)
        });
        if let Err(reason) = handled {
            self.outside.drops.count(reason);
        }
        self.networks.touched.insert(network.index);
    }

    /// Did the handshake with `peer` agree on this network?
    fn shares_network(&self, peer: PeerId, index: usize) -> bool {
        let Some(network) = self.networks.all.get(index) else {
            return false;
        };
        self.peers.tunnels.current(peer).is_some_and(|session| {
            session
                .networks
                .iter()
                .any(|n| n.network == network.secret.id)
        })
    }

    /// Tells the directory when the workers last saw each local MAC.
    pub(crate) fn feed_heard(&mut self, index: usize) {
        let Some(network) = self.networks.all.get_mut(index) else {
            return;
        };
        for (key, local) in &network.local {
            let millis = local.last_heard_ms();
            if millis > 0 {
                let at = self.standing.identity.epoch + Duration::from_millis(millis);
                network.directory.heard(at, *key);
            }
        }
    }

    /// Frames went to or came from `peers` in the last second. Which of our MACs they were for the
    /// workers do not say: those heard lately count. Too many talkers cost a message at a move.
    pub(crate) fn note_talkers(&mut self, tick: Tick, peers: &[PeerId]) {
        for network in &mut self.networks.all {
            let epoch = self.standing.identity.epoch;
            let lately = |millis: u64| {
                let heard = epoch + Duration::from_millis(millis);
                millis > 0 && tick.now.saturating_duration_since(heard) <= TALKED_LATELY
            };
            let heard = network.local.iter();
            let heard = heard.filter(|(_, local)| lately(local.last_heard_ms()));
            for (key, _) in heard.take(MAX_TALKING) {
                for &peer in peers.iter().take(MAX_TALKERS) {
                    network.directory.note_talker(tick.now, *key, peer);
                }
            }
        }
    }

    /// Somebody's chain came along with the roster: is the node a member of this network?
    pub(crate) fn verify_member(&mut self, tick: Tick, net: NetIndex, node: PeerId, chain: &[u8]) {
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let verdict = self.standing.identity.verify_chain(chain, tick.wall);
        if verdict == Err(DropReason::Revoked) {
            // It may be in a roster from before, with this very certificate.
            network.directory.handle_member_gone(tick.now, node);
            self.touch_network(net);
            return self.outside.drops.count(DropReason::Revoked);
        }
        let verdict = verdict.ok().filter(|m| m.peer == node);
        let Some(member) = verdict.filter(|member| member.is_member_of(&network.secret.id)) else {
            let known = |(id, _): (PeerId, &[u8])| id == node;
            if !network.directory.certificates().any(known) {
                // From a roster of before a restart: it has ended meanwhile.
                network.directory.handle_member_expired(tick.now, node);
                self.touch_network(net);
            }
            return self.outside.drops.count(DropReason::CertificateRefused);
        };
        let may_send = member.may_send(&network.secret.id);
        network
            .directory
            .handle_member(tick.now, node, may_send, chain);
        self.touch_network(net);
    }

    /// The roster changed: whoever is new in it is greeted.
    fn meet_members(&mut self, tick: Tick, net: NetIndex) {
        let Some(network) = self.networks.all.get(usize::from(net.0)) else {
            return;
        };
        let unknown: Vec<(PeerId, [u8; 32])> = network
            .directory
            .members()
            .map(|member| (member.entry.node, member.entry.static_key))
            .filter(|(id, _)| {
                *id != self.standing.identity.me && !self.peers.known.contains_key(id)
            })
            .collect();
        for (id, static_key) in unknown {
            if let Some(peer) = self.new_peer(tick, id) {
                peer.static_key = Some(static_key);
                self.peers.changed = true;
                self.permit(id);
                self.reach(tick, id);
            }
        }
    }

    /// Asks `key`, if it is behind our bridge, for an answer.
    pub(crate) fn write_probes(&mut self, net: NetIndex, key: MacKey, ips: &[IpAddr]) {
        let asker = self.standing.identity.probe_mac();
        for ip in ips {
            let frame = match ip {
                IpAddr::V4(ip) => ArpPacket::probe(asker, *ip).to_frame(key.mac, key.vlan),
                IpAddr::V6(ip) => {
                    NeighborSolicitation::probe(*ip).to_frame(asker, key.mac, key.vlan)
                }
            };
            self.networks.write_tap(&mut self.outside, net, &frame);
        }
    }

    /// Asks the guests on this host whether `key` is here; the answer is heard by the workers.
    fn probe_local(&mut self, tick: Tick, net: NetIndex, key: MacKey, ips: &[IpAddr]) {
        if self.networks.stands_by(net, key.vlan) {
            // Whatever is here is the forwarder's.
            if let Some(network) = self.networks.all.get_mut(usize::from(net.0)) {
                network
                    .directory
                    .handle_local_probe_result(tick.now, key, false);
            }
            return self.touch_network(net);
        }
        if let Some(network) = self.networks.all.get_mut(usize::from(net.0))
            && network.directory.owner(tick.now, &key).is_none()
            && network.bridge.has(&key)
        {
            // Nobody claims it, and the bridge knows where it is. Of one's own MAC this proves
            // nothing: the bridge remembers a guest for minutes after it has left.
            network
                .directory
                .handle_local_probe_result(tick.now, key, true);
            return self.touch_network(net);
        }
        self.write_probes(net, key, ips);
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if network.probes.len() < MAX_PROBES {
            network.probes.push(LocalProbe {
                key,
                since: tick.now,
            });
        } else {
            network
                .directory
                .handle_local_probe_result(tick.now, key, false);
        }
    }

    /// Asks everything behind our taps of `name`, or of all networks, for the address `ip`.
    pub(crate) fn ask_guests(&mut self, name: Option<&NetworkName>, ip: IpAddr) {
        let asker = self.standing.identity.probe_mac();
        let frame = match ip {
            IpAddr::V4(ip) => {
                ArpPacket::probe(asker, ip).to_frame(MacAddr::BROADCAST, VlanId::UNTAGGED)
            }
            IpAddr::V6(ip) => {
                let question = NeighborSolicitation::probe(ip);
                let all = multicast_mac(question.destination);
                question.to_frame(asker, all, VlanId::UNTAGGED)
            }
        };
        for index in 0..self.networks.all.len() {
            let asked = self.networks.all.get(index).filter(|network| {
                let own = &network.secret.name;
                name.is_none_or(|name| name == own)
            });
            if let Some(net) = asked.map(|network| network.index) {
                self.networks.write_tap(&mut self.outside, net, &frame);
            }
        }
    }

    /// Ends the local probes that have had their time.
    pub(crate) fn end_probes(&mut self, tick: Tick) {
        for index in 0..self.networks.all.len() {
            let Some(network) = self.networks.all.get_mut(index) else {
                return;
            };
            let (epoch, local) = (self.standing.identity.epoch, &network.local);
            let mut ended = Vec::new();
            network.probes.retain(|probe| {
                let heard_ms = local
                    .get(&probe.key)
                    .map_or(0, |local| local.last_heard_ms());
                let alive = is_answer(epoch, heard_ms, probe.since);
                let over = alive || tick.now.duration_since(probe.since) >= PROBE_TIME;
                if over {
                    ended.push((probe.key, alive));
                }
                !over
            });
            for (key, alive) in ended {
                network
                    .directory
                    .handle_local_probe_result(tick.now, key, alive);
                self.networks.touched.insert(network.index);
            }
        }
    }

    /// When to look at the local probes again, if there are any.
    pub(crate) fn next_probe_look(&self, now: Instant) -> Option<Instant> {
        let probing = self
            .networks
            .all
            .iter()
            .any(|network| !network.probes.is_empty());
        probing.then(|| now + PROBE_LOOK)
    }

    /// `key` has left this host: the bridge and the guests on it learn that it is behind our tap.
    /// A gratuitous ARP or NA does both, and it is what the guest itself would send.
    fn teach_bridge(&mut self, net: NetIndex, key: MacKey, ips: &[IpAddr]) {
        for ip in ips {
            let frame = match ip {
                IpAddr::V4(ip) => {
                    ArpPacket::announcement(key.mac, *ip).to_frame(MacAddr::BROADCAST, key.vlan)
                }
                IpAddr::V6(ip) => {
                    let announcement = NeighborAdvertisement::announcement(*ip, key.mac);
                    let everyone = multicast_mac(announcement.destination);
                    announcement.to_frame(key.mac, everyone, key.vlan)
                }
            };
            self.networks.write_tap(&mut self.outside, net, &frame);
        }
    }
}

/// Does a MAC that a worker heard at `heard_ms` after `epoch` (0: never) answer a probe of `since`?
fn is_answer(epoch: Instant, heard_ms: u64, since: Instant) -> bool {
    heard_ms > 0 && epoch + Duration::from_millis(heard_ms) + HEARD_SLACK >= since
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_within_the_same_millisecond_counts() {
        let epoch = Instant::now();
        let since = epoch + Duration::from_micros(5_700);
        assert!(is_answer(epoch, 5, since), "answered after 200 us");
        assert!(is_answer(epoch, 6, since));
        assert!(!is_answer(epoch, 0, since), "never heard");
        let later = epoch + Duration::from_millis(500);
        assert!(!is_answer(epoch, 5, later));
    }
}
