//! Why a peer is not reached, or not directly: one code for each cause (docs/NAT.md).
//!
//! The path agent knows why no better path is in use while there is a session. Without one the cause
//! lies before it: at this node, at the bootstraps, at the introduction, or at the peer. [`why`] is a
//! pure function of what the driver knows; it names the first thing that has to change.

use nat_traversal::agent::FallbackReason;
use nat_traversal::path::PathKind;

/// What became of the last greeting that was sent to a peer through the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeted {
    /// The peer has it, so the peer is up.
    Delivered,
    /// No bootstrap of ours is connected to the peer.
    Absent,
    /// Nobody could be asked to carry it.
    NotCarried,
}

/// What the driver knows of itself and of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// A bootstrap is connected.
    pub infra_up: bool,
    /// Our own certificate has its receipt, and nobody has refused us.
    pub admitted: bool,
    /// Reflectors were asked, and none answers by UDP.
    pub udp_blocked: bool,
    /// There is a session.
    pub session: bool,
    /// There was one before.
    pub was_reached: bool,
    /// The kind of the chosen path, or of the last one.
    pub path: PathKind,
    /// A path is chosen now.
    pub has_path: bool,
    /// The relay of the chosen or last path answers us; `None` if that path used none.
    pub relay_answers: Option<bool>,
    /// The peer's key is known: it has shown a card or stands in a roster.
    pub introduced: bool,
    /// The last greeting.
    pub greeted: Option<Greeted>,
    /// The peer has told a relay at which we have an allocation, too.
    pub relay_in_common: bool,
    /// The first handshake is younger than its repetitions last.
    pub just_dialled: bool,
    /// What the path agent says.
    pub agent: Option<FallbackReason>,
}

/// Why a peer is not reached, or not directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is a session, but no direct path.
    Path(FallbackReason),
    /// Nobody lets this node in.
    NotAdmitted,
    /// No bootstrap is connected, so nobody introduces the two.
    NoBootstrap,
    /// No UDP answer comes back from anywhere.
    UdpBlocked,
    /// No bootstrap of ours is connected to the peer.
    PeerOffline,
    /// The peer has not shown its card yet.
    NotIntroduced,
    /// Handshakes are on their way.
    Connecting,
    /// The relay that carried the frames does not answer.
    RelayLost,
    /// The peer was reached and does not answer any more.
    PeerSilent,
    /// The peer is up, no address of it answers, and both know no common relay.
    NoCommonRelay,
    /// The peer is up, and no handshake comes back over any path.
    HandshakeUnanswered,
}

impl Why {
    /// The code in `farlan status --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path(reason) => reason.name(),
            Self::NotAdmitted => "not-admitted",
            Self::NoBootstrap => "no-bootstrap",
            Self::UdpBlocked => FallbackReason::UdpBlocked.name(),
            Self::PeerOffline => "peer-offline",
            Self::NotIntroduced => "not-introduced",
            Self::Connecting => "connecting",
            Self::RelayLost => "relay-lost",
            Self::PeerSilent => "peer-silent",
            Self::NoCommonRelay => "no-common-relay",
            Self::HandshakeUnanswered => "handshake-unanswered",
        }
    }

    /// A sentence for people: what is wrong, and what helps.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Path(reason) => reason.text(),
            Self::NotAdmitted => {
                "this node is not admitted to the overlay; `farlan status` says why"
            }
            Self::NoBootstrap => {
                "no bootstrap is connected, so nobody introduces this node and the peer; see whether a bootstrap is up"
            }
            Self::UdpBlocked => FallbackReason::UdpBlocked.text(),
            Self::PeerOffline => {
                "no bootstrap is connected to the peer: it is down, or cut off; see `farlan status` there"
            }
            Self::NotIntroduced => "the peer has not shown its card yet; wait some seconds",
            Self::Connecting => "handshakes are on their way",
            Self::RelayLost => {
                "the relay does not answer; see whether the bootstrap is up and its UDP port is open"
            }
            Self::PeerSilent => {
                "the peer was reached and does not answer any more; see whether it is up"
            }
            Self::NoCommonRelay => {
                "the peer is up, no address of it answers, and both use no common relay; give both the same bootstrap"
            }
            Self::HandshakeUnanswered => {
                "the peer is up, but no handshake comes back; a firewall at one end drops its UDP"
            }
        }
    }
}

