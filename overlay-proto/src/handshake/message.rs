//! The bytes of the two messages, outside and inside of Noise. Drawn in `docs/WIRE.md`.

use serde::{Deserialize, Serialize};

use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, PeerId};
use crate::membership::{MAX_CHAIN_BYTES, MAX_INVITE_NETWORKS, SignedStatic, hmac_sha256};
use crate::session::SharedNetwork;
use crate::wire::{DatagramKind, SAFE_DATAGRAM, Selector, SessionIndex};

/// The version of the whole wire format; also in the prologue.
pub const WIRE_VERSION: u8 = 1;
/// The longest certificate chain, in bytes (TRUST.md 11).
pub const MAX_CHAIN: usize = MAX_CHAIN_BYTES;
/// The longest signed x25519 static, in bytes.
pub const MAX_SIGNED_STATIC: usize = SignedStatic::MAX_BYTES;
/// Networks one handshake can agree on (TRUST.md 11).
pub const MAX_NETWORKS: usize = MAX_INVITE_NETWORKS;

/// Clear header of either message.
pub(super) const HEAD_LEN: usize = 16;
/// mac1 and mac2.
pub(super) const MACS_LEN: usize = 32;
pub(super) const MAC_LEN: usize = 16;
/// Message 1 has one length, so that message 2 is never larger than what was asked for.
pub const MESSAGE1_LEN: usize = SAFE_DATAGRAM;
/// Noise adds to message 1: ephemeral key, sealed static key, tag.
const NOISE1_OVERHEAD: usize = 32 + 48 + 16;
/// Noise adds to message 2: ephemeral key, tag.
const NOISE2_OVERHEAD: usize = 32 + 16;
pub(super) const PAYLOAD1_LEN: usize = MESSAGE1_LEN - HEAD_LEN - NOISE1_OVERHEAD - MACS_LEN;
const MIN_MESSAGE2_LEN: usize = HEAD_LEN + NOISE2_OVERHEAD + MACS_LEN;

/// The format of both payloads.
const PAYLOAD_VERSION: u8 = 1;
const TAG_LABEL: &[u8] = b"farlan/selector/1";

/// A message whose length, kind and version are right; nothing else is known about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) sender: SessionIndex,
    /// Message 1: the root version whose psk it uses. Message 2: the receiver's index.
    pub(super) second: u32,
    pub(super) noise: &'a [u8],
    /// All that mac1 covers.
    pub(super) covered: &'a [u8],
    pub(super) mac1: &'a [u8; MAC_LEN],
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(kind: DatagramKind, datagram: &'a [u8]) -> Result<Self, DropReason> {
        let lengths = match kind {
            DatagramKind::HandshakeInit => MESSAGE1_LEN..=MESSAGE1_LEN,
            _ => MIN_MESSAGE2_LEN..=MESSAGE1_LEN,
        };
        if !lengths.contains(&datagram.len()) {
            return Err(DropReason::MalformedDatagram);
        }
        let wrong = || DropReason::MalformedDatagram;
        let (covered, macs) = datagram
            .split_at_checked(datagram.len() - MACS_LEN)
            .ok_or_else(wrong)?;
        let (head, noise) = covered.split_first_chunk::<HEAD_LEN>().ok_or_else(wrong)?;
        let [
            k,
            version,
            z0,
            z1,
            s0,
            s1,
            s2,
            s3,
            t0,
            t1,
            t2,
            t3,
            zeros @ ..,
        ] = *head;
        if [k, version, z0, z1] != [kind.byte(), WIRE_VERSION, 0, 0] || zeros != [0; 4] {
            return Err(DropReason::MalformedDatagram);
        }
        Ok(Self {
            sender: SessionIndex(u32::from_be_bytes([s0, s1, s2, s3])),
            second: u32::from_be_bytes([t0, t1, t2, t3]),
            noise,
            covered,
            mac1: macs.first_chunk().ok_or_else(wrong)?,
        })
    }
}

/// Puts the clear header in front of a Noise message and the two macs behind it. mac2 is zero until
/// a responder under load has given a cookie ([`super::put_mac2`]).
pub(super) fn wrap(
    kind: DatagramKind,
    sender: SessionIndex,
    second: u32,
    noise: &[u8],
    mac1_key: &[u8; 32],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEAD_LEN + noise.len() + MACS_LEN);
    message.extend_from_slice(&[kind.byte(), WIRE_VERSION, 0, 0]);
    message.extend_from_slice(&sender.0.to_be_bytes());
    message.extend_from_slice(&second.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(noise);
    let mac1 = mac1(mac1_key, &message);
    message.extend_from_slice(&mac1);
    message.extend_from_slice(&[0; MAC_LEN]);
    message
}

