//! Which keys the networks go by, and to whom epochs are handed on.

use crate::store::{Edit, Edited};
use anyhow::Result;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::wire::peer_message::NetworkTag;

use super::run::Node;
use crate::node::standing::Said;
use crate::node::tick::Tick;

impl Node {
    /// The networks go by the epochs of the membership; also when the key before has to be given up.
    pub(crate) fn follow_epochs(&mut self, tick: Tick) {
        for network in &mut self.networks.all {
            let (id, epoch) = (network.secret.id, network.secret.epoch);
            let Some(current) = self.standing.epochs_of(tick, &id, epoch) else {
                continue;
            };
            network.old_epoch = current.old;
            if let Some(secret) = current.begun {
                network.secret = secret;
                let (schedule, out) = (&mut self.introductions.schedule, &mut self.outside);
                schedule.renew_soon(tick.now, network.index, &mut out.entropy);
            }
            let key = network.secret.epoch_key;
            network.directory.set_epoch(tick.now, key, current.read);
            self.networks.touched.insert(network.index);
        }
    }

    /// A session with `peer` shares `networks` from now on: says in which epoch of each we are.
    pub(crate) fn tell_epochs(&mut self, tick: Tick, peer: PeerId, networks: &[NetworkId]) {
        let ours = self.networks.all.iter();
        let shared = ours.filter(|network| networks.contains(&network.secret.id));
        let said: Vec<Said> = shared
            .map(|network| Said::EpochNumber(network.secret.id, network.secret.epoch))
            .collect();
        self.say(tick, peer, said);
    }

    /// `id` says in which epoch it is.
    pub(crate) fn handle_epoch_number(
        &mut self,
        tick: Tick,
        id: PeerId,
        tag: NetworkTag,
        epoch: u64,
    ) {
        let Some(network) = self.shared_network(id, tag) else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        let said = self.standing.handle_epoch_number(tick, id, network, epoch);
        self.say(tick, id, said);
    }

    /// `id` handed an epoch on.
    pub(crate) fn handle_epoch(&mut self, tick: Tick, id: PeerId, tag: NetworkTag, signed: &[u8]) {
        let Some(network) = self.shared_network(id, tag) else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        self.standing
            .handle_epoch(tick, &mut self.outside, (id, network), signed);
    }

    /// Hands each network's epoch to the peers in a session that are behind and may have it. To be
    /// called whenever that may have changed: a new epoch, a newer revocation list.
    pub(crate) fn spread_epochs(&mut self, tick: Tick) {
        for (peer, network) in self.peers.shared() {
            let said = self.standing.offer_epoch(tick, peer, &network);
            self.say(tick, peer, said);
        }
    }

    /// An epoch is on disk, or is in use without.
    pub(crate) fn handle_epoch_kept(&mut self, tick: Tick, edit: &Edit, edited: Result<Edited>) {
        match self.standing.handle_epoch_kept(tick, edit, edited) {
            None => {
                self.follow_epochs(tick);
                self.spread_epochs(tick);
            }
            Some(edited) => {
                if let Err(error) = self.adopt_edited(tick, edited) {
                    tracing::error!("the new epoch is not used: {error:#}");
                }
            }
        }
    }

    /// The network of that tag, if the session with `peer` shares it.
    pub(crate) fn shared_network(&self, peer: PeerId, tag: NetworkTag) -> Option<NetworkId> {
        self.peers.shared_network(peer, tag)
    }
}
