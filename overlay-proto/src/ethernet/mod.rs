//! Ethernet addresses and parsers: IEEE 802.3, 802.1Q, ARP (RFC 826), ND (RFC 4861).

mod addr;

pub use addr::{AddrParseError, MacAddr, VlanId};
