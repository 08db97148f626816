//! A certificate is void: sessions end, and directories part from whoever had it. And what is said to peers of who is
//! a member.

use std::sync::Arc;

use overlay_proto::ids::PeerId;
use overlay_proto::membership::{ListState, Page, Revocations};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use super::run::Node;
use crate::node::standing::Said;
use crate::node::standing::revocations::Own;
use crate::node::tick::Tick;

impl Node {
    /// The gate's book has changed to `held`: whoever is named is cut off here, and all others in session
    /// are told. It comes before any input that may depend on it.
    pub fn handle_revocations(&mut self, tick: Tick, held: Arc<Revocations>) {
        let mut changed = self.standing.handle_revocations(held);
        self.tell_numbers();
        for peer in std::mem::take(&mut changed.gone) {
            self.cut_off(tick, peer);
        }
        self.judge_own(tick);
        for id in self.peers.in_session() {
            let said = self.standing.hand_news(tick.now, id, &changed);
            self.say(tick, id, said);
        }
        // Now that it is known who must not have them.
        self.spread_epochs(tick);
        self.save_state(tick);
    }

    /// A certificate of `id` is void: its sessions end, and it leaves the networks that no other
    /// certificate of its proves.
    pub(crate) fn cut_off(&mut self, tick: Tick, id: PeerId) {
        self.peers.tunnels.close(tick.now, id);
        self.outside.fib_stale = true;
        let mut remains = false;
        for network in &mut self.networks.all {
            if self.standing.has_rights(tick, id, &network.secret.id) {
                remains = true;
            } else {
                network.directory.handle_member_gone(tick.now, id);
                self.networks.touched.insert(network.index);
            }
        }
        tracing::info!(peer = %id, remains, "revoked");
        if remains {
            self.touch_peer(id);
        } else if self.forget_peer(id) {
            self.standing.revocations.end_talk(id);
        }
    }

    fn judge_own(&mut self, tick: Tick) {
        match self.standing.judge_own(tick, &mut self.outside) {
            Own::Counts => return,
            Own::Void => {}
            Own::Out => {
                let peers: Vec<PeerId> = self.peers.known.keys().copied().collect();
                for peer in peers {
                    self.peers.tunnels.close(tick.now, peer);
                    self.forget_peer(peer);
                }
                self.outside.fib_stale = true;
                self.peers.changed = true;
            }
        }
        if let Err(error) = self.adopt(tick, self.standing.identity.membership.clone()) {
            tracing::error!(error = format!("{error:#}"), "no other certificate is used");
        }
    }

    /// A handshake told which list `id` holds.
    pub(crate) fn compare_numbers(&mut self, tick: Tick, id: PeerId, theirs: u64, first: bool) {
        let said = self.standing.compare_numbers(tick.now, id, theirs, first);
        self.say(tick, id, said);
    }

    /// `id` says what it holds.
    pub(crate) fn handle_lists_held(&mut self, tick: Tick, id: PeerId, theirs: ListState) {
        let said = self.standing.handle_lists_held(tick.now, id, theirs);
        self.say(tick, id, said);
    }

    /// Says to `to` what standing has to say.
    pub(crate) fn say(&mut self, tick: Tick, to: PeerId, said: impl IntoIterator<Item = Said>) {
        for said in said {
            match said {
                Said::Held(ours) => self.send_message(tick, to, &PeerMessage::ListsHeld(ours)),
                Said::List(list) => {
                    for page in Page::split(&list) {
                        self.send_message(tick, to, &PeerMessage::ListPage(page));
                    }
                }
                Said::EpochNumber(network, epoch) => {
                    let network = NetworkTag::from(&network);
                    self.send_message(tick, to, &PeerMessage::EpochNumber { network, epoch });
                }
                Said::Epoch(network, signed) => {
                    let (network, signed) = (NetworkTag::from(&network), &signed);
                    self.send_message(tick, to, &PeerMessage::Epoch { network, signed });
                }
            }
        }
    }
}
