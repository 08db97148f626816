//! What is recorded against what the kernel shows: the steps that undo the difference, and what to
//! warn of where it may not be undone. Pure: the executor is [`mod@super::reconcile`].
//!
//! The record is the administrator's word. What was made from it here is put back: made again,
//! named again, plugged in again, set up again. What was not made here (a user's bridge, an interface
//! that has one of our names) is never touched, only told. A plan holds what can be done now; the
//! executor looks again after it, so a port need not be planned before its bridge is there.

use tap_bridge::tap::TapKind;
use tap_bridge::{Link, LinkKind};

use super::making::interfaces;
use super::ports::BridgePorts;
use super::store::{AttachmentRecord, Book};

/// The most that the kernel lets a tap carry, in bytes of payload: 65,535 with the Ethernet header.
const MAX_TAP_MTU: u32 = 65_521;

/// Undoes one difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The own bridge is missing.
    MakeBridge,
    /// One of the network's taps is missing.
    MakeTap {
        /// Its name.
        name: String,
        /// For whom.
        kind: TapKind,
        /// Who may open it; `None` is the node.
        owner: Option<u32>,
        /// Bytes of payload.
        mtu: u32,
        /// Of which bridge it is a port.
        bridge: Link,
    },
    /// An interface that was made here has another name.
    Rename {
        /// It, as it is named now.
        link: Link,
        /// Its recorded name.
        to: String,
    },
    /// It belongs on the bridge.
    Join {
        /// The port.
        port: Link,
        /// The bridge.
        bridge: Link,
    },
    /// It was on the bridge that was there before this one.
    PutBack {
        /// The port.
        port: Link,
        /// The bridge.
        bridge: Link,
    },
    /// It is down.
    Up(Link),
    /// It has another MTU.
    SetMtu {
        /// It.
        link: Link,
        /// Bytes of payload.
        mtu: u32,
    },
    /// A user's bridge may be as small as it is only because of our ports.
    TryMtu {
        /// Our ports.
        ports: Vec<Link>,
        /// The bridge.
        bridge: Link,
        /// The smallest MTU of the other ports.
        mtu: u32,
    },
    /// The NIC is no port of the own bridge.
    PlugNic {
        /// The bridge.
        bridge: Link,
    },
}

/// What the user should know of one interface of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub interface: String,
    /// One line: what, why, what to do.
    pub text: String,
}

/// What to do for one network.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) findings: Vec<Finding>,
    /// The ports of the own bridge that are not ours, when there is nothing to put back on it.
    pub(super) ports: Option<BridgePorts>,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// What is recorded.
    pub(super) book: &'a Book,
    /// What the kernel shows.
    pub(super) links: &'a [Link],
    /// The boot of this look: numbers of interfaces mean something in one boot only.
    pub(super) boot: &'a str,
    /// A user's bridge that stayed as it was when our ports became larger: its MTU and the smallest
    /// MTU of its other ports.
    pub(super) refused: Option<(u32, u32)>,
}

