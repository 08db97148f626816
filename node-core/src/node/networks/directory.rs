//! What the directory of a network says, and what is said to it.

use std::net::IpAddr;
use std::time::Duration;

use crate::questions::Question;
use overlay_proto::directory::{DirectoryAction, DirectoryMessage, Place};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{ArpPacket, MacAddr, NeighborAdvertisement, multicast_mac};
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::Member;
use overlay_proto::switching::{MacKey, NetIndex};
use overlay_proto::wire::peer_message::NetworkTag;

use super::Networks;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::views::Own;

/// A MAC heard so lately has talked to the peers that had traffic since the last look.
const TALKED_LATELY: Duration = Duration::from_secs(2);

/// MACs and peers that are noted as talking to each other at one look, each: 4,096 pairs.
const MAX_TALKING: usize = 64;
const MAX_TALKERS: usize = 64;

/// What the directory of a network wants of the other owners.
#[derive(Debug)]
#[must_use]
pub(crate) enum DirectoryOutput {
    /// Members are to be told something.
    Tell(Told),
    /// The chain of `node` came along with the roster: is it a member of this network?
    Verify {
        /// Whose it is said to be.
        node: PeerId,
        /// The chain.
        chain: Vec<u8>,
    },
    /// The roster changed: whoever is new in it is to be met, and whoever has left to be parted from.
    RosterChanged,
}

/// A message for those of some members with a session. One without gets the same from the comparison that begins each session.
#[derive(Debug)]
pub(crate) struct Told {
    /// The members.
    pub(crate) to: Vec<PeerId>,
    /// The network.
    pub(crate) network: NetworkTag,
    /// The message.
    pub(crate) body: Vec<u8>,
    /// A frame that each of them gets after it.
    pub(crate) frame: Option<Vec<u8>>,
}

impl Networks {
    /// Drains the directory of `net` until it wants something of others.
    pub(crate) fn poll_directory(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
    ) -> Option<DirectoryOutput> {
        loop {
            let network = self.all.get_mut(usize::from(net.0))?;
            let Some(action) = network.directory.poll_action() else {
                let lost = network.directory.take_lost();
                out.drops.add(DropReason::ControlOverflow, lost);
                return None;
            };
            let output = self.handle_directory_action(tick, out, own, net, action);
            if output.is_some() {
                return output;
            }
        }
    }

    fn handle_directory_action(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
        action: DirectoryAction,
    ) -> Option<DirectoryOutput> {
        match action {
            DirectoryAction::Send { to, message } => {
                return self.tell(out, net, vec![to], &message);
            }
            DirectoryAction::Broadcast { message } => {
                let members = self.members_of(net, own.me);
                return self.tell(out, net, members, &message);
            }
            DirectoryAction::AskAll { key } => return self.ask_all(out, own, net, key),
            DirectoryAction::DhtGet { key, dht_key } => {
                out.asking.put(Question::GetRecord { net, key, dht_key });
            }
            DirectoryAction::DhtPut { dht_key, record } => {
                out.asking.put(Question::PutRecord { dht_key, record });
            }
            DirectoryAction::ProbeLocal { key, ips } => {
                self.probe_local(tick, out, own, net, key, &ips);
            }
            DirectoryAction::Moved { key, to, ips } => {
                tracing::info!(mac = %key.mac, vlan = key.vlan.get(), ?to, "a MAC moved");
                self.handle_moved(tick, out, net, key, to, &ips);
            }
            DirectoryAction::Vacated { key } => {
                // It may come back here without a word: its frames must not go to our tap.
                self.free_on_bridge(out, net, key);
                self.claim_if_on_bridge(tick, own, net, key);
            }
            DirectoryAction::Unresolved { key } => {
                let network = self.all.get_mut(usize::from(net.0))?;
                let dropped = network.waiting.for_lookup.take(key).len() as u64;
                network.directory.note_dropped(tick.now, key, dropped);
                out.drops.add(DropReason::UnknownMac, dropped);
            }
            DirectoryAction::HeldRefused { key, reason } => {
                let network = self.all.get_mut(usize::from(net.0))?;
                let dropped = network.waiting.for_owner.take(key).len();
                out.drops.add(reason, dropped as u64);
            }
            DirectoryAction::VerifyChain { node, chain } => {
                return Some(DirectoryOutput::Verify { node, chain });
            }
            DirectoryAction::RosterChanged => return Some(DirectoryOutput::RosterChanged),
            // The `Fib` follows the directory's version; waiting frames are looked at after this.
            DirectoryAction::ClaimsChanged | DirectoryAction::Resolved { .. } => {}
        }
        None
    }

    /// `key` is at another place than before.
    fn handle_moved(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        net: NetIndex,
        key: MacKey,
        to: Place,
        ips: &[IpAddr],
    ) {
        match to {
            // The forwarder took it over; for our bridge it is where it was.
            Place::Remote(_) if self.stands_by(net, key.vlan) => {}
            Place::Remote(_) => {
                self.forget_on_bridge(tick, out, net, key);
                self.teach_bridge(out, net, key, ips);
            }
            Place::Local => {
                self.free_on_bridge(out, net, key);
                self.ask_for_groups(tick, net, key);
            }
        }
    }

