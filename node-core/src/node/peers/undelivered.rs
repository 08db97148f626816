//! Messages that a channel refused or gave up: what they had told is owed again.
//!
//! Most of what members say is said again by itself: directories compare what they know all the time. What is
//! said once, because it is noted as said, is noted here as owed and said again with the housekeeping.

use overlay_proto::ids::PeerId;
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use super::Peers;

/// What is to be said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// Our candidates.
    Candidates,
    /// The epoch of a network.
    Epoch(NetworkTag),
    /// Which revocation lists we hold, and in which epochs we are; the peer asks for what it lacks.
    Numbers,
    /// It is compared, or said again, by others.
    Nothing,
}

fn owed_for(message: &[u8]) -> Owed {
    match PeerMessage::decode(message) {
        Ok(PeerMessage::Candidates { .. }) => Owed::Candidates,
        Ok(PeerMessage::Epoch { network, .. }) => Owed::Epoch(network),
        Ok(
            PeerMessage::EpochNumber { .. } | PeerMessage::ListPage(_) | PeerMessage::ListsHeld(_),
        ) => Owed::Numbers,
        Ok(PeerMessage::Directory { .. } | PeerMessage::GuestMtu { .. }) | Err(_) => Owed::Nothing,
    }
}

impl Peers {
    /// `message` did not reach `id`, as far as is known. What this owner cannot note itself is returned.
    pub(super) fn note_undelivered(&mut self, id: PeerId, message: &[u8]) -> Owed {
        let Some(peer) = self.known.get_mut(&id) else {
            return Owed::Nothing;
        };
        let owed = owed_for(message);
        match owed {
            Owed::Candidates => peer.told_sequence = 0,
            Owed::Epoch(_) | Owed::Numbers | Owed::Nothing => {}
        }
        owed
    }

    /// Those that have not been told our candidates of this number.
    pub(crate) fn untold(&self, sequence: u64) -> Vec<PeerId> {
        let untold = self.known.values();
        let untold = untold.filter(|peer| peer.told_sequence < sequence);
        untold.map(|peer| peer.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use nat_traversal::nat_kind::Mapping;
    use overlay_proto::ids::NetworkId;

    use super::*;

    #[test]
    fn what_is_noted_as_said_is_owed_and_what_is_compared_is_not() {
        let tag = NetworkTag::from(&NetworkId([7; 32]));
        let epoch = PeerMessage::Epoch {
            network: tag,
            signed: &[1, 2, 3],
        };
        let number = PeerMessage::EpochNumber {
            network: tag,
            epoch: 3,
        };
        let candidates = PeerMessage::Candidates {
            sequence: 4,
            mapping: Mapping::Unknown,
            candidates: Vec::new(),
        };
        let mtu = PeerMessage::GuestMtu {
            network: tag,
            mtu: 1_400,
        };
        let owed = |message: PeerMessage<'_>| owed_for(&message.encode());
        assert_eq!(owed(epoch), Owed::Epoch(tag));
        assert_eq!(owed(number), Owed::Numbers);
        assert_eq!(owed(candidates), Owed::Candidates);
        assert_eq!(owed(mtu), Owed::Nothing);
        assert_eq!(owed_for(&[]), Owed::Nothing);
    }
}
