//! The total order of claims: a pure function, the same on every node.

use std::cmp::Ordering;

use super::claim::{Claim, SignedClaim};
use crate::membership::signer_blind;

/// The place of a claim among all claims to the same MAC. The greatest wins:
/// higher generation; then lower blind(signer); then, for the same signer, higher refresh; then
/// lower hash, which matters only if a signer says two things at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// The claim's generation.
    pub generation: u64,
    /// HMAC(network id, signer).
    pub blind: [u8; 32],
    /// The claim's refresh counter.
    pub refresh: u64,
    /// The hash of the signed claim.
    pub hash: [u8; 32],
}

impl Rank {
    /// The rank of `claim`, signed as `signed`.
    #[must_use]
    pub fn of(claim: &Claim, signed: &SignedClaim) -> Self {
        Self {
            generation: claim.generation,
            blind: signer_blind(&claim.network, signed.signer()),
            refresh: claim.refresh,
            hash: signed.hash(),
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.generation
            .cmp(&other.generation)
            .then_with(|| other.blind.cmp(&self.blind))
            .then_with(|| self.refresh.cmp(&other.refresh))
            .then_with(|| other.hash.cmp(&self.hash))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
