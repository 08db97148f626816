//! What the slow path sends to peers itself: sealed messages and challenges.

use nat_traversal::agent::{Outgoing, ProbeMessage};
use nat_traversal::path::Path;
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::wire::peer_message::PeerMessage;
use overlay_proto::wire::{InnerHeader, InnerKind, Lane, SAFE_DATAGRAM, sizes};

use super::Peers;
use super::peer::Peer;
use crate::node::effects::{Datagram, Effect, Sized};
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::underlay::RelayKeys;

/// The slow path's lane (TRUST.md 12).
const SLOW_LANE: Lane = Lane(0);

impl Peers {
    /// Queues a message for `id`; it goes out with the next settling. `true`: the peer is owed the numbers of lists
    /// and epochs.
    #[must_use]
    pub(crate) fn send_message(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        id: PeerId,
        message: &PeerMessage<'_>,
    ) -> bool {
        let Some(peer) = self.known.get_mut(&id) else {
            return false;
        };
        let (message, mut owed) = (message.encode(), false);
        if let Err(reason) = peer.channel.send(tick.now, message.clone()) {
            out.drops.count(reason);
            owed = self.handle_undelivered(id, &message);
        }
        self.turns.touch(id);
        owed
    }

    /// Sends what waits on the channel, if there are a session and a path. `true`: the peer is owed the numbers of
    /// lists and epochs.
    #[must_use]
    pub(crate) fn settle_channel(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        keys: &RelayKeys,
        id: PeerId,
    ) -> bool {
        if self.tunnels.current(id).is_none() {
            return false;
        }
        loop {
            let Some(peer) = self.known.get_mut(&id) else {
                return false;
            };
            if !peer.agent.can_send(SAFE_DATAGRAM) {
                return false;
            }
            let Some(packet) = peer.channel.poll_transmit(tick.now) else {
                break;
            };
            let header = InnerHeader::plain(InnerKind::Control);
            self.seal_to(out, keys, id, &header, &packet);
        }
        let failed = |peer: &mut Peer| peer.channel.poll_failed();
        let mut owed = false;
        while let Some(message) = self.known.get_mut(&id).and_then(failed) {
            out.drops.count(DropReason::ControlOverflow);
            owed |= self.handle_undelivered(id, &message);
        }
        owed
    }

    /// Seals `body` to `peer` on the slow path's lane; `false` if there is no session or path.
    pub(crate) fn seal_to(
        &mut self,
        out: &mut Outside,
        keys: &RelayKeys,
        id: PeerId,
        header: &InnerHeader,
        body: &[u8],
    ) -> bool {
        let sealed = body.len() + InnerHeader::MAX_LEN + sizes::SEALING;
        let peer = self.known.get(&id);
        let peer = peer.filter(|peer| peer.agent.can_send(sealed));
        let Some(path) = peer.and_then(|peer| peer.agent.chosen()) else {
            return false;
        };
        let Some((len, datagram)) = self.seal(out, id, header, body) else {
            return false;
        };
        self.note_sent(id, path, len);
        let sealed = datagram.get(..len).unwrap_or_default();
        send_on(out, keys, &path, sealed);
        true
    }

    fn note_sent(&mut self, id: PeerId, path: Path, bytes: usize) {
        if let Some(peer) = self.known.get_mut(&id) {
            peer.agent.note_sent(path, bytes);
        }
    }

