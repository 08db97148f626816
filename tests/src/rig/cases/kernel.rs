//! The guest's kernel has what it is there for.

use anyhow::Result;

use crate::rig::scene::{Scene, does_not_reach, reaches};
use std::time::Duration;

/// A bridge that filters VLANs does so, between two guests on one host.
pub(super) fn has_what_the_cases_need(scene: &mut Scene) -> Result<()> {
    let host = scene.host(0);
    host.ip("link add kernel0 type dummy")?;
    host.ip("link add kernel1 type vrf table 77")?;
    host.ip("link add kernel2 link kernel0 type macvlan")?;
    host.ip("link add link kernel0 name kernel3 type vlan id 7")?;
    host.ip("link add kernel4 type bridge vlan_filtering 1")?;
    host.ip("link set kernel4 up")?;
    let first = scene.guest(0, "kernel5", "kernel4")?;
    let second = scene.guest(0, "kernel6", "kernel4")?;
    first.ip("addr add 10.1.0.1/24 dev eth0")?;
    second.ip("addr add 10.1.0.2/24 dev eth0")?;
    reaches(&first, "10.1.0.2", Duration::from_secs(5))?;
    host.sh("bridge vlan add dev kernel5 vid 9 pvid untagged")?;
    does_not_reach(&first, "10.1.0.2")
}
