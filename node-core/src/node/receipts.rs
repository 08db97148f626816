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

use super::effects::Effect;
use super::identity::Tick;
use super::run::Node;

/// Addresses that are remembered as silent; invites name 8 at most each.
const MAX_UNREACHABLE: usize = 64;

impl Node {
    /// A bootstrap does not let us in.
    pub(crate) fn note_refused(&mut self, addr: &BootstrapAddr, reason: &str) {
        tracing::warn!(%addr, reason, "bootstrap refused");
        self.last_refusal = Some(format!("{addr}: {reason}"));
    }

    /// An address of a bootstrap does not answer; it is dialled again and again. `status` shows why, and
    /// warns if no bootstrap is up at all.
    pub(crate) fn note_unreachable(&mut self, addr: BootstrapAddr, reason: String) {
        if self.unreachable.len() >= MAX_UNREACHABLE && !self.unreachable.contains_key(&addr) {
            return;
        }
        self.unreachable.insert(addr, reason);
    }

    /// A bootstrap is up, and the gate shows the certificate `shown` since: takes the receipt that was given
    /// with it, and asks for others.
    pub(crate) fn take_receipts(&mut self, infra: PeerId, shown: &[u8]) {
        self.last_refusal = None;
        self.unreachable.retain(|at, _| at.peer() != Some(infra));
        let mut given = None;
        if shown != self.identity.chain
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
        let awaited = self.identity.membership.without_receipt();
        let awaited = awaited.filter(|chain| Some(chain.claimed_invite()) != given);
        for chain in awaited.filter(|chain| chain.claimed_witness() == infra) {
            let chain = Box::new(chain.clone());
            self.asking.put(Question::Receipt { infra, chain });
        }
    }

    /// The witness answered.
    pub(crate) fn handle_receipt(&mut self, tick: Tick, chain: Chain, outcome: Outcome) {
        let chain = match outcome {
            Outcome::Receipt(Ok(receipt)) => chain.with_receipt(receipt),
            Outcome::Receipt(Err(refusal)) => {
                tracing::warn!(%refusal, "no receipt for an invite");
                self.last_refusal = Some(refusal.to_string());
                return;
            }
            outcome => {
                tracing::warn!(?outcome, "the witness of an invite does not answer");
                self.expiry.ask_later(tick.now);
                return;
            }
        };
        match chain.verify(self.identity.membership.roots(), tick.wall) {
            Ok(_) => self.keep_receipt(chain),
            Err(error) => tracing::warn!(%error, "the receipt does not count"),
        }
    }

    /// On disk first; without it the witness gives the same receipt again after a restart.
    fn keep_receipt(&mut self, chain: Chain) {
        let edit = Edit::TakeReceipt(Box::new(chain));
        self.store.put(Write::Edit(edit));
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
        let (held, me) = (&self.revocations.held, self.identity.me);
        let state = GateState::of(&membership, held, me)?;
        let bootstraps = bootstraps_to_dial(&membership, held, me);
        let ids: Vec<_> = membership.networks().iter().map(|n| n.id).collect();
        let known = &self.identity.membership;
        let same = known.roots().newest() == membership.roots().newest()
            && known
                .networks()
                .iter()
                .map(|n| n.id)
                .eq(ids.iter().copied());
        self.identity.membership = membership;
        self.identity.chain.clone_from(&state.chain);
        let pinned = state.bootstraps.iter().copied().collect();
        self.effects.push(Effect::SetGate(Box::new(state)));
        self.underlay.keep_infra(tick.now, &pinned);
        self.fib_stale = true;
        let bootstraps = bootstraps.iter().map(ToString::to_string);
        self.asking
            .put(Question::SetBootstraps(bootstraps.collect()));
        self.add_networks();
        self.follow_epochs(tick);
        for index in 0..self.networks.len() {
            self.show_own_chain(tick, index)?;
        }
        if !same {
            let roots = self.identity.membership.roots().clone();
            self.identity.verifier.set_roots(roots, ids.clone());
            self.tunnels.set_networks(ids);
        }
        for network in &mut self.networks {
            network.register_at = None;
        }
        self.tunnels.set_identity(
            self.identity.chain.clone(),
            self.identity.signed_static.clone(),
        );
        self.spread_epochs(tick);
        self.warn_of_the_end(tick);
        Ok(())
    }

    /// The certificate that the directory of a network goes by.
    pub(crate) fn show_own_chain(&mut self, tick: Tick, index: usize) -> Result<()> {
        let Some(network) = self.networks.get_mut(index) else {
            return Ok(());
        };
        let membership = &self.identity.membership;
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
                self.identity.static_public,
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
