//! What can be wrong with a membership, each with who is at fault and the next step.

use super::date::Utc;
use super::revocation::Revoked;
use super::rights::Rights;
use crate::ids::{NetworkName, OverlayId};
use crate::time::UnixTime;

/// A root document, chain, receipt or signed static that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The bytes do not parse.
    #[error("the {0} does not parse")]
    Malformed(&'static str),
    /// More bytes than the format allows.
    #[error("the {what} is longer than {limit} bytes")]
    TooLong {
        /// What was read.
        what: &'static str,
        /// The most bytes it may have.
        limit: usize,
    },
    /// Written by a later version of the program.
    #[error("the {0} is of a later version; update this program")]
    LaterVersion(&'static str),
    /// Made for another overlay.
    #[error("the certificate belongs to another overlay")]
    Foreign,
    /// A root document or a membership of another overlay.
    #[error("that is overlay {found}, not {expected}")]
    OtherOverlay {
        /// The overlay that was expected.
        expected: OverlayId,
        /// The one found.
        found: OverlayId,
    },
    /// A signature does not verify.
    #[error("the signature of the {0} is forged or damaged")]
    BadSignature(&'static str),
    /// A date that the authority signed has passed.
    #[error("the membership ended on {}; ask for a new invite", Utc(*until))]
    Expired {
        /// The last second of the membership.
        until: UnixTime,
    },
    /// The node's part claims what its invite does not grant.
    #[error("the node's part of the certificate claims more than its invite grants")]
    Widened,
    /// The content contradicts itself or a rule.
    #[error("the {0} breaks a rule of its format")]
    Invalid(&'static str),
    /// The receipt is of another node or invite, or too late.
    #[error("the receipt is of another node or invite, or was signed after the invite's end")]
    ReceiptInvalid,
    /// No receipt where policy demands one.
    #[error("the certificate has no receipt of its witness")]
    ReceiptMissing,
    /// A root version that this store does not have yet.
    #[error("root version {0} is not known here yet")]
    UnknownRoot(u32),
    /// A root version whose certificates no longer count.
    #[error("the authority retired root version {0}; ask for a new invite")]
    RetiredRoot(u32),
    /// The authority has revoked it.
    #[error("the authority has revoked {0}")]
    Revoked(Revoked),
    /// Root documents must come one after the other.
    #[error("root version {found} cannot follow version {current}")]
    RootOrder {
        /// The newest in the store.
        current: u32,
        /// The one offered.
        found: u32,
    },
    /// A bound of the store is reached.
    #[error("no more than {limit} {what} fit")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Another network of that name is there already.
    #[error("this node is in another network that is named `{0}` too")]
    NetworkNameTaken(NetworkName),
}

/// An invite that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is something else.
    #[error("this is no invite; one begins with `farlan-invite-`")]
    NotAnInvite,
    /// Cut off, changed, or with something after its end.
    #[error("the invite is damaged ({0}); copy it again as one whole line")]
    Damaged(&'static str),
    /// Made by a later version of the program.
    #[error("the invite is of a later version ({0}); update this program")]
    LaterVersion(u8),
    /// Whole, but its signatures or contents contradict each other.
    #[error("the invite is forged: {0}; ask the authority for a new one")]
    Forged(String),
    /// It leads to an address that this node cannot dial.
    #[error(
        "this node cannot dial the bootstrap `{0}` of the invite: names are not looked up, and over UDP a \
         bootstrap answers QUIC only; ask the authority for an invite whose bootstraps look like \
         /ip4/A.B.C.D/udp/PORT/quic-v1/p2p/12D3.. or /ip4/A.B.C.D/tcp/PORT/p2p/12D3.."
    )]
    BootstrapForm(String),
    /// The time to join has passed.
    #[error("the invite expired on {}; ask the authority for a new one", Utc(*until))]
    Expired {
        /// The last second in which it could be used.
        until: UnixTime,
    },
}

/// An invite that the authority will not issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// An invite without a network lets nobody in.
    #[error("name at least one network")]
    NoNetwork,
    /// The certificate must fit a handshake packet (TRUST.md 11).
    #[error("{0} networks are too many; an invite holds at most 8")]
    TooManyNetworks(usize),
    /// The same network twice.
    #[error("network `{0}` is named twice")]
    NetworkTwice(NetworkName),
    /// A joiner needs a first contact.
    #[error("name at least one bootstrap address")]
    NoBootstrap,
    /// More bootstraps than an invite holds.
    #[error("{0} bootstraps are too many; an invite holds at most 8")]
    TooManyBootstraps(usize),
    /// A bootstrap is pinned by its key (TRUST.md 6).
    #[error(
        "bootstrap `{0}` names no node; write its full address, which ends in /p2p/12D3.. \
         (farlan-bootstrap prints it)"
    )]
    BootstrapWithoutPeerId(String),
    /// Joiners could not dial it.
    #[error(
        "no node can dial the bootstrap `{0}`: names are not looked up, and over UDP a bootstrap \
         answers QUIC only; use /ip4/A.B.C.D/udp/PORT/quic-v1/p2p/12D3.. or \
         /ip4/A.B.C.D/tcp/PORT/p2p/12D3.., the same with /ip6/ (farlan-bootstrap prints them; behind a \
         router with --external)"
    )]
    BootstrapForm(String),
    /// The name is no host name.
    #[error("`{0}` is no host name; use 1 to 63 of A-Z, a-z, 0-9, - . and _")]
    BadName(String),
    /// Nobody could use it.
    #[error("the invite would end on {}, which is not in the future", Utc(*until))]
    EndsInThePast {
        /// The end asked for.
        until: UnixTime,
    },
    /// The membership would end before the joining does.
    #[error("the membership must not end before the time to join does")]
    MemberBeforeJoin,
    /// `max_nodes` is 0.
    #[error("an invite is for at least one node")]
    NoNodes,
    /// Nothing enforces these rights: whoever gave them or not would go by what is not so (TRUST.md 5).
    #[error(
        "the right {0} decides nothing yet: every member may do what it stands for; make the invite \
         without it"
    )]
    RightDecidesNothing(Rights),
    /// A witness is named by the invite (TRUST.md 4).
    #[error(
        "nobody becomes a witness by a right: each invite names its witness, which is its first \
         bootstrap; make the invite without the right witness"
    )]
    WitnessByRight,
    /// The authority's key is not the one of the newest root document.
    #[error("the key is not the authority of this overlay")]
    NotTheAuthority,
    /// The certificate would not fit a handshake packet.
    #[error("the certificate would be {0} bytes long, 800 fit; name fewer networks")]
    TooLong(usize),
}