    /// Asks all members who has `key`. Each gets the newest frame that waits for it, too: one that has
    /// an undecided port writes it there. Without a session there is nothing to wait for: the next second has its own frame.
    fn ask_all(
        &mut self,
        out: &Outside,
        own: Own,
        net: NetIndex,
        key: MacKey,
    ) -> Option<DirectoryOutput> {
        let members = self.members_of(net, own.me);
        let mut output = self.tell(out, net, members, &DirectoryMessage::who_has(key));
        if let Some(DirectoryOutput::Tell(told)) = &mut output {
            let network = self.all.get_mut(usize::from(net.0));
            told.frame = network.and_then(|network| network.waiting.for_lookup.take_newest(key));
        }
        output
    }

    fn tell(
        &self,
        out: &Outside,
        net: NetIndex,
        to: Vec<PeerId>,
        message: &DirectoryMessage,
    ) -> Option<DirectoryOutput> {
        let network = NetworkTag::from(&self.id_of(net)?);
        match message.encode() {
            Ok(body) => Some(DirectoryOutput::Tell(Told {
                to,
                network,
                body,
                frame: None,
            })),
            Err(reason) => {
                out.drops.count(reason);
                None
            }
        }
    }

    /// The members of `net` but ourselves.
    pub(crate) fn members_of(&self, net: NetIndex, me: PeerId) -> Vec<PeerId> {
        let network = self.all.get(usize::from(net.0));
        let members = network.into_iter().flat_map(|one| one.directory.members());
        let members = members.map(|member| member.entry.node);
        members.filter(|peer| *peer != me).collect()
    }

    /// The members of `net` but ourselves that are not known yet, with their keys.
    pub(crate) fn strangers_in(
        &self,
        net: NetIndex,
        me: PeerId,
        is_known: impl Fn(&PeerId) -> bool,
    ) -> Vec<(PeerId, [u8; 32])> {
        let network = self.all.get(usize::from(net.0));
        let members = network.into_iter().flat_map(|one| one.directory.members());
        let members = members.map(|member| (member.entry.node, member.entry.static_key));
        members
            .filter(|(id, _)| *id != me && !is_known(id))
            .collect()
    }

    /// A directory message came from `peer`. `shared`: the network it is for, if the handshake agreed on it.
    pub(crate) fn handle_directory_message(
        &mut self,
        tick: Tick,
        out: &Outside,
        own: Own,
        (peer, shared): (PeerId, Option<NetworkId>),
        body: &[u8],
    ) {
        let mut networks = self.all.iter();
        let network = networks.find(|network| Some(network.secret.id) == shared);
        let Some(net) = network.map(|network| network.index) else {
            return out.drops.count(DropReason::UnknownNetwork);
        };
        self.feed_heard(own, net);
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let handled = DirectoryMessage::decode(body).and_then(|message| {
            network
                .directory
                .handle_message(tick.now, tick.wall, peer, message)
        });
        if let Err(reason) = handled {
            out.drops.count(reason);
        }
        self.touch(net);
    }

    /// Timers of the directories.
    pub(crate) fn handle_directory_timeouts(&mut self, tick: Tick, own: Own) {
        for net in self.indices() {
            let network = self.all.get(usize::from(net.0));
            let due = network.and_then(|network| network.directory.poll_timeout());
            if due.is_none_or(|due| due > tick.now) {
                continue;
            }
            self.feed_heard(own, net);
            if let Some(network) = self.all.get_mut(usize::from(net.0)) {
                network.directory.handle_timeout(tick.now);
            }
            self.touch(net);
        }
    }

    /// Tells the directory when the workers last saw each local MAC.
    fn feed_heard(&mut self, own: Own, net: NetIndex) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        for (key, local) in &network.local {
            let millis = local.last_heard_ms();
            if millis > 0 {
                let at = own.epoch + Duration::from_millis(millis);
                network.directory.heard(at, *key);
            }
        }
    }

    /// Frames went to or came from `peers` in the last second. Which of our MACs they were for the
    /// workers do not say: those heard lately count. Too many talkers cost a message at a move.
    pub(crate) fn note_talkers(&mut self, tick: Tick, own: Own, peers: &[PeerId]) {
        for network in &mut self.all {
            let lately = |millis: u64| {
                let heard = own.epoch + Duration::from_millis(millis);
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

    /// `verdict` on the chain of `node`, which came along with the roster of `net` or in a handshake.
    pub(crate) fn take_verdict(
        &mut self,
        tick: Tick,
        out: &Outside,
        net: NetIndex,
        (node, chain): (PeerId, &[u8]),
        verdict: Result<Member, DropReason>,
    ) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if verdict == Err(DropReason::Revoked) {
            // It may be in a roster from before, with this very certificate.
            network.directory.handle_member_gone(tick.now, node);
            self.touch(net);
            return out.drops.count(DropReason::Revoked);
        }
        let verdict = verdict.ok().filter(|m| m.peer == node);
        let Some(member) = verdict.filter(|member| member.is_member_of(&network.secret.id)) else {
            let known = |(id, _): (PeerId, &[u8])| id == node;
            if !network.directory.certificates().any(known) {
                // From a roster of before a restart: it has ended meanwhile.
                network.directory.handle_member_expired(tick.now, node);
                self.touch(net);
            }
            return out.drops.count(DropReason::CertificateRefused);
        };
        let may_send = member.may_send(&network.secret.id);
        network
            .directory
            .handle_member(tick.now, node, may_send, chain);
        self.touch(net);
    }

    /// `key` has left this host: the bridge and the guests on it learn that it is behind our tap.
    /// A gratuitous ARP or NA does both, and it is what the guest itself would send.
    fn teach_bridge(&self, out: &mut Outside, net: NetIndex, key: MacKey, ips: &[IpAddr]) {
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
            self.write_tap(net, &frame, out);
        }
    }
}
