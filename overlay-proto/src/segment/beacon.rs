//! The beacon: what a node writes into each attached bridge, and hears from others on the same LAN.
//!
//! ```text
//! Ethernet: to ff:ff:ff:ff:ff:ff, from 02 and the first five bytes of the sender's id, perhaps a VLAN tag,
//!           ethertype 0x88b6 (the second of IEEE's for local experiments)
//!
//!  0        4           5       6         7     8        10    12        28
//! | "FLsb" | version 1 | flags | echoes n | 0   | vlan 2 | 0 2 | id 16   |
//! | run 8  | counter 8 | challenge 8 | n times: id 16, challenge 8 | tag 16 |
//! ```
//! Numbers are big-endian. Flags: 1 forwards, 2 connected, 4 leaving; unknown ones are ignored. The id is
//! HMAC(network id, `PeerId`), cut, so that only members know whose it is. The tag is HMAC-SHA-256 under a
//! key that is derived from the epoch key, cut to 16 bytes, over all before it: no guest can make one.
//! What follows the tag is padding.
//!
//! A *teaching* frame has the same ethertype and says "FLtm". It has the source address of a MAC beyond the
//! overlay, so that switches learn the way to it, and nothing else in it counts.

use subtle::ConstantTimeEq;

use crate::ethernet::{EthernetFrame, MacAddr, VlanId, build_frame};
use crate::ids::{NetworkId, PeerId};
use crate::membership::{derive, hmac_sha256};

/// The ethertype of beacons: IEEE 802's "local experimental ethertype 2".
pub const BEACON_ETHERTYPE: u16 = 0x88b6;

/// Nodes that one beacon can name as heard; more on one LAN are not expected, and wait their turn.
pub const MAX_ECHOES: usize = 32;

const MAGIC: [u8; 4] = *b"FLsb";
const TEACHING: [u8; 4] = *b"FLtm";
const VERSION: u8 = 1;
const FORWARDS: u8 = 1;
const CONNECTED: u8 = 2;
const LEAVING: u8 = 4;
const FIXED_LEN: usize = 52;
const ECHO_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// The shortest payload of an Ethernet frame.
const MIN_PAYLOAD: usize = 46;

/// A node's name on a LAN: HMAC(network id, `PeerId`), cut to 16 bytes. It does not change with epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub [u8; 16]);

impl SegmentId {
    /// The name of `peer` in the beacons of `network`.
    #[must_use]
    pub fn of(network: &NetworkId, peer: PeerId) -> Self {
        Self(short(hmac_sha256(&network.0, &[b"segment", &peer.0])))
    }

    /// The source address of this node's beacons.
    #[must_use]
    pub const fn mac(&self) -> MacAddr {
        let [a, b, c, d, e, ..] = self.0;
        MacAddr([0x02, a, b, c, d, e])
    }
}

/// The key of the tags in one epoch of one network.
#[derive(Clone, PartialEq, Eq)]
pub struct BeaconKey([u8; 32]);

impl BeaconKey {
    /// From the network's epoch key.
    #[must_use]
    pub fn of(epoch_key: &[u8; 32]) -> Self {
        Self(derive(epoch_key, "farlan/segment-beacon/1", &[]))
    }

    /// The tag of what stands in front of it.
    #[must_use]
    pub fn tag(&self, said: &[u8]) -> [u8; TAG_LEN] {
        short(hmac_sha256(&self.0, &[said]))
    }
}

impl std::fmt::Debug for BeaconKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeaconKey(..)")
    }
}

/// What a beacon repeats of another node's: whoever reads its own challenge knows that the sender heard it
/// lately, and that the beacon is no recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Who was heard.
    pub id: SegmentId,
    /// Its challenge.
    pub challenge: u64,
}

/// One beacon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// The VLAN it was sent in.
    pub vlan: VlanId,
    /// Who sent it.
    pub id: SegmentId,
    /// Random for each run of the sender's process.
    pub run: u64,
    /// Grows with each beacon of a run.
    pub counter: u64,
    /// To be repeated by whoever hears it.
    pub challenge: u64,
    /// The sender carries frames between this VLAN of the LAN and the overlay.
    pub forwards: bool,
    /// The sender has a session with another member of the network.
    pub connected: bool,
    /// The sender's last beacon.
    pub leaving: bool,
    /// Whom the sender has heard in this VLAN.
    pub echoes: Vec<Echo>,
}

