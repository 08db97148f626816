//! Who may come in (TRUST.md 7).
//!
//! A connection is upgraded by crypto and muxer; then the dialer says who it is; the listener checks that, and
//! only then answers with the same about itself. A stranger gets no byte of it.
//!
//! A node whose certificate has no receipt yet is let in by nobody but the witness that its invite
//! names, which is a bootstrap: that one writes the use down and puts the receipt into its answer,
//! so that the node is a member from then on, or answers why not and ends the connection.
//!
//! Whoever knows a newer revocation list hands it over in between, so that a node that is on it is
//! refused in this very admission (TRUST.md 8). It hears that it is revoked, with the list as proof.
//!
//! - [`hello`]: the content of both messages.
//! - [`gates`]: the two judges, for members and for bootstraps; `book`: what they know to be revoked.
//! - [`meeting`]: the lists that go to and fro between the hellos.
//! - [`witness`]: who counts the uses of invites.
//! - [`table`]: what was found out, for as long as the connection lives.

mod book;
pub mod gates;
pub mod hello;
pub mod meeting;
pub mod table;
pub mod witness;

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::membership::{
    InviteId, ListState, MembershipError, Revocations, Revoked, SignedPart, Taken, WitnessRefusal,
};
use overlay_proto::time::UnixTime;

pub use book::Shelf;
pub use gates::{InfraGate, MemberGate};
pub use table::AdmittedTable;
pub use witness::{Books, Counter, Witness};

/// Judges the other side. Called from several tasks at once; must not block on anything slow. (The
/// first use of an invite waits for the disk of its witness: a small file, and the authority has
/// signed for each.)
pub trait Gatekeeper: Send + Sync {
    /// The encoded [`hello::Hello`] that proves who we are.
    fn own_hello(&self) -> Vec<u8>;

    /// Judges what the other side said. The transport has proved that it holds the key of `peer`. `now` is the wall
    /// clock here and below; the floor of the root documents corrects one that is behind it.
    ///
    /// # Errors
    /// Why it may not come in.
    fn admit(
        &self,
        peer: PeerId,
        hello: &[u8],
        we_dialed: bool,
        now: UnixTime,
    ) -> Result<Admitted, Refusal>;

    /// What a listener answers to `verdict`, and nothing if `None`: a stranger gets no byte.
    fn answer(&self, verdict: &Result<Admitted, Refusal>) -> Option<Vec<u8>>;

    /// Must the revocation lists of a dialer be pulled before it is judged? Only of one that proves
    /// a membership by what is known so far, and that says that it has something newer.
    fn wants_lists(&self, peer: PeerId, hello: &[u8], now: UnixTime) -> bool;

    /// Has a membership that lasts until `until` ended, by our clock and its tolerance?
    fn has_ended(&self, until: UnixTime, now: UnixTime) -> bool;

    /// Everything revoked that we know of; the same `Arc` until it grows.
    fn revocations(&self) -> Arc<Revocations>;

    /// Takes an encoded revocation list from an admitted node. It is on disk before this returns.
    ///
    /// # Errors
    /// It does not parse, or the authority did not sign it.
    fn take_revocations(&self, list: &[u8]) -> Result<Taken, MembershipError>;

    /// The receipt for a further certificate of the admitted member `peer`, encoded in `chain`.
    ///
    /// # Errors
    /// Why there is none; here: nobody but a bootstrap is a witness.
    fn receipt(
        &self,
        peer: PeerId,
        chain: &[u8],
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let _ = (peer, chain, now);
        Err(WitnessRefusal::OtherWitness)
    }
}

/// Who the other side has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// A member of our overlay.
    Member {
        /// The highest root version it knows.
        root_number: u32,
        /// The revocation lists it holds.
        lists: ListState,
        /// The invite by which it came in.
        invite: InviteId,
        /// The last second of its membership.
        until: UnixTime,
        /// The receipt that this admission gave it.
        receipt: Option<SignedPart>,
    },
    /// A bootstrap of our overlay, pinned by its peer id.
    Infra {
        /// Its reflector and relay addresses. An unspecified IP stands for the one at which the
        /// bootstrap is connected.
        data_addrs: Vec<SocketAddr>,
    },
}

/// Why the other side may not come in. The reason stays here; a stranger sees a closed stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The hello does not parse.
    #[error("its hello does not parse")]
    Malformed,
    /// It serves another overlay.
    #[error("it belongs to overlay {0}: it does not serve this overlay")]
    OtherOverlay(OverlayId),
    /// The certificate or the root documents do not count.
    #[error("its membership does not count: {0}")]
    Membership(#[from] MembershipError),
    /// The certificate names another node.
    #[error("its certificate is of node {0}")]
    WrongPeer(PeerId),
    /// It claims to be a bootstrap, but the pinned list does not name it.
    #[error("{0} is not in the list of bootstraps")]
    NotPinned(PeerId),
    /// The invite was used by as many as may, or is too old, or this is not its witness.
    #[error("no receipt for the invite: {0}")]
    NoReceipt(WitnessRefusal),
    /// The authority has revoked it.
    #[error("the authority has revoked {0}")]
    Revoked(Revoked),
    /// It says that the authority has revoked us.
    #[error("the authority has revoked this node or its invite; ask it for a new invite")]
    WeAreRevoked,
    /// Without a receipt this node speaks to its witness only.
    #[error("this node has no receipt of its witness yet")]
    NotYetMember,
    /// We dialled a pinned bootstrap, and it says that it is a member, or the other way round.
    #[error("it does not have the expected role")]
    WrongRole,
}
