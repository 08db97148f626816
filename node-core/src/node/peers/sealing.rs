//! What is sealed on the slow path: messages, challenges and answers, frames that had to wait.

use nat_traversal::agent::Outgoing;
use nat_traversal::path::Path;
use overlay_proto::ids::PeerId;
use overlay_proto::wire::{InnerHeader, InnerKind, Lane, sizes};

use super::Peers;
use crate::node::effects::Sized;
use crate::node::outside::Outside;
use crate::underlay::RelayKeys;

/// The slow path's lane (TRUST.md 12).
const SLOW_LANE: Lane = Lane(0);

impl Peers {
    /// Seals `body` to `id` and sends it on the path that frames use now. `false`: there is no session, no path, or what is sealed may not
    /// be as large there. `keys`: those of our own allocations.
    pub(crate) fn seal_to(
        &mut self,
        id: PeerId,
        (header, body): (&InnerHeader, &[u8]),
        keys: &RelayKeys,
        out: &mut Outside,
    ) -> bool {
        let sealed = body.len() + InnerHeader::MAX_LEN + sizes::SEALING;
        let peer = self.known.get(&id);
        let peer = peer.filter(|peer| peer.agent.can_send(sealed));
        let Some(path) = peer.and_then(|peer| peer.agent.chosen()) else {
            return false;
        };
        let Some((len, datagram)) = self.seal(id, header, body, out) else {
            return false;
        };
        self.note_sent(id, path, len);
        out.send_on(keys, &path, datagram.get(..len).unwrap_or_default());
        true
    }

    /// Sends a challenge or an answer on the path that it says.
    pub(crate) fn send_probe(
        &mut self,
        id: PeerId,
        probe: &Outgoing,
        keys: &RelayKeys,
        out: &mut Outside,
    ) {
        let body = probe.message.encode(probe.padded_len);
        let header = InnerHeader::plain(InnerKind::Probe);
        let Some((len, datagram)) = self.seal(id, &header, &body, out) else {
            return;
        };
        self.note_sent(id, probe.path, len);
        let sealed = datagram.get(..len).unwrap_or_default();
        let sized = Sized {
            peer: id,
            path: probe.path,
            len,
        };
        out.send_sized(keys, &probe.path, sealed, Some(Box::new(sized)));
    }

    /// The length of the datagram, and a buffer that begins with it.
    fn seal(
        &self,
        id: PeerId,
        header: &InnerHeader,
        body: &[u8],
        out: &Outside,
    ) -> Option<(usize, [u8; sizes::MAX_UDP_PAYLOAD])> {
        let session = self.tunnels.current(id)?;
        let mut inner = [0; InnerHeader::MAX_LEN];
        let written = header.write(&mut inner);
        let mut datagram = [0; sizes::MAX_UDP_PAYLOAD];
        let sealed = session.seal_into(SLOW_LANE, inner.get(..written)?, body, &mut datagram);
        match sealed {
            Ok(len) => Some((len, datagram)),
            Err(reason) => {
                out.drops.count(reason);
                None
            }
        }
    }

    fn note_sent(&mut self, id: PeerId, path: Path, bytes: usize) {
        if let Some(peer) = self.known.get_mut(&id) {
            peer.agent.note_sent(path, bytes);
        }
    }
}
