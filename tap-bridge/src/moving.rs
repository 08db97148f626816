//! Moving the addresses and routes of a NIC to the bridge that it becomes a port of, and back.
//!
//! The plan is a pure function ([`plan`]): an ordered list of [`Step`]s, each with its inverse. A
//! [`Mover`] takes them one by one; if one fails, the inverses of those done are taken in the
//! opposite order, so that the host is as it was.
//!
//! An address is taken from one interface before the other gets it, for less than a millisecond:
//! TCP does not notice. The other way round the kernel would remove, with the old address, the new
//! routes that name it as their source.

use overlay_proto::ethernet::MacAddr;

use crate::addresses::{HostAddress, HostNetwork, HostRoute};
use crate::error::Error;
use crate::host;
use crate::link::{Link, Links};

/// Where the host has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the NIC.
    Nic,
    /// On the bridge.
    Bridge,
}

impl Place {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Nic => Self::Bridge,
            Self::Bridge => Self::Nic,
        }
    }
}

/// One change of the host's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The bridge answers for its own addresses, and speaks IPv6 if that is moved.
    OpenBridge {
        /// It speaks IPv6.
        ipv6: bool,
    },
    /// The bridge answers for nothing, as one without addresses.
    CloseBridge {
        /// It spoke IPv6.
        ipv6: bool,
    },
    /// The bridge takes an Ethernet address: neighbours know the host by it.
    Mac {
        /// What it has.
        from: MacAddr,
        /// What it takes.
        to: MacAddr,
    },
    /// The NIC becomes a port.
    Plug,
    /// The NIC is a port no more.
    Unplug,
    /// The host speaks IPv6 by the NIC no more; the kernel removes its IPv6 addresses.
    Quiet,
    /// The host speaks IPv6 by the NIC.
    Speak,
    /// A route goes.
    RemoveRoute(Place, HostRoute),
    /// An address goes.
    RemoveAddress(Place, HostAddress),
    /// An address comes.
    AddAddress(Place, HostAddress),
    /// A route comes.
    AddRoute(Place, HostRoute),
}

impl Step {
    /// What undoes it.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self {
            Self::OpenBridge { ipv6 } => Self::CloseBridge { ipv6: *ipv6 },
            Self::CloseBridge { ipv6 } => Self::OpenBridge { ipv6: *ipv6 },
            Self::Mac { from, to } => Self::Mac {
                from: *to,
                to: *from,
            },
            Self::Plug => Self::Unplug,
            Self::Unplug => Self::Plug,
            Self::Quiet => Self::Speak,
            Self::Speak => Self::Quiet,
            Self::RemoveRoute(at, route) => Self::AddRoute(*at, route.clone()),
            Self::RemoveAddress(at, address) => Self::AddAddress(*at, address.clone()),
            Self::AddAddress(at, address) => Self::RemoveAddress(*at, address.clone()),
            Self::AddRoute(at, route) => Self::RemoveRoute(*at, route.clone()),
        }
    }
}

/// What a move needs to know beside addresses and routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NicFacts {
    /// The bridge's own Ethernet address, while the NIC's addresses are not on it.
    pub bridge_mac: MacAddr,
    /// The NIC's.
    pub nic_mac: MacAddr,
    /// The host speaks IPv6 by the NIC, while it is no port.
    pub nic_ipv6: bool,
}

/// The steps that move `what` from the NIC to the bridge (`to` is [`Place::Bridge`]) or back. The
/// way back is the inverse of the way there, whatever was added meanwhile.
#[must_use]
pub fn plan(to: Place, what: &HostNetwork, facts: NicFacts) -> Vec<Step> {
    let ipv6 = what.has_ipv6();
    let mut steps = vec![
        Step::OpenBridge { ipv6 },
        Step::Mac {
            from: facts.bridge_mac,
            to: facts.nic_mac,
        },
        Step::Plug,
    ];
    steps.extend(carry(Place::Bridge, what, |ip| ip.is_ipv4()));
    if ipv6 {
        let sixes = carry(Place::Bridge, what, |ip| ip.is_ipv6());
        let (going, coming): (Vec<_>, Vec<_>) = sixes.into_iter().partition(takes);
        steps.extend(going);
        steps.extend(facts.nic_ipv6.then_some(Step::Quiet));
        steps.extend(coming);
    } else {
        steps.extend(facts.nic_ipv6.then_some(Step::Quiet));
    }
    match to {
        Place::Bridge => steps,
        Place::Nic => undo(&steps),
    }
}

/// The inverses of `done`, last first.
#[must_use]
pub fn undo(done: &[Step]) -> Vec<Step> {
    done.iter().rev().map(Step::inverse).collect()
}

