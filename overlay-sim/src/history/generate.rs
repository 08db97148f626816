//! Makes histories out of seeds.

use std::collections::BTreeSet;

use nat_traversal::entropy::SeededEntropy;

use super::plan::{Attack, Event, GuestPlan, HostPlan, MAX_NETWORKS, Plan, Site, Timed, Traffic};
use crate::net::random::{below, stream};

/// How long it may take after all is healed until everybody reaches everybody. A bootstrap is dialled every 5 s, whoever is not
/// reached is sought within 5 s of that and again after 10 and 20 s, and what was lost in between is compared every 15 s.
pub const PATIENCE_MS: u64 = 60_000;

/// So many hosts share one network where there are many of them.
const CROWD: u16 = 25;

/// How many networks a history of so many nodes has: two, and above 75 nodes one for each 25. In one network of 300 there are 45,000
/// pairs that meet before anything happens.
#[must_use]
pub fn networks_for(nodes: u16) -> usize {
    usize::from(nodes / CROWD).clamp(2, MAX_NETWORKS)
}

/// What a history is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Hosts, the hostile one included.
    pub nodes: u16,
    /// Networks, at most [`MAX_NETWORKS`].
    pub networks: usize,
    /// Guests on each host.
    pub guests: u16,
    /// How long things happen, ms.
    pub time_ms: u64,
    /// Nothing happens but that nodes start and guests speak; links lose nothing.
    pub calm: bool,
    /// How often guests speak.
    pub traffic: Traffic,
}

impl Shape {
    /// A history of so many nodes and minutes, with one guest a node and two networks.
    #[must_use]
    pub fn new(nodes: u16, minutes: u64) -> Self {
        Self {
            nodes,
            networks: networks_for(nodes),
            guests: 1,
            time_ms: minutes * 60_000,
            calm: false,
            traffic: Traffic {
                unicast_ms: 5_000,
                broadcast_ms: 60_000,
            },
        }
    }
}

/// The history of this shape and seed.
#[must_use]
pub fn generate(seed: u64, shape: &Shape) -> Plan {
    let mut chance = stream(seed, "history");
    let bootstraps = if shape.calm {
        1
    } else {
        1 + u8::try_from(below(&mut chance, 2)).unwrap_or(0)
    };
    let mut generator = Generator {
        chance,
        shape: *shape,
        down: BTreeSet::new(),
        gone: BTreeSet::new(),
        plan: Plan {
            seed,
            networks: shape.networks.clamp(1, MAX_NETWORKS),
            bootstraps,
            traffic: shape.traffic,
            hosts: Vec::new(),
            guests: Vec::new(),
            events: Vec::new(),
            heals_ms: shape.time_ms,
            patience_ms: PATIENCE_MS,
            afterwards: !shape.calm,
        },
    };
    for host in 1..=shape.nodes {
        generator.add_host(host);
    }
    if !shape.calm {
        generator.disturb();
    }
    generator.plan
}

struct Generator {
    chance: SeededEntropy,
    shape: Shape,
    /// Hosts that lost their power.
    down: BTreeSet<u16>,
    /// Hosts that left or were revoked.
    gone: BTreeSet<u16>,
    plan: Plan,
}

impl Generator {
    fn below(&mut self, bound: u64) -> u64 {
        below(&mut self.chance, bound)
    }

    fn small(&mut self, bound: u16) -> u16 {
        u16::try_from(self.below(bound.into())).unwrap_or(0)
    }

    /// So many percent of a link, below `bound`.
    fn trouble(&mut self, bound: u64) -> u8 {
        if self.shape.calm {
            return 0;
        }
        u8::try_from(self.below(bound)).unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let count = u64::try_from(all.len()).unwrap_or(0);
        let place = usize::try_from(self.below(count)).ok()?;
        all.get(place).copied()
    }

