//! The guests of a world: who is plugged in where, and what each got.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::NetworkName;

use super::invariants::Invariants;
use crate::net::topology::HostId;

/// Frames that a guest keeps; the oldest leaves.
const INBOX: usize = 4_096;

/// Type, hardware, protocol, lengths and operation of ARP for IPv4 on Ethernet.
const ARP_REQUEST: [u8; 10] = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1];
const ARP_REPLY: [u8; 10] = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2];

/// A guest of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestId(pub(super) u32);

/// A frame that a guest got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// When.
    pub at: Duration,
    /// The whole frame.
    pub frame: Vec<u8>,
}

/// One guest.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) mac: MacAddr,
    pub(super) network: NetworkName,
    /// Where it is plugged in.
    pub(super) host: Option<HostId>,
    /// Its address, and how late it answers ARP requests for it.
    pub(super) answers: Option<(Ipv4Addr, Duration)>,
    inbox: VecDeque<Received>,
}

/// All guests.
#[derive(Debug, Default)]
pub(super) struct Guests {
    all: Vec<Guest>,
    pub(super) invariants: Invariants,
}

impl Guests {
    /// A guest that is plugged in nowhere.
    pub(super) fn add(&mut self, mac: MacAddr, network: NetworkName) -> GuestId {
        let id = GuestId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.all.push(Guest {
            mac,
            network,
            host: None,
            answers: None,
            inbox: VecDeque::new(),
        });
        id
    }

    pub(super) fn get(&self, id: GuestId) -> Option<&Guest> {
        self.all.get(usize::try_from(id.0).ok()?)
    }

    pub(super) fn get_mut(&mut self, id: GuestId) -> Option<&mut Guest> {
        self.all.get_mut(usize::try_from(id.0).ok()?)
    }

    /// A frame of the bridge of `network` reaches a guest; without one a frame that the node there made itself.
    pub(super) fn deliver(
        &mut self,
        at: Duration,
        id: GuestId,
        network: Option<&NetworkName>,
        frame: &[u8],
    ) {
        match network {
            Some(network) => {
                let host = self.get(id).and_then(|guest| guest.host);
                self.invariants
                    .note_delivered(at, (id, host), network, frame);
            }
            None => self.invariants.note_of_node(id, frame),
        }
        if let Some(guest) = self.get_mut(id) {
            if guest.inbox.len() >= INBOX {
                guest.inbox.pop_front();
            }
            guest.inbox.push_back(Received {
                at,
                frame: frame.to_vec(),
            });
        }
    }

    /// What the guest says to `frame`, and how late: it answers an ARP request for its address (RFC 826).
    pub(super) fn answer(&self, id: GuestId, frame: &[u8]) -> Option<(Duration, Vec<u8>)> {
        let guest = self.get(id)?;
        let (ip, late) = guest.answers?;
        let is_request = frame.get(12..22) == Some(&ARP_REQUEST);
        let asked = frame.get(38..42)?;
        let asker = frame.get(22..28)?;
        let asker_ip = frame.get(28..32)?;
        if !is_request || *asked != ip.octets() {
            return None;
        }
        let mut answer = asker.to_vec();
        answer.extend(guest.mac.0);
        answer.extend(ARP_REPLY);
        answer.extend(guest.mac.0);
        answer.extend(ip.octets());
        answer.extend(asker);
        answer.extend(asker_ip);
        Some((late, answer))
    }

    /// What the guest got since the last time.
    pub(super) fn take_inbox(&mut self, id: GuestId) -> Vec<Received> {
        let inbox = self.get_mut(id).map(|guest| &mut guest.inbox);
        inbox.map_or_else(Vec::new, |inbox| std::mem::take(inbox).into())
    }

    /// What the guest got, oldest first.
    pub(super) fn inbox(&self, id: GuestId) -> impl Iterator<Item = &Received> {
        self.get(id).into_iter().flat_map(|guest| &guest.inbox)
    }
}
