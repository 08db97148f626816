//! What looks and news of the bridges mean for the overlay's own port: the entries that the node wrote,
//! MACs that are here and elsewhere, and how the port is set.

use overlay_proto::ethernet::bridge::FdbNews;

use super::Networks;
use crate::node::host_orders::BridgeLook;
use crate::node::networks::network::Network;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

impl Networks {
    /// What news mean for the entries that we wrote, and for MACs that are here and elsewhere.
    pub(crate) fn note_fdb_news(&mut self, tick: Tick, out: &mut Outside, news: &FdbNews) {
        let (FdbNews::Learned(entry) | FdbNews::Gone(entry)) = news else {
            return;
        };
        let Some(net) = self.bridge_of(entry) else {
            return;
        };
        let Some(bridge) = self.bridge_mut(net) else {
            return;
        };
        match news {
            FdbNews::Learned(_) => bridge.remote.learnt(tick.now, entry),
            _ => bridge.remote.gone(tick.now, entry),
        }
        if bridge.rivals.contains(&entry.mac) {
            out.fib_stale = true;
        }
    }

    /// What a look tells of our tap as a port.
    pub(crate) fn note_port(&mut self, tick: Tick, out: &mut Outside, look: &mut BridgeLook) {
        let Some(network) = self.all.get_mut(usize::from(look.net.0)) else {
            return;
        };
        let bridge = &mut network.bridge;
        bridge.snoops = look.snoops;
        let place = (look.bridge, look.tap);
        let own = std::mem::take(&mut look.own);
        bridge.remote.looked(place, own, look.fdb.as_deref());
        if !bridge.rivals.is_empty() {
            out.fib_stale = true;
        }
        let name = network.secret.name.to_string();
        let wrong =
            (!look.wrong.is_empty()).then(|| format!("network {name}: {}", look.wrong.join("; ")));
        out.warnings.set(tick.now, Topic::OverlayPort, &name, wrong);
    }

    /// Networks that are attached no more need no port.
    pub(crate) fn forget_port_warnings(&mut self, out: &mut Outside) {
        let networks = &self.all;
        let attached = |name: &str| {
            let of = |n: &Network| n.attached.is_some() && n.secret.name.to_string() == name;
            networks.iter().any(of)
        };
        out.warnings.retain(Topic::OverlayPort, attached);
    }
}