const fn takes(step: &Step) -> bool {
    matches!(step, Step::RemoveRoute(..) | Step::RemoveAddress(..))
}

/// The addresses and routes of one family, from the one place to the other. Routes to a router come
/// after those on the link, by which it is reached; what goes, goes in the opposite order.
fn carry(
    to: Place,
    what: &HostNetwork,
    of_family: impl Fn(&std::net::IpAddr) -> bool,
) -> Vec<Step> {
    let mut addresses: Vec<_> = what.addresses.iter().filter(|a| of_family(&a.ip)).collect();
    if addresses.iter().all(|one| one.ip.is_ipv6()) {
        // The kernel lists the newest first, and of equals chooses the first as a source.
        addresses.reverse();
    }
    let routes = what.routes.iter();
    let mut routes: Vec<_> = routes
        .filter(|route| of_family(&route.to) && !route.comes_with_address())
        .collect();
    routes.sort_by_key(|route| route.gateway.is_some());
    let from = to.other();
    let mut steps = Vec::with_capacity(2 * (addresses.len() + routes.len()));
    let route_goes = |route: &&HostRoute| Step::RemoveRoute(from, (*route).clone());
    steps.extend(routes.iter().rev().map(route_goes));
    let address_goes = |one: &&HostAddress| Step::RemoveAddress(from, (*one).clone());
    steps.extend(addresses.iter().rev().map(address_goes));
    let address_comes = |one: &&HostAddress| Step::AddAddress(to, (*one).clone());
    steps.extend(addresses.iter().map(address_comes));
    let route_comes = |route: &&HostRoute| Step::AddRoute(to, (*route).clone());
    steps.extend(routes.iter().map(route_comes));
    steps
}

/// Takes the steps.
#[derive(Debug)]
pub struct Mover<'a> {
    /// The kernel.
    pub links: &'a Links,
    /// The NIC.
    pub nic: &'a Link,
    /// The bridge.
    pub bridge: &'a Link,
    /// The bridge has addresses of its own: it stays open.
    pub keep_open: bool,
}

impl Mover<'_> {
    /// Takes `steps`; all of them, or none.
    ///
    /// # Errors
    /// The first that failed. Those before it are undone; what could not be undone is logged.
    pub async fn all_or_nothing(&self, steps: &[Step]) -> Result<(), Error> {
        for (at, step) in steps.iter().enumerate() {
            if let Err(error) = self.take(step).await {
                let done = steps.get(..at).unwrap_or_default();
                for error in self.as_far_as_possible(&undo(done)).await {
                    tracing::error!(%error, "a half move could not be undone whole");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes `steps`; one that fails does not keep the others. What failed.
    pub async fn as_far_as_possible(&self, steps: &[Step]) -> Vec<Error> {
        let mut failed = Vec::new();
        for step in steps {
            if let Err(error) = self.take(step).await {
                failed.push(error);
            }
        }
        failed
    }

    async fn take(&self, step: &Step) -> Result<(), Error> {
        let links = self.links;
        let at = |place: &Place| match place {
            Place::Nic => self.nic,
            Place::Bridge => self.bridge,
        };
        match step {
            Step::OpenBridge { ipv6 } => {
                let isolation = host::open_for_address(links, self.bridge, *ipv6).await;
                for why in isolation.not_applied {
                    tracing::warn!("{why}");
                }
                Ok(())
            }
            Step::CloseBridge { .. } if self.keep_open => Ok(()),
            Step::CloseBridge { .. } => {
                host::close(links, self.bridge).await;
                Ok(())
            }
            Step::Mac { to, .. } => links.set_mac(self.bridge, *to).await,
            Step::Plug => links.set_master(self.nic, Some(self.bridge.index)).await,
            Step::Unplug => {
                // It may be a port no more, or of another bridge by now.
                let now = links.get(&self.nic.name).await?;
                if now.master == Some(self.bridge.index) {
                    links.set_master(self.nic, None).await?;
                }
                Ok(())
            }
            Step::Quiet => {
                let _ = host::silence_port(self.nic);
                Ok(())
            }
            Step::Speak => {
                host::unsilence_port(self.nic);
                Ok(())
            }
            Step::RemoveRoute(place, route) => links.remove_host_route(at(place), route).await,
            Step::RemoveAddress(place, address) => {
                links.remove_host_address(at(place), address).await
            }
            Step::AddAddress(place, address) => links.add_host_address(at(place), address).await,
            Step::AddRoute(place, route) => links.add_host_route(at(place), route).await,
        }
    }
}

#[cfg(test)]
mod tests;
