//! A history as data: who is there, what they say, what is done to them and when. It can be printed, read again, and cut down.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use nat_traversal::entropy::Entropy;
use overlay_proto::ethernet::MacAddr;
use serde::{Deserialize, Serialize};

use crate::net::nat::NatBehaviour;
use crate::net::random::stream;

/// Hosts of one history, at most: their addresses are made of their numbers.
pub const MAX_HOSTS: u16 = 10_000;

/// Networks of one history, at most.
pub const MAX_NETWORKS: usize = 16;

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// On the internet.
    Public,
    /// Behind a NAT that keeps ports.
    PortPreserving,
    /// Behind one that gives other ports.
    PortRewriting,
    /// Behind one that gives another port for each destination.
    Symmetric,
    /// Behind one that lets everybody in.
    FullCone,
    /// Behind a Linux router that accepts for itself what nobody asked for.
    BareLinux,
    /// Behind a home router behind the provider's NAT.
    CarrierGrade,
}

impl Site {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Public,
        Self::PortPreserving,
        Self::PortRewriting,
        Self::Symmetric,
        Self::FullCone,
        Self::BareLinux,
        Self::CarrierGrade,
    ];

    /// The gateways on the way out, the one at the internet first.
    #[must_use]
    pub const fn gateways(self) -> &'static [NatBehaviour] {
        match self {
            Self::Public => &[],
            Self::PortPreserving => &[NatBehaviour::PORT_PRESERVING],
            Self::PortRewriting => &[NatBehaviour::PORT_REWRITING],
            Self::Symmetric => &[NatBehaviour::SYMMETRIC],
            Self::FullCone => &[NatBehaviour::FULL_CONE],
            Self::BareLinux => &[NatBehaviour::BARE_LINUX],
            Self::CarrierGrade => &NatBehaviour::CARRIER_GRADE,
        }
    }
}

/// A host, in a site of its own. It is known by its number, whoever else is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Its number.
    pub host: u16,
    /// Where it is.
    pub site: Site,
    /// Delay of its link, ms, each way.
    pub delay_ms: u16,
    /// Jitter of its link until all is healed, ms.
    pub jitter_ms: u16,
    /// Loss on its link until all is healed, percent each way.
    pub loss_percent: u8,
    /// Datagrams that are overtaken by later ones until all is healed, percent each way.
    #[serde(default)]
    pub reordered_percent: u8,
    /// Datagrams that come twice until all is healed, percent each way.
    #[serde(default)]
    pub doubled_percent: u8,
    /// The networks that it is in, by number.
    pub networks: Vec<usize>,
    /// When its node starts for the first time, ms.
    pub starts_ms: u64,
    /// When its membership ends, s after the start; 0: not in this history.
    #[serde(default)]
    pub ends_s: u64,
    /// It is the hostile member: no node runs on it, but something with a member's keys that does what [`Attack`] says.
    #[serde(default)]
    pub hostile: bool,
}

/// A guest. It is known by its number, whoever else is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPlan {
    /// Its number, of which its MAC is made.
    pub guest: u16,
    /// The host that it is plugged into at first.
    pub host: u16,
    /// Its network, by number.
    pub network: usize,
}

impl GuestPlan {
    /// Its MAC.
    #[must_use]
    pub const fn mac(&self) -> MacAddr {
        mac_of(self.guest)
    }
}

/// The MAC of the guest with this number.
#[must_use]
pub const fn mac_of(guest: u16) -> MacAddr {
    let [high, low] = guest.to_be_bytes();
    MacAddr([0x52, 0x54, 0, 0, high, low])
}

/// What the hostile member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Signs claims for so many MACs that nobody has.
    MakeUpClaims(u8),
    /// Signs a claim for a guest's MAC, above the owner's.
    Steal(u16),
    /// Signs a claim for a guest's MAC with a generation beyond what the overlay's age allows.
    ClaimTheFuture(u16),
    /// Sends frames with a guest's MAC as their source, to all it has a session with.
    Forge(u16),
    /// Sends a frame with a selector that was not agreed.
    WrongNetwork,
    /// Sends old datagrams again, as they were, and claims that have been replaced.
    Replay,
    /// Hands documents of the authority on, old ones and forged ones.
    Documents,
    /// Sends noise: as datagrams, in sessions, on the channel.
    Noise,
}

