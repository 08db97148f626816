//! Networks come and go with their taps, and what they are told meanwhile of members and of this node.

use super::run::Node;
use crate::node::networks::interfaces::Kept;
use crate::node::tick::Tick;

impl Node {
    /// What a look at taps and bridges brought.
    pub fn handle_kept(&mut self, tick: Tick, outcome: Result<Kept, String>) {
        let out = &mut self.outside;
        if let Some(kept) = self.networks.handle_kept(tick, out, outcome) {
            self.note_own_mtus(tick, &kept.mtus);
            self.networks.follow_kept(tick, &mut self.outside, &kept);
        }
    }
}
