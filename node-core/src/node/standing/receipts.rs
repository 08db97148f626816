//! The receipts of our certificates (TRUST.md 4), and what changes with a membership.
//!
//! The first receipt comes with the admission at the witness: the gate has it when the bootstrap is
//! reported up. Those of further invites are asked for over the control plane.

use crate::control::{BootstrapAddr, GateState};
use crate::questions::{Outcome, Question};
use crate::shown::bootstraps_to_dial;
use crate::store::{Edit, Edited, Write};
use anyhow::{Context, Result};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Chain, InviteId, Membership, certificate_hash};

use crate::node::effects::Effect;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// A bootstrap does not let us in.
    pub(crate) fn note_refused(&mut self, addr: &BootstrapAddr, reason: &str) {
        tracing::warn!(%addr, reason, "bootstrap refused");
        self.standing.last_refusal = Some(format!("{addr}: {reason}"));
    }

    /// A bootstrap is up, and the gate shows the certificate `shown` since: takes the receipt that was given
    /// with it, and asks for others.
    pub(crate) fn take_receipts(&mut self, infra: PeerId, shown: &[u8]) {
        self.standing.last_refusal = None;
        self.candidates.forget_unreachable(infra);
        let mut given = None;
        if shown != self.standing.identity.chain
            && let Ok(chain) = Chain::decode(shown)
            && chain.has_receipt()
        {
            given = Some(chain.claimed_invite());
            self.keep_receipt(chain);
        }
        self.ask_for_receipts_but(infra, given);
    }

    /// Asks `infra` for the receipts that it is the witness of.
    pub(crate) fn ask_for_receipts(&mut self, infra: PeerId) {
        self.ask_for_receipts_but(infra, None);
    }

    /// That of `given` is on its way to the disk.
    fn ask_for_receipts_but(&mut self, infra: PeerId, given: Option<InviteId>) {
        let awaited = self.standing.identity.membership.without_receipt();
        let awaited = awaited.filter(|chain| Some(chain.claimed_invite()) != given);
        for chain in awaited.filter(|chain| chain.claimed_witness() == infra) {
            let chain = Box::new(chain.clone());
            self.outside.asking.put(Question::Receipt { infra, chain });
        }
    }

    /// The witness answered.
    pub(crate) fn handle_receipt(&mut self, tick: Tick, chain: Chain, outcome: Outcome) {
        let chain = match outcome {
            Outcome::Receipt(Ok(receipt)) => chain.with_receipt(receipt),
            Outcome::Receipt(Err(refusal)) => {
                tracing::warn!(%refusal, "no receipt for an invite");
                self.standing.last_refusal = Some(refusal.to_string());
                return;
            }
            outcome => {
                tracing::warn!(?outcome, "the witness of an invite does not answer");
                self.standing.expiry.ask_later(tick.now);
                return;
            }
        };
        match chain.verify(self.standing.identity.membership.roots(), tick.wall) {
            Ok(_) => self.keep_receipt(chain),
            Err(error) => tracing::warn!(%error, "the receipt does not count"),
        }
    }

    /// On disk first; without it the witness gives the same receipt again after a restart.
    fn keep_receipt(&mut self, chain: Chain) {
        let edit = Edit::TakeReceipt(Box::new(chain));
        self.outside.store.put(Write::Edit(edit));
    }

    /// A receipt is on disk; or the disk refused, and it counts all the same.
    pub(crate) fn handle_receipt_kept(&mut self, tick: Tick, edited: Result<Edited>) {
        match self.adopt_edited(tick, edited) {
            Ok(_) => tracing::info!("the witness gave its receipt; this node is a member"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the receipt is not used"),
        }
    }

    /// From now on `membership` is ours: everything that shows it, or goes by it, is told.
    pub(crate) fn adopt(&mut self, tick: Tick, membership: Membership) -> Result<()> {
        let (held, me) = (&self.standing.revocations.held, self.standing.identity.me);
        let state = GateState::of(&membership, held, me)?;
        let bootstraps = bootstraps_to_dial(&membership, held, me);
        let ids: Vec<_> = membership.networks().iter().map(|n| n.id).collect();
        let known = &self.standing.identity.membership;
        let same = known.roots().newest() == membership.roots().newest()
            && known
                .networks()
                .iter()
                .map(|n| n.id)
                .eq(ids.iter().copied());
        self.standing.identity.membership = membership;
        self.standing.identity.chain.clone_from(&state.chain);
        let pinned = state.bootstraps.iter().copied().collect();
        self.outside.effects.push(Effect::SetGate(Box::new(state)));
        self.candidates.underlay.keep_infra(tick.now, &pinned);
        self.outside.fib_stale = true;
        let bootstraps = bootstraps.iter().map(ToString::to_string);
        self.outside
            .asking
            .put(Question::SetBootstraps(bootstraps.collect()));
        self.add_networks();
        self.follow_epochs(tick);
        for index in 0..self.networks.all.len() {
            self.show_own_chain(tick, index)?;
        }
        if !same {
            let roots = self.standing.identity.membership.roots().clone();
            self.standing
                .identity
                .verifier
                .set_roots(roots, ids.clone());
            self.peers.tunnels.set_networks(ids);
        }
        for network in &mut self.networks.all {
            network.register_at = None;
        }
        self.show_identity();
        self.spread_epochs(tick);
        self.standing.warn_of_the_end(tick, &mut self.outside);
        Ok(())
    }

    /// The certificate that the directory of a network goes by.
    pub(crate) fn show_own_chain(&mut self, tick: Tick, index: usize) -> Result<()> {
        let Some(network) = self.networks.all.get_mut(index) else {
            return Ok(());
        };
        let membership = &self.standing.identity.membership;
        // Without a receipt nobody is told; the directory still has to know itself.
        let id = network.secret.id;
        let own = membership.chain_for(&id).or_else(|| membership.chain());
        let own = own.context("the membership has no chain")?;
        // One that has ended, or whose root version was retired, proves nothing, and the rest goes on.
        let may_send = match own.apply(membership.roots(), tick.wall) {
            Ok(application) => application.member.may_send(&id),
            Err(error) => {
                tracing::warn!(network = %network.secret.name, %error, "the own certificate does not count");
                false
            }
        };
        let chain = own.encode();
        network.directory.set_own_chain(may_send, &chain);
        network
            .directory
            .set_own_entry(
                tick.now,
                certificate_hash(&chain),
                self.standing.identity.static_public,
                Vec::new(),
            )
            .map_err(|reason| {
                anyhow::anyhow!("the own roster entry is refused: {}", reason.meaning())
            })?;
        let index = network.index;
        self.touch_network(index);
        Ok(())
    }
}