/// All codes of `path.why` with their sentences, for the manual.
#[must_use]
pub fn path_reasons() -> Vec<(&'static str, &'static str)> {
    const WHYS: [Why; 9] = [
        Why::NotAdmitted,
        Why::NoBootstrap,
        Why::PeerOffline,
        Why::NotIntroduced,
        Why::Connecting,
        Why::RelayLost,
        Why::PeerSilent,
        Why::NoCommonRelay,
        Why::HandshakeUnanswered,
    ];
    let paths = FallbackReason::ALL
        .iter()
        .map(|reason| (reason.name(), reason.text()));
    paths
        .chain(WHYS.iter().map(|why| (why.name(), why.text())))
        .collect()
}

/// Why the peer is not reached directly; `None` if it is.
pub fn why(facts: &Facts) -> Option<Why> {
    if facts.session && facts.has_path {
        return match facts.relay_answers {
            Some(false) => Some(Why::RelayLost),
            _ => facts.agent.map(Why::Path),
        };
    }
    Some(if !facts.admitted && !facts.infra_up {
        Why::NotAdmitted
    } else if facts.udp_blocked {
        Why::UdpBlocked
    } else if facts.relay_answers == Some(false) && facts.path == PathKind::Relayed {
        Why::RelayLost
    } else if facts.greeted == Some(Greeted::Absent) && facts.infra_up {
        Why::PeerOffline
    } else if facts.was_reached {
        Why::PeerSilent
    } else if !facts.infra_up {
        Why::NoBootstrap
    } else if !facts.introduced {
        Why::NotIntroduced
    } else if facts.just_dialled {
        Why::Connecting
    } else if !facts.relay_in_common {
        Why::NoCommonRelay
    } else {
        Why::HandshakeUnanswered
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that is up and was never reached, at a node that is well.
    const STRANGER: Facts = Facts {
        infra_up: true,
        admitted: true,
        udp_blocked: false,
        session: false,
        was_reached: false,
        path: PathKind::None,
        has_path: false,
        relay_answers: None,
        introduced: true,
        greeted: Some(Greeted::Delivered),
        relay_in_common: true,
        just_dialled: false,
        agent: Some(FallbackReason::Probing),
    };

    const RELAYED: Facts = Facts {
        session: true,
        was_reached: true,
        path: PathKind::Relayed,
        has_path: true,
        relay_answers: Some(true),
        ..STRANGER
    };

    #[test]
    fn each_cause_has_a_code_of_its_own() {
        let cases = [
            (STRANGER, "handshake-unanswered"),
            (
                Facts {
                    just_dialled: true,
                    ..STRANGER
                },
                "connecting",
            ),
            (
                Facts {
                    relay_in_common: false,
                    ..STRANGER
                },
                "no-common-relay",
            ),
            (
                Facts {
                    introduced: false,
                    ..STRANGER
                },
                "not-introduced",
            ),
            (
                Facts {
                    greeted: Some(Greeted::Absent),
                    ..STRANGER
                },
                "peer-offline",
            ),
            (
                Facts {
                    infra_up: false,
                    ..STRANGER
                },
                "no-bootstrap",
            ),
            (
                Facts {
                    infra_up: false,
                    admitted: false,
                    ..STRANGER
                },
                "not-admitted",
            ),
            (
                Facts {
                    udp_blocked: true,
                    ..STRANGER
                },
                "udp-blocked",
            ),
            (RELAYED, "probing"),
            (
                Facts {
                    relay_answers: Some(false),
                    ..RELAYED
                },
                "relay-lost",
            ),
        ];
        for (facts, code) in cases {
            assert_eq!(why(&facts).map(Why::name), Some(code), "{facts:?}");
        }
        let direct = Facts {
            path: PathKind::Direct,
            relay_answers: None,
            agent: None,
            ..RELAYED
        };
        assert_eq!(why(&direct), None);
    }

    /// The relay answers, so it is the peer that is gone; without the relay's answer nothing is
    /// known of the peer.
    #[test]
    fn a_stopped_peer_is_no_lost_relay() {
        let gone = Facts {
            has_path: false,
            greeted: None,
            ..RELAYED
        };
        assert_eq!(why(&gone), Some(Why::PeerSilent));
        let known = Facts {
            greeted: Some(Greeted::Absent),
            ..gone
        };
        assert_eq!(why(&known), Some(Why::PeerOffline));
        let relay = Facts {
            relay_answers: Some(false),
            ..known
        };
        assert_eq!(why(&relay), Some(Why::RelayLost));
    }
}
