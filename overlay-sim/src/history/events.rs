//! What happens in a history, and how it is undone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use node_core::api::{Request, Response};

use super::failure::{Failure, Found};
use super::frames::{announcement, unicast};
use super::plan::{Attack, Event, mac_of};
use super::run::{Run, State};
use crate::net::topology::{HostId, Net, Station};
use crate::world::{Along, GuestId};

/// Pairs of guests that are tried when all is healed, at most; with fewer guests all pairs are.
const PAIRS: usize = 2_000;

/// Between two rounds of trying.
const ROUND: Duration = Duration::from_secs(5);

/// What has to be undone.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Copies of hosts that run.
    clones: Vec<HostId>,
    /// How often a site got another address.
    renumbered: BTreeMap<u16, u8>,
}

impl Run<'_> {
    /// A host starts for the first time, or again.
    pub(super) fn start(&mut self, number: u16) {
        let Some(placed) = self.hosts.get_mut(&number) else {
            return;
        };
        if !matches!(placed.state, State::Waits | State::Down) {
            return;
        }
        placed.state = State::Up;
        let id = placed.id;
        match self.world.start(id) {
            Ok(()) => self.tell(&format!("host {number} starts")),
            Err(error) => {
                if let Some(placed) = self.hosts.get_mut(&number) {
                    placed.state = State::Gone;
                }
                self.tell(&format!("host {number} cannot start: {error:#}"));
            }
        }
    }

    /// The host, if its node runs.
    pub(super) fn up(&self, number: u16) -> Option<HostId> {
        let placed = self.hosts.get(&number)?;
        (placed.state == State::Up).then_some(placed.id)
    }

    pub(super) fn set_state(&mut self, number: u16, state: State) {
        if let Some(placed) = self.hosts.get_mut(&number) {
            placed.state = state;
        }
    }

    /// Something happens, if it fits.
    pub(super) fn happen(&mut self, event: &Event) {
        if let Some(what) = self.carry_out(event) {
            self.tell(&what);
        }
    }

    fn carry_out(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Start(host) => {
                self.hosts
                    .get(host)
                    .filter(|one| one.state == State::Down)?;
                self.start(*host);
                None
            }
            Event::Kill(host) => {
                self.world.kill(self.up(*host)?);
                self.set_state(*host, State::Down);
                Some(format!("host {host} loses its power"))
            }
            Event::Restore(host) => {
                self.world.restore(self.up(*host)?);
                Some(format!("host {host} is restored from a snapshot"))
            }
            Event::Leave(host) => {
                let answer = self.world.ask(self.up(*host)?, Request::Leave);
                self.set_state(*host, State::Gone);
                debug_assert!(!matches!(answer, Some(Response::Done(_))), "it lingers");
                Some(format!("host {host} leaves"))
            }
            Event::Clone(host) => self.clone_host(*host),
            Event::Jump { host, seconds } => {
                let id = self.up(*host)?;
                let ahead = self.world.clock_ahead(id);
                self.world.set_clock(id, ahead + i64::from(*seconds));
                Some(format!("the clock of host {host} jumps by {seconds} s"))
            }
            Event::Revoke { host, at, keys } => self.revoke((*host, *at), *keys),
            Event::Move { guest, to } => self.move_guest(*guest, *to),
            Event::Silence { guest, silent } => {
                self.guests.get_mut(guest)?.silent = *silent;
                let does = if *silent { "falls silent" } else { "speaks" };
                Some(format!("guest {guest} {does}"))
            }
            Event::Lie { guest, mac_of } => {
                let known = mac_of.is_none_or(|other| self.guests.contains_key(&other));
                self.guests.get_mut(guest).filter(|_| known)?.lies = *mac_of;
                Some(match mac_of {
                    Some(other) => format!("guest {guest} uses the MAC of guest {other}, too"),
                    None => format!("guest {guest} is honest"),
                })
            }
            Event::Attack(attack) => self.attack(*attack),
            event => self.change_network(event),
        }
    }

    /// What happens to cables, routers and the bootstrap.
    fn change_network(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Cut { host, cut } => {
                let id = self.hosts.get(host)?.id;
                self.world.net().set_connected(Station::Host(id), !cut);
                let does = if *cut { "is pulled" } else { "is plugged in" };
                Some(format!("the cable of host {host} {does}"))
            }
            Event::Partition(island) => {
                for (number, placed) in &self.hosts {
                    let number = u32::from(island.contains(number));
                    self.world.net().set_island(placed.station, number);
                }
                let hosts: Vec<_> = island.iter().map(u16::to_string).collect();
                Some(format!("hosts {} are an island", hosts.join(" ")))
            }
            Event::Join => {
                for placed in self.hosts.values() {
                    self.world.net().set_island(placed.station, 0);
                }
                Some("no host is on an island".to_owned())
            }
            Event::CutBootstrap(cut) => {
                self.world.cut_bootstrap(*cut);
                let is = if *cut { "cut off" } else { "back" };
                Some(format!("the bootstraps are {is}"))
            }
            Event::RestartNat(host) => {
                let realm = self.hosts.get(host)?.realm?;
                let realm = self.world.net().outermost(realm);
                let like = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
                self.world.net().nat_mut(realm, like)?.restart();
                Some(format!("the router of host {host} restarts"))
            }
            Event::Renumber(host) => {
                let realm = self.hosts.get(host)?.realm?;
                let realm = self.world.net().outermost(realm);
                let turn = self.undo.renumbered.entry(*host).or_insert(0);
                *turn = turn.checked_add(1).filter(|turn| *turn < 100)?;
                let wan = Self::address(*host, *turn);
                self.world.net().set_wan(realm, IpAddr::V4(wan)).ok()?;
                Some(format!("the site of host {host} has the address {wan}"))
            }
            _ => None,
        }
    }

    fn clone_host(&mut self, host: u16) -> Option<String> {
        let of = self.up(host)?;
        let access = Self::well(&self.hosts.get(&host)?.plan);
        let turn = u8::try_from(self.undo.clones.len())
            .ok()
            .filter(|turn| *turn < 50)?;
        let place = (Net::INTERNET, IpAddr::V4(Self::address(host, 110 + turn)));
        let name = format!("host {host} copy {turn}");
        let clone = self.world.clone_host(of, &name, place, access).ok()?;
        self.undo.clones.push(clone);
        self.world.start(clone).ok()?;
        Some(format!("a copy of host {host} starts elsewhere"))
    }

    fn revoke(&mut self, (host, at): (u16, u16), keys: bool) -> Option<String> {
        let by = self.up(at)?;
        let placed = self.hosts.get(&host).filter(|_| host != at)?;
        let peer = self.world.peer(placed.id)?;
        // A node takes the keys of its own networks.
        let own = &self.hosts.get(&at)?.plan.networks;
        let networks = placed.plan.networks.iter().copied();
        let networks: Vec<usize> = networks.filter(|index| own.contains(index)).collect();
        let along = Along {
            epochs: if keys { &networks } else { &[] },
            new_key: None,
        };
        let line = self.world.revocation_with(placed.id, along).ok()?;
        let _ = self.world.ask(by, line.clone());
        self.standing.lines.push((at, line));
        self.standing.revoked.insert(peer, None);
        // Nothing else is expected of the hostile one anyway.
        if self.hosts.get(&host)?.state != State::Hostile {
            self.set_state(host, State::Gone);
        }
        Some(format!("host {host} is revoked at host {at}"))
    }

    fn move_guest(&mut self, number: u16, to: u16) -> Option<String> {
        let guest = self.guests.get(&number)?;
        let placed = self.hosts.get(&to).filter(|_| guest.host != to)?;
        let fits = placed.plan.networks.contains(&guest.network);
        if placed.state != State::Up || !fits {
            return None;
        }
        let (id, from) = (guest.id, guest.host);
        self.world.plug(id, placed.id).ok()?;
        self.guests.get_mut(&number)?.host = to;
        let frame = announcement(number, self.next_number());
        self.world.send(id, &frame);
        Some(format!(
            "guest {number} moves from host {from} to host {to}"
        ))
    }

    fn attack(&mut self, attack: Attack) -> Option<String> {
        let mut hosts = self.hosts.values();
        let id = hosts.find(|one| one.state == State::Hostile)?.id;
        let unique = self.next_number();
        let to = self.guests.keys().next().copied().unwrap_or(0);
        self.world.attack(id, |hostile, tick| match attack {
            Attack::MakeUpClaims(count) => hostile.make_up_claims(tick, count),
            Attack::Steal(guest) => hostile.steal(tick, mac_of(guest)),
            Attack::ClaimTheFuture(guest) => hostile.claim_the_future(tick, mac_of(guest)),
            Attack::Forge(guest) => hostile.forge(&unicast(mac_of(guest), mac_of(to), unique)),
            Attack::WrongNetwork => {
                hostile.send_elsewhere(&unicast(mac_of(u16::MAX), mac_of(to), unique));
            }
            Attack::Replay => hostile.replay(tick),
            Attack::Documents => hostile.forge_documents(tick),
            Attack::Noise => hostile.make_noise(tick),
        });
        Some(format!("the hostile member: {attack:?}"))
    }

    /// All that was done is undone, as far as it can be.
    pub(super) fn heal(&mut self) {
        self.world.cut_bootstrap(false);
        for clone in std::mem::take(&mut self.undo.clones) {
            self.world.kill(clone);
        }
        for guest in self.guests.values_mut() {
            (guest.silent, guest.lies) = (false, None);
        }
        for placed in self.hosts.values() {
            let net = self.world.net();
            net.set_connected(Station::Host(placed.id), true);
            net.set_island(placed.station, 0);
            net.set_access(placed.station, Self::well(&placed.plan));
            self.world.set_clock(placed.id, 0);
        }
        self.apply_lost_lines();
        let all = self.hosts.iter();
        let down = all.filter(|(_, one)| matches!(one.state, State::Down | State::Waits));
        for number in down.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.start(number);
        }
        self.tell("all is healed");
    }

    /// Tries until everybody reaches everybody and all agree who is where, or patience ends.
    pub(super) fn wait_until_well(&mut self) -> Result<(), Found> {
        let patience = Duration::from_millis(self.plan.patience_ms);
        let until = self.world.now() + patience;
        let mut pairs = self.pairs();
        loop {
            let at = self.world.now();
            self.try_pairs(&pairs);
            self.go_on(at + ROUND)?;
            self.read_inboxes()?;
            let tried = std::mem::take(&mut self.tried);
            let lost: BTreeSet<_> = tried.into_values().collect();
            pairs.retain(|pair| lost.contains(pair));
            let wrong = self.wrong_owner();
            let wrong = wrong.or_else(|| self.unsettled());
            if pairs.is_empty() && wrong.is_none() {
                self.tell("all is well");
                return Ok(());
            }
            if self.world.now() >= until {
                return Err(match wrong {
                    Some(wrong) if pairs.is_empty() => self.found(wrong),
                    _ => self.unreached(&pairs),
                });
            }
        }
    }

    fn unreached(&mut self, pairs: &[(u16, u16)]) -> Found {
        let first = pairs.first().copied();
        let told = first.map_or_else(String::new, |pair| self.explain(pair));
        self.found(Failure::Unreached {
            pairs: pairs.iter().copied().take(10).collect(),
            count: pairs.len(),
            told,
        })
    }

    /// The guests that are plugged into hosts that are well.
    fn well_guests(&self) -> Vec<(u16, GuestId, usize)> {
        let guests = self.guests.iter();
        let well = guests.filter(|(_, one)| self.up(one.host).is_some());
        well.map(|(number, one)| (*number, one.id, one.network))
            .collect()
    }

    /// Pairs of guests of one network that are to reach each other: all, or each so many others.
    fn pairs(&self) -> Vec<(u16, u16)> {
        let guests = self.well_guests();
        let mut pairs = Vec::new();
        for (place, (from, _, network)) in guests.iter().enumerate() {
            let others = guests.iter().cycle().skip(place + 1).take(guests.len() - 1);
            let others = others.filter(|(_, _, other)| other == network);
            let others: Vec<u16> = others.map(|(to, ..)| *to).collect();
            let most = (PAIRS / guests.len()).max(2);
            let step = (others.len() / most).max(1);
            pairs.extend(others.iter().step_by(step).map(|to| (*from, *to)));
        }
        pairs
    }

    /// A frame for each pair.
    fn try_pairs(&mut self, pairs: &[(u16, u16)]) {
        for (from, to) in pairs {
            let number = self.next_number();
            self.tried.insert(number, (*from, *to));
            if let Some(guest) = self.guests.get(from) {
                let frame = unicast(mac_of(*from), mac_of(*to), number);
                self.world.send(guest.id, &frame);
            }
        }
    }

    /// Somebody who takes the wrong node for the owner of a guest's MAC.
    fn wrong_owner(&self) -> Option<Failure> {
        let guests = self.well_guests();
        for placed in self.hosts.values().filter(|one| one.state == State::Up) {
            for (guest, _, network) in &guests {
                if !placed.plan.networks.contains(network) {
                    continue;
                }
                let at = self
                    .guests
                    .get(guest)
                    .and_then(|one| self.hosts.get(&one.host));
                let right = at.and_then(|at| self.world.peer(at.id));
                let name = self.names.get(*network);
                let owner = name.and_then(|name| self.world.owner(placed.id, name, mac_of(*guest)));
                if owner != right {
                    let (host, guest) = (placed.plan.host, *guest);
                    return Some(Failure::WrongOwner { host, guest, owner });
                }
            }
        }
        None
    }

    /// What the nodes of a pair that does not reach each other say.
    fn explain(&mut self, (from, to): (u16, u16)) -> String {
        let mut lines = Vec::new();
        for number in [from, to] {
            let host = self.guests.get(&number).map_or(0, |one| one.host);
            let Some(id) = self.up(host) else { continue };
            lines.push(format!(
                "guest {number} is at host {host}: {:?}",
                self.world.peer(id)
            ));
            for request in [Request::Macs { network: None }, Request::Status] {
                match self.world.ask(id, request) {
                    Some(Response::Macs(macs)) => {
                        lines.extend(macs.iter().map(|mac| format!("  {mac:?}")));
                    }
                    Some(Response::Status(status)) => {
                        lines.extend(status.peers.iter().map(|peer| format!("  {peer:?}")));
                        lines.push(format!("  {:?} {:?}", status.drops, status.warnings));
                    }
                    other => lines.push(format!("  {other:?}")),
                }
            }
        }
        lines.join("\n")
    }
}
