//! LANs that other nodes are plugged into, too: what they depend on elsewhere, and what follows from them there.

use std::time::Instant;

use overlay_proto::ids::NetworkName;
use overlay_proto::segment::SegmentEvent;
use overlay_proto::switching::NetIndex;

use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::views::Beyond;

impl Node {
    /// A frame with the beacons' ethertype came from the tap.
    pub(crate) fn handle_beacon(&mut self, tick: Tick, net: NetIndex, bytes: Vec<u8>) {
        if self
            .networks
            .handle_beacon(tick, &self.outside, net, &bytes)
        {
            self.handle_local_frame(tick, net, bytes);
        }
    }

    /// A network was attached or detached.
    pub(crate) fn follow_attachment(&mut self, now: Instant) {
        self.networks.follow_attachment(now);
    }

    /// A LAN is about to be plugged into `name`, or was: it is listened to before anything is carried.
    pub(crate) fn listen_first(&mut self, now: Instant, name: &NetworkName) {
        if self.networks.listen_first(now, &mut self.outside, name) {
            self.publish(now);
        }
    }

    /// Tells the LANs of `name`, or of all networks, that this node carries nothing any more.
    pub fn say_goodbye(&mut self, name: Option<&NetworkName>) {
        self.networks.say_goodbye(&mut self.outside, name);
    }

    /// Timers and outputs of all segments.
    pub(crate) fn settle_segments(&mut self, tick: Tick) {
        for net in self.networks.indices() {
            let entropy = &mut self.outside.entropy;
            self.networks.handle_segment_timeout(tick.now, net, entropy);
            while let Some(event) = self.networks.poll_segment(net) {
                self.handle_segment_event(tick, net, event);
                self.warn_of_segments(tick.now, net);
            }
            self.networks.release_claims(tick, net);
        }
        self.open_looped_ports(tick);
    }

    fn handle_segment_event(&mut self, tick: Tick, net: NetIndex, event: SegmentEvent) {
        let own = self.own();
        match event {
            SegmentEvent::Opened(vlan) => {
                self.networks
                    .handle_opened(tick, &mut self.outside, own, net, vlan);
            }
            SegmentEvent::Shut(vlan) => {
                self.networks
                    .handle_shut(tick, &mut self.outside, net, vlan);
            }
            SegmentEvent::Changed(vlan) => {
                let views = (own, self.beyond(tick, net));
                self.networks
                    .handle_others_changed(tick, &mut self.outside, views, net, vlan);
            }
            SegmentEvent::Returned(vlan) => self.handle_returned_beacon(tick, net, vlan),
        }
    }

    /// What is looked at every second: who can be reached, which VLANs there are, claims that came late.
    pub(crate) fn look_at_segments(&mut self, tick: Tick) {
        for net in self.networks.indices() {
            let beyond = self.beyond(tick, net);
            self.networks.look_at_segment(tick, net, beyond);
            self.warn_of_segments(tick.now, net);
        }
    }

    fn beyond(&self, tick: Tick, net: NetIndex) -> Beyond {
        let id = self.networks.id_of(net);
        let connected = self.peers.tunnels.sessions().any(|session| {
            let mut shared = session.networks.iter();
            shared.any(|shared| Some(shared.network) == id)
        });
        let time = self.standing.identity.membership.roots().now(tick.wall);
        Beyond { connected, time }
    }

    fn warn_of_segments(&mut self, now: Instant, net: NetIndex) {
        let identity = &self.standing.identity;
        let host = (identity.me, identity.name.as_str());
        let sight = &*self.outside.sight;
        let called = |peer| self.called(peer);
        let texts = self.networks.find_shared_lans(net, host, sight, called);
        self.networks
            .warn_of_shared_lans(now, &mut self.outside, net, texts);
    }
}
