//! What a hostile member says in its sessions that no node would.

use node_core::node::tick::Tick;
use overlay_proto::Entropy;
use overlay_proto::directory::{Claim, ClaimKind, DirectoryMessage, Signed, SignedClaim};
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::membership::NetworkSecret;
use overlay_proto::switching::MacKey;
use overlay_proto::wire::{DatagramKind, InnerHeader, InnerKind, MAX_MESSAGE, Selector};

use super::Hostile;

/// Datagrams of noise at each attack, for each member.
const NOISE: u32 = 8;

/// Forgeries of each document, for each member.
const FORGERIES: u32 = 4;

const fn untagged(mac: MacAddr) -> MacKey {
    MacKey {
        vlan: VlanId::UNTAGGED,
        mac,
    }
}

impl Hostile {
    /// Signs claims for so many MACs that nobody has. They count: a member may say that it has guests.
    pub fn make_up_claims(&mut self, tick: Tick, count: u8) {
        for network in self.membership.networks().to_vec() {
            let macs = (0..count).map(|_| {
                let mut bytes = [0; 6];
                self.entropy.fill(&mut bytes);
                let [_, _, c, d, e, f] = bytes;
                MacAddr([0x06, 0xba, c, d, e, f])
            });
            let macs: Vec<_> = macs.collect();
            let claims = macs
                .into_iter()
                .filter_map(|mac| self.claim(&network, mac, 1));
            let claims: Vec<_> = claims.collect();
            self.tell_all(tick, &network, &claims);
        }
    }

    /// Claims `mac` above its owner: at once, if the owner's claim is known, else when somebody has told it.
    pub fn steal(&mut self, tick: Tick, mac: MacAddr) {
        let key = untagged(mac);
        if self.memory.claims.contains_key(&key) {
            return self.take(tick, key, 1);
        }
        self.wanted.push(mac);
        for network in self.membership.networks().to_vec() {
            for peer in self.peers() {
                self.say(tick, peer, &network, &DirectoryMessage::query(key));
            }
        }
    }

    /// Claims `mac` with a generation that the overlay is too young for.
    pub fn claim_the_future(&mut self, tick: Tick, mac: MacAddr) {
        for network in self.membership.networks().to_vec() {
            let claim = self.claim(&network, mac, u64::MAX / 2);
            self.tell_all(tick, &network, &claim.into_iter().collect::<Vec<_>>());
        }
    }

    /// Sends `frame` to all members, in each network that it shares with them.
    pub fn forge(&mut self, frame: &[u8]) {
        for peer in self.peers() {
            let session = self.tunnels.current(peer);
            let shared = session.map(|session| session.networks.clone());
            for network in shared.unwrap_or_default() {
                self.seal(peer, &InnerHeader::frame(network.send), frame);
            }
        }
    }

    /// Sends `frame` to all members under selectors that they did not choose.
    pub fn send_elsewhere(&mut self, frame: &[u8]) {
        for peer in self.peers() {
            let session = self.tunnels.current(peer);
            let shared = session.map(|session| session.networks.clone());
            for network in shared.unwrap_or_default() {
                let Selector(number) = network.send;
                let other = Selector(number.wrapping_add(1));
                self.seal(peer, &InnerHeader::frame(other), frame);
            }
        }
    }

    /// Sends what it has sent once more, byte for byte, claims that have been replaced, and what members said of themselves before.
    pub fn replay(&mut self, tick: Tick) {
        self.out.extend(self.memory.sent.iter().cloned());
        let old: Vec<_> = self.memory.replaced.iter().cloned().collect();
        for network in self.membership.networks().to_vec() {
            self.tell_all(tick, &network, &old);
            let entries: Vec<_> = self.memory.entries.iter().cloned().collect();
            for peer in self.peers() {
                for few in entries.chunks(2) {
                    let entries = DirectoryMessage::Roster(few.to_vec());
                    self.say(tick, peer, &network, &entries);
                }
            }
        }
    }

