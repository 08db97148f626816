//! Who gets a peer's message, and what is said to peers.

use overlay_proto::ids::PeerId;
use overlay_proto::wire::peer_message::PeerMessage;

use super::run::Node;
use crate::node::peers::whereabouts::ListSource;
use crate::node::tick::Tick;

impl Node {
    pub(crate) fn handle_message(&mut self, tick: Tick, id: PeerId, bytes: &[u8]) {
        match PeerMessage::decode(bytes) {
            Ok(PeerMessage::Directory { network, body }) => {
                self.handle_directory_message(tick, id, network, body);
            }
            Ok(PeerMessage::Candidates {
                sequence,
                mapping,
                candidates,
            }) => {
                let own = self.candidates.underlay.nat().mapping();
                self.peers.note_mapping(id, own, mapping);
                let list = ListSource::Session(sequence);
                self.learn_candidates(tick, id, list, candidates);
            }
            Ok(PeerMessage::EpochNumber { network, epoch }) => {
                self.handle_epoch_number(tick, id, network, epoch);
            }
            Ok(PeerMessage::Epoch { network, signed }) => {
                self.handle_epoch(tick, id, network, signed);
            }
            Ok(PeerMessage::ListsHeld(theirs)) => self.handle_lists_held(tick, id, theirs),
            Ok(PeerMessage::ListPage(page)) => self.handle_list_page(id, page),
            Ok(PeerMessage::GuestMtu { network, mtu }) => {
                self.handle_guest_mtu(tick, id, network, mtu);
            }
            Err(reason) => self.outside.drops.count(reason),
        }
    }

    /// Queues a message for `peer`; it goes out with the next settling.
    pub(crate) fn send_message(&mut self, tick: Tick, id: PeerId, message: &PeerMessage<'_>) {
        let out = &mut self.outside;
        if self.peers.send_message(tick, out, id, message) {
            self.standing.revocations.owe(id);
        }
    }

    /// Sends what waits on the channel, if there are a session and a path.
    pub(crate) fn settle_channel(&mut self, tick: Tick, id: PeerId) {
        let (keys, out) = (self.candidates.underlay.relay_keys(), &mut self.outside);
        if self.peers.settle_channel(tick, out, keys, id) {
            self.standing.revocations.owe(id);
        }
    }

    /// Says again what is owed.
    pub(crate) fn say_again(&mut self, tick: Tick) {
        let (sequence, candidates) = self.candidates.underlay.candidates();
        let candidates = candidates.to_vec();
        for id in self.peers.untold(sequence) {
            self.tell_candidates(tick, id, sequence, &candidates);
        }
        self.spread_epochs(tick);
        for id in self.standing.revocations.take_owed() {
            if self.peers.tunnels.current(id).is_none() {
                // The next session begins with them.
                continue;
            }
            let held = self.standing.revocations.held.state();
            self.send_message(tick, id, &PeerMessage::ListsHeld(held));
            let shared = self.peers.known.get(&id).map(|peer| peer.shared.clone());
            self.tell_epochs(tick, id, &shared.unwrap_or_default());
        }
    }
}
