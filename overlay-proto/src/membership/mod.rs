//! Who may join: root documents, networks, invites, certificate chains (TRUST.md 1-10).
//!
//! The authority signs invites, an invite's delegated key signs one node, and any member checks
//! that chain offline, once it has the receipt of the invite's witness. The straight line:
//! [`issue_invite`] -> [`Invite::to_text`] -> [`Invite::parse`] -> [`Invite::accept`] ->
//! [`Membership`] -> [`Chain::apply`] and [`InviteUses::count`] at the witness ->
//! [`Membership::take_receipt`] -> [`Chain::verify`] at a peer -> [`Member`].
//!
//! Time is the caller's wall clock; [`RootStore::now`] puts the floor under it. Everything that is
//! signed covers a [`Label`], the overlay id and the exact bytes, which begin with a version byte.

mod chain;
mod codec;
mod date;
mod epoch;
mod error;
mod invite;
mod issue;
mod keys;
mod member_store;
mod network;
mod receipt;
mod revocation;
mod rights;
mod root;
mod signed;
mod static_key;
mod verifier;
mod witness;

#[cfg(any(test, feature = "test-authority"))]
pub mod test_authority;
#[cfg(test)]
mod tests;

pub use chain::{Application, Chain, MAX_CHAIN_BYTES, Member, NetworkGrant, certificate_hash};
pub use date::Utc;
pub use epoch::{EPOCH_OVERLAP, OLD_KEY_KEPT, OldEpoch, SignedEpoch};
pub use error::{InviteError, IssueError, MembershipError};
pub use invite::{INVITE_PREFIX, Invite, MAX_INVITE_TEXT, bootstrap_peer};
pub use issue::{
    InviteRequest, MAX_BOOTSTRAPS, MAX_INVITE_NETWORKS, check_bootstrap, issue_invite,
};
pub use keys::{
    InviteId, NetworkTag, OverlaySecret, derive, hmac_sha256, mac1_key, network_tag, psk,
    rendezvous_blind, signer_blind,
};
pub use member_store::{MAX_CHAINS, MAX_MEMBER_NETWORKS, Membership, Merged};
pub use network::{MAX_MTU, MIN_MTU, NetworkAuthority, NetworkSecret, NetworkSeed};
pub use receipt::{RECEIPT_POLICY, Receipt, ReceiptPolicy};
pub use revocation::{
    LineError, ListState, MAX_ASSEMBLIES, MAX_LISTS, MAX_PAGES, MAX_REVOCATION_TEXT, MAX_REVOKED,
    PAGE_BYTES, Page, PageAssembly, REVOCATION_PREFIX, RevocationLine, RevocationList,
    RevocationNumber, Revocations, Revoked, SignedRevocations, Taken,
};
pub use rights::{RightParseError, Rights};
pub use root::{CLOCK_TOLERANCE, MAX_ROOTS, RootDocument, RootStore, SignedRoot};
pub use signed::{
    AuthorityKey, DelegatedKey, Label, NodeKey, Signature, SignedPart, verify_signed,
};
pub use static_key::{SignedStatic, StaticBinding};
pub use verifier::{MAX_KNOWN_PEERS, MemberVerifier};
pub use witness::{InviteUses, MAX_USES, WitnessRefusal};
