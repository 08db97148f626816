//! Why a frame or a datagram was dropped. Every drop is counted under one of these names, and
//! `farlan status` prints the counts.

/// Declares [`DropReason`] once: the variant, its name in `status`, its meaning.
macro_rules! drop_reasons {
    ($($variant:ident = $name:literal, $doc:literal;)+) => {
        /// The reason of a drop. Its name is part of `farlan status --json`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $doc] $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in `farlan status --json`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

drop_reasons! {
    UnknownMac = "unknown_mac", "no node was found that holds the destination MAC";
    SourceNotClaimed = "source_not_claimed", "the source MAC is not claimed by the peer that sent the frame";
    MacHeldElsewhere = "mac_held_elsewhere", "a local frame uses a MAC whose owner on another node is alive";
    MacTwin = "mac_twin", "a frame from elsewhere has the MAC of a guest on this host, in another VLAN, and the bridge here does not filter VLANs";
    MacReserved = "mac_reserved", "a source MAC is a group, zero or reserved address";
    BridgeReserved = "bridge_reserved", "a destination that no 802.1D bridge forwards";
    GoesRound = "goes_round", "a broadcast came again and again: it goes round in a loop of this host; see the warnings";
    PortShut = "port_shut", "a frame came from a port of this host that is shut, such as the target of a migration before its hand-over";
    StandingBy = "standing_by", "another node on the same LAN carries its frames; see the warnings";
    MalformedFrame = "malformed_frame", "shorter than an Ethernet header, or tags that do not parse";
    FrameTooLarge = "frame_too_large", "larger than what can be split into pieces";
    OverlayOnItself = "overlay_on_itself", "a datagram of this node itself came to one of its taps, or out of the overlay: the overlay would ride on itself";
    NoSession = "no_session", "no session with the peer, and none came up in time";
    NoPath = "no_path", "no path to the peer";
    PendingOverflow = "pending_overflow", "too many frames waited for a look-up or a handshake";
    PendingTimeout = "pending_timeout", "a frame waited too long for a look-up or a handshake";
    PuntOverflow = "punt_overflow", "the queue to the slow path was full";
    MalformedDatagram = "malformed_datagram", "a datagram that does not parse";
    UnknownDatagramKind = "unknown_datagram_kind", "a first byte that is no kind of ours";
    UnknownSession = "unknown_session", "a session index that is not ours (any more)";
    UnknownLane = "unknown_lane", "a lane beyond those of the session";
    BadTag = "bad_tag", "the authentication tag is wrong";
    Replayed = "replayed", "a packet counter seen before";
    ReplayTooOld = "replay_too_old", "a packet counter older than the replay window";
    UnknownFlags = "unknown_flags", "flags or an inner kind from a later version";
    UnknownNetwork = "unknown_network", "a network selector that was not agreed in the handshake";
    BadPiece = "bad_piece", "a piece of a split frame that contradicts another";
    PieceTimeout = "piece_timeout", "a split frame whose missing pieces did not come";
    PieceOverflow = "piece_overflow", "too many split frames at once";
    CongestionMarked = "congestion_marked", "a router marked congestion on the datagram of a frame whose sender does not know such marks";
    TooManyHops = "too_many_hops", "a frame that was forwarded too often";
    HandshakeMac = "handshake_mac", "a handshake from someone who does not know the overlay secret";
    HandshakeInvalid = "handshake_invalid", "a handshake that does not decrypt or verify";
    HandshakeReplayed = "handshake_replayed", "a handshake with a timestamp not above the last";
    HandshakeUnexpected = "handshake_unexpected", "an answer to a handshake that was not asked";
    HandshakeLimit = "handshake_limit", "too many half-open handshakes";
    HandshakeCookie = "handshake_cookie", "under load: a handshake whose sender was first asked to show that it gets answers at its address";
    CertificateRefused = "certificate_refused", "a certificate chain that is expired, foreign or forged";
    Revoked = "revoked", "a node or an invite that the authority has revoked";
    SessionExpired = "session_expired", "the session's keys are past their time or count";
    ControlMalformed = "control_malformed", "a control message that does not parse";
    ControlOverflow = "control_overflow", "too many control messages in flight";
    ClaimInvalid = "claim_invalid", "a claim whose signature or content is wrong";
    ClaimRights = "claim_rights", "a claim by a node without the right to send";
    GenerationTooFar = "generation_too_far", "a claim whose generation no honest node can have reached";
    ClaimOverflow = "claim_overflow", "more claims than the limit of the network or the node";
    RosterInvalid = "roster_invalid", "a roster entry whose signature or content is wrong";
    RecordInvalid = "record_invalid", "a DHT record whose key, signature or content is wrong";
    BroadcastLimit = "broadcast_limit", "more broadcast than the attachment may send";
    CandidateRefused = "candidate_refused", "a candidate address that the filter does not pass";
    ReflectorInvalid = "reflector_invalid", "a reflector message that does not parse or was not asked";
    ReflectorLimit = "reflector_limit", "too many reflector requests from one prefix";
    RelayInvalid = "relay_invalid", "a relayed datagram with a wrong MAC, allocation or counter";
    RelayNotPermitted = "relay_not_permitted", "a relayed datagram between peers who did not both permit it";
    RelayQuota = "relay_quota", "a relay allocation beyond its quota";
    SocketFull = "socket_full", "the kernel's send buffer was full";
    SocketError = "socket_error", "the kernel refused to send a datagram";
    DatagramTooLarge = "datagram_too_large", "a datagram larger than the MTU of the own interface; the path MTU is asked again";
    TapFull = "tap_full", "the tap did not take a frame";
    TapError = "tap_error", "the kernel refused a frame on the tap";
}

/// How many reasons there are: the length of a counter array.
pub const DROP_REASON_COUNT: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_numbers_are_indices() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let same = DropReason::ALL
                .iter()
                .filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{}", reason.name());
        }
    }
}
