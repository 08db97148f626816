//! What must not be found in a history.

use std::fmt;
use std::time::Duration;

use node_core::node::switchboard::insight::Room;
use overlay_proto::ids::PeerId;

use crate::world::invariants::Broken;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The world cannot be built so.
    Unbuilt(String),
    /// What must hold after each step does not.
    Broken(Broken),
    /// A guest got a frame from a guest whose host did not own the MAC in it.
    NotOwned {
        /// Who got it.
        to: u16,
        /// Who sent it.
        by: u16,
        /// Under whose MAC.
        mac_of: u16,
    },
    /// A node has a session with somebody who is revoked, and could know it.
    SessionWithRevoked {
        /// The host of the node.
        host: u16,
        /// Who is revoked.
        with: PeerId,
    },
    /// Something takes longer than it may.
    Late {
        /// What is not so yet.
        what: &'static str,
        /// Where.
        host: u16,
    },
    /// Somebody has what only members may have.
    NoMember {
        /// What it has.
        what: &'static str,
        /// Who.
        host: u16,
    },
    /// A queue or table holds more than its bound.
    Overfull {
        /// The host of the node.
        host: u16,
        /// What is full.
        room: Room,
    },
    /// Long after all was healed guests do not reach each other: the first pairs, and how many.
    Unreached {
        /// From whom to whom.
        pairs: Vec<(u16, u16)>,
        /// How many there are.
        count: usize,
        /// What the nodes of the first pair say.
        told: String,
    },
    /// Long after all was healed a node takes the wrong node for the owner of a guest's MAC.
    WrongOwner {
        /// The host of the node.
        host: u16,
        /// The guest.
        guest: u16,
        /// Whom it takes for the owner.
        owner: Option<PeerId>,
    },
}

/// It, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When.
    pub at: Duration,
    /// What.
    pub what: Failure,
}

impl Failure {
    /// What kind of failure it is: a smaller history is of the same kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unbuilt(_) => "unbuilt",
            Self::Broken(Broken::Twice { .. }) => "twice",
            Self::Broken(Broken::OtherNetwork(_)) => "other network",
            Self::Broken(Broken::Back(_)) => "back",
            Self::Broken(Broken::Unsent(_)) => "unsent",
            Self::Broken(Broken::Restless(_)) => "restless",
            Self::NotOwned { .. } => "not owned",
            Self::SessionWithRevoked { .. } => "revoked",
            Self::Overfull { .. } => "overfull",
            Self::Late { what, .. } | Self::NoMember { what, .. } => what,
            Self::Unreached { .. } => "unreached",
            Self::WrongOwner { .. } => "wrong owner",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbuilt(why) => write!(f, "the world cannot be built so: {why}"),
            Self::Broken(broken) => broken.fmt(f),
            Self::NotOwned { to, by, mac_of } => write!(
                f,
                "guest {to} got a frame that guest {by} sent under the MAC of guest {mac_of}, which its host does not own"
            ),
            Self::SessionWithRevoked { host, with } => {
                write!(f, "host {host} has a session with {with}, which is revoked")
            }
            Self::Late { what, host } => write!(f, "host {host} should long have {what}"),
            Self::NoMember { what, host } => {
                write!(
                    f,
                    "host {host} has {what}, and is no member any more, or never was"
                )
            }
            Self::Overfull { host, room } => write!(
                f,
                "host {host} holds {} of {}, and {} is the bound",
                room.holds, room.name, room.bound
            ),
            Self::Unreached { pairs, count, told } => {
                let pairs: Vec<_> = pairs.iter().map(|(a, b)| format!("{a} to {b}")).collect();
                write!(
                    f,
                    "{count} pairs of guests do not reach each other: {}\n{told}",
                    pairs.join(", ")
                )
            }
            Self::WrongOwner { host, guest, owner } => {
                let owner = owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
                write!(
                    f,
                    "host {host} takes {owner} for the owner of guest {guest}'s MAC"
                )
            }
        }
    }
}

impl std::error::Error for Found {}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3} s: {}", self.at.as_secs_f64(), self.what)
    }
}
