//! How the overlay's own port on a bridge is set: the bridge does not learn there, and where it filters
//! VLANs the port carries every VLAN that another port carries.

use tap_bridge::{Link, Links, PortVlans, VlanPlan};

/// Sets the port `tap` of `bridge`, if it is one and something is to be changed. `all` are the links of the
/// host. Returns what is wrong and stays so, a line each.
pub async fn set(links: &Links, all: &[Link], bridge: &Link, tap: &Link) -> Vec<String> {
    if tap.master != Some(bridge.index) {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    if tap.learns
        && let Err(error) = links.set_learning(tap, false).await
    {
        let (port, bridge) = (&tap.name, &bridge.name);
        wrong.push(format!(
            "{bridge} learns from what other hosts send, so that one of them can take a guest's MAC \
             here: {error}; type `bridge link set dev {port} learning off`"
        ));
    }
    wrong.extend(carry_vlans(links, all, bridge, tap).await);
    wrong
}

async fn carry_vlans(links: &Links, all: &[Link], bridge: &Link, tap: &Link) -> Option<String> {
    let settings = bridge.bridge.filter(|settings| settings.filters_vlans)?;
    let vlans = match links.port_vlans().await {
        Ok(vlans) => vlans,
        Err(error) => {
            let name = &bridge.name;
            return Some(format!("which VLANs {name} carries is unknown: {error}"));
        }
    };
    let none = PortVlans::default();
    let own = vlans.get(&tap.index).unwrap_or(&none);
    let ports = all.iter().filter(|link| {
        link.index == bridge.index || link.master == Some(bridge.index) && link.index != tap.index
    });
    let others = ports.filter_map(|link| vlans.get(&link.index));
    let plan = VlanPlan::of(own, others, settings.default_pvid);
    if plan.is_empty() {
        return None;
    }
    let error = links.add_vlans(tap, &plan).await.err()?;
    let (port, bridge) = (&tap.name, &bridge.name);
    Some(format!(
        "{port} does not carry all VLANs of {bridge}, so they end at this host: {error}; type `{}`",
        plan.commands(port)
    ))
}