    fn add_host(&mut self, host: u16) {
        let Shape { calm, time_ms, .. } = self.shape;
        let hostile = !calm && host == self.shape.nodes && host > 4;
        let site = self.one_of(&Site::ALL).unwrap_or(Site::Public);
        let networks = self.networks_of(host);
        let plan = HostPlan {
            host,
            // Somebody has to be where everybody gets.
            site: if hostile { Site::Public } else { site },
            delay_ms: 1 + self.small(60),
            jitter_ms: if calm { 0 } else { self.small(15) },
            loss_percent: self.trouble(3),
            reordered_percent: self.trouble(3),
            doubled_percent: self.trouble(2),
            // A third is late.
            starts_ms: match self.below(3) {
                0 if !calm => self.below(time_ms / 2),
                _ => self.below(2_000),
            },
            networks: networks.clone(),
            // One of fifteen is a member for a part of the time only.
            ends_s: match self.below(15) {
                0 if !calm && !hostile => 5 + self.below(time_ms / 2_000),
                _ => 0,
            },
            hostile,
        };
        self.plan.hosts.push(plan);
        if hostile {
            return;
        }
        for turn in 0..self.shape.guests {
            let network = networks.get(usize::from(turn) % networks.len().max(1));
            let guest = GuestPlan {
                guest: (host - 1) * self.shape.guests + turn + 1,
                host,
                network: network.copied().unwrap_or(0),
            };
            self.plan.guests.push(guest);
        }
    }

    /// Most hosts are in one network, one of five is in two.
    fn networks_of(&self, host: u16) -> Vec<usize> {
        let count = self.plan.networks;
        let own = usize::from(host) % count;
        let next = (own + 1) % count;
        if host.is_multiple_of(5) && next != own {
            vec![own.min(next), own.max(next)]
        } else {
            vec![own]
        }
    }

    /// About one thing in four seconds, more where more can happen; a revocation, a clone and someone who leaves in each.
    fn disturb(&mut self) {
        let time = self.shape.time_ms;
        let count = time / 4_000 + u64::from(self.shape.nodes) / 3;
        let mut times: Vec<u64> = (0..count).map(|_| 1_000 + self.below(time)).collect();
        times.sort_unstable();
        let rare = [
            self.below(count),
            self.below(count),
            self.below(count),
            count / 2 + self.below(count / 2 + 1),
        ];
        for (turn, at_ms) in (0..).zip(times) {
            let rare = rare.iter().position(|one| *one == turn);
            let event = match rare {
                Some(0) => self.leave(),
                Some(1) => self.node().map(Event::Clone),
                Some(2) => self.partition(),
                Some(_) => self.revoke(),
                None => self.usual(),
            };
            if let Some(event) = event {
                self.plan.events.push(Timed { at_ms, event });
            }
        }
    }

    /// A host that is up and a member, and not the hostile one.
    fn node(&mut self) -> Option<u16> {
        let hosts = self.plan.hosts.iter().filter(|one| !one.hostile);
        let up = hosts.map(|one| one.host);
        let up = up.filter(|host| !self.down.contains(host) && !self.gone.contains(host));
        let up: Vec<u16> = up.collect();
        self.one_of(&up)
    }

    fn guest(&mut self) -> Option<GuestPlan> {
        let count = u64::try_from(self.plan.guests.len()).ok()?;
        let place = usize::try_from(self.below(count)).ok()?;
        self.plan.guests.get(place).cloned()
    }

    fn leave(&mut self) -> Option<Event> {
        let host = self.node()?;
        self.gone.insert(host);
        Some(Event::Leave(host))
    }

    fn revoke(&mut self) -> Option<Event> {
        let at = self.node()?;
        let hostile = self.plan.hosts.iter().find(|one| one.hostile);
        let hostile = hostile.map(|one| one.host);
        let host = match self.below(2) {
            0 => hostile,
            _ => None,
        };
        let host = match host {
            Some(host) => host,
            None => self.node()?,
        };
        self.gone.insert(host);
        let keys = self.below(2) == 0;
        (host != at).then_some(Event::Revoke { host, at, keys })
    }

    fn partition(&mut self) -> Option<Event> {
        let hosts: Vec<u16> = self.plan.hosts.iter().map(|one| one.host).collect();
        let island = hosts.into_iter().filter(|_| self.below(3) == 0);
        let island: BTreeSet<u16> = island.collect();
        (!island.is_empty()).then_some(Event::Partition(island))
    }

