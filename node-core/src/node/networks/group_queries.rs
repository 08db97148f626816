//! Questions to a guest that has come here, in which multicast groups it is.
//!
//! A bridge that snoops forwards a group only to the ports on which it heard somebody join it. A guest
//! that came here without a word joined on another host; until the next query of the link's querier, which
//! may be minutes away, neighbour discovery does not reach it. A general query makes it join again. It is
//! sent twice, for a guest that is not quite awake.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overlay_proto::ethernet::{igmp_general_query, mld_general_query};
use overlay_proto::switching::{MacKey, NetIndex};

use super::Networks;
use crate::attachment::Attachment;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::views::Own;

/// Between the two queries: the guest answers within half of it.
const PAUSE: Duration = Duration::from_secs(1);

/// Queries after a move.
const REPEATS: u8 = 2;

/// Guests of one bridge with queries to come. Those beyond wait for the link's own querier.
const MAX_GUESTS: usize = 64;

/// The queries of one bridge.
#[derive(Debug, Default)]
pub(crate) struct GroupQueries {
    /// The next query to each guest, and how many are left. Bound: [`MAX_GUESTS`]; removed by
    /// [`GroupQueries::poll`].
    due: BTreeMap<MacKey, (Instant, u8)>,
}

impl GroupQueries {
    /// A guest has come.
    fn ask(&mut self, now: Instant, key: MacKey) {
        if let Some((_, left)) = self.due.get_mut(&key) {
            *left = REPEATS;
        } else if self.due.len() < MAX_GUESTS {
            self.due.insert(key, (now, REPEATS));
        }
    }

    /// The guests to query now.
    fn poll(&mut self, now: Instant) -> Vec<MacKey> {
        let mut keys = Vec::new();
        self.due.retain(|key, (at, left)| {
            if *at > now {
                return true;
            }
            keys.push(*key);
            *left -= 1;
            *at = now + PAUSE;
            *left > 0
        });
        keys
    }

    fn next(&self) -> Option<Instant> {
        self.due.values().map(|(at, _)| *at).min()
    }
}

impl Networks {
    /// `key` has come to the bridge of `net`.
    pub(crate) fn ask_for_groups(&mut self, tick: Tick, net: NetIndex, key: MacKey) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        // Bridges that Farlan makes do not snoop; a switch behind a NIC may.
        let has_nic = |record: &Attachment| record.nic.is_some();
        if network.bridge.snoops || network.attached.as_ref().is_some_and(has_nic) {
            network.bridge.queries.ask(tick.now, key);
        }
    }

    /// Sends the queries that are due.
    pub(crate) fn send_group_queries(&mut self, tick: Tick, out: &mut Outside, own: Own) {
        let src = own.probe_mac;
        let mut due = Vec::new();
        for network in &mut self.all {
            let keys = network.bridge.queries.poll(tick.now);
            due.extend(keys.into_iter().map(|key| (network.index, key)));
        }
        for (net, MacKey { vlan, mac }) in due {
            self.write_tap(out, net, &mld_general_query(src, mac, vlan));
            self.write_tap(out, net, &igmp_general_query(src, mac, vlan));
        }
    }

    /// When the next query is due.
    pub(crate) fn next_group_query(&self) -> Option<Instant> {
        self.all
            .iter()
            .filter_map(|network| network.bridge.queries.next())
            .min()
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use overlay_proto::ethernet::{MacAddr, VlanId};

    use super::*;

    fn key(last: u8) -> MacKey {
        MacKey {
            vlan: VlanId::UNTAGGED,
            mac: MacAddr([0x52, 0x54, 0, 0, 0, last]),
        }
    }

    #[test]
    fn a_guest_that_came_is_asked_twice() {
        let now = Instant::now();
        let mut queries = GroupQueries::default();
        assert_eq!(queries.next(), None);
        queries.ask(now, key(1));
        assert_eq!(queries.poll(now), [key(1)]);
        assert!(queries.poll(now).is_empty());
        assert_eq!(queries.next(), Some(now + PAUSE));
        // It moves to and fro: still one query a second.
        for _ in 0..100 {
            queries.ask(now, key(1));
        }
        assert!(queries.poll(now).is_empty());
        assert_eq!(queries.poll(now + PAUSE), [key(1)]);
        assert_eq!(queries.poll(now + PAUSE * 2), [key(1)]);
        assert!(queries.poll(now + PAUSE * 3).is_empty());
        assert_eq!(queries.next(), None, "nothing is kept");
    }

    #[test]
    fn guests_are_bounded() {
        let now = Instant::now();
        let mut queries = GroupQueries::default();
        for last in 0..200 {
            queries.ask(now, key(last));
        }
        assert_eq!(queries.poll(now).len(), MAX_GUESTS);
    }
}
