//! Datagrams of our own on their way out: a relayed one is wrapped for its relay.

use nat_traversal::path::Path;
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;

use super::effects::{Datagram, Effect, Sized};
use super::outside::Outside;
use crate::underlay::RelayKeys;

impl Outside {
    /// Sends a datagram as it is on `path`. `keys`: those of our own allocations.
    pub(crate) fn send_on(&mut self, keys: &RelayKeys, path: &Path, datagram: &[u8]) {
        self.send_sized(keys, path, datagram, None);
    }

    /// As [`Outside::send_on`]; with `sized` it is a challenge that may be too large for the own interface.
    pub(crate) fn send_sized(
        &mut self,
        keys: &RelayKeys,
        path: &Path,
        datagram: &[u8],
        sized: Option<Box<Sized>>,
    ) {
        match on_wire(path, datagram, keys) {
            Ok(bytes) => self.effects.push(Effect::Send(Datagram {
                to: path.remote,
                bytes,
                probe: sized,
            })),
            Err(reason) => self.drops.count(reason),
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
