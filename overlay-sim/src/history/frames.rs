//! What guests say.

use overlay_proto::ethernet::MacAddr;

use super::plan::mac_of;

/// An ethertype for experiments (IEEE 802).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// The IPv4 address of a guest.
const fn address(guest: u16) -> [u8; 4] {
    let [high, low] = guest.to_be_bytes();
    [10, 0, high, low]
}

/// A frame of `source` for `to`, made unique by `number`.
pub(super) fn unicast(source: MacAddr, to: MacAddr, number: u64) -> Vec<u8> {
    let mut frame = to.0.to_vec();
    frame.extend(source.0);
    frame.extend(EXPERIMENT);
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// A broadcast of the guest: who has the address of `to`? Made unique by `number`, in the padding behind the ARP packet.
pub(super) fn question(from: u16, to: u16, number: u64) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac_of(from).0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac_of(from).0);
    frame.extend(address(from));
    frame.extend([0; 6]);
    frame.extend(address(to));
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// A gratuitous ARP: the guest is here now.
pub(super) fn announcement(guest: u16, number: u64) -> Vec<u8> {
    question(guest, guest, number)
}
