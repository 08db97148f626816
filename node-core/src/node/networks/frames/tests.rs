//! Two hosts' networks whose outputs are carried by hand: no session, no path, no bridge.

#![allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use overlay_proto::SeededEntropy;
use overlay_proto::directory::claims::CLAIM_TTL;
use overlay_proto::directory::{Directory, DirectoryConfig};
use overlay_proto::ethernet::bridge::PortState;
use overlay_proto::ethernet::{ArpPacket, MacAddr, VlanId};
use overlay_proto::membership::test_authority::{BORN, TestOverlay};
use overlay_proto::membership::{NetworkSecret, NodeKey};

use super::*;
use crate::attachment::{Attachment, PortTraffic, TapPort};
use crate::node::effects::Effects;
use crate::node::networks::directory::DirectoryOutput;
use crate::node::networks::network::Network;
use crate::node::networks::segments::new_segment;
use crate::node::sight::HostSight;
use crate::node::storing::Storing;
use crate::node::warnings::Warnings;
use crate::questions::Questions;
use crate::sequences::Sequences;

const NET: NetIndex = NetIndex(0);
const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

/// A host of which nothing can be seen.
#[derive(Debug)]
struct Dark;

impl HostSight for Dark {
    fn port_behind(&self, _: &str, _: MacAddr) -> Option<String> {
        None
    }

    fn index_of(&self, _: &str) -> Option<u32> {
        None
    }

    fn port_state(&self, _: &str) -> Option<PortState> {
        None
    }

    fn bridge_of(&self, _: &str) -> Option<String> {
        None
    }

    fn live_ports(&self, _: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn tap_port(&self, _: &str) -> Option<TapPort> {
        None
    }

    fn traffic(&self, _: &str) -> Option<PortTraffic> {
        None
    }

    fn host_name(&self) -> Option<String> {
        None
    }

    fn nic_waits(&self, _: &Attachment) -> bool {
        false
    }
}

struct Site {
    networks: Networks,
    out: Outside,
    own: Own,
    tick: Tick,
}

impl Site {
    fn new(overlay: &TestOverlay, secret: &NetworkSecret, tick: Tick, seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let key = NodeKey::generate(&mut entropy);
        let me = key.peer_id();
        let config = DirectoryConfig {
            overlay: overlay.id(),
            network: secret.id,
            epoch_key: secret.epoch_key,
            old_epoch_key: None,
            birth: BORN,
            may_send: true,
            chain: me.0.to_vec(),
            replication: true,
            claim_ttl: CLAIM_TTL,
        };
        let mut directory = Directory::new(tick.now, tick.wall, config, key, &mut entropy);
        directory
            .set_own_entry(tick.now, [0; 32], [0; 32], Vec::new())
            .unwrap();
        let lan = new_segment(tick.now, secret, me, &mut entropy);
        let mut networks = Networks::new(true, CLAIM_TTL);
        let network = Network::new(NET, secret.clone(), directory, lan);
        networks.all.push(network);
        Self {
            networks,
            out: Outside {
                asking: Questions::default(),
                store: Storing::new(Sequences::restored(0), tick.now),
                effects: Effects::default(),
                warnings: Warnings::default(),
                drops: std::sync::Arc::default(),
                sight: Box::new(Dark),
                entropy: Box::new(entropy),
                fib_stale: false,
            },
            own: Own {
                me,
                probe_mac: MacAddr([2, 0, 0, 0, 0, 9]),
                epoch: tick.now,
            },
            tick,
        }
    }

    /// There is a session with a member.
    fn meet(&mut self, other: PeerId) {
        let directory = &mut self.networks.all[0].directory;
        directory.handle_member(self.tick.now, other, true, &other.0);
        directory.handle_neighbour_up(self.tick.now, other);
    }

    fn local(&mut self, bytes: Vec<u8>) -> Option<Addressed> {
        self.networks
            .handle_local_frame(self.tick, &self.out, self.own, NET, bytes)
    }

    fn remote(&mut self, peer: PeerId, reason: PuntReason, bytes: Vec<u8>) -> Delivery {
        let (tick, own) = (self.tick, self.own);
        self.networks
            .handle_peer_frame(tick, &mut self.out, own, NET, (peer, reason), bytes)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.out.drops.get(reason)
    }
}

/// Two members in a session with each other, whose directories have compared what they know.
fn pair() -> [Site; 2] {
    let overlay = TestOverlay::new(1, &["lab"]);
    let secret = overlay.networks[0].secret();
    let tick = Tick {
        now: Instant::now(),
        wall: BORN.plus(Duration::from_secs(86_400)),
    };
    let mut sites = [1, 2].map(|seed| Site::new(&overlay, &secret, tick, seed));
    let [one, other] = [sites[0].own.me, sites[1].own.me];
    sites[0].meet(other);
    sites[1].meet(one);
    settle(&mut sites);
    sites
}

/// Carries what the directories tell each other until nothing moves.
fn settle(sites: &mut [Site; 2]) {
    let mut moved = true;
    while std::mem::take(&mut moved) {
        let [one, other] = &mut *sites;
        moved |= carry(one, other);
        moved |= carry(other, one);
    }
}

/// `true`: there was something.
fn carry(from: &mut Site, to: &mut Site) -> bool {
    let (tick, own, mut moved) = (from.tick, from.own, false);
    while let Some(output) = from.networks.poll_directory(tick, &mut from.out, own, NET) {
        moved = true;
        match output {
            // To nobody before the roster has come.
            DirectoryOutput::Tell(told) if told.to.is_empty() => {}
            DirectoryOutput::Tell(told) => {
                assert_eq!(told.to, [to.own.me]);
                let by = (own.me, to.networks.id_of(NET));
                to.networks
                    .handle_directory_message(to.tick, &to.out, to.own, by, &told.body);
            }
            DirectoryOutput::Verify { node, chain } => {
                let directory = &mut from.networks.all[0].directory;
                directory.handle_member(tick.now, node, true, &chain);
            }
            DirectoryOutput::RosterChanged => {}
        }
    }
    moved
}

/// A gratuitous ARP.
fn to_all(src: MacAddr) -> Vec<u8> {
    let ip = "192.0.2.1".parse().unwrap();
    ArpPacket::announcement(src, ip).to_frame(MacAddr::BROADCAST, VlanId::UNTAGGED)
}

fn to_one(src: MacAddr, dst: MacAddr) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[..6].copy_from_slice(&dst.0);
    bytes[6..12].copy_from_slice(&src.0);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes
}