    /// Hands on the authority's documents that it knows once more, old ones, too; and with one bit another, which nobody signed.
    pub fn forge_documents(&mut self, tick: Tick) {
        let known: Vec<_> = self.memory.documents.iter().cloned().collect();
        for peer in self.peers() {
            for document in &known {
                let forged = (0..FORGERIES).map(|_| {
                    let mut forged = document.clone();
                    let len = u32::try_from(forged.len()).unwrap_or(1).max(1);
                    let place = usize::try_from(self.entropy.next_u32() % len).unwrap_or(0);
                    if let Some(byte) = forged.get_mut(place) {
                        *byte ^= 1;
                    }
                    forged
                });
                let forged: Vec<_> = forged.collect();
                for message in forged.into_iter().chain([document.clone()]) {
                    if let Some(talk) = self.talks.get_mut(&peer) {
                        // A full channel is full.
                        let _ = talk.channel.send(tick.now, message);
                    }
                }
            }
        }
    }

    /// Sends bytes without sense: as datagrams of each kind, in sessions, on channels.
    pub fn make_noise(&mut self, tick: Tick) {
        let kinds = [
            DatagramKind::HandshakeInit,
            DatagramKind::HandshakeResponse,
            DatagramKind::CookieReply,
            DatagramKind::Data,
            DatagramKind::Relayed,
        ];
        for peer in self.peers() {
            for turn in 0..NOISE {
                let len = usize::try_from(self.entropy.next_u32() % 1_000).unwrap_or(0);
                let mut bytes = vec![0; len + 1];
                self.entropy.fill(&mut bytes);
                for kind in [InnerKind::Control, InnerKind::Probe, InnerKind::Frame] {
                    let mut header = InnerHeader::plain(kind);
                    header.selector = Selector(self.entropy.next_u32());
                    self.seal(peer, &header, &bytes);
                }
                let place = usize::try_from(turn).unwrap_or(0) % kinds.len();
                if let (Some(first), Some(kind)) = (bytes.first_mut(), kinds.get(place)) {
                    *first = kind.byte();
                }
                if let Some(talk) = self.talks.get_mut(&peer) {
                    self.out.push((talk.path.remote, bytes.clone()));
                    bytes.truncate(MAX_MESSAGE);
                    // A full channel is full.
                    let _ = talk.channel.send(tick.now, bytes);
                }
            }
        }
    }

    /// Takes a MAC whose claim is known, by a claim that is so many generations above it.
    pub(super) fn take(&mut self, tick: Tick, key: MacKey, above: u64) {
        let Some(known) = self.memory.claims.get(&key) else {
            return;
        };
        let (network, generation) = (known.claim.network, known.claim.generation);
        let mut networks = self.membership.networks().iter();
        let Some(network) = networks.find(|one| one.id == network).cloned() else {
            return;
        };
        let claim = self.claim(&network, key.mac, generation.saturating_add(above));
        self.tell_all(tick, &network, &claim.into_iter().collect::<Vec<_>>());
    }

    fn claim(&self, network: &NetworkSecret, mac: MacAddr, generation: u64) -> Option<SignedClaim> {
        let key = untagged(mac);
        let claim = Claim {
            network: network.id,
            vlan: key.vlan,
            mac,
            generation,
            kind: ClaimKind::Announced,
            predecessor: self
                .memory
                .claims
                .get(&key)
                .map_or([0; 32], |one| one.hash()),
            contested: 0,
            defender: Default::default(),
            ips: Vec::new(),
            refresh: 0,
        };
        Signed::seal(&claim, &self.key, &self.membership.overlay()).ok()
    }

    fn tell_all(&mut self, tick: Tick, network: &NetworkSecret, claims: &[SignedClaim]) {
        for peer in self.peers() {
            for few in claims.chunks(2) {
                self.say(tick, peer, network, &DirectoryMessage::Claims(few.to_vec()));
            }
        }
    }
}
