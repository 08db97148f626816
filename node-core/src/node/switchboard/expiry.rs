//! What ends is told to whoever shows it, or goes by it.

use overlay_proto::ids::PeerId;

use super::run::Node;
use crate::node::storing::Outcome;
use crate::node::tick::Tick;

impl Node {
    /// Does what is due; part of the housekeeping.
    pub(crate) fn check_expiry(&mut self, tick: Tick) {
        if self.standing.expiry.take_receipts_due(tick.now) {
            for infra in self.candidates.up().collect::<Vec<_>>() {
                self.ask_for_receipts(infra);
            }
        }
        // Epoch keys have ends, too, and peers may have become worthy of one.
        self.follow_epochs(tick);
        self.spread_epochs(tick);
        if self.standing.expiry.take_judging_due(tick.now) {
            self.judge_members(tick);
            self.standing.look_at_own_ends(tick, &mut self.outside);
        }
    }

    /// Cuts off whoever's certificates have ended: its claims are void, its sessions closed.
    fn judge_members(&mut self, tick: Tick) {
        let mut gone: Vec<PeerId> = Vec::new();
        for network in &mut self.networks.all {
            let (id, known) = (network.secret.id, network.directory.certificates());
            for peer in self.standing.ended_in(tick, &id, known) {
                tracing::info!(%peer, network = %network.secret.name, "its certificate does not count any more");
                network.directory.handle_member_expired(tick.now, peer);
                self.networks.touched.insert(network.index);
                gone.push(peer);
            }
        }
        for id in gone {
            // What it still shares with us, if anything, is agreed anew.
            self.close_peer(tick, id);
        }
    }

    /// There is a sequence for the next signature of our x25519 key: sessions and cards show it.
    pub(crate) fn handle_next_static(&mut self, tick: Tick, result: Outcome) {
        if self.standing.handle_next_static(tick, result) {
            self.show_identity();
            self.introductions.schedule.renew();
        }
    }

    /// Handshakes show what is ours now.
    pub(crate) fn show_identity(&mut self) {
        let identity = &self.standing.identity;
        let (chain, document) = (identity.chain.clone(), identity.signed_static.clone());
        self.peers.tunnels.set_identity(chain, document);
    }
}