pub(super) fn mac1(key: &[u8; 32], covered: &[u8]) -> [u8; MAC_LEN] {
    let mac = hmac_sha256(key, &[covered]);
    let mut out = [0; MAC_LEN];
    for (to, from) in out.iter_mut().zip(mac) {
        *to = from;
    }
    out
}

/// The highest numbers of signed lists that a node knows; who has the lower one pulls the list
/// over the control plane (TRUST.md 8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListNumbers {
    /// Root document version.
    pub root: u32,
    /// Revocation list number.
    pub revocation: u64,
}

/// A network offered to the peer: only who knows the network id can tell which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OfferedNetwork {
    pub(super) tag: [u8; 8],
    pub(super) selector: [u8; 4],
}

/// What both sides say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    /// The index of the clear header again, where the peer can trust it.
    pub(super) index: [u8; 4],
    pub(super) chain: Vec<u8>,
    pub(super) signed_static: Vec<u8>,
    pub(super) revocation: u64,
    pub(super) networks: Vec<OfferedNetwork>,
    pub(super) incarnation: [u8; 4],
}

/// The sealed part of message 1. The root number is in the clear header and bound by the psk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload1 {
    pub(super) version: u8,
    pub(super) timestamp: [u8; 8],
    pub(super) suites: Vec<u8>,
    pub(super) terms: Terms,
}

/// The sealed part of message 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload2 {
    pub(super) version: u8,
    pub(super) suite: u8,
    pub(super) root: u32,
    pub(super) terms: Terms,
}

impl Terms {
    fn check(&self) -> Result<(), DropReason> {
        let fits = self.chain.len() <= MAX_CHAIN
            && self.signed_static.len() <= MAX_SIGNED_STATIC
            && self.networks.len() <= MAX_NETWORKS;
        fits.then_some(()).ok_or(DropReason::HandshakeInvalid)
    }
}

impl Payload1 {
    pub(super) fn new(timestamp: u64, suites: Vec<u8>, terms: Terms) -> Self {
        Self {
            version: PAYLOAD_VERSION,
            timestamp: timestamp.to_be_bytes(),
            suites,
            terms,
        }
    }

    /// Padded with zeros to the one length of message 1.
    pub(super) fn encode(&self) -> Result<Vec<u8>, DropReason> {
        self.terms.check()?;
        let mut bytes = encode(self)?;
        bytes.resize(PAYLOAD1_LEN, 0);
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DropReason> {
        let (payload, padding): (Self, _) = decode(bytes)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(DropReason::HandshakeInvalid);
        }
        payload.terms.check()?;
        Ok(payload)
    }
}