/// Something that is done to the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A host loses its power.
    Kill(u16),
    /// A host that lost its power starts again, from what is on its disk.
    Start(u16),
    /// A host is restored from a snapshot of its memory, or has slept.
    Restore(u16),
    /// The administrator of a host lets it leave for good.
    Leave(u16),
    /// A copy of a host, disk and all, starts elsewhere while the host goes on.
    Clone(u16),
    /// The wall clock of a host jumps by so many seconds.
    Jump {
        /// The host.
        host: u16,
        /// Forwards, or backwards if negative.
        seconds: i32,
    },
    /// A host's cable is pulled, or plugged in again.
    Cut {
        /// The host.
        host: u16,
        /// Pulled?
        cut: bool,
    },
    /// From now on only these hosts reach each other, and the others each other.
    Partition(BTreeSet<u16>),
    /// Partitions end.
    Join,
    /// The cables of all bootstraps are pulled, or plugged in again.
    CutBootstrap(bool),
    /// The router of a host's site restarts and has forgotten its mappings.
    RestartNat(u16),
    /// The provider gives the site of a host another address.
    Renumber(u16),
    /// A guest moves to another host, and says so, as hypervisors do.
    Move {
        /// The guest.
        guest: u16,
        /// Where it goes.
        to: u16,
    },
    /// A guest says nothing any more, or speaks again.
    Silence {
        /// The guest.
        guest: u16,
        /// Is it silent?
        silent: bool,
    },
    /// A guest sends with the MAC of another one, too, or is honest again.
    Lie {
        /// The guest.
        guest: u16,
        /// Whose MAC; `None`: its own alone.
        mac_of: Option<u16>,
    },
    /// The authority takes a host's membership back, by a command on another host.
    Revoke {
        /// Whose.
        host: u16,
        /// Where the command is typed.
        at: u16,
        /// Do its networks get new keys?
        #[serde(default)]
        keys: bool,
    },
    /// The hostile member attacks.
    Attack(Attack),
}

impl Event {
    /// The hosts that it needs.
    fn hosts(&self) -> Vec<u16> {
        match self {
            Self::Kill(host)
            | Self::Start(host)
            | Self::Restore(host)
            | Self::Leave(host)
            | Self::Clone(host)
            | Self::RestartNat(host)
            | Self::Renumber(host)
            | Self::Jump { host, .. }
            | Self::Cut { host, .. } => vec![*host],
            Self::Move { to, .. } => vec![*to],
            Self::Revoke { host, at, .. } => vec![*host, *at],
            Self::Partition(_)
            | Self::Join
            | Self::CutBootstrap(_)
            | Self::Silence { .. }
            | Self::Lie { .. }
            | Self::Attack(_) => Vec::new(),
        }
    }

    /// The guests that it needs.
    fn guests(&self) -> Vec<u16> {
        match self {
            Self::Move { guest, .. } | Self::Silence { guest, .. } => vec![*guest],
            Self::Lie { guest, mac_of } => std::iter::once(*guest).chain(*mac_of).collect(),
            Self::Attack(
                Attack::Steal(guest) | Attack::ClaimTheFuture(guest) | Attack::Forge(guest),
            ) => vec![*guest],
            _ => Vec::new(),
        }
    }
}

/// An event and when it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// What happens.
    pub event: Event,
}

/// How often guests speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// A frame to another guest, each so many ms; 0: never.
    pub unicast_ms: u64,
    /// A frame to all, each so many ms; 0: never.
    pub broadcast_ms: u64,
}

const fn one() -> u8 {
    1
}

/// A whole history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides all that chance decides while it runs.
    pub seed: u64,
    /// How many networks there are.
    pub networks: usize,
    /// How many bootstraps there are.
    #[serde(default = "one")]
    pub bootstraps: u8,
    /// How often guests speak.
    pub traffic: Traffic,
    /// By number.
    pub hosts: Vec<HostPlan>,
    /// By number.
    pub guests: Vec<GuestPlan>,
    /// By time.
    pub events: Vec<Timed>,
    /// When all that was done is undone, as far as it can be, ms.
    pub heals_ms: u64,
    /// How long it may take after that until all is well, ms.
    pub patience_ms: u64,
    /// Do members come and go once more when all is well?
    #[serde(default)]
    pub afterwards: bool,
}