/// How the interface that should have a name was found.
enum Found<'a> {
    Ours(&'a Link),
    Renamed(&'a Link),
    Foreign,
    Nothing,
}

impl<'a> Facts<'a> {
    /// The plan for the attachment `record` of the book.
    pub(super) fn plan(&self, record: &AttachmentRecord) -> Plan {
        let mut plan = Plan::default();
        let Some(bridge) = self.bridge(record, &mut plan) else {
            return plan;
        };
        let mut ours = Vec::new();
        let mtu = if record.bridge_is_ours {
            record.mtu
        } else {
            bridge.mtu
        };
        let own = (record.tap.as_str(), TapKind::Overlay, None);
        let vms = record.vms.iter();
        let vms = vms.map(|vm| (vm.name.as_str(), TapKind::Vm, Some(vm.owner)));
        for tap in [own].into_iter().chain(vms) {
            ours.extend(self.tap(record, tap, bridge, mtu, &mut plan));
        }
        self.mtu(record, bridge, mtu, &ours, &mut plan);
        self.nic(record, bridge, &mut plan);
        if record.bridge_is_ours {
            self.ports(record, bridge, &mut plan);
        }
        plan
    }

    /// The bridge, if ports can be planned.
    fn bridge(&self, record: &AttachmentRecord, plan: &mut Plan) -> Option<&'a Link> {
        let (name, network) = (&record.bridge, &record.network);
        let mut find = |text: String| plan.findings.push(finding(name, text));
        if record.bridge_is_ours {
            return match self.find(name, LinkKind::Bridge) {
                Found::Ours(link) => {
                    if !link.up {
                        plan.steps.push(Step::Up(link.clone()));
                    }
                    if link.mtu != record.mtu {
                        plan.steps.push(Step::SetMtu {
                            link: link.clone(),
                            mtu: record.mtu,
                        });
                    }
                    Some(link)
                }
                Found::Renamed(link) => {
                    plan.steps.push(rename(link, name));
                    None
                }
                Found::Nothing => {
                    plan.steps.push(Step::MakeBridge);
                    None
                }
                Found::Foreign => {
                    find(format!(
                        "network {network} is cut off: {name}, the name of its bridge, belongs to an \
                         interface that Farlan did not make; remove it with `ip link delete {name}`, or \
                         attach by another name: `farlan detach {network}`, then `farlan attach {network}`"
                    ));
                    None
                }
            };
        }
        let Some(link) = self.links.iter().find(|link| link.name == *name) else {
            find(format!(
                "network {network} is cut off: there is no bridge {name}; the network joins it within \
                 seconds once it is there. To give it up type `farlan detach {network}`"
            ));
            return None;
        };
        if link.kind != LinkKind::Bridge {
            find(format!(
                "network {network} is cut off: {name} is no bridge; make it one, or type \
                 `farlan detach {network}`, then `farlan attach {network}`"
            ));
            return None;
        }
        if !link.up {
            find(format!(
                "network {network} is cut off: its bridge {name} is down; type `ip link set {name} up`"
            ));
        }
        Some(link)
    }

    /// The tap, if it is there under its name.
    fn tap(
        &self,
        record: &AttachmentRecord,
        (name, kind, owner): (&str, TapKind, Option<u32>),
        bridge: &Link,
        mtu: u32,
        plan: &mut Plan,
    ) -> Option<&'a Link> {
        match self.find(name, LinkKind::Tun) {
            Found::Nothing => {
                plan.steps.push(Step::MakeTap {
                    name: name.to_owned(),
                    kind,
                    owner,
                    mtu,
                    bridge: bridge.clone(),
                });
                None
            }
            Found::Renamed(link) => {
                plan.steps.push(rename(link, name));
                None
            }
            Found::Foreign => {
                let network = &record.network;
                let way_out = match kind {
                    TapKind::Overlay => format!(
                        "attach by another name: `farlan detach {network} --force`, then \
                         `farlan attach {network}`"
                    ),
                    TapKind::Vm => format!("give it up: `farlan detach {network} --vm {name}`"),
                };
                plan.findings.push(finding(
                    name,
                    format!(
                        "{name}, the name of a tap of network {network}, belongs to an interface that \
                         Farlan did not make; remove it with `ip link delete {name}`, or {way_out}"
                    ),
                ));
                None
            }
            Found::Ours(link) => {
                if link.master != Some(bridge.index) {
                    plan.steps.push(Step::Join {
                        port: link.clone(),
                        bridge: bridge.clone(),
                    });
                }
                if !link.up {
                    plan.steps.push(Step::Up(link.clone()));
                }
                Some(link)
            }
        }
    }

    /// Our ports carry what their bridge carries. The own bridge carries what is recorded. A user's
    /// bridge is left alone, but the kernel gives a bridge whose MTU nobody set the smallest MTU of its
    /// ports. So a port of ours that is as small as the bridge, while all others are larger, may be what
    /// keeps the bridge small: that can only be tried.
    fn mtu(
        &self,
        record: &AttachmentRecord,
        bridge: &Link,
        mtu: u32,
        ours: &[&Link],
        plan: &mut Plan,
    ) {
        let target = mtu.min(MAX_TAP_MTU);
        let wrong = ours.iter().filter(|link| link.mtu != target);
        let before = plan.steps.len();
        plan.steps.extend(wrong.map(|link| Step::SetMtu {
            link: (*link).clone(),
            mtu: target,
        }));
        if record.bridge_is_ours || plan.steps.len() > before {
            return;
        }
        let is_ours = |link: &&Link| interfaces(record).any(|name| name == link.name);
        let ports = self.links.iter();
        let ports = ports.filter(|link| link.master == Some(bridge.index));
        let others = ports.filter(|link| !is_ours(link));
        let Some(least) = others.map(|link| link.mtu).min() else {
            return;
        };
        let larger = least.min(MAX_TAP_MTU);
        let here = |link: &&&Link| link.master == Some(bridge.index);
        if larger > bridge.mtu && self.refused != Some((bridge.mtu, larger)) && !ours.is_empty() {
            plan.steps.push(Step::TryMtu {
                ports: ours.iter().filter(here).map(|one| (*one).clone()).collect(),
                bridge: bridge.clone(),
                mtu: larger,
            });
        }
    }

    fn nic(&self, record: &AttachmentRecord, bridge: &Link, plan: &mut Plan) {
        let Some(nic) = &record.nic else { return };
        let (name, network) = (&nic.name, &record.network);
        let mut find = |text: String| plan.findings.push(finding(name, text));
        let Some(link) = self.links.iter().find(|link| link.name == *name) else {
            find(format!(
                "the NIC {name} of network {network} is not there; it joins within seconds once it is. \
                 To give it up type `farlan detach {network} --nic {name}`"
            ));
            return;
        };
        match link.master {
            Some(master) if master == bridge.index => {
                if !link.up {
                    plan.steps.push(Step::Up(link.clone()));
                }
                if link.mtu < record.mtu {
                    let (has, wants) = (link.mtu, record.mtu);
                    find(format!(
                        "the NIC {name} carries packets of {has} bytes, network {network} of {wants}: \
                         larger ones are lost there; if its LAN can, type `ip link set {name} mtu {wants}`"
                    ));
                }
            }
            Some(_) => find(format!(
                "the NIC {name} of network {network} was put on another bridge; take it out with \
                 `ip link set {name} nomaster`, or give it up: `farlan detach {network} --nic {name}`"
            )),
            // Its addresses come first, and that needs more than a look at links.
            None if nic.moved.is_some() => find(format!(
                "the NIC {name} is not on network {network}; it joins once it has its addresses, which \
                 move to {} with it",
                bridge.name
            )),
            None => plan.steps.push(Step::PlugNic {
                bridge: bridge.clone(),
            }),
        }
    }

    /// What was on the own bridge before it was made anew is put back.
    fn ports(&self, record: &AttachmentRecord, bridge: &Link, plan: &mut Plan) {
        let remembered = self.book.ports_of(&record.network);
        let remembered = remembered.filter(|one| one.boot == self.boot);
        let back: Vec<Step> = remembered
            .filter(|one| one.bridge != bridge.index)
            .into_iter()
            .flat_map(|one| one.missing(self.links))
            .map(|port| Step::PutBack {
                port: port.clone(),
                bridge: bridge.clone(),
            })
            .collect();
        if back.is_empty() {
            plan.ports = Some(BridgePorts::seen(record, bridge, self.links, self.boot));
        } else {
            plan.steps.extend(back);
        }
    }

    fn find(&self, name: &str, kind: LinkKind) -> Found<'a> {
        match self.links.iter().find(|link| link.name == name) {
            Some(link) if self.is_marked(link) && link.kind == kind => Found::Ours(link),
            Some(_) => Found::Foreign,
            None => self.renamed(kind).map_or(Found::Nothing, Found::Renamed),
        }
    }

    /// The one interface of this kind that was made here and has a name that is not recorded, if one
    /// recorded interface is missing: else nobody knows which is which.
    fn renamed(&self, kind: LinkKind) -> Option<&'a Link> {
        let recorded = |name: &str| {
            let mut records = self.book.attachments.iter();
            records.any(|record| interfaces(record).any(|one| one == name))
        };
        let marked = self.links.iter().filter(|link| self.is_marked(link));
        let mut strays = marked.filter(|link| link.kind == kind && !recorded(&link.name));
        let stray = strays.next()?;
        let records = self.book.attachments.iter();
        let names = records.flat_map(|record| {
            interfaces(record).filter(|name| {
                let is_bridge = record.bridge_is_ours && **name == record.bridge;
                is_bridge == (kind == LinkKind::Bridge)
            })
        });
        let missing = names.filter(|name| self.links.iter().all(|link| link.name != *name));
        (strays.next().is_none() && missing.count() == 1).then_some(stray)
    }

    fn is_marked(&self, link: &Link) -> bool {
        link.alias.as_deref() == Some(self.book.mark.as_str())
    }
}

fn rename(link: &Link, to: &str) -> Step {
    Step::Rename {
        link: link.clone(),
        to: to.to_owned(),
    }
}

fn finding(interface: &str, text: String) -> Finding {
    Finding {
        interface: interface.to_owned(),
        text,
    }
}

#[cfg(test)]
mod tests;
