//! The four relay datagrams. Numbers are big-endian.
//!
//! ```text
//! 0      1          4                  12                20        28
//! | 0x07 | 0  0  0  | from allocation  | to allocation   | MAC     | payload ...    relayed
//! 0      1          4                  12                20           28                40    48
//! | 0x08 | 0  0  0  | allocation       | counter         | echo or 0  | zeros           | MAC |  bind
//! | 0x0a | 0  0  0  | allocation       | counter         | observed address (20)        | MAC |  ack
//! | 0x09 | 0  0  0  | allocation       | challenge       | MAC (ends at 28)                   |  challenge
//! ```
//! MAC: SipHash-2-4 over all other bytes in their order; of a relayed datagram over its header, its
//! length as 8 bytes, and the first 64 bytes of its payload. A relayed datagram has it under the
//! sender's key on the way to the relay and under the receiver's key on the way from it, so that a
//! datagram sent back to where it came from fits no key. No answer is larger than what it answers.
//!
//! The rest of a payload needs no second MAC: it is sealed end to end. The relay's says who sends,
//! which a header says that nobody else can make; over all bytes it would cost more than all else
//! that is done to a relayed datagram.

use std::hash::Hasher;
use std::net::SocketAddr;
use std::ops::Range;

use siphasher::sip::SipHasher24;

use super::{RelayError, RelayKey};
use crate::path::{AllocationId, RelayRoute};
use crate::wire_bytes::{array, decode_addr, encode_addr, put, u64_at};

/// First byte of a relayed datagram.
pub const KIND_RELAYED: u8 = 0x07;
/// First byte of a bind.
pub const KIND_BIND: u8 = 0x08;
/// First byte of a challenge.
pub const KIND_CHALLENGE: u8 = 0x09;
/// First byte of an ack.
pub const KIND_ACK: u8 = 0x0a;

/// Bytes before the payload of a relayed datagram.
pub const HEADER_LEN: usize = 28;
/// Bytes of a bind.
pub const BIND_LEN: usize = 48;
/// Bytes of a challenge.
pub const CHALLENGE_LEN: usize = 28;
/// Bytes of an ack.
pub const ACK_LEN: usize = 48;

const MAC_LEN: usize = 8;
/// Where the MAC of a relayed datagram is.
const RELAYED_MAC: usize = HEADER_LEN - MAC_LEN;
/// Bytes of a relayed payload that the MAC covers: the whole sealed header and more.
const COVERED: usize = 64;

/// Asks the relay to send what is for `allocation` to where this comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// The sender's allocation.
    pub allocation: AllocationId,
    /// Grows with each bind under one key.
    pub counter: u64,
    /// The challenge that is answered, or 0.
    pub echo: u64,
}

/// Asks the sender of a bind to show that it receives at that address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// The receiver's allocation.
    pub allocation: AllocationId,
    /// Random, never 0.
    pub challenge: u64,
}

/// The allocation is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The receiver's allocation.
    pub allocation: AllocationId,
    /// The counter of the bind that is answered.
    pub counter: u64,
    /// The address that it is bound to.
    pub observed: SocketAddr,
}

/// Whether a payload that starts with `first` may ride in a relayed datagram: handshakes and
/// sealed datagrams may, relay and reflector messages and QUIC may not.
#[must_use]
pub const fn may_be_relayed(first: u8) -> bool {
    first < 0x40 && !matches!(first, 0x05..=KIND_ACK)
}

/// Writes `payload` as a relayed datagram into `out` and gives its length.
///
/// # Errors
///
/// [`RelayError::Payload`] when the payload may not be relayed, [`RelayError::Malformed`] when
/// `out` is too short.
pub fn wrap(
    route: RelayRoute,
    key: &RelayKey,
    payload: &[u8],
    out: &mut [u8],
) -> Result<usize, RelayError> {
    let len = HEADER_LEN + payload.len();
    let datagram = out.get_mut(..len).ok_or(RelayError::Malformed)?;
    put(datagram, HEADER_LEN, payload);
    wrap_in_place(route, key, datagram)?;
    Ok(len)
}

/// Writes the header before a payload that already lies at [`HEADER_LEN`] and fills the rest of
/// `datagram`. The caller's sealing writes there, so nothing is copied.
///
/// # Errors
///
/// [`RelayError::Malformed`] when `datagram` has no payload, [`RelayError::Payload`] when the
/// payload may not be relayed.
pub fn wrap_in_place(
    route: RelayRoute,
    key: &RelayKey,
    datagram: &mut [u8],
) -> Result<(), RelayError> {
    let first = datagram.get(HEADER_LEN).ok_or(RelayError::Malformed)?;
    if !may_be_relayed(*first) {
        return Err(RelayError::Payload);
    }
    put(datagram, 0, &[KIND_RELAYED, 0, 0, 0]);
    put(datagram, 4, &route.own.0.to_be_bytes());
    put(datagram, 12, &route.peer.0.to_be_bytes());
    re_mac(datagram, key);
    Ok(())
}

