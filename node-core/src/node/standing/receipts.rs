//! The receipts of our certificates (TRUST.md 4), and what changes with a membership.
//!
//! The first receipt comes with the admission at the witness: the gate has it when the bootstrap is
//! reported up. Those of further invites are asked for over the control plane.

use std::collections::BTreeSet;

use crate::control::{BootstrapAddr, GateState};
use crate::questions::{Outcome, Question};
use crate::shown::bootstraps_to_dial;
use crate::store::{Edit, Write};
use anyhow::{Context, Result};
use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::membership::{Chain, InviteId, Membership};

use super::Standing;
use crate::node::effects::Effect;
use crate::node::outside::Outside;
use crate::node::tick::Tick;

/// What is ours from now on, as far as others go by it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Adopted {
    /// The bootstraps that are let in.
    pub(crate) pinned: BTreeSet<PeerId>,
    /// All networks, if they or the root documents are others than before: certificates are judged by these.
    pub(crate) judged_by: Option<Vec<NetworkId>>,
}

/// The certificate that the directory of a network goes by.
#[derive(Debug)]
pub(crate) struct OwnChain {
    /// Encoded.
    pub(crate) chain: Vec<u8>,
    /// May its owner send frames into the network?
    pub(crate) may_send: bool,
}

impl Standing {
    /// A bootstrap does not let us in.
    pub(crate) fn note_refused(&mut self, addr: &BootstrapAddr, reason: &str) {
        tracing::warn!(%addr, reason, "bootstrap refused");
        self.last_refusal = Some(format!("{addr}: {reason}"));
    }

    /// A bootstrap is up, and the gate shows the certificate `shown` since: takes the receipt that was given
    /// with it, and asks for others.
    pub(crate) fn take_receipts(&mut self, out: &mut Outside, infra: PeerId, shown: &[u8]) {
        self.last_refusal = None;
        let mut given = None;
        if shown != self.identity.chain
            && let Ok(chain) = Chain::decode(shown)
            && chain.has_receipt()
        {
            given = Some(chain.claimed_invite());
            keep_receipt(out, chain);
        }
        self.ask_for_receipts_but(out, infra, given);
    }

    /// Asks `infra` for the receipts that it is the witness of.
    pub(crate) fn ask_for_receipts(&self, out: &mut Outside, infra: PeerId) {
        self.ask_for_receipts_but(out, infra, None);
    }

    /// That of `given` is on its way to the disk.
    fn ask_for_receipts_but(&self, out: &mut Outside, infra: PeerId, given: Option<InviteId>) {
        let awaited = self.identity.membership.without_receipt();
        let awaited = awaited.filter(|chain| Some(chain.claimed_invite()) != given);
        for chain in awaited.filter(|chain| chain.claimed_witness() == infra) {
            let chain = Box::new(chain.clone());
            out.asking.put(Question::Receipt { infra, chain });
        }
    }

    /// The witness answered.
    pub(crate) fn handle_receipt(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        chain: Chain,
        outcome: Outcome,
    ) {
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
            Ok(_) => keep_receipt(out, chain),
            Err(error) => tracing::warn!(%error, "the receipt does not count"),
        }
    }

    /// From now on `membership` is ours: gate and control plane are told, and whoever shows it, or goes by it, is
    /// to be told. Certificates are judged by it after [`Standing::go_by`].
    ///
    /// # Errors
    /// It has no certificate; nothing has changed then.
    pub(crate) fn adopt(&mut self, out: &mut Outside, membership: Membership) -> Result<Adopted> {
        let (held, me) = (&self.revocations.held, self.identity.me);
        let state = GateState::of(&membership, held, me)?;
        let bootstraps = bootstraps_to_dial(&membership, held, me);
        let networks = ids_of(&membership);
        let known = &self.identity.membership;
        let is_same =
            known.roots().newest() == membership.roots().newest() && ids_of(known) == networks;
        self.identity.membership = membership;
        self.identity.chain.clone_from(&state.chain);
        let pinned = state.bootstraps.iter().copied().collect();
        out.effects.push(Effect::SetGate(Box::new(state)));
        let bootstraps = bootstraps.iter().map(ToString::to_string);
        out.asking
            .put(Question::SetBootstraps(bootstraps.collect()));
        Ok(Adopted {
            pinned,
            judged_by: (!is_same).then_some(networks),
        })
    }

    /// Certificates of peers are judged by our documents, for `networks`.
    pub(crate) fn go_by(&mut self, networks: Vec<NetworkId>) {
        let roots = self.identity.membership.roots().clone();
        self.identity.verifier.set_roots(roots, networks);
    }

    /// The certificate that the directory of a network goes by.
    ///
    /// # Errors
    /// There is none at all.
    pub(crate) fn own_chain(
        &self,
        tick: Tick,
        id: &NetworkId,
        name: &NetworkName,
    ) -> Result<OwnChain> {
        let membership = &self.identity.membership;
        // Without a receipt nobody is told; the directory still has to know itself.
        let own = membership.chain_for(id).or_else(|| membership.chain());
        let own = own.context("the membership has no chain")?;
        // One that has ended, or whose root version was retired, proves nothing, and the rest goes on.
        let may_send = match own.apply(membership.roots(), tick.wall) {
            Ok(application) => application.member.may_send(id),
            Err(error) => {
                tracing::warn!(network = %name, %error, "the own certificate does not count");
                false
            }
        };
        let chain = own.encode();
        Ok(OwnChain { chain, may_send })
    }
}

/// On disk first; without it the witness gives the same receipt again after a restart.
fn keep_receipt(out: &mut Outside, chain: Chain) {
    let edit = Edit::TakeReceipt(Box::new(chain));
    out.store.put(Write::Edit(edit));
}

fn ids_of(membership: &Membership) -> Vec<NetworkId> {
    membership.networks().iter().map(|one| one.id).collect()
}
