//! How bridges and their ports are set, as far as it matters to a port that carries frames of other
//! hosts: who learns, who filters VLANs, and which VLANs a port carries.

use std::collections::BTreeMap;
use std::fmt;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData,
    InfoPortData, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridgePort, LinkBridgeVlan};

use crate::error::Error;
use crate::link::{Link, Links, netlink_error};

/// How a bridge is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgeSettings {
    /// It filters VLANs.
    pub filters_vlans: bool,
    /// The VLAN of untagged frames, where a port says nothing else; 0 for none.
    pub default_pvid: u16,
    /// It forwards a multicast group only to ports that asked for it.
    pub snoops: bool,
}

impl BridgeSettings {
    /// Of a link, if it is a bridge.
    pub(crate) fn of(infos: &[LinkInfo]) -> Option<Self> {
        let data = infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Bridge(data)) => Some(data),
            _ => None,
        })?;
        let mut settings = Self::default();
        for one in data {
            match one {
                InfoBridge::VlanFiltering(on) => settings.filters_vlans = *on,
                InfoBridge::VlanDefaultPvid(id) => settings.default_pvid = *id,
                InfoBridge::MulticastSnooping(on) => settings.snoops = *on,
                _ => {}
            }
        }
        Some(settings)
    }
}

/// Does the bridge learn at this port? `false` for what is no port.
pub(crate) fn learns(infos: &[LinkInfo]) -> bool {
    infos.iter().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => data
            .iter()
            .any(|one| matches!(one, InfoBridgePort::Learning(true))),
        _ => false,
    })
}

/// A set of VLAN ids.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet([u64; 64]);

impl Default for VlanSet {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl VlanSet {
    /// Adds `first` to `last`; ids that are none (0, and 4,095 and above) are left out.
    pub fn add(&mut self, first: u16, last: u16) {
        for id in first.max(1)..=last.min(4094) {
            if let Some(word) = self.0.get_mut(usize::from(id / 64)) {
                *word |= 1 << (id % 64);
            }
        }
    }

    /// Is `id` in it?
    #[must_use]
    pub fn contains(&self, id: u16) -> bool {
        let word = self.0.get(usize::from(id / 64));
        word.is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Adds what is in `other`.
    pub fn unite(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Takes away what is in `other`.
    pub fn subtract(&mut self, other: &Self) {
        for (word, less) in self.0.iter_mut().zip(other.0) {
            *word &= !less;
        }
    }

    /// Has it none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// First and last of each run of ids, from the lowest.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for id in (1..=4094).filter(|id| self.contains(*id)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == id => *last = id,
                _ => ranges.push((id, id)),
            }
        }
        ranges
    }
}

/// As `bridge vlan` takes them: `10,20-29`.
impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VlanSet({self})")
    }
}

/// The VLANs of one port of a bridge, or of the bridge's own port to the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortVlans {
    /// All that it carries.
    pub carries: VlanSet,
    /// Where its untagged frames belong to.
    pub pvid: Option<u16>,
}

impl PortVlans {
    fn add(&mut self, infos: impl Iterator<Item = BridgeVlanInfo>) {
        let mut first = None;
        for info in infos {
            if info.flags.contains(BridgeVlanInfoFlags::Pvid) {
                self.pvid = Some(info.vid);
            }
            if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
                first = Some(info.vid);
            } else {
                self.carries.add(first.take().unwrap_or(info.vid), info.vid);
            }
        }
    }
}

/// What one port of a bridge lacks of what the others carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VlanPlan {
    /// To be carried with their tags.
    pub tagged: VlanSet,
    /// To be carried untagged both ways, as the bridge's default VLAN is on a port that nobody has
    /// touched; 0 for none.
    pub untagged: u16,
}

impl VlanPlan {
    /// What `port` lacks of what `others` carry, on a bridge whose default VLAN is `default_pvid`.
    ///
    /// The default VLAN is the one that crosses untagged, whatever the other ports do with their
    /// frames. What the port has already stays as it is.
    #[must_use]
    pub fn of<'a>(
        port: &PortVlans,
        others: impl Iterator<Item = &'a PortVlans>,
        default_pvid: u16,
    ) -> Self {
        let mut tagged = VlanSet::default();
        for other in others {
            tagged.unite(&other.carries);
        }
        tagged.subtract(&port.carries);
        let mut untagged = 0;
        if port.pvid.is_none() && tagged.contains(default_pvid) {
            untagged = default_pvid;
            let mut default = VlanSet::default();
            default.add(untagged, untagged);
            tagged.subtract(&default);
        }
        Self { tagged, untagged }
    }

    /// Nothing is lacking.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tagged.is_empty() && self.untagged == 0
    }

    /// The commands that do it on `port`, as they can be typed.
    #[must_use]
    pub fn commands(&self, port: &str) -> String {
        let ranges = self.tagged.ranges().into_iter();
        let tagged = ranges.map(|(first, last)| {
            let range = if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            format!("bridge vlan add dev {port} vid {range}")
        });
        let untagged = (self.untagged != 0).then(|| {
            let vid = self.untagged;
            format!("bridge vlan add dev {port} vid {vid} pvid untagged")
        });
        untagged
            .into_iter()
            .chain(tagged)
            .collect::<Vec<_>>()
            .join(" && ")
    }
}

