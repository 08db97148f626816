//! Own addresses have changed: peers are told, and sought by the new ones.

use std::time::Duration;

use nat_traversal::host::{AttachedNetwork, BridgeRole, HostView};
use nat_traversal::path::{Path, PathKind};
use overlay_proto::ids::PeerId;

use super::run::Node;
use crate::attachment::Attachment;
use crate::node::candidates::bootstraps::CandidatesOutput;
use crate::node::tick::Tick;

/// What the host's addresses are sorted by.
fn network_of(record: &Attachment) -> AttachedNetwork {
    let moved = record.nic.as_ref().is_some_and(|nic| nic.is_moved);
    AttachedNetwork {
        tap: record.tap.clone(),
        bridge: record.bridge.clone(),
        role: match (record.bridge_is_ours, moved) {
            (_, true) => BridgeRole::Uplink,
            (true, false) => BridgeRole::Network,
            (false, false) => BridgeRole::Users,
        },
        given: record.addresses.iter().map(ipnet::IpNet::addr).collect(),
    }
}

impl Node {
    /// The kernel has told of a change of the host's network.
    pub fn look_at_host(&mut self) {
        self.candidates.look_at_host(&mut self.outside);
    }

    /// What the first look at the host saw, and how long it took.
    pub fn take_view(&mut self, tick: Tick, view: HostView, took: Duration) {
        let attached = self.attached_networks();
        self.candidates
            .take_view(tick.now, &mut self.outside, (view, took), &attached);
    }

    /// A look is over; `None`: the kernel did not tell.
    pub(crate) fn handle_host(&mut self, tick: Tick, seen: Option<(HostView, Duration)>) {
        let (attached, out) = (self.attached_networks(), &mut self.outside);
        if self.candidates.handle_host(tick.now, out, seen, &attached) {
            self.follow_way_out(tick);
        }
    }

    /// Other networks are attached than before.
    pub(crate) fn apply_attached(&mut self, tick: Tick) {
        let (attached, out) = (self.attached_networks(), &mut self.outside);
        self.candidates.apply_host(tick.now, out, &attached);
        self.candidates.look_at_host(out);
    }

    fn attached_networks(&self) -> Vec<AttachedNetwork> {
        let records = self.networks.all.iter();
        let records = records.filter_map(|network| network.attached.as_ref());
        records.map(network_of).collect()
    }

    /// The host gets out another way: all are asked now whether they are reached by it.
    fn follow_way_out(&mut self, tick: Tick) {
        self.candidates.follow_way_out(tick.now);
        let all: Vec<_> = self.peers.known.keys().copied().collect();
        for id in all {
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.agent.handle_way_changed(tick.now);
                peer.try_again();
            }
            self.touch_peer(id);
            self.reach(tick, id);
        }
    }

    /// Drains what the candidates want others to know.
    pub(crate) fn settle_candidates(&mut self, tick: Tick) {
        self.candidates.settle(tick, &mut self.outside);
        while let Some(output) = self.candidates.poll(tick, &mut self.outside) {
            match output {
                CandidatesOutput::Changed => self.spread_candidates(tick),
                CandidatesOutput::FilterChanged => self.spread_filter(tick),
            }
            self.outside.fib_stale = true;
        }
        self.lay_down_cards(tick);
    }

    /// What the filter goes by has changed: every agent is told.
    fn spread_filter(&mut self, tick: Tick) {
        let filter = self.candidates.underlay.filter();
        for peer in self.peers.known.values_mut() {
            peer.agent.set_filter(tick.now, filter.clone());
            self.peers.turns.touch(peer.id);
        }
    }

    /// There is a new allocation at a relay.
    pub(crate) fn permit_at_new_relay(&mut self) {
        let direct = |path: Option<Path>| path.is_some_and(|path| path.kind() == PathKind::Direct);
        let known = self.peers.known.values();
        let known = known.map(|peer| (peer.id, direct(peer.agent.chosen())));
        self.candidates.permit_at_new_relay(known);
    }

    /// Names those again whose frames go by a relay.
    pub(crate) fn renew_permits(&mut self, tick: Tick) {
        let relayed = self.peers.known.values().filter(|peer| {
            let path = peer.agent.chosen();
            path.is_some_and(|path| path.kind() == PathKind::Relayed)
        });
        let relayed = relayed.map(|peer| (peer.heard.at, peer.id));
        self.candidates.renew_permits(tick.now, relayed);
    }

    /// `peer` may be heard by the relays.
    pub(crate) fn permit(&mut self, peer: PeerId) {
        self.candidates.permit([peer]);
    }
}
