//! One look at the bridges, by the kernel's links and forwarding databases.

use overlay_proto::ethernet::VlanId;
use overlay_proto::switching::NetIndex;
use tap_bridge::{Error, Link, Links};

use crate::attachments::overlay_port;
use node_core::node::host_orders::BridgeLook;
use node_core::node::networks::bridges::MAX_DUMPED;

/// Looks at the bridges and taps of `wanted`; with `whole` at all that they have learnt.
///
/// # Errors
/// The kernel does not tell.
pub(crate) async fn look_at_bridges(
    links: &Links,
    wanted: &[(NetIndex, String, String)],
    whole: bool,
) -> Result<Vec<BridgeLook>, Error> {
    let all = links.all().await?;
    let find = |name: &str| all.iter().find(|link| link.name == name);
    let mut seen = Vec::new();
    for (net, bridge, tap) in wanted {
        let (Some(bridge), Some(tap)) = (find(bridge), find(tap)) else {
            continue;
        };
        let lives = |link: &&Link| link.master == Some(bridge.index) && link.up && link.carrier;
        let ports = all
            .iter()
            .filter(lives)
            .filter(|link| link.index != tap.index);
        let wrong = overlay_port::set(links, &all, bridge, tap).await;
        let own = all
            .iter()
            .filter(|link| link.index == bridge.index || link.master == Some(bridge.index));
        let settings = bridge.bridge.unwrap_or_default();
        let (fdb, more) = if whole {
            let (entries, more) = tap_bridge::read_fdb(bridge.index, MAX_DUMPED).await?;
            (Some(entries), more)
        } else {
            (None, false)
        };
        seen.push(BridgeLook {
            net: *net,
            bridge: bridge.index,
            tap: tap.index,
            untagged: VlanId::new(settings.default_pvid).filter(|_| settings.filters_vlans),
            own: own.map(|link| link.mac).collect(),
            snoops: settings.snoops,
            wrong,
            ports: ports.map(|link| link.index).collect(),
            fdb,
            more,
        });
    }
    Ok(seen)
}