/// The allocations of a relayed datagram as its receiver sees them: `own` is the one it goes to,
/// `peer` the one it comes from. Nothing is authenticated yet.
///
/// # Errors
///
/// [`RelayError::Malformed`], or [`RelayError::Payload`] for a nested relay datagram.
pub fn route_of(datagram: &[u8]) -> Result<RelayRoute, RelayError> {
    let first = datagram.get(HEADER_LEN).ok_or(RelayError::Malformed)?;
    if array(datagram, 0) != Some([KIND_RELAYED, 0, 0, 0]) {
        return Err(RelayError::Malformed);
    }
    if !may_be_relayed(*first) {
        return Err(RelayError::Payload);
    }
    let from = u64_at(datagram, 4).ok_or(RelayError::Malformed)?;
    let to = u64_at(datagram, 12).ok_or(RelayError::Malformed)?;
    Ok(RelayRoute {
        own: AllocationId(to),
        peer: AllocationId(from),
    })
}

/// Checks a relayed datagram that came from the relay. `key` is that of the allocation it goes to
/// ([`route_of`] says which). Gives the route and where the payload is.
///
/// # Errors
///
/// Those of [`route_of`], and [`RelayError::BadMac`].
pub fn unwrap(datagram: &[u8], key: &RelayKey) -> Result<(RelayRoute, Range<usize>), RelayError> {
    let route = route_of(datagram)?;
    check_relayed(datagram, key)?;
    Ok((route, HEADER_LEN..datagram.len()))
}

/// The allocation that a bind, challenge or ack names, to find its key. Nothing is authenticated.
#[must_use]
pub fn allocation_of(datagram: &[u8]) -> Option<AllocationId> {
    u64_at(datagram, 4).map(AllocationId)
}

/// Checks the MAC of a relayed datagram of at least [`HEADER_LEN`] bytes.
pub(super) fn check_relayed(datagram: &[u8], key: &RelayKey) -> Result<(), RelayError> {
    let mac = u64_at(datagram, RELAYED_MAC).ok_or(RelayError::Malformed)?;
    same(mac, relayed_mac(datagram, key))
}

/// Writes the MAC of a relayed datagram under `key`.
pub(super) fn re_mac(datagram: &mut [u8], key: &RelayKey) {
    let mac = relayed_mac(datagram, key);
    put(datagram, RELAYED_MAC, &mac.to_be_bytes());
}

fn relayed_mac(datagram: &[u8], key: &RelayKey) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(datagram.get(..RELAYED_MAC).unwrap_or_default());
    hasher.write(&(datagram.len() as u64).to_be_bytes());
    let payload = datagram.get(HEADER_LEN..).unwrap_or_default();
    hasher.write(payload.get(..COVERED).unwrap_or(payload));
    hasher.finish()
}

/// One comparison of whole words: no byte-by-byte timing.
const fn same(mac: u64, expected: u64) -> Result<(), RelayError> {
    if mac ^ expected == 0 {
        Ok(())
    } else {
        Err(RelayError::BadMac)
    }
}

/// Starts a control datagram.
fn control<const N: usize>(kind: u8, allocation: AllocationId, number: u64) -> [u8; N] {
    let mut bytes = [0; N];
    put(&mut bytes, 0, &[kind]);
    put(&mut bytes, 4, &allocation.0.to_be_bytes());
    put(&mut bytes, 12, &number.to_be_bytes());
    bytes
}

/// Puts the MAC at the end of a control datagram.
fn seal<const N: usize>(mut bytes: [u8; N], key: &RelayKey) -> [u8; N] {
    let at = N - MAC_LEN;
    let mac = SipHasher24::new_with_key(&key.0).hash(bytes.get(..at).unwrap_or_default());
    put(&mut bytes, at, &mac.to_be_bytes());
    bytes
}

/// Checks length, kind and MAC of a control datagram; gives allocation and number.
fn open<const N: usize>(
    bytes: &[u8],
    kind: u8,
    key: &RelayKey,
) -> Result<(AllocationId, u64), RelayError> {
    if bytes.len() != N || array(bytes, 0) != Some([kind, 0, 0, 0]) {
        return Err(RelayError::Malformed);
    }
    let at = N - MAC_LEN;
    let mac = u64_at(bytes, at).ok_or(RelayError::Malformed)?;
    let expected = SipHasher24::new_with_key(&key.0).hash(bytes.get(..at).unwrap_or_default());
    same(mac, expected)?;
    match (u64_at(bytes, 4), u64_at(bytes, 12)) {
        (Some(allocation), Some(number)) => Ok((AllocationId(allocation), number)),
        _ => Err(RelayError::Malformed),
    }
}

impl Bind {
    /// The datagram.
    #[must_use]
    pub fn encode(&self, key: &RelayKey) -> [u8; BIND_LEN] {
        let mut bytes = control::<BIND_LEN>(KIND_BIND, self.allocation, self.counter);
        put(&mut bytes, 20, &self.echo.to_be_bytes());
        seal(bytes, key)
    }

