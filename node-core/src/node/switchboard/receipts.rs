//! Receipts, and another membership: everything that shows it, or goes by it, is told.

use crate::store::Edited;
use anyhow::{Result, anyhow};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Membership, certificate_hash};

use super::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// A bootstrap is up, and the gate shows the certificate `shown` since.
    pub(crate) fn take_receipts(&mut self, infra: PeerId, shown: &[u8]) {
        self.candidates.forget_unreachable(infra);
        self.standing.take_receipts(&mut self.outside, infra, shown);
    }

    /// Asks `infra` for the receipts that it is the witness of.
    pub(crate) fn ask_for_receipts(&mut self, infra: PeerId) {
        self.standing.ask_for_receipts(&mut self.outside, infra);
    }

    /// A receipt is on disk; or the disk refused, and it counts all the same.
    pub(crate) fn handle_receipt_kept(&mut self, tick: Tick, edited: Result<Edited>) {
        match self.adopt_edited(tick, edited) {
            Ok(_) => tracing::info!("the witness gave its receipt; this node is a member"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the receipt is not used"),
        }
    }

    /// From now on `membership` is ours.
    pub(crate) fn adopt(&mut self, tick: Tick, membership: Membership) -> Result<()> {
        let adopted = self.standing.adopt(&mut self.outside, membership)?;
        self.candidates
            .underlay
            .keep_infra(tick.now, &adopted.pinned);
        self.outside.fib_stale = true;
        self.add_networks();
        self.follow_epochs(tick);
        for index in 0..self.networks.all.len() {
            self.show_own_chain(tick, index)?;
        }
        if let Some(networks) = adopted.judged_by {
            self.standing.go_by(networks.clone());
            self.peers.tunnels.set_networks(networks);
        }
        self.introductions.schedule.renew();
        self.show_identity();
        self.spread_epochs(tick);
        self.standing.warn_of_the_end(tick, &mut self.outside);
        Ok(())
    }

    /// The directory of a network is told its own certificate.
    pub(crate) fn show_own_chain(&mut self, tick: Tick, index: usize) -> Result<()> {
        let Some(network) = self.networks.all.get_mut(index) else {
            return Ok(());
        };
        let (id, name) = (&network.secret.id, &network.secret.name);
        let own = self.standing.own_chain(tick, id, name)?;
        let (hash, key) = (
            certificate_hash(&own.chain),
            self.standing.identity.static_public,
        );
        network.directory.set_own_chain(own.may_send, &own.chain);
        network
            .directory
            .set_own_entry(tick.now, hash, key, Vec::new())
            .map_err(|reason| anyhow!("the own roster entry is refused: {}", reason.meaning()))?;
        self.networks.touched.insert(network.index);
        Ok(())
    }
}
