//! What nodes on one LAN say to each other.

use overlay_proto::ethernet::{EthernetFrame, MacAddr, VlanId, build_frame};
use overlay_proto::segment::{BEACON_ETHERTYPE, Beacon, BeaconKey, Echo, SegmentId};

use crate::{Seen, Target};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Of the part in front of the nodes that were heard, and of one of these.
const FIXED_LEN: usize = 52;
const ECHO_LEN: usize = 24;
/// Of destination, source and ethertype, and of the tag at the end.
const HEADER_LEN: usize = 14;
const TAG_LEN: usize = 16;

pub(super) fn all() -> Vec<Target> {
    vec![Target {
        name: "segment_beacon",
        run: beacon,
        seeds: || [0, 2].map(some_beacon).to_vec(),
        speed: 100,
    }]
}

fn key() -> BeaconKey {
    BeaconKey::of(&[3; 32])
}

/// The payload of one, without its tag.
fn some_beacon(echoes: u64) -> Vec<u8> {
    let echo = |challenge| Echo {
        id: SegmentId([5; 16]),
        challenge,
    };
    let beacon = Beacon {
        vlan: VlanId::UNTAGGED,
        id: SegmentId([4; 16]),
        run: 1,
        counter: 2,
        challenge: 3,
        forwards: true,
        connected: true,
        leaving: false,
        echoes: (0..echoes).map(echo).collect(),
    };
    let frame = beacon.to_frame(&key());
    frame[HEADER_LEN..frame.len() - TAG_LEN].to_vec()
}

fn beacon(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let wanted = FIXED_LEN + ECHO_LEN * bytes.get(6).map_or(0, |count| usize::from(*count));
    let said = &bytes[..bytes.len().min(wanted)];
    let payload = [said, &key().tag(said)].concat();
    let parse = |payload: &[u8]| {
        let frame = build_frame(
            MacAddr::BROADCAST,
            MAC,
            VlanId::UNTAGGED,
            BEACON_ETHERTYPE,
            payload,
        );
        Beacon::parse(&EthernetFrame::parse(&frame).unwrap(), &[key()])
    };
    let read = parse(&payload);
    seen.result(&read);
    if let Ok(read) = read {
        seen.note(&(
            read.echoes.len(),
            read.forwards,
            read.connected,
            read.leaving,
        ));
        let written = read.to_frame(&key());
        assert_eq!(parse(&written[HEADER_LEN..]), Ok(read));
    }
    assert!(parse(bytes).is_err(), "nobody without the key");
    seen.number()
}