impl Links {
    /// The VLANs of all ports of bridges, and of the bridges themselves, by the number of the
    /// interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn port_vlans(&self) -> Result<BTreeMap<u32, PortVlans>, Error> {
        let request = self.handle().link().get();
        let request = request.set_filter_mask(
            AddressFamily::Bridge,
            vec![LinkExtentMask::BrvlanCompressed],
        );
        let messages: Vec<LinkMessage> = self
            .list(|| request.execute())
            .await
            .map_err(|error| netlink_error("cannot list the VLANs of bridges", error))?;
        let mut ports: BTreeMap<u32, PortVlans> = BTreeMap::new();
        for message in messages {
            let vlans = ports.entry(message.header.index).or_default();
            for attribute in &message.attributes {
                if let LinkAttribute::AfSpecBridge(specs) = attribute {
                    vlans.add(specs.iter().filter_map(|spec| match spec {
                        AfSpecBridge::VlanInfo(info) => Some(*info),
                        _ => None,
                    }));
                }
            }
        }
        Ok(ports)
    }

    /// Lets the port carry what it lacks.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; it is no port of a bridge that filters VLANs.
    pub async fn add_vlans(&self, link: &Link, plan: &VlanPlan) -> Result<(), Error> {
        let none = BridgeVlanInfoFlags::empty();
        let native = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        let mut message = LinkBridgeVlan::new(link.index);
        if plan.untagged != 0 {
            message = message.vlan(plan.untagged, native);
        }
        for (first, last) in plan.tagged.ranges() {
            message = if first == last {
                message.vlan(first, none)
            } else {
                let message = message.vlan_range_start(first, none);
                message.vlan_range_end(last, none)
            };
        }
        let done = self.handle().link().set(message.build()).execute().await;
        done.map_err(|error| netlink_error(format!("cannot add VLANs to {}", link.name), error))
    }

    /// Lets the bridge learn at this port, or not.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; it is no port.
    pub async fn set_learning(&self, link: &Link, on: bool) -> Result<(), Error> {
        let message = LinkBridgePort::new(link.index).learning(on).build();
        let done = self.handle().link().set_port(message).execute().await;
        done.map_err(|error| netlink_error(format!("cannot set learning of {}", link.name), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(vlans: &[(u16, u16)], pvid: Option<u16>) -> PortVlans {
        let mut port = PortVlans {
            pvid,
            ..PortVlans::default()
        };
        for &(first, last) in vlans {
            port.carries.add(first, last);
        }
        port
    }

    fn plan(own: &PortVlans, others: &[PortVlans], default_pvid: u16) -> (String, u16) {
        let plan = VlanPlan::of(own, others.iter(), default_pvid);
        (plan.tagged.to_string(), plan.untagged)
    }

    #[test]
    fn sets_of_vlans_have_ranges() {
        let mut set = VlanSet::default();
        assert!(set.is_empty());
        for (first, last) in [(0, 1), (10, 10), (62, 65), (66, 66), (4090, 9000)] {
            set.add(first, last);
        }
        assert_eq!(set.to_string(), "1,10,62-66,4090-4094");
        assert!(set.contains(64) && !set.contains(0) && !set.contains(4095));
        let mut less = VlanSet::default();
        less.add(1, 64);
        set.subtract(&less);
        assert_eq!(set.to_string(), "65-66,4090-4094");
    }

    #[test]
    fn the_port_gets_what_others_carry_with_its_tag() {
        let own = port(&[(1, 1)], Some(1));
        let access = port(&[(10, 10)], Some(10));
        let trunk = port(&[(1, 1), (20, 29)], Some(1));
        let plan_of = |others: &[PortVlans]| plan(&own, others, 1);
        assert_eq!(plan_of(&[]), (String::new(), 0));
        assert_eq!(
            plan_of(std::slice::from_ref(&trunk)),
            ("20-29".to_owned(), 0)
        );
        assert_eq!(plan_of(&[access, trunk]), ("10,20-29".to_owned(), 0));
    }

    #[test]
    fn the_default_vlan_crosses_untagged() {
        let bare = port(&[], None);
        let access = port(&[(1, 1)], Some(1));
        let tagged = port(&[(1, 1), (5, 5)], Some(5));
        assert_eq!(plan(&bare, &[access], 1), (String::new(), 1));
        assert_eq!(
            plan(&bare, std::slice::from_ref(&tagged), 1),
            ("5".to_owned(), 1)
        );
        // A bridge without a default VLAN has none that crosses untagged.
        assert_eq!(plan(&bare, &[tagged], 0), ("1,5".to_owned(), 0));
        // Somebody chose another one for this port: that stays.
        let chosen = port(&[(7, 7)], Some(7));
        assert_eq!(
            plan(&chosen, &[port(&[(1, 1)], Some(1))], 1),
            ("1".to_owned(), 0)
        );
    }

    #[test]
    fn a_plan_can_be_typed() {
        let own = port(&[], None);
        let other = port(&[(1, 3), (9, 9)], Some(1));
        let plan = VlanPlan::of(&own, [&other].into_iter(), 1);
        let commands = "bridge vlan add dev fl-lab vid 1 pvid untagged && \
             bridge vlan add dev fl-lab vid 2-3 && bridge vlan add dev fl-lab vid 9";
        assert_eq!(plan.commands("fl-lab"), commands);
        assert!(!plan.is_empty() && VlanPlan::default().is_empty());
    }

    #[test]
    fn ranges_of_the_kernel() {
        let info = |vid, flags| BridgeVlanInfo { vid, flags };
        let native = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        let none = BridgeVlanInfoFlags::empty();
        let mut vlans = PortVlans::default();
        vlans.add(
            [
                info(1, native),
                info(20, BridgeVlanInfoFlags::RangeBegin),
                info(29, BridgeVlanInfoFlags::RangeEnd),
                info(40, none),
            ]
            .into_iter(),
        );
        assert_eq!(
            (vlans.carries.to_string(), vlans.pvid),
            ("1,20-29,40".to_owned(), Some(1))
        );
    }
}
