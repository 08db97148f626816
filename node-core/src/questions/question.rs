//! What the slow path asks of the control plane, and what becomes of it.

use std::time::Duration;

use nat_traversal::path::AllocationId;
use nat_traversal::relay::RelayKey;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Chain, SignedPart, WitnessRefusal};
use overlay_proto::switching::{MacKey, NetIndex};

use super::MAX_ASKED;

/// Peers in one [`Question::Permit`], at most: what a bootstrap takes.
pub const MAX_PERMITTED: usize = 64;

/// An allocation at a relay (TRUST.md 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// Its name on the wire.
    pub id: AllocationId,
    /// For the MACs.
    pub key: RelayKey,
}

/// A question to the control plane, with all that it takes to carry it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// From now on the bootstraps are these multiaddrs.
    SetBootstraps(Vec<String>),
    /// Which run of the process this is.
    SetIncarnation(u32),
    /// The gate has another revocation list: whoever it names is cut off, the others are told.
    FollowRevocations,
    /// Our card of a network is laid down; the others' are the answer.
    Register {
        /// The network.
        net: NetIndex,
        /// Its name at the rendezvous, which tells nobody which network it is.
        rendezvous: [u8; 32],
        /// Sealed; at most 4 KiB.
        card: Vec<u8>,
    },
    /// An allocation at the relay of a bootstrap.
    Allocate {
        /// The bootstrap.
        infra: PeerId,
    },
    /// Whom an allocation is to hear.
    Permit {
        /// The relay's bootstrap.
        infra: PeerId,
        /// Ours.
        allocation: AllocationId,
        /// At most [`MAX_PERMITTED`].
        peers: Vec<PeerId>,
    },
    /// The receipt of a certificate.
    Receipt {
        /// The bootstrap that is its witness.
        infra: PeerId,
        /// The certificate, without the receipt.
        chain: Box<Chain>,
    },
    /// What time it is at a bootstrap.
    Clock {
        /// The bootstrap.
        infra: PeerId,
    },
    /// Our card is shown to a member through a third party.
    Greet {
        /// The member.
        to: PeerId,
        /// Sealed; at most 8 KiB.
        envelope: Vec<u8>,
    },
    /// Who holds a MAC, says the DHT.
    GetRecord {
        /// In which network.
        net: NetIndex,
        /// The MAC.
        key: MacKey,
        /// Where the DHT keeps it.
        dht_key: [u8; 32],
    },
    /// A MAC is here; for the DHT.
    PutRecord {
        /// Where the DHT keeps it.
        dht_key: [u8; 32],
        /// Sealed and signed; at most 4 KiB.
        record: Vec<u8>,
    },
}

/// Who waits for whom: a class has a queue of its own and places that no other class takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The control plane's own settings.
    Settings,
    /// What the node needs to be there at all: cards, relays, receipts.
    Standing,
    /// Members that are to be met.
    Meeting,
    /// What this node says about its MACs.
    OwnRecords,
    /// What guests cause.
    Lookups,
}

/// All, those in front first.
pub(super) const CLASSES: [Class; 5] = [
    Class::Settings,
    Class::Standing,
    Class::Meeting,
    Class::OwnRecords,
    Class::Lookups,
];

/// Two questions of one subject are one: the later replaces the earlier, or is answered with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    Bootstraps,
    Incarnation,
    Revocations,
    Card([u8; 32]),
    Allocation(PeerId),
    Receipt(PeerId, Vec<u8>),
    Clock(PeerId),
    Greeting(PeerId),
    Lookup([u8; 32]),
    Record([u8; 32]),
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out; there is nothing to tell.
    Done,
    /// The others' cards.
    Cards(Vec<(PeerId, Vec<u8>)>),
    /// An allocation.
    Allocation(Allocation),
    /// The witness's word.
    Receipt(Result<SignedPart, WitnessRefusal>),
    /// Milliseconds since 1970.
    Clock(u64),
    /// What the DHT holds.
    Record(Option<Vec<u8>>),
    /// It was not carried out.
    Failed(Failure),
}

/// Why a question was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many of its class wait.
    #[error("too many questions wait")]
    NoRoom,
    /// Nobody who could be asked, or carry it, is connected.
    #[error("not connected")]
    NotConnected,
    /// Whoever was asked has too much to do.
    #[error("whoever was asked has too much to do")]
    Busy,
    /// Whoever was asked will not.
    #[error("refused")]
    Refused,
    /// No answer in time.
    #[error("no answer")]
    NoAnswer,
}

