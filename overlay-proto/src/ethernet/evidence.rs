//! What a frame from a local guest tells about its source MAC (DIRECTORY.md, Moves).

use std::net::IpAddr;

use super::arp::{ArpOperation, ArpPacket};
use super::frame::{EthernetFrame, ethertype};
use super::nd::NdMessage;

/// How strongly something says "this MAC is here now". Ordered by strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EvidenceClass {
    /// Duplicate address detection, MLD, router solicitation: a paused migration target sends
    /// these too, so they never take a MAC.
    Leaked = 0,
    /// Any other frame.
    Ordinary = 1,
    /// RARP, gratuitous ARP, unsolicited neighbour advertisement: the guest, or the hypervisor for
    /// it, says that it has moved.
    Strong = 2,
    /// The `announce` command, a hypervisor's resume, a hand-over by `migrate`: never from a frame.
    Announced = 3,
}

/// The addresses of the source MAC that a frame tells, at most two.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LearnedIps([Option<IpAddr>; 2]);

impl LearnedIps {
    /// Each address once.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.0.into_iter().flatten()
    }

    /// None was told?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Only addresses that one machine can own.
    fn one(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let ownable = !(address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || broadcast);
        Self([ownable.then_some(address), None])
    }
}

/// What [`classify`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEvidence {
    /// How strongly the frame says that its source MAC is here.
    pub class: EvidenceClass,
    /// Addresses that belong to the source MAC.
    pub ips: LearnedIps,
    /// It speaks of the machine as a whole, whatever VLANs it is in: RARP, which a hypervisor sends
    /// for a guest whose VLANs it does not know.
    pub whole_machine: bool,
}

impl FrameEvidence {
    const fn without_ips(class: EvidenceClass) -> Self {
        Self::with_ips(class, LearnedIps([None, None]))
    }

    const fn with_ips(class: EvidenceClass, ips: LearnedIps) -> Self {
        Self {
            class,
            ips,
            whole_machine: false,
        }
    }
}

/// Judges a frame that came from a local attachment. Constant time but for the checksum of
/// neighbour discovery messages.
///
/// An ARP or ND message that names another MAC than the frame's source (a proxy, or a liar) is an
/// ordinary frame and teaches nothing.
#[must_use]
pub fn classify(frame: &EthernetFrame<'_>) -> FrameEvidence {
    let ordinary = FrameEvidence::without_ips(EvidenceClass::Ordinary);
    match frame.ethertype() {
        ethertype::ARP | ethertype::RARP => ArpPacket::from_frame(frame)
            .filter(|packet| packet.sender_mac == frame.src())
            .map_or(ordinary, |packet| judge_arp(&packet)),
        ethertype::IPV6 => {
            NdMessage::from_frame(frame).map_or(ordinary, |message| judge_nd(frame, &message))
        }
        _ => ordinary,
    }
}

fn judge_arp(packet: &ArpPacket) -> FrameEvidence {
    match packet.operation {
        ArpOperation::ReverseRequest => FrameEvidence {
            whole_machine: true,
            ..FrameEvidence::without_ips(EvidenceClass::Strong)
        },
        ArpOperation::ReverseReply => FrameEvidence::without_ips(EvidenceClass::Ordinary),
        ArpOperation::Request | ArpOperation::Reply if packet.is_probe() => {
            FrameEvidence::without_ips(EvidenceClass::Leaked)
        }
        ArpOperation::Request | ArpOperation::Reply => {
            let class = if packet.is_gratuitous() {
                EvidenceClass::Strong
            } else {
                EvidenceClass::Ordinary
            };
            FrameEvidence::with_ips(class, LearnedIps::one(packet.sender_ip))
        }
    }
}