    /// Seals `body` to `peer`: the length of the datagram, and a buffer that begins with it.
    fn seal(
        &self,
        out: &Outside,
        id: PeerId,
        header: &InnerHeader,
        body: &[u8],
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

    /// Sends the challenges that are due to `id`.
    pub(crate) fn send_challenges(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        keys: &RelayKeys,
        id: PeerId,
    ) {
        while let Some(probe) = self.known.get_mut(&id).and_then(|peer| {
            let (budget, entropy) = (&mut self.probe_budget, &mut out.entropy);
            peer.agent.poll_transmit(tick.now, budget, entropy)
        }) {
            self.send_probe(out, keys, id, &probe);
        }
    }

    /// Answers a challenge, if it is one.
    pub(crate) fn answer_probe(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        keys: &RelayKeys,
        (id, path): (PeerId, Path),
        message: ProbeMessage,
    ) {
        let peer = self.known.get_mut(&id);
        if let Some(answer) = peer.and_then(|peer| peer.agent.handle_probe(tick.now, path, message))
        {
            self.send_probe(out, keys, id, &answer);
        }
    }

    /// Sends a challenge or an answer.
    pub(crate) fn send_probe(
        &mut self,
        out: &mut Outside,
        keys: &RelayKeys,
        id: PeerId,
        probe: &Outgoing,
    ) {
        let body = probe.message.encode(probe.padded_len);
        let header = InnerHeader::plain(InnerKind::Probe);
        let Some((len, datagram)) = self.seal(out, id, &header, &body) else {
            return;
        };
        self.note_sent(id, probe.path, len);
        let sealed = datagram.get(..len).unwrap_or_default();
        let sized = Sized {
            peer: id,
            path: probe.path,
            len,
        };
        send_wrapped(out, keys, &probe.path, sealed, Some(Box::new(sized)));
    }

    /// A datagram was refused. A challenge that asks for more than the own interface takes is no drop: the agent
    /// is told, and asks for less.
    pub(crate) fn handle_unsent(
        &mut self,
        tick: Tick,
        out: &Outside,
        reason: DropReason,
        probe: Option<&Sized>,
    ) {
        let Some(probe) = probe.filter(|_| reason == DropReason::DatagramTooLarge) else {
            return out.drops.count(reason);
        };
        if let Some(peer) = self.known.get_mut(&probe.peer) {
            peer.agent.handle_too_big(tick.now, probe.path, probe.len);
            self.turns.touch(probe.peer);
        }
    }
}

/// Sends a datagram as it is on `path`.
pub(crate) fn send_on(out: &mut Outside, keys: &RelayKeys, path: &Path, datagram: &[u8]) {
    send_wrapped(out, keys, path, datagram, None);
}

fn send_wrapped(
    out: &mut Outside,
    keys: &RelayKeys,
    path: &Path,
    datagram: &[u8],
    probe: Option<Box<Sized>>,
) {
    match on_wire(path, datagram, keys) {
        Ok(bytes) => out.effects.push(Effect::Send(Datagram {
            to: path.remote,
            bytes,
            probe,
        })),
        Err(reason) => out.drops.count(reason),
    }
}

/// The bytes that travel on `path`: a relayed datagram goes with the key of our own allocation.
///
/// # Errors
/// `NoPath` without that key, `RelayInvalid` for what must not be relayed.
fn on_wire(path: &Path, datagram: &[u8], keys: &RelayKeys) -> Result<Vec<u8>, DropReason> {
    let Some(route) = path.relay else {
        return Ok(datagram.to_vec());
    };
    let key = keys.get(&route.own).ok_or(DropReason::NoPath)?;
    let mut bytes = vec![0; relay::HEADER_LEN + datagram.len()];
    relay::wrap(route, key, datagram, &mut bytes).map_err(|_| DropReason::RelayInvalid)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use nat_traversal::path::{AllocationId, RelayRoute};
    use nat_traversal::relay::RelayKey;

    use super::*;

    #[test]
    fn a_relayed_datagram_goes_with_the_key_of_the_own_allocation() {
        let at = "192.0.2.1:4000".parse().unwrap();
        let (own, peer) = (AllocationId(1), AllocationId(2));
        let key = RelayKey([7; 16]);
        let keys = RelayKeys::from([(own, key)]);
        // A handshake, which may be relayed.
        let datagram = [1; 40];
        let direct = on_wire(&Path::direct(at), &datagram, &keys).unwrap();
        assert_eq!(direct, datagram);
        let relayed = Path::relayed(at, RelayRoute { own, peer });
        let wrapped = on_wire(&relayed, &datagram, &keys).unwrap();
        assert_eq!(wrapped.len(), datagram.len() + relay::HEADER_LEN);
        assert!(relay::unwrap(&wrapped, &key).is_ok());
        let none = RelayKeys::new();
        assert_eq!(on_wire(&relayed, &datagram, &none), Err(DropReason::NoPath));
        // A relay within a relay.
        let within = on_wire(&relayed, &wrapped, &keys);
        assert_eq!(within, Err(DropReason::RelayInvalid));
    }
}