impl Plan {
    /// As text, one host, guest and event a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = |value: serde_json::Result<String>| value.unwrap_or_default();
        let list = |lines: Vec<String>| {
            if lines.is_empty() {
                return "[]".to_owned();
            }
            format!("[\n    {}\n  ]", lines.join(",\n    "))
        };
        let hosts = self
            .hosts
            .iter()
            .map(|one| line(serde_json::to_string(one)));
        let guests = self
            .guests
            .iter()
            .map(|one| line(serde_json::to_string(one)));
        let events = self
            .events
            .iter()
            .map(|one| line(serde_json::to_string(one)));
        format!(
            "{{\n  \"seed\": {}, \"networks\": {}, \"bootstraps\": {}, \"traffic\": {},\n  \"heals_ms\": {}, \"patience_ms\": {}, \"afterwards\": {},\n  \
             \"hosts\": {},\n  \"guests\": {},\n  \"events\": {}\n}}\n",
            self.seed,
            self.networks,
            self.bootstraps,
            line(serde_json::to_string(&self.traffic)),
            self.heals_ms,
            self.patience_ms,
            self.afterwards,
            list(hosts.collect()),
            list(guests.collect()),
            list(events.collect()),
        )
    }

    /// What [`Plan::to_text`] made, or somebody wrote.
    ///
    /// # Errors
    /// It is no history: it does not parse, numbers are not in order or above [`MAX_HOSTS`], or a guest is in a network that
    /// its host is not in.
    pub fn from_text(text: &str) -> Result<Self> {
        let plan: Self = serde_json::from_str(text).context("this is no history")?;
        ensure!(
            (1..=MAX_NETWORKS).contains(&plan.networks),
            "1 to {MAX_NETWORKS} networks"
        );
        ensure!((1..=8).contains(&plan.bootstraps), "1 to 8 bootstraps");
        let hosts = plan.hosts.windows(2).all(|two| match two {
            [one, two] => one.host < two.host,
            _ => true,
        });
        ensure!(hosts, "the hosts are not in the order of their numbers");
        let guests = plan.guests.windows(2).all(|two| match two {
            [one, two] => one.guest < two.guest,
            _ => true,
        });
        ensure!(guests, "the guests are not in the order of their numbers");
        for host in &plan.hosts {
            ensure!(host.host < MAX_HOSTS, "hosts are below {MAX_HOSTS}");
            let known = host.networks.iter().all(|one| *one < plan.networks);
            ensure!(known, "host {} is in a network that is none", host.host);
        }
        for guest in &plan.guests {
            let host = plan.host(guest.host);
            let fits = host.is_some_and(|host| host.networks.contains(&guest.network));
            ensure!(fits, "guest {} has no host in its network", guest.guest);
        }
        Ok(plan)
    }

    /// The host with this number.
    #[must_use]
    pub fn host(&self, number: u16) -> Option<&HostPlan> {
        let place = self
            .hosts
            .binary_search_by_key(&number, |one| one.host)
            .ok()?;
        self.hosts.get(place)
    }

    /// Without the hosts that `stays` does not want, their guests, and the events that need either.
    #[must_use]
    pub fn without(&self, stays: impl Fn(u16) -> bool) -> Self {
        let mut plan = self.clone();
        plan.hosts.retain(|one| stays(one.host));
        plan.guests.retain(|one| stays(one.host));
        let guests: BTreeSet<u16> = plan.guests.iter().map(|one| one.guest).collect();
        plan.events.retain_mut(|timed| {
            if let Event::Partition(island) = &mut timed.event {
                island.retain(|host| stays(*host));
                return !island.is_empty();
            }
            timed.event.hosts().into_iter().all(&stays)
                && timed
                    .event
                    .guests()
                    .iter()
                    .all(|guest| guests.contains(guest))
        });
        plan
    }
}

/// A number that is drawn for the `turn`-th time by the consumer `name` of the history `seed`, whatever others draw.
#[must_use]
pub fn draw(seed: u64, name: &str, turn: u64) -> u64 {
    stream(seed, &format!("{name} {turn}")).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let host = |host, hostile| HostPlan {
            host,
            site: Site::Symmetric,
            delay_ms: 5,
            jitter_ms: 0,
            loss_percent: 1,
            reordered_percent: 1,
            doubled_percent: 0,
            networks: vec![0],
            starts_ms: 0,
            ends_s: 0,
            hostile,
        };
        let guest = |guest| GuestPlan {
            guest,
            host: guest,
            network: 0,
        };
        let at = |at_ms, event| Timed { at_ms, event };
        Plan {
            seed: 7,
            networks: 1,
            bootstraps: 2,
            traffic: Traffic {
                unicast_ms: 100,
                broadcast_ms: 0,
            },
            hosts: vec![host(1, false), host(2, false), host(5, true)],
            guests: vec![guest(1), guest(2)],
            events: vec![
                at(5, Event::Kill(1)),
                at(6, Event::Partition(BTreeSet::from([1, 2]))),
                at(7, Event::Attack(Attack::Steal(2))),
                at(
                    8,
                    Event::Lie {
                        guest: 1,
                        mac_of: Some(2),
                    },
                ),
                at(
                    9,
                    Event::Revoke {
                        host: 2,
                        at: 1,
                        keys: true,
                    },
                ),
                at(10, Event::Join),
            ],
            heals_ms: 11,
            patience_ms: 12,
            afterwards: false,
        }
    }

    #[test]
    fn a_history_that_was_printed_is_read_again() {
        let plan = plan();
        assert_eq!(Plan::from_text(&plan.to_text()).unwrap(), plan);
        let empty = plan.without(|_| false);
        assert_eq!(Plan::from_text(&empty.to_text()).unwrap(), empty);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |change: &dyn Fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            Plan::from_text(&plan.to_text()).is_err()
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|plan| plan.networks = 0));
        assert!(refused(&|plan| plan.hosts.reverse()));
        assert!(refused(&|plan| plan.guests.reverse()));
        assert!(refused(&|plan| plan.hosts[2].host = MAX_HOSTS));
        assert!(refused(&|plan| plan.hosts[0].networks = vec![1]));
        assert!(refused(&|plan| plan.guests[0].host = 3));
        assert!(Plan::from_text("{").is_err());
    }

    #[test]
    fn what_needs_a_host_that_is_gone_goes_with_it() {
        let left = plan().without(|host| host != 1);
        assert_eq!(left.hosts.len(), 2);
        assert_eq!(left.guests.len(), 1);
        let events: Vec<_> = left.events.into_iter().map(|timed| timed.event).collect();
        let island = Event::Partition(BTreeSet::from([2]));
        let steal = Event::Attack(Attack::Steal(2));
        assert_eq!(events, [island, steal, Event::Join]);
    }
}
