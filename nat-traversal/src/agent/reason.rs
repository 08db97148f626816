//! Words for people: the rungs of the ladder, why a path was chosen, why none better is there.

use serde::{Deserialize, Serialize};

/// A rung of the ladder (docs/NAT.md), best first. The agent climbs those that
/// [`Rung::is_climbed`] names; the others have their names and their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Addresses of a shared LAN or site, and IPv6.
    Near,
    /// An address known to be reachable.
    KnownAddress,
    /// A mapping made by the router (PCP, NAT-PMP, UPnP).
    PortMapping,
    /// Both sides probe at the same time.
    SimultaneousProbes,
    /// Guessing the next port of a predictable NAT.
    PortPrediction,
    /// Many sockets against a random mapping.
    Birthday,
    /// UDP through a relay.
    Relay,
    /// TLS on TCP 443.
    Stream,
}

impl Rung {
    /// Whether this version climbs it.
    #[must_use]
    pub const fn is_climbed(self) -> bool {
        matches!(
            self,
            Self::Near | Self::KnownAddress | Self::SimultaneousProbes | Self::Relay
        )
    }
}

/// Why a path was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChoiceReason {
    /// The handshake came through on it.
    Established,
    /// It is of a better tier than the one before.
    BetterTier,
    /// It is clearly faster, or the peer uses it.
    BetterPath,
    /// The one before is dead.
    PreviousDied,
    /// There was none.
    OnlyOne,
}

/// Why the peer is not reached directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FallbackReason {
    /// The peer told no address that may be tried.
    NoCandidates,
    /// All its addresses were refused by the filter.
    CandidatesRefused,
    /// No socket of ours speaks the address family of its addresses.
    NoCommonFamily,
    /// Its addresses are being tried.
    Probing,
    /// None of its addresses answered.
    NoAnswer,
    /// Both NATs give each destination another port.
    BothNatsDependent,
    /// One of the NATs gives each destination another port and the other lets only known ones in.
    OneNatDependent,
    /// No reflector answers: UDP does not get out.
    UdpBlocked,
    /// A direct path died; it is being searched again.
    DirectLost,
    /// The limit on packets to silent addresses is used up; it goes on within a minute.
    BudgetSpent,
}

impl FallbackReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoCandidates,
        Self::CandidatesRefused,
        Self::NoCommonFamily,
        Self::Probing,
        Self::NoAnswer,
        Self::BothNatsDependent,
        Self::OneNatDependent,
        Self::UdpBlocked,
        Self::DirectLost,
        Self::BudgetSpent,
    ];

    /// The code in `farlan status --json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCandidates => "no-candidates",
            Self::CandidatesRefused => "candidates-refused",
            Self::NoCommonFamily => "no-common-family",
            Self::Probing => "probing",
            Self::NoAnswer => "no-answer",
            Self::BothNatsDependent => "both-nats-dependent",
            Self::OneNatDependent => "one-nat-dependent",
            Self::UdpBlocked => "udp-blocked",
            Self::DirectLost => "direct-lost",
            Self::BudgetSpent => "budget-spent",
        }
    }

    /// A sentence for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoCandidates => "the peer has told no address yet at which it can be tried",
            Self::CandidatesRefused => {
                "all addresses of the peer are private, loopback or inside the overlay"
            }
            Self::NoCommonFamily => "one side has only IPv4 and the other only IPv6",
            Self::Probing => "the addresses of the peer are being tried",
            Self::NoAnswer => "no address of the peer answered; a firewall may drop the probes",
            Self::BothNatsDependent => {
                "both NATs use another port for each destination, so neither side can be met"
            }
            Self::OneNatDependent => {
                "one NAT uses another port for each destination and the other lets only known ports in"
            }
            Self::UdpBlocked => {
                "no UDP answer comes back from anywhere; let UDP out of this site's firewall, and in at the bootstrap's"
            }
            Self::DirectLost => "the direct path died and is being searched again",
            Self::BudgetSpent => {
                "too many probes to silent addresses; the search goes on within a minute"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_serde_writes() {
        use FallbackReason as R;
        for reason in [
            R::NoCandidates,
            R::CandidatesRefused,
            R::NoCommonFamily,
            R::Probing,
            R::NoAnswer,
            R::BothNatsDependent,
            R::OneNatDependent,
            R::UdpBlocked,
            R::DirectLost,
            R::BudgetSpent,
        ] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.name()));
            assert!(!reason.text().is_empty());
        }
    }
}