fn key(mac: MacAddr) -> MacKey {
    MacKey {
        vlan: VlanId::UNTAGGED,
        mac,
    }
}

#[test]
fn a_broadcast_may_leave_after_the_claim_of_its_source_and_is_let_in_by_it() {
    let mut sites = pair();
    let bytes = to_all(GUEST);
    let frame = sites[0].local(bytes.clone()).unwrap();
    settle(&mut sites);
    let [here, there] = &mut sites;
    let owner = |site: &Site| {
        let directory = &site.networks.all[0].directory;
        directory.owner(site.tick.now, &key(GUEST))
    };
    assert_eq!(owner(there), Some(here.own.me));
    let way = here.networks.find_way(here.tick, &here.out, NET, frame);
    assert_eq!(way, Way::ToAll(bytes.clone()));
    let reason = PuntReason::SourceNotClaimed;
    let delivery = there.remote(here.own.me, reason, bytes.clone());
    assert_eq!(delivery, Delivery::Here(bytes));
}

#[test]
fn a_frame_that_comes_before_the_claim_of_its_source_waits_for_it_and_not_for_long() {
    let mut sites = pair();
    let bytes = to_all(GUEST);
    sites[0].local(bytes.clone()).unwrap();
    let from = sites[0].own.me;
    let [_, there] = &mut sites;
    let reason = PuntReason::SourceNotClaimed;
    let delivery = there.remote(from, reason, bytes.clone());
    assert_eq!(delivery, Delivery::None);
    let ready = there.networks.take_ready(there.tick, there.own, NET);
    assert!(ready.arrived.is_empty() && ready.leaving.is_empty());
    settle(&mut sites);
    let [_, there] = &mut sites;
    let mut ready = there.networks.take_ready(there.tick, there.own, NET);
    let (peer, frame) = ready.arrived.pop().unwrap();
    assert_eq!(
        (peer, frame.bytes, frame.dst.mac),
        (from, bytes, MacAddr::BROADCAST)
    );
    // Another one, whose claim does not come.
    let delivery = there.remote(from, reason, to_all(OTHER));
    assert_eq!(delivery, Delivery::None);
    there.tick.now += Duration::from_millis(200);
    there.networks.expire_waiting(there.tick, &there.out);
    assert_eq!(there.dropped(DropReason::SourceNotClaimed), 1);
}

#[test]
fn a_frame_for_an_unknown_mac_waits_until_somebody_claims_it() {
    let mut sites = pair();
    sites[1].local(to_all(OTHER)).unwrap();
    let bytes = to_one(GUEST, OTHER);
    let frame = sites[0].local(bytes.clone()).unwrap();
    let here = &mut sites[0];
    let way = here.networks.find_way(here.tick, &here.out, NET, frame);
    assert_eq!(way, Way::None);
    // The claim is told while the look-up is under way.
    settle(&mut sites);
    let to = sites[1].own.me;
    let here = &mut sites[0];
    let mut ready = here.networks.take_ready(here.tick, here.own, NET);
    let frame = ready.leaving.pop().unwrap();
    let way = here.networks.find_way(here.tick, &here.out, NET, frame);
    assert_eq!(way, Way::To(to, bytes));
}

#[test]
fn what_no_guest_may_send_is_counted_and_goes_nowhere() {
    let [mut site, _] = pair();
    let group = MacAddr([0x03, 0, 0, 0, 0, 1]);
    let bpdu = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
    assert_eq!(site.local(vec![0; 10]), None);
    assert_eq!(site.local(to_one(group, OTHER)), None);
    assert_eq!(site.local(to_one(GUEST, bpdu)), None);
    for reason in [
        DropReason::MalformedFrame,
        DropReason::MacReserved,
        DropReason::BridgeReserved,
    ] {
        assert_eq!(site.dropped(reason), 1, "{reason:?}");
    }
    // An answer to our own question is for us alone, whoever gives it.
    assert_eq!(site.local(to_one(GUEST, site.own.probe_mac)), None);
    let directory = &site.networks.all[0].directory;
    assert_eq!(
        directory.owner(site.tick.now, &key(GUEST)),
        Some(site.own.me)
    );
}