impl Payload2 {
    pub(super) fn new(suite: u8, root: u32, terms: Terms) -> Self {
        Self {
            version: PAYLOAD_VERSION,
            suite,
            root,
            terms,
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, DropReason> {
        self.terms.check()?;
        encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DropReason> {
        let (payload, rest): (Self, _) = decode(bytes)?;
        if !rest.is_empty() {
            return Err(DropReason::HandshakeInvalid);
        }
        payload.terms.check()?;
        Ok(payload)
    }
}

fn encode<T: Serialize>(payload: &T) -> Result<Vec<u8>, DropReason> {
    let bytes = postcard::to_stdvec(payload).map_err(|_| DropReason::HandshakeInvalid)?;
    if bytes.len() > PAYLOAD1_LEN {
        return Err(DropReason::HandshakeInvalid);
    }
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), DropReason> {
    if bytes.first() != Some(&PAYLOAD_VERSION) {
        return Err(DropReason::HandshakeInvalid);
    }
    postcard::take_from_bytes(bytes).map_err(|_| DropReason::HandshakeInvalid)
}

/// Our networks with the selectors under which we want to receive their frames in one session.
#[derive(Debug, Clone)]
pub(super) struct Offer(pub(super) Vec<(NetworkId, Selector)>);

impl Offer {
    /// Consecutive selectors from a random start, never 0, which the wire keeps for "no network".
    pub(super) fn new(networks: &[NetworkId], start: u32) -> Self {
        let room = u32::MAX - MAX_NETWORKS as u32 - 1;
        let first = start % room + 1;
        let selectors = (first..).map(Selector);
        Self(
            networks
                .iter()
                .copied()
                .take(MAX_NETWORKS)
                .zip(selectors)
                .collect(),
        )
    }

    pub(super) fn to_wire(&self, initiator: PeerId, responder: PeerId) -> Vec<OfferedNetwork> {
        self.0
            .iter()
            .map(|&(network, selector)| OfferedNetwork {
                tag: network_tag(network, initiator, responder),
                selector: selector.0.to_be_bytes(),
            })
            .collect()
    }

    /// The networks that both sides offer and `admitted`, the peer's chain, allows.
    pub(super) fn shared(
        &self,
        theirs: &[OfferedNetwork],
        admitted: &[NetworkId],
        initiator: PeerId,
        responder: PeerId,
    ) -> Vec<SharedNetwork> {
        self.0
            .iter()
            .filter(|(network, _)| admitted.contains(network))
            .filter_map(|&(network, receive)| {
                let tag = network_tag(network, initiator, responder);
                let offered = theirs.iter().find(|offered| offered.tag == tag)?;
                Some(SharedNetwork {
                    network,
                    send: Selector(u32::from_be_bytes(offered.selector)),
                    receive,
                })
            })
            .collect()
    }

    pub(super) fn retain(&mut self, shared: &[SharedNetwork]) {
        self.0
            .retain(|(network, _)| shared.iter().any(|one| one.network == *network));
    }
}

/// Names a network to a peer that knows its id, and differently for each pair and direction.
fn network_tag(network: NetworkId, initiator: PeerId, responder: PeerId) -> [u8; 8] {
    let mac = hmac_sha256(&network.0, &[TAG_LABEL, &initiator.0, &responder.0]);
    let mut tag = [0; 8];
    for (to, from) in tag.iter_mut().zip(mac) {
        *to = from;
    }
    tag
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn largest_terms() -> Terms {
        Terms {
            index: [0xff; 4],
            chain: vec![1; MAX_CHAIN],
            signed_static: vec![2; MAX_SIGNED_STATIC],
            revocation: u64::MAX,
            networks: vec![
                OfferedNetwork {
                    tag: [3; 8],
                    selector: [4; 4],
                };
                MAX_NETWORKS
            ],
            incarnation: [0xff; 4],
        }
    }

    #[test]
    fn the_largest_payloads_fit() {
        let first = Payload1::new(u64::MAX, vec![1, 2], largest_terms());
        let bytes = first.encode().unwrap();
        assert_eq!(bytes.len(), PAYLOAD1_LEN);
        assert_eq!(Payload1::decode(&bytes).unwrap(), first);
        let second = Payload2::new(1, u32::MAX, largest_terms());
        let bytes = second.encode().unwrap();
        let message2 = HEAD_LEN + NOISE2_OVERHEAD + bytes.len() + MACS_LEN;
        assert!(message2 <= MESSAGE1_LEN, "{message2}");
        assert_eq!(Payload2::decode(&bytes).unwrap(), second);
    }

    #[test]
    fn what_is_too_long_or_trails_is_refused() {
        let mut terms = largest_terms();
        terms.chain.push(1);
        assert!(Payload1::new(1, vec![1], terms).encode().is_err());
        let mut bytes = Payload1::new(1, vec![1], largest_terms()).encode().unwrap();
        *bytes.last_mut().unwrap() = 1;
        assert!(Payload1::decode(&bytes).is_err());
        let mut bytes = Payload2::new(1, 1, largest_terms()).encode().unwrap();
        bytes.push(0);
        assert!(Payload2::decode(&bytes).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let _ = Envelope::parse(DatagramKind::HandshakeInit, &bytes);
            let _ = Envelope::parse(DatagramKind::HandshakeResponse, &bytes);
            if let Some(first) = bytes.first_mut() {
                *first = PAYLOAD_VERSION;
            }
            let _ = Payload1::decode(&bytes);
            let _ = Payload2::decode(&bytes);
        }

        #[test]
        fn selectors_are_never_zero_and_differ(start in any::<u32>()) {
            let networks = [NetworkId([1; 32]), NetworkId([2; 32])];
            let offer = Offer::new(&networks, start);
            prop_assert_ne!(offer.0[0].1, offer.0[1].1);
            prop_assert_ne!(offer.0[0].1.0, 0);
            prop_assert_ne!(offer.0[1].1.0, 0);
        }
    }
}