    /// Checks and reads a datagram.
    ///
    /// # Errors
    ///
    /// [`RelayError::Malformed`] or [`RelayError::BadMac`].
    pub fn decode(bytes: &[u8], key: &RelayKey) -> Result<Self, RelayError> {
        let (allocation, counter) = open::<BIND_LEN>(bytes, KIND_BIND, key)?;
        if array(bytes, 28) != Some([0u8; 12]) {
            return Err(RelayError::Malformed);
        }
        let echo = u64_at(bytes, 20).ok_or(RelayError::Malformed)?;
        Ok(Self {
            allocation,
            counter,
            echo,
        })
    }
}

impl Challenge {
    /// The datagram.
    #[must_use]
    pub fn encode(&self, key: &RelayKey) -> [u8; CHALLENGE_LEN] {
        seal(
            control(KIND_CHALLENGE, self.allocation, self.challenge),
            key,
        )
    }

    /// Checks and reads a datagram.
    ///
    /// # Errors
    ///
    /// [`RelayError::Malformed`] or [`RelayError::BadMac`].
    pub fn decode(bytes: &[u8], key: &RelayKey) -> Result<Self, RelayError> {
        let (allocation, challenge) = open::<CHALLENGE_LEN>(bytes, KIND_CHALLENGE, key)?;
        Ok(Self {
            allocation,
            challenge,
        })
    }
}

impl Ack {
    /// The datagram.
    #[must_use]
    pub fn encode(&self, key: &RelayKey) -> [u8; ACK_LEN] {
        let mut bytes = control::<ACK_LEN>(KIND_ACK, self.allocation, self.counter);
        put(&mut bytes, 20, &encode_addr(self.observed));
        seal(bytes, key)
    }

    /// Checks and reads a datagram.
    ///
    /// # Errors
    ///
    /// [`RelayError::Malformed`] or [`RelayError::BadMac`].
    pub fn decode(bytes: &[u8], key: &RelayKey) -> Result<Self, RelayError> {
        let (allocation, counter) = open::<ACK_LEN>(bytes, KIND_ACK, key)?;
        let addr = array(bytes, 20).and_then(|addr| decode_addr(&addr));
        Ok(Self {
            allocation,
            counter,
            observed: addr.ok_or(RelayError::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire_bytes::canonical;

    const KEY: RelayKey = RelayKey([3; 16]);

    proptest! {
        #[test]
        fn relayed_round_trip(
            own in any::<u64>(),
            peer in any::<u64>(),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
            flip in any::<usize>(),
        ) {
            let mut payload = vec![0x04];
            payload.extend(rest);
            let route = RelayRoute { own: AllocationId(own), peer: AllocationId(peer) };
            let mut out = [0; 300];
            let len = wrap(route, &KEY, &payload, &mut out).unwrap();
            let (seen, range) = unwrap(&out[..len], &KEY).unwrap();
            prop_assert_eq!((seen.own, seen.peer), (route.peer, route.own));
            prop_assert_eq!(&out[range], &payload[..]);

            out[flip % len.min(HEADER_LEN + COVERED)] ^= 1;
            prop_assert!(unwrap(&out[..len], &KEY).is_err());
            out[flip % len.min(HEADER_LEN + COVERED)] ^= 1;
            prop_assert_eq!(unwrap(&out[..len + 1], &KEY), Err(RelayError::BadMac), "longer");
            if len > HEADER_LEN + 1 {
                prop_assert_eq!(unwrap(&out[..len - 1], &KEY), Err(RelayError::BadMac), "shorter");
            }
        }

        #[test]
        fn control_round_trip(id in any::<u64>(), number in any::<u64>(), echo in any::<u64>(), addr in any::<SocketAddr>()) {
            let allocation = AllocationId(id);
            let bind = Bind { allocation, counter: number, echo };
            prop_assert_eq!(Bind::decode(&bind.encode(&KEY), &KEY), Ok(bind));
            let challenge = Challenge { allocation, challenge: number };
            prop_assert_eq!(Challenge::decode(&challenge.encode(&KEY), &KEY), Ok(challenge));
            let ack = Ack { allocation, counter: number, observed: canonical(addr) };
            prop_assert_eq!(Ack::decode(&ack.encode(&KEY), &KEY), Ok(ack));
            let other = RelayKey([4; 16]);
            prop_assert_eq!(Bind::decode(&bind.encode(&KEY), &other), Err(RelayError::BadMac));
        }

        #[test]
        fn no_bytes_panic(kind in 0x07u8..0x0b, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            let _ = route_of(&bytes);
            let _ = unwrap(&bytes, &KEY);
            let _ = Bind::decode(&bytes, &KEY);
            let _ = Challenge::decode(&bytes, &KEY);
            let _ = Ack::decode(&bytes, &KEY);
        }
    }

    #[test]
    fn trust_18_relays_do_not_nest() {
        let route = RelayRoute {
            own: AllocationId(1),
            peer: AllocationId(2),
        };
        for kind in KIND_RELAYED..=KIND_ACK {
            let wrapped = wrap(route, &KEY, &[kind, 0, 0, 0], &mut [0; 64]);
            assert_eq!(wrapped, Err(RelayError::Payload));
        }
        assert_eq!(
            wrap(route, &KEY, &[], &mut [0; 64]),
            Err(RelayError::Malformed)
        );
    }
}