impl Question {
    pub(super) const fn class(&self) -> Class {
        match self {
            Self::SetBootstraps(_) | Self::SetIncarnation(_) | Self::FollowRevocations => {
                Class::Settings
            }
            Self::Register { .. }
            | Self::Allocate { .. }
            | Self::Permit { .. }
            | Self::Receipt { .. }
            | Self::Clock { .. } => Class::Standing,
            Self::Greet { .. } => Class::Meeting,
            Self::PutRecord { .. } => Class::OwnRecords,
            Self::GetRecord { .. } => Class::Lookups,
        }
    }

    /// The bootstrap that alone can answer.
    pub const fn infra(&self) -> Option<PeerId> {
        match self {
            Self::Allocate { infra }
            | Self::Permit { infra, .. }
            | Self::Receipt { infra, .. }
            | Self::Clock { infra } => Some(*infra),
            _ => None,
        }
    }

    /// `None`: each counts for itself.
    pub(super) fn subject(&self) -> Option<Subject> {
        Some(match self {
            Self::SetBootstraps(_) => Subject::Bootstraps,
            Self::SetIncarnation(_) => Subject::Incarnation,
            Self::FollowRevocations => Subject::Revocations,
            Self::Register { rendezvous, .. } => Subject::Card(*rendezvous),
            Self::Allocate { infra } => Subject::Allocation(*infra),
            Self::Permit { .. } => return None,
            Self::Receipt { infra, chain } => Subject::Receipt(*infra, chain.encode()),
            Self::Clock { infra } => Subject::Clock(*infra),
            Self::Greet { to, .. } => Subject::Greeting(*to),
            Self::GetRecord { dht_key, .. } => Subject::Lookup(*dht_key),
            Self::PutRecord { dht_key, .. } => Subject::Record(*dht_key),
        })
    }

    /// How long one try may take; a lookup's own limit is below it.
    pub const fn patience(&self) -> Duration {
        match self {
            Self::GetRecord { .. } => Duration::from_secs(3),
            _ => Duration::from_secs(10),
        }
    }

    /// How long to wait before the next try, after `tries` that failed, the last one so. `None`: its owner
    /// hears of it.
    pub(super) fn again(&self, tries: u32, failure: Failure) -> Option<Duration> {
        let waits: &[u64] = match (self, failure) {
            // Without a relay a pair behind two hard NATs has no path at all.
            (Self::Allocate { .. }, _) => &[200, 1_000, 4_000],
            (Self::Register { .. } | Self::Permit { .. }, Failure::Busy | Failure::NoAnswer) => {
                &[1_000, 3_000]
            }
            (Self::Greet { .. }, Failure::Busy) => &[1_000, 1_000, 1_000],
            // A bootstrap takes 50 questions a second: some thousand MACs take a minute or two.
            (Self::PutRecord { .. }, Failure::Busy) => return Some(Duration::from_secs(1)),
            _ => &[],
        };
        let wait = waits.get(usize::try_from(tries.saturating_sub(1)).ok()?)?;
        Some(Duration::from_millis(*wait))
    }
}

impl Class {
    /// Questions of the class that wait, at most.
    pub(super) const fn room(self) -> usize {
        match self {
            Self::Settings => 3,
            Self::Standing => 256,
            Self::Meeting => 512,
            // One for each MAC of the node.
            Self::OwnRecords => 4_608,
            Self::Lookups => 512,
        }
    }

    /// Does one that meets somebody busy stop the others? They would take from the questions in front of
    /// them what a bootstrap answers in a second.
    pub(super) const fn holds(self) -> bool {
        matches!(self, Self::OwnRecords)
    }

    /// Questions of the class that are asked at once, at most. Each put into the DHT takes some 6 KiB while it goes on,
    /// and 16 of them are the 50 a second that a bootstrap takes from a third of a second away.
    pub(super) const fn most_asked(self) -> usize {
        match self {
            Self::OwnRecords => 16,
            _ => MAX_ASKED,
        }
    }

    /// Places that no other class takes.
    pub(super) const fn own_places(self) -> usize {
        match self {
            Self::Settings => 4,
            Self::Standing => 16,
            Self::Meeting => 12,
            Self::OwnRecords | Self::Lookups => 8,
        }
    }
}