/// Why a frame is no beacon of this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeaconError {
    /// It says something else than the frame around it: it was sent in another VLAN.
    #[error("the beacon is not of this VLAN")]
    Malformed,
    /// Of another network, overlay or version, forged, or no beacon at all.
    #[error("no beacon of this network")]
    Foreign,
}

impl Beacon {
    /// The frame that says this.
    #[must_use]
    pub fn to_frame(&self, key: &BeaconKey) -> Vec<u8> {
        let echoes = self.echoes.iter().take(MAX_ECHOES);
        let flags = [
            (self.forwards, FORWARDS),
            (self.connected, CONNECTED),
            (self.leaving, LEAVING),
        ];
        let flags = flags
            .iter()
            .fold(0, |all, (set, flag)| all | if *set { *flag } else { 0 });
        // Not more than MAX_ECHOES.
        let count = u8::try_from(echoes.len()).unwrap_or(0);
        let mut payload = Vec::with_capacity(FIXED_LEN + echoes.len() * ECHO_LEN + TAG_LEN);
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&[VERSION, flags, count, 0]);
        payload.extend_from_slice(&self.vlan.get().to_be_bytes());
        payload.extend_from_slice(&[0, 0]);
        payload.extend_from_slice(&self.id.0);
        for number in [self.run, self.counter, self.challenge] {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        for echo in echoes {
            payload.extend_from_slice(&echo.id.0);
            payload.extend_from_slice(&echo.challenge.to_be_bytes());
        }
        let tag = key.tag(&payload);
        payload.extend_from_slice(&tag);
        build_frame(
            MacAddr::BROADCAST,
            self.id.mac(),
            self.vlan,
            BEACON_ETHERTYPE,
            &payload,
        )
    }

    /// Reads a frame with [`BEACON_ETHERTYPE`]. `keys`: of the epochs that count.
    ///
    /// # Errors
    /// [`BeaconError`].
    pub fn parse(frame: &EthernetFrame<'_>, keys: &[BeaconKey]) -> Result<Self, BeaconError> {
        let bytes = frame.payload();
        let (header, rest) = bytes
            .split_first_chunk::<FIXED_LEN>()
            .ok_or(BeaconError::Foreign)?;
        let [
            m0,
            m1,
            m2,
            m3,
            version,
            flags,
            count,
            _,
            v0,
            v1,
            _,
            _,
            body @ ..,
        ] = header;
        let count = usize::from(*count);
        if [*m0, *m1, *m2, *m3] != MAGIC || *version != VERSION || count > MAX_ECHOES {
            return Err(BeaconError::Foreign);
        }
        let covered = FIXED_LEN + count * ECHO_LEN;
        let (said, tag_and_padding) = bytes
            .split_at_checked(covered)
            .ok_or(BeaconError::Foreign)?;
        let (given, _) = tag_and_padding
            .split_first_chunk::<TAG_LEN>()
            .ok_or(BeaconError::Foreign)?;
        if !keys
            .iter()
            .any(|key| bool::from(key.tag(said).ct_eq(given)))
        {
            return Err(BeaconError::Foreign);
        }
        let (id, numbers) = body
            .split_first_chunk::<16>()
            .ok_or(BeaconError::Malformed)?;
        let vlan = VlanId::new(u16::from_be_bytes([*v0, *v1])).ok_or(BeaconError::Malformed)?;
        if vlan != frame.vlan() {
            return Err(BeaconError::Malformed);
        }
        let (run, counter, challenge) = numbers_of(numbers).ok_or(BeaconError::Malformed)?;
        let echoes = rest.chunks_exact(ECHO_LEN).take(count);
        let echoes = echoes.map(echo_of).collect::<Option<Vec<Echo>>>();
        Ok(Self {
            vlan,
            id: SegmentId(*id),
            run,
            counter,
            challenge,
            forwards: flags & FORWARDS != 0,
            connected: flags & CONNECTED != 0,
            leaving: flags & LEAVING != 0,
            echoes: echoes.ok_or(BeaconError::Malformed)?,
        })
    }
}

/// A frame by which switches learn the way to `mac`.
#[must_use]
pub fn teaching_frame(mac: MacAddr, vlan: VlanId) -> Vec<u8> {
    let mut payload = [0; MIN_PAYLOAD];
    for (byte, letter) in payload.iter_mut().zip(TEACHING) {
        *byte = letter;
    }
    build_frame(MacAddr::BROADCAST, mac, vlan, BEACON_ETHERTYPE, &payload)
}

