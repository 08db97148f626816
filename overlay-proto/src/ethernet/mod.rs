//! Ethernet addresses and parsers: IEEE 802.3, 802.1Q, ARP (RFC 826), ND (RFC 4861).
//!
//! Parsers borrow, never allocate and walk a bounded number of headers. They read what guests and
//! foreign switches send, so nothing here trusts a length, and padding behind a packet is legal.

mod addr;
mod arp;
pub mod bridge;
pub mod checksum;
mod evidence;
mod frame;
mod group_query;
mod ip;
mod nd;

pub use addr::{AddrParseError, MacAddr, VlanId};
pub use arp::{ArpOperation, ArpPacket};
pub use evidence::{EvidenceClass, FrameEvidence, LearnedIps, classify};
pub use frame::{EthernetFrame, FrameError, HEADER_LEN, TAG_LEN, build_frame, ethertype};
pub use group_query::{igmp_general_query, mld_general_query};
pub use ip::{Fragment, IpError, IpPacket, MAX_EXTENSION_HEADERS, protocol};
pub use nd::{
    NdMessage, NeighborAdvertisement, NeighborSolicitation, multicast_mac, solicited_node,
};