fn judge_nd(frame: &EthernetFrame<'_>, message: &NdMessage) -> FrameEvidence {
    let own = |lladdr: &Option<_>| *lladdr == Some(frame.src());
    match message {
        NdMessage::RouterSolicitation | NdMessage::Mld => {
            FrameEvidence::without_ips(EvidenceClass::Leaked)
        }
        NdMessage::Solicitation(ns) if ns.is_dad() => {
            FrameEvidence::without_ips(EvidenceClass::Leaked)
        }
        NdMessage::Solicitation(ns) if own(&ns.source_lladdr) => {
            FrameEvidence::with_ips(EvidenceClass::Ordinary, LearnedIps::one(ns.source))
        }
        NdMessage::Advertisement(na) if own(&na.target_lladdr) => {
            let class = if na.is_unsolicited() {
                EvidenceClass::Strong
            } else {
                EvidenceClass::Ordinary
            };
            FrameEvidence::with_ips(class, LearnedIps::one(na.target))
        }
        NdMessage::Solicitation(_) | NdMessage::Advertisement(_) => {
            FrameEvidence::without_ips(EvidenceClass::Ordinary)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::addr::{MacAddr, VlanId};
    use super::super::nd::{NeighborAdvertisement, NeighborSolicitation};
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    const VLAN: VlanId = VlanId::UNTAGGED;

    fn judge(bytes: &[u8]) -> (EvidenceClass, Vec<IpAddr>) {
        let evidence = classify(&EthernetFrame::parse(bytes).unwrap());
        (evidence.class, evidence.ips.iter().collect())
    }

    #[test]
    fn classes_are_ordered_by_strength() {
        use EvidenceClass::{Announced, Leaked, Ordinary, Strong};
        assert!(Leaked < Ordinary && Ordinary < Strong && Strong < Announced);
    }

    #[test]
    fn arp() {
        let frame = |packet: ArpPacket| judge(&packet.to_frame(MacAddr::BROADCAST, VLAN));
        let garp = ArpPacket::announcement(MAC, IP);
        assert_eq!(frame(garp), (EvidenceClass::Strong, vec![IP.into()]));
        let request = ArpPacket::request(MAC, IP, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(frame(request), (EvidenceClass::Ordinary, vec![IP.into()]));
        let probe = ArpPacket::probe(MAC, IP);
        assert_eq!(frame(probe), (EvidenceClass::Leaked, vec![]));
        // What QEMU sends when a migrated guest resumes.
        let rarp = ArpPacket {
            operation: ArpOperation::ReverseRequest,
            sender_mac: MAC,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: MAC,
            target_ip: Ipv4Addr::UNSPECIFIED,
        };
        assert_eq!(frame(rarp), (EvidenceClass::Strong, vec![]));
        let whole = |packet: ArpPacket| {
            let bytes = packet.to_frame(MacAddr::BROADCAST, VLAN);
            classify(&EthernetFrame::parse(&bytes).unwrap()).whole_machine
        };
        assert!(whole(rarp));
        assert!(!whole(garp), "the guest itself, in one VLAN");
    }

    #[test]
    fn arp_for_another_mac_teaches_nothing() {
        let mut bytes = ArpPacket::announcement(OTHER, IP).to_frame(MacAddr::BROADCAST, VLAN);
        bytes[6..12].copy_from_slice(&MAC.0);
        assert_eq!(judge(&bytes), (EvidenceClass::Ordinary, vec![]));
    }

    #[test]
    fn neighbour_discovery() {
        let probe = NeighborSolicitation::probe(IP6);
        let leaked = (EvidenceClass::Leaked, vec![]);
        assert_eq!(judge(&probe.to_frame(MAC, OTHER, VLAN)), leaked);

        let question = NeighborSolicitation {
            source: IP6,
            source_lladdr: Some(MAC),
            ..probe
        };
        let learned = (EvidenceClass::Ordinary, vec![IpAddr::from(IP6)]);
        assert_eq!(judge(&question.to_frame(MAC, OTHER, VLAN)), learned);

        let announcement = NeighborAdvertisement::announcement(IP6, MAC);
        let strong = (EvidenceClass::Strong, vec![IpAddr::from(IP6)]);
        assert_eq!(judge(&announcement.to_frame(MAC, OTHER, VLAN)), strong);
        let answer = NeighborAdvertisement::answer(&question, MAC);
        assert_eq!(judge(&answer.to_frame(MAC, OTHER, VLAN)), learned);
        let for_another = (EvidenceClass::Ordinary, vec![]);
        assert_eq!(judge(&announcement.to_frame(OTHER, MAC, VLAN)), for_another);
    }

    proptest! {
        #[test]
        fn any_frame_is_judged(
            kind in prop::sample::select(vec![0x0800u16, 0x0806, 0x8035, 0x86dd, 0x1234]),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let bytes = super::super::frame::build_frame(OTHER, MAC, VLAN, kind, &payload);
            let (class, ips) = judge(&bytes);
            prop_assert!(class < EvidenceClass::Announced && ips.len() <= 2);
        }
    }
}