/// Does it look like a beacon or a teaching frame? Others use this ethertype, too.
#[must_use]
pub fn is_for_nodes(frame: &EthernetFrame<'_>) -> bool {
    let payload = frame.payload();
    frame.ethertype() == BEACON_ETHERTYPE
        && (payload.starts_with(&MAGIC) || payload.starts_with(&TEACHING))
}

/// Is it a frame that only teaches switches?
#[must_use]
pub fn is_teaching(frame: &EthernetFrame<'_>) -> bool {
    frame.ethertype() == BEACON_ETHERTYPE && frame.payload().starts_with(&TEACHING)
}

fn short(hash: [u8; 32]) -> [u8; 16] {
    let (short, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *short
}

fn numbers_of(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let (run, rest) = bytes.split_first_chunk()?;
    let (counter, rest) = rest.split_first_chunk()?;
    let (challenge, _) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes;
    Some((number(*run), number(*counter), number(*challenge)))
}

fn echo_of(bytes: &[u8]) -> Option<Echo> {
    let (id, challenge) = bytes.split_first_chunk()?;
    let (challenge, _) = challenge.split_first_chunk()?;
    Some(Echo {
        id: SegmentId(*id),
        challenge: u64::from_be_bytes(*challenge),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beacon(echoes: usize) -> Beacon {
        Beacon {
            vlan: VlanId::new(7).unwrap(),
            id: SegmentId::of(&NetworkId([1; 32]), PeerId([2; 32])),
            run: 3,
            counter: u64::MAX,
            challenge: 5,
            forwards: true,
            connected: false,
            leaving: true,
            echoes: (0..echoes)
                .map(|n| Echo {
                    id: SegmentId([u8::try_from(n).unwrap(); 16]),
                    challenge: n as u64,
                })
                .collect(),
        }
    }

    fn key(n: u8) -> BeaconKey {
        BeaconKey::of(&[n; 32])
    }

    fn parse(bytes: &[u8], keys: &[BeaconKey]) -> Result<Beacon, BeaconError> {
        Beacon::parse(&EthernetFrame::parse(bytes).unwrap(), keys)
    }

    #[test]
    fn what_is_written_is_read() {
        for echoes in [0, 1, MAX_ECHOES] {
            let said = beacon(echoes);
            let frame = said.to_frame(&key(1));
            assert_eq!(parse(&frame, &[key(2), key(1)]), Ok(said.clone()));
            let padded = [&frame[..], &[0; 9]].concat();
            assert_eq!(parse(&padded, &[key(1)]), Ok(said));
        }
        let all = beacon(MAX_ECHOES + 1).to_frame(&key(1));
        assert_eq!(parse(&all, &[key(1)]).unwrap().echoes.len(), MAX_ECHOES);
    }

    #[test]
    fn nobody_without_the_key_makes_one() {
        let frame = beacon(2).to_frame(&key(1));
        assert_eq!(parse(&frame, &[key(2)]), Err(BeaconError::Foreign));
        assert_eq!(parse(&frame, &[]), Err(BeaconError::Foreign));
        for at in 18..frame.len() {
            let mut forged = frame.clone();
            forged[at] ^= 1;
            assert!(parse(&forged, &[key(1)]).is_err(), "byte {at}");
        }
        let mut elsewhere = frame;
        elsewhere[15] = 8;
        assert_eq!(
            parse(&elsewhere, &[key(1)]),
            Err(BeaconError::Malformed),
            "another VLAN"
        );
    }

    #[test]
    fn a_teaching_frame_is_no_beacon() {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
        let bytes = teaching_frame(mac, VlanId::UNTAGGED);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert!(is_teaching(&frame) && is_for_nodes(&frame) && frame.src() == mac);
        assert!(Beacon::parse(&frame, &[key(1)]).is_err());
        let beacon = beacon(0).to_frame(&key(1));
        assert!(!is_teaching(&EthernetFrame::parse(&beacon).unwrap()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_harm(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mac = MacAddr([2, 0, 0, 0, 0, 1]);
            let frame = build_frame(MacAddr::BROADCAST, mac, VlanId::UNTAGGED, BEACON_ETHERTYPE, &payload);
            prop_assert!(!is_for_nodes(&EthernetFrame::parse(&frame).unwrap()));
            prop_assert!(parse(&frame, &[key(1)]).is_err());
        }
    }
}