    fn usual(&mut self) -> Option<Event> {
        let chosen = self.below(20);
        Some(match chosen {
            0..=2 => {
                let host = self.node()?;
                self.down.insert(host);
                Event::Kill(host)
            }
            3..=5 => Event::Start(self.down.pop_first()?),
            6 => Event::Restore(self.node()?),
            7 => Event::Jump {
                host: self.node()?,
                seconds: i32::try_from(self.below(500)).unwrap_or(0) - 250,
            },
            8 | 9 => Event::Cut {
                host: self.node()?,
                cut: self.below(2) == 0,
            },
            10 => match self.below(2) {
                0 => self.partition()?,
                _ => Event::Join,
            },
            11 => Event::CutBootstrap(self.below(2) == 0),
            12 => Event::RestartNat(self.node()?),
            13 => Event::Renumber(self.node()?),
            14 | 15 => self.move_guest()?,
            16 => Event::Silence {
                guest: self.guest()?.guest,
                silent: self.below(2) == 0,
            },
            17 => self.lie()?,
            _ => Event::Attack(self.attack()?),
        })
    }

    fn move_guest(&mut self) -> Option<Event> {
        let GuestPlan { guest, network, .. } = self.guest()?;
        let hosts = self.plan.hosts.iter();
        let fit = hosts.filter(|one| one.networks.contains(&network) && !one.hostile);
        let fit: Vec<u16> = fit.map(|one| one.host).collect();
        let to = self.one_of(&fit)?;
        Some(Event::Move { guest, to })
    }

    fn lie(&mut self) -> Option<Event> {
        let (liar, other) = (self.guest()?, self.guest()?);
        let fits = liar.network == other.network && liar.guest != other.guest;
        let mac_of = (fits && self.below(3) > 0).then_some(other.guest);
        Some(Event::Lie {
            guest: liar.guest,
            mac_of,
        })
    }

    fn attack(&mut self) -> Option<Attack> {
        self.plan.hosts.last().filter(|one| one.hostile)?;
        let guest = self.guest()?.guest;
        Some(match self.below(8) {
            0 => Attack::MakeUpClaims(1 + u8::try_from(self.below(30)).unwrap_or(0)),
            1 => Attack::Steal(guest),
            2 => Attack::ClaimTheFuture(guest),
            3 => Attack::Forge(guest),
            4 => Attack::WrongNetwork,
            5 => Attack::Replay,
            6 => Attack::Documents,
            _ => Attack::Noise,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_follows_from_its_seed_and_can_be_read_again() {
        let shape = Shape::new(30, 3);
        let plan = generate(4, &shape);
        assert_eq!(plan, generate(4, &shape));
        assert_ne!(plan, generate(5, &shape));
        assert_eq!(Plan::from_text(&plan.to_text()).unwrap(), plan);
    }

    #[test]
    fn over_some_seeds_everything_happens() {
        let plans: Vec<Plan> = (1..=20)
            .map(|seed| generate(seed, &Shape::new(30, 3)))
            .collect();
        let kind = |event: &Event| match event {
            Event::Attack(attack) => format!("{attack:?}"),
            event => format!("{event:?}"),
        };
        let word = |text: String| text.split(['(', ' ']).next().unwrap_or_default().to_owned();
        let events = plans.iter().flat_map(|plan| &plan.events);
        let kinds: BTreeSet<String> = events.map(|timed| word(kind(&timed.event))).collect();
        assert_eq!(kinds.len(), 16 + 8, "{kinds:?}");
        let hosts = plans.iter().flat_map(|plan| &plan.hosts);
        let sites: BTreeSet<String> = hosts.map(|host| format!("{:?}", host.site)).collect();
        assert_eq!(sites.len(), Site::ALL.len());
    }

    #[test]
    fn in_a_calm_history_nothing_happens() {
        let shape = Shape {
            calm: true,
            guests: 3,
            networks: 1,
            ..Shape::new(10, 60)
        };
        let plan = generate(1, &shape);
        assert_eq!(plan.events, []);
        assert_eq!((plan.hosts.len(), plan.guests.len()), (10, 30));
        assert!(
            plan.hosts
                .iter()
                .all(|host| host.loss_percent == 0 && !host.hostile)
        );
    }
}
