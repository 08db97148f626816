//! Who gets what the fast path could not decide.

use super::run::Node;
use crate::node::tick::Tick;
use crate::punt::Punt;

impl Node {
    /// One thing the fast path could not decide.
    pub fn handle_punt(&mut self, tick: Tick, punt: Punt) {
        match punt {
            Punt::LocalFrame { net, frame, .. } => {
                self.handle_local_frame(tick, net, frame.into_vec());
            }
            Punt::LocalBroadcast { net, had, frame } => {
                self.flood(tick, net, frame.into_vec(), had);
            }
            Punt::LocalEvidence { net, frame } => self.learn_addresses(tick, net, &frame),
            Punt::Beacon { net, frame } => self.handle_beacon(tick, net, frame.into_vec()),
            Punt::StandingBy { net, vlan } => self.networks.note_standby_vlan(tick, net, vlan),
            Punt::GoesRound { net, vlan } => self.networks.ask_for_loop(tick.now, net, vlan),
            Punt::PeerFrame {
                net,
                peer,
                hops,
                forwarded: Some(mark),
                frame,
                ..
            } => self.handle_forwarded(tick, net, peer, hops, mark, &frame),
            Punt::PeerFrame {
                net,
                peer,
                reason,
                frame,
                ..
            } => {
                self.handle_peer_frame(tick, net, peer, reason, frame.into_vec());
            }
            Punt::Inner {
                session,
                peer,
                path,
                header,
                body,
            } => {
                self.handle_inner(tick, session, peer, path, header, &body);
            }
            Punt::Opened {
                session,
                peer,
                path,
                received,
            } => self
                .peers
                .handle_opened(tick, session, peer, (path, received)),
            Punt::Stray { path } => {
                let filter = self.candidates.underlay.filter();
                self.peers
                    .handle_stray(tick, &mut self.outside, filter, path);
            }
            Punt::Datagram { path, bytes } => self.handle_datagram(tick, path, &bytes),
            Punt::TapLost { net } => self.lose_tap(tick, net),
        }
    }
}
