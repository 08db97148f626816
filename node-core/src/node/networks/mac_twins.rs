//! MACs that a guest here has and another host has in another VLAN.
//!
//! The directory tells the two apart, a bridge that does not filter VLANs does not, nor may a switch
//! behind one of its ports. So frames with such a MAC are not let in from elsewhere while the guest is
//! here. Virtual routers are let in: one number rightly has masters on two hosts in two VLANs, and
//! without each other's advertisements both would be master of both.

use std::collections::BTreeSet;

use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::switching::{FibMap, MacKey};

use crate::node::networks::bridges::Bridge;

impl Bridge {
    /// Those of the MACs of other hosts that are not let in. `local` are the MACs claimed here.
    pub(crate) fn find_twins<'a>(
        &mut self,
        local: impl Iterator<Item = &'a MacKey>,
        remote: impl Iterator<Item = MacKey>,
    ) -> FibMap<MacKey, ()> {
        self.rivals.clear();
        let mut twins = FibMap::default();
        if self.untagged().is_some() {
            return twins;
        }
        let here: BTreeSet<MacAddr> = local.map(|key| key.mac).collect();
        for key in remote.filter(|key| here.contains(&key.mac) && !key.mac.is_virtual_router()) {
            self.rivals.insert(key.mac);
            let untagged = VlanId::UNTAGGED;
            // A claim of ours may be of before a move; the bridge knows who sends here.
            if self.has(&MacKey {
                vlan: untagged,
                ..key
            }) {
                twins.insert(key, ());
            }
        }
        twins
    }
}
