//! Who rules the overlay of a world: networks, invites, what is revoked, which documents there are.

use std::time::Duration;

use anyhow::{Context, Result};
use node_core::api::{Request, SecretLine};
use overlay_proto::SeededEntropy;
use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::membership::{
    AuthorityKey, InviteRequest, NetworkAuthority, OverlaySecret, RevocationLine, RevocationNumber,
    Revocations, Revoked, Rights, RootStore, SignedRevocations, SignedRoot, issue_invite,
};
use overlay_proto::time::UnixTime;
use zeroize::Zeroizing;

use crate::net::random::stream;

/// What an invite allows. The world's networks and bootstraps are named by their places.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The networks.
    pub networks: Vec<usize>,
    /// The authority made it so long ago.
    pub made_ago: Duration,
    /// It can be used for so long since then.
    pub join_for: Duration,
    /// Memberships last so long since then.
    pub member_for: Duration,
    /// How many nodes may use it.
    pub nodes: u32,
    /// The bootstrap that counts its uses.
    pub witness: usize,
    /// The bootstraps that it names; none: all.
    pub bootstraps: Vec<usize>,
}

impl Terms {
    /// For one node, for a year, with the first bootstrap as the witness.
    #[must_use]
    pub fn of(networks: &[usize]) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        Self {
            networks: networks.to_vec(),
            made_ago: Duration::ZERO,
            join_for: YEAR,
            member_for: YEAR,
            nodes: 1,
            witness: 0,
            bootstraps: Vec::new(),
        }
    }
}

/// What a line for `farlan apply` brings beside its list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Along<'a> {
    /// These networks begin their next epoch.
    pub epochs: &'a [usize],
    /// The authority has a new key; the oldest root version that counts from now on.
    pub new_key: Option<u32>,
}

/// The authority and its networks.
pub(super) struct Authority {
    key: AuthorityKey,
    roots: RootStore,
    secret: OverlaySecret,
    networks: Vec<NetworkAuthority>,
    /// Where each bootstrap is dialled, and who is there.
    bootstraps: Vec<(String, PeerId)>,
    revoked: Revocations,
    entropy: SeededEntropy,
}

impl Authority {
    /// With these networks and bootstraps.
    ///
    /// # Errors
    /// A name is none, or two are the same.
    pub(super) fn new(
        seed: u64,
        names: &[&str],
        bootstraps: Vec<(String, PeerId)>,
        now: UnixTime,
    ) -> Result<Self> {
        let mut entropy = stream(seed, "authority");
        let key = AuthorityKey::generate(&mut entropy);
        let roots = RootStore::from_roots([SignedRoot::first(&key, now)])?;
        let mut networks = Vec::new();
        for name in names {
            let name = name.parse().ok().context("no name for a network")?;
            networks.push(NetworkAuthority::create(name, 1_500, &mut entropy));
        }
        Ok(Self {
            secret: OverlaySecret::generate(&mut entropy),
            key,
            roots,
            networks,
            bootstraps,
            revoked: Revocations::default(),
            entropy,
        })
    }

    /// Which overlay it is.
    pub(super) fn overlay(&self) -> OverlayId {
        self.roots.overlay()
    }

    /// `farlan invite`.
    ///
    /// # Errors
    /// There is no such network or bootstrap, or the terms are none.
    pub(super) fn invite(&mut self, terms: &Terms, now: UnixTime) -> Result<Zeroizing<String>> {
        let now = UnixTime(now.0.saturating_sub(terms.made_ago.as_secs()));
        let secret = |index: &usize| Some(self.networks.get(*index)?.secret());
        let networks: Option<Vec<_>> = terms.networks.iter().map(secret).collect();
        let witness = self.bootstraps.get(terms.witness).context("no witness")?;
        let all: Vec<usize> = (0..self.bootstraps.len()).collect();
        let named = match &*terms.bootstraps {
            [] => &all,
            named => named,
        };
        let addr = |index: &usize| Some(self.bootstraps.get(*index)?.0.clone());
        let bootstraps: Option<Vec<_>> = named.iter().map(addr).collect();
        let request = InviteRequest {
            networks: networks.context("no such network")?,
            rights: Rights::DEFAULT,
            name: None,
            join_until: now.plus(terms.join_for),
            member_until: now.plus(terms.member_for),
            max_nodes: terms.nodes,
            witness: Some(witness.1),
            bootstraps: bootstraps.context("no such bootstrap")?,
        };
        let (roots, secret) = (&self.roots, &self.secret);
        let invite = issue_invite(&self.key, roots, secret, request, now, &mut self.entropy)?;
        Ok(invite.to_text())
    }

    /// The number of the newest list, and the epoch of each network.
    pub(super) fn newest(&self) -> (u64, Vec<u64>) {
        let epochs = self.networks.iter().map(|network| network.secret().epoch);
        (self.revoked.number().0, epochs.collect())
    }

    /// `farlan revoke`: the line for `farlan apply`.
    ///
    /// # Errors
    /// The list is full, or there is no such network.
    pub(super) fn revoke(
        &mut self,
        what: Revoked,
        along: Along<'_>,
        now: UnixTime,
    ) -> Result<Request> {
        if let Some(oldest) = along.new_key {
            let new = AuthorityKey::generate(&mut self.entropy);
            let root = self.roots.successor(&self.key, &new, now, oldest);
            self.roots.advance(root)?;
            self.key = new;
            self.revoked.retain_trusted(&self.roots);
        }
        let version = self.roots.newest().version;
        let list = self.revoked.successor(version, what)?;
        let number = RevocationNumber(list.number);
        let list = SignedRevocations::sign(&self.key, self.roots.overlay(), list);
        self.revoked.take(list.clone(), &self.roots)?;
        let mut epochs = Vec::new();
        for index in along.epochs {
            let network = self.networks.get_mut(*index).context("no such network")?;
            let signed = network.next_epoch(&self.key, &self.roots, number, now)?;
            epochs.push(Zeroizing::new(signed.encode()));
        }
        let line = RevocationLine {
            roots: self.roots.above(0).to_vec(),
            list,
            epochs,
        };
        let line = SecretLine(line.to_text().to_string());
        Ok(Request::Apply { line })
    }
}
