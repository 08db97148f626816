//! What the slow path sends itself: sealed messages and challenges to peers, frames to guests.

use crate::underlay::RelayKeys;
use nat_traversal::agent::Outgoing;
use nat_traversal::path::Path;
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;
use overlay_proto::wire::{InnerHeader, InnerKind};

use crate::node::effects::{Datagram, Effect, Sized, TapFrame};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// Sends a datagram as it is on `path`.
    pub(crate) fn send_on(&mut self, path: Path, datagram: &[u8]) {
        self.send_wrapped(&path, datagram, None);
    }

    /// Sends a challenge or an answer.
    pub(crate) fn send_probe(&mut self, id: PeerId, probe: &Outgoing) {
        let body = probe.message.encode(probe.padded_len);
        let header = InnerHeader::plain(InnerKind::Probe);
        let Some((len, datagram)) = self.seal(id, &header, &body) else {
            return;
        };
        self.note_sent(id, probe.path, len);
        let sealed = datagram.get(..len).unwrap_or_default();
        let sized = Sized {
            peer: id,
            path: probe.path,
            len,
        };
        self.send_wrapped(&probe.path, sealed, Some(Box::new(sized)));
    }

    fn send_wrapped(&mut self, path: &Path, datagram: &[u8], probe: Option<Box<Sized>>) {
        match on_wire(path, datagram, self.candidates.underlay.relay_keys()) {
            Ok(bytes) => self.outside.effects.push(Effect::Send(Datagram {
                to: path.remote,
                bytes,
                probe,
            })),
            Err(reason) => self.outside.drops.count(reason),
        }
    }

    /// A datagram was refused. A challenge that asks for more than the own interface takes is no drop: the agent
    /// is told, and asks for less.
    pub fn handle_unsent(&mut self, tick: Tick, reason: DropReason, probe: Option<&Sized>) {
        let Some(probe) = probe.filter(|_| reason == DropReason::DatagramTooLarge) else {
            return self.outside.drops.count(reason);
        };
        if let Some(peer) = self.peers.known.get_mut(&probe.peer) {
            peer.agent.handle_too_big(tick.now, probe.path, probe.len);
            self.touch_peer(probe.peer);
        }
    }

    /// Writes a frame of our own into the tap of `net`; a network without one hears nothing.
    pub(crate) fn write_tap(&mut self, net: NetIndex, frame: &[u8]) {
        let network = self.networks.all.get(usize::from(net.0));
        if network.is_some_and(|network| network.attached.is_some()) {
            self.outside.effects.push(Effect::Write(TapFrame {
                net,
                bytes: frame.to_vec(),
                from: None,
            }));
        }
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
