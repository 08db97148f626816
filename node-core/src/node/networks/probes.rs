//! Questions to the guests on this host: is a MAC still here, who has an address?

use std::net::IpAddr;
use std::time::{Duration, Instant};

use overlay_proto::ethernet::{ArpPacket, MacAddr, NeighborSolicitation, VlanId, multicast_mac};
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::{MacKey, NetIndex};

use super::Networks;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::views::Own;

/// How long a local probe may take: the machine wants its answer within 300 ms.
const PROBE_TIME: Duration = Duration::from_millis(250);

/// A worker notes the whole millisecond in which its turn began; a guest may have answered since.
const HEARD_SLACK: Duration = Duration::from_millis(20);

/// How often the workers' stamps are looked at while a probe is under way: nobody wakes the node
/// for an answer, and a move should not wait for the end of [`PROBE_TIME`].
const PROBE_LOOK: Duration = Duration::from_millis(20);

/// Local probes under way at once; above it a MAC counts as silent.
const MAX_PROBES: usize = 64;

/// A question to the guests on this host: is this MAC still here?
#[derive(Debug)]
pub(crate) struct LocalProbe {
    key: MacKey,
    since: Instant,
}

impl Networks {
    /// Asks the guests on this host whether `key` is here; the answer is heard by the workers.
    pub(crate) fn probe_local(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        net: NetIndex,
        key: MacKey,
        ips: &[IpAddr],
    ) {
        if self.stands_by(net, key.vlan) {
            // Whatever is here is the forwarder's.
            if let Some(network) = self.all.get_mut(usize::from(net.0)) {
                network
                    .directory
                    .handle_local_probe_result(tick.now, key, false);
            }
            return self.touch(net);
        }
        if let Some(network) = self.all.get_mut(usize::from(net.0))
            && network.directory.owner(tick.now, &key).is_none()
            && network.bridge.has(&key)
        {
            // Nobody claims it, and the bridge knows where it is. Of one's own MAC this proves
            // nothing: the bridge remembers a guest for minutes after it has left.
            network
                .directory
                .handle_local_probe_result(tick.now, key, true);
            return self.touch(net);
        }
        for ip in ips {
            self.write_tap(net, &question(own.probe_mac, key, *ip), out);
        }
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if network.probes.len() < MAX_PROBES {
            network.probes.push(LocalProbe {
                key,
                since: tick.now,
            });
        } else {
            network
                .directory
                .handle_local_probe_result(tick.now, key, false);
        }
    }

    /// Asks everything behind our taps of `name`, or of all networks, for the address `ip`.
    pub(crate) fn ask_guests(
        &self,
        out: &mut Outside,
        own: Own,
        name: Option<&NetworkName>,
        ip: IpAddr,
    ) {
        let frame = question_to_all(own.probe_mac, ip);
        for network in &self.all {
            if name.is_none_or(|name| *name == network.secret.name) {
                self.write_tap(network.index, &frame, out);
            }
        }
    }

    /// Ends the local probes that have had their time.
    pub(crate) fn end_probes(&mut self, tick: Tick, own: Own) {
        for network in &mut self.all {
            let local = &network.local;
            let mut ended = Vec::new();
            network.probes.retain(|probe| {
                let heard_ms = local
                    .get(&probe.key)
                    .map_or(0, |local| local.last_heard_ms());
                let alive = is_answer(own.epoch, heard_ms, probe.since);
                let over = alive || tick.now.duration_since(probe.since) >= PROBE_TIME;
                if over {
                    ended.push((probe.key, alive));
                }
                !over
            });
            for (key, alive) in ended {
                network
                    .directory
                    .handle_local_probe_result(tick.now, key, alive);
                self.touched.insert(network.index);
            }
        }
    }

    /// When to look at the local probes again, if there are any.
    pub(crate) fn next_probe_look(&self, now: Instant) -> Option<Instant> {
        let mut networks = self.all.iter();
        let probing = networks.any(|network| !network.probes.is_empty());
        probing.then(|| now + PROBE_LOOK)
    }
}

/// Does a MAC that a worker heard at `heard_ms` after `epoch` (0: never) answer a probe of `since`?
fn is_answer(epoch: Instant, heard_ms: u64, since: Instant) -> bool {
    heard_ms > 0 && epoch + Duration::from_millis(heard_ms) + HEARD_SLACK >= since
}

/// Asks the guest `key` whether it is here, by one of its addresses.
fn question(asker: MacAddr, key: MacKey, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ArpPacket::probe(asker, ip).to_frame(key.mac, key.vlan),
        IpAddr::V6(ip) => NeighborSolicitation::probe(ip).to_frame(asker, key.mac, key.vlan),
    }
}

/// Asks whoever has `ip`.
fn question_to_all(asker: MacAddr, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => {
            ArpPacket::probe(asker, ip).to_frame(MacAddr::BROADCAST, VlanId::UNTAGGED)
        }
        IpAddr::V6(ip) => {
            let question = NeighborSolicitation::probe(ip);
            let all = multicast_mac(question.destination);
            question.to_frame(asker, all, VlanId::UNTAGGED)
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use overlay_proto::ethernet::EthernetFrame;

    use super::*;

    #[test]
    fn an_answer_within_the_same_millisecond_counts() {
        let epoch = Instant::now();
        let since = epoch + Duration::from_micros(5_700);
        assert!(is_answer(epoch, 5, since), "answered after 200 us");
        assert!(is_answer(epoch, 6, since));
        assert!(!is_answer(epoch, 0, since), "never heard");
        let later = epoch + Duration::from_millis(500);
        assert!(!is_answer(epoch, 5, later));
    }

    #[test]
    fn a_guest_is_asked_alone_and_in_its_vlan_whoever_has_an_address_with_all() {
        let asker = MacAddr([2, 0, 0, 0, 0, 9]);
        let key = MacKey {
            vlan: VlanId::new(10).unwrap(),
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        };
        for ip in ["192.0.2.7", "2001:db8::7"] {
            let ip: IpAddr = ip.parse().unwrap();
            let bytes = question(asker, key, ip);
            let frame = EthernetFrame::parse(&bytes).unwrap();
            assert_eq!((frame.src(), frame.dst()), (asker, key.mac), "{ip}");
            assert_eq!(frame.vlan(), key.vlan, "{ip}");
            let bytes = question_to_all(asker, ip);
            let frame = EthernetFrame::parse(&bytes).unwrap();
            assert!(frame.src() == asker && frame.dst().is_group(), "{ip}");
            assert_eq!(frame.vlan(), VlanId::UNTAGGED, "{ip}");
        }
    }
}
