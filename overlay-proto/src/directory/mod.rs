//! Who is where: the directory of one network.
//!
//! Every MAC has one owner, and every node computes the same owner from the claims it holds,
//! whatever the order they arrived in. All else here serves two ends: that a change reaches the
//! nodes that care within one round trip (the *push*), and that it reaches every node in the end,
//! whatever was lost (the *replicas* and the *DHT*).
//!
//! A [`Claim`] says "MAC m of VLAN v is attached here" with a generation that grows by one with each
//! move. [`Rank`] is the total order of claims and a pure function of them; [`ClaimStore`] keeps the
//! winner for each MAC and tells the sender of a loser what won. Nobody reads a wall clock for it:
//! a claim ages from when its refresh counter last grew here, and dies ten minutes later.
//!
//! *Evidence* decides who may bump a generation, never rank: a gratuitous ARP takes a MAC at once, an
//! ordinary frame first asks the owner whether the MAC is still there, a frame that a paused VM leaks
//! takes nothing. A host that lost a MAC must hear it *after* losing it to contest; six contested
//! moves in a row freeze it with the one who held it before. The count and that one's tag ride in the
//! claim, so that all agree.
//!
//! Three ways a claim travels, from fast to certain:
//! 1. pushed to the talkers of the MAC, and to all neighbours while the network is small;
//! 2. replicated: neighbours compare digests and exchange differences ([`sync`]);
//! 3. in the DHT, as a record that its keeper can check but not read ([`record`]).
//!
//! Before two members have a session they know each other by [`card`]s and talk in [`signal`]s, both
//! sealed for members, since strangers keep and carry them.
//!
//! [`machine::Directory`] puts it together as one state machine, without clock, socket or randomness
//! of its own.
//!
//! Not here yet, with its place kept: broadcast over a tree in networks above eight members.

pub mod card;
pub mod claim;
pub mod claims;
pub mod machine;
pub mod messages;
pub mod order;
pub mod record;
pub mod roster;
mod seal;
pub mod signal;
pub mod signed;
pub mod sync;

#[cfg(test)]
pub(super) mod tests;

pub use card::{Card, OpenedCard, SignedCard, open_card, seal_card};
pub use claim::{Claim, ClaimKind, SignedClaim, VerifiedClaim, generation_limit};
pub use claims::{CLAIM_TTL, ClaimStore, Outcome, StoredClaim};
pub use machine::{
    ConflictReport, Directory, DirectoryAction, DirectoryConfig, Entry, LateFrame, LateVerdict,
    LocalVerdict, Place, Resolution, UnknownReport,
};
pub use messages::DirectoryMessage;
pub use order::Rank;
pub use record::{RecordKey, RecordReader, StoredRecord, seal_record};
pub use roster::{Member, Presence, Roster, RosterEntry, SignedRosterEntry};
pub use signal::{RoutedSignal, Signal, SignalInbox, open_signal, seal_signal, signal_is_for};
pub use signed::{Document, Signed};
