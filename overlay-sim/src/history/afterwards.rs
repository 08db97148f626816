//! When all is well: members come and go once more, on links that lose nothing, and what each of that means to the others has to
//! be so within seconds.
//!
//! 1. All bootstraps are cut off. One member is revoked and the keys change, while one is off, and one takes no list.
//! 2. The bootstraps come back, and who was off.
//!    The hostile member hands on what it knows, old and forged.
//! 3. One leaves, with a clock that is ahead; a guest is plugged out; a network is detached; somebody joins by an invite of before.
//! 4. Who has left joins again, and somebody else tries the invite that was used.
//! 5. One more is revoked, with all bootstraps there.

use std::collections::BTreeSet;
use std::time::Duration;

use node_core::api::{AttachRequest, Request, Response};
use overlay_proto::ids::{NetworkName, PeerId};

use super::failure::{Failure, Found};
use super::plan::{Attack, Event, HostPlan, Site, draw, mac_of};
use super::run::{Run, State};
use crate::world::{Along, GuestId, Terms};

/// Hand-overs from member to member without a bootstrap: two round trips around the world, and a repetition.
const AT_ONCE_S: u64 = 4;

/// A bootstrap is dialled every 5 s, and whoever is not reached is sought within 5 s of that.
const FOUND_AGAIN_S: u64 = 20;

/// Directories are compared every 15 s: so late whoever was not told at once knows.
const COMPARED_S: u64 = 20;

/// A refusal is read: a bootstrap is dialled every 5 s.
const REFUSED_S: u64 = 8;

/// Numbers of hosts that no plan has.
const NEWCOMER: u16 = 60_000;
const THIEF: u16 = 60_001;

/// The first network.
const LAB: usize = 0;

/// Who does what.
#[derive(Debug, Clone, Copy)]
struct Cast {
    /// Lies on the internet, so that all members have a session with it: here the command is typed.
    operator: u16,
    revoked: u16,
    deaf: u16,
    away: u16,
    leaver: u16,
    detacher: u16,
    unplugged: u16,
}

impl Run<'_> {
    /// # Errors
    /// Something takes longer than it may.
    pub(super) fn go_on_in_peace(&mut self) -> Result<(), Found> {
        let (Some(cast), Some(name)) = (self.cast(), self.names.get(LAB).cloned()) else {
            return Ok(());
        };
        let Ok(invite) = self.world.invite(&Terms::of(&[LAB])) else {
            return Ok(());
        };
        self.change_keys(cast)?;
        self.come_back(cast)?;
        self.do_harm();
        self.come_and_go(cast, &name, &invite)?;
        self.join_again(cast, &name, &invite)?;
        self.revoke_newcomer(cast)?;
        self.tell("all is well afterwards");
        Ok(())
    }

    fn cast(&self) -> Option<Cast> {
        let in_lab = self.members();
        let in_lab = in_lab.filter(|one| one.plan.networks.contains(&LAB));
        let in_lab: Vec<&HostPlan> = in_lab.map(|one| &one.plan).collect();
        let operator = in_lab.iter().find(|one| one.site == Site::Public)?.host;
        let mut others: Vec<u16> = in_lab.iter().map(|one| one.host).collect();
        others.retain(|host| *host != operator);
        let turn =
            draw(self.plan.seed, "afterwards", 0) % u64::try_from(others.len().max(1)).ok()?;
        others.rotate_left(usize::try_from(turn).ok()?);
        let [revoked, deaf, away, leaver, detacher, unplugged, ..] = *others else {
            return None;
        };
        Some(Cast {
            operator,
            revoked,
            deaf,
            away,
            leaver,
            detacher,
            unplugged,
        })
    }

    /// Waits until nothing is amiss, for so long at most.
    fn within(
        &mut self,
        limit_s: u64,
        mut amiss: impl FnMut(&mut Self) -> Option<Failure>,
    ) -> Result<(), Found> {
        let until = self.world.now() + Duration::from_secs(limit_s);
        while let Some(failure) = amiss(self) {
            if self.world.now() >= until {
                return Err(self.found(failure));
            }
            let next = self.world.now() + Duration::from_millis(500);
            self.go_on(next)?;
        }
        Ok(())
    }

    fn peer_of(&self, host: u16) -> Option<PeerId> {
        self.world.peer(self.hosts.get(&host)?.id)
    }

    /// A member other than the deaf one that still has a session with a host; only those of one network are looked at, or all.
    fn meets(&self, host: u16, of: Option<usize>, what: &'static str) -> Option<Failure> {
        let peer = self.peer_of(host)?;
        let deaf = self.standing.deaf;
        let members = self.members().filter(|one| Some(one.plan.host) != deaf);
        let mut members = members.filter(|one| of.is_none_or(|of| one.plan.networks.contains(&of)));
        let with = members.find(|one| self.world.sessions(one.id).contains(&peer))?;
        let host = with.plan.host;
        Some(Failure::Late { what, host })
    }

    /// A member of the first network with which a host has no session.
    fn misses(&self, host: u16) -> Option<Failure> {
        let id = self.hosts.get(&host)?.id;
        let sessions: BTreeSet<PeerId> = self.world.sessions(id).into_iter().collect();
        let in_lab = |networks: &[usize]| networks.contains(&LAB);
        let others = self.members().filter(|one| in_lab(&one.plan.networks));
        let mut others = others.filter(|one| one.id != id);
        let has = |peer: Option<PeerId>| peer.is_none_or(|peer| sessions.contains(&peer));
        others.find(|one| !has(self.world.peer(one.id)))?;
        let what = "a session with each member of its network";
        Some(Failure::Late { what, host })
    }

    fn change_keys(&mut self, cast: Cast) -> Result<(), Found> {
        if let Some(id) = self.up(cast.away) {
            self.world.kill(id);
            self.set_state(cast.away, State::Down);
        }
        if let Some(id) = self.up(cast.deaf) {
            self.world.make_deaf(id);
            self.standing.deaf = Some(cast.deaf);
        }
        self.world.cut_bootstrap(true);
        self.tell(&format!("in peace: {cast:?}"));
        let (Some(by), Some(id)) = (self.up(cast.operator), self.up(cast.revoked)) else {
            return Ok(());
        };
        let along = Along {
            epochs: &[LAB],
            new_key: None,
        };
        if let Ok(line) = self.world.revocation_with(id, along) {
            let _ = self.world.ask(by, line);
        }
        self.set_state(cast.revoked, State::Gone);
        if let Some(peer) = self.world.peer(id) {
            self.standing.revoked.insert(peer, None);
        }
        self.within(AT_ONCE_S, |run| {
            let lacks = run.lacks_document(Some(LAB));
            lacks.or_else(|| run.meets(cast.revoked, Some(LAB), "no session with who is revoked"))
        })?;
        self.has_no_keys(cast.revoked)
    }

    /// Who is revoked has not got the new keys.
    fn has_no_keys(&self, host: u16) -> Result<(), Found> {
        let (_, epochs) = self.world.newest();
        let held = self.hosts.get(&host).zip(self.names.get(LAB));
        let held = held.and_then(|(placed, name)| self.world.held_epoch(placed.id, name));
        if held.is_some() && held == epochs.get(LAB).copied() {
            let what = "the newest keys";
            return Err(self.found(Failure::NoMember { what, host }));
        }
        Ok(())
    }

    fn come_back(&mut self, cast: Cast) -> Result<(), Found> {
        self.world.cut_bootstrap(false);
        self.start(cast.away);
        // Its clock is ahead when it leaves.
        if let Some(id) = self.up(cast.leaver) {
            self.world.set_clock(id, 300);
        }
        let revoked = self.peer_of(cast.revoked);
        self.within(FOUND_AGAIN_S, |run| {
            run.is_unknown(revoked, cast)
                .or_else(|| run.unsettled())
                .or_else(|| run.misses(cast.away))
                .or_else(|| run.meets(cast.revoked, None, "no session with who is revoked"))
                .or_else(|| run.has_not_read(cast.revoked))
        })?;
        self.has_no_keys(cast.revoked)
    }

    /// Who is revoked says so to its user.
    fn has_not_read(&mut self, host: u16) -> Option<Failure> {
        let id = self.hosts.get(&host)?.id;
        let what = "read that it is revoked";
        match self.world.ask(id, Request::Status) {
            Some(Response::Status(status)) if status.refused.is_none() => {
                Some(Failure::Late { what, host })
            }
            _ => None,
        }
    }

    fn revoke_newcomer(&mut self, cast: Cast) -> Result<(), Found> {
        let (Some(by), Some(id)) = (self.up(cast.operator), self.up(NEWCOMER)) else {
            return Ok(());
        };
        if let Ok(line) = self.world.revocation_with(id, Along::default()) {
            let _ = self.world.ask(by, line);
        }
        self.set_state(NEWCOMER, State::Gone);
        self.within(AT_ONCE_S, |run| {
            run.is_unknown(run.peer_of(NEWCOMER), cast)
                .or_else(|| run.lacks_document(None))
                .or_else(|| run.meets(NEWCOMER, None, "no session with who is revoked"))
        })?;
        // It dials, and is refused.
        self.within(REFUSED_S, |run| run.has_not_read(NEWCOMER))
    }

    /// A bootstrap does not know who is revoked.
    fn is_unknown(&self, revoked: Option<PeerId>, cast: Cast) -> Option<Failure> {
        let known = revoked.is_none_or(|peer| self.world.is_known_revoked(peer));
        (!known).then_some(Failure::Late {
            what: "told the bootstraps who is revoked",
            host: cast.operator,
        })
    }

    /// The guests of the first network at a host.
    fn guests_at(&self, host: u16) -> Vec<(u16, GuestId)> {
        let guests = self.guests.iter();
        let here = guests.filter(|(_, one)| one.host == host && one.network == LAB);
        here.map(|(number, one)| (*number, one.id)).collect()
    }

    /// What must change nothing.
    fn do_harm(&mut self) {
        for attack in [Attack::Documents, Attack::Replay] {
            self.happen(&Event::Attack(attack));
        }
    }

    fn come_and_go(&mut self, cast: Cast, name: &NetworkName, invite: &str) -> Result<(), Found> {
        let Some((leaver, detacher)) = self.up(cast.leaver).zip(self.up(cast.detacher)) else {
            return Ok(());
        };
        let left = self.world.peer(leaver);
        let _ = self.world.ask(leaver, Request::Leave);
        self.set_state(cast.leaver, State::Gone);
        let detach = Request::Detach(AttachRequest::new(name.clone()));
        let _ = self.world.ask(detacher, detach);
        let mut gone = self.guests_at(cast.detacher);
        for (number, id) in self.guests_at(cast.unplugged) {
            self.world.unplug(id);
            gone.push((number, id));
        }
        self.come(NEWCOMER, invite);
        self.within(COMPARED_S, |run| {
            let stays = run.meets(cast.leaver, None, "no session with who has left");
            stays
                .or_else(|| run.lists(left, name))
                .or_else(|| run.claims(&gone, name))
                .or_else(|| run.misses(NEWCOMER))
                .or_else(|| run.unsettled())
        })
    }

    /// A member that takes who has left for one.
    fn lists(&self, left: Option<PeerId>, name: &NetworkName) -> Option<Failure> {
        let left = left?;
        let mut members = self.members();
        let with = members.find(|one| self.world.members(one.id, name).contains(&left))?;
        Some(Failure::Late {
            what: "forgotten who has left",
            host: with.plan.host,
        })
    }

    /// A member that does not take a host for one.
    fn ignores(&self, host: u16, name: &NetworkName) -> Option<Failure> {
        let peer = self.peer_of(host)?;
        let mut members = self
            .members()
            .filter(|one| one.plan.networks.contains(&LAB));
        let with = members.find(|one| !self.world.members(one.id, name).contains(&peer))?;
        Some(Failure::Late {
            what: "heard that somebody joined again",
            host: with.plan.host,
        })
    }

    /// A member that takes somebody for the owner of a guest that is plugged in nowhere.
    fn claims(&self, gone: &[(u16, GuestId)], name: &NetworkName) -> Option<Failure> {
        self.members().find_map(|placed| {
            gone.iter().find_map(|(guest, _)| {
                let (host, guest) = (placed.plan.host, *guest);
                let owner = self.world.owner(placed.id, name, mac_of(guest));
                owner.map(|_| Failure::WrongOwner { host, guest, owner })
            })
        })
    }

    /// Somebody joins by an invite, on the internet.
    fn come(&mut self, host: u16, invite: &str) {
        let plan = HostPlan {
            host,
            site: Site::Public,
            delay_ms: 5,
            jitter_ms: 0,
            loss_percent: 0,
            reordered_percent: 0,
            doubled_percent: 0,
            networks: vec![LAB],
            starts_ms: 0,
            ends_s: 0,
            hostile: false,
        };
        match self.place_invited(&plan, invite) {
            Ok(()) => self.start(host),
            Err(error) => self.tell(&format!("host {host} cannot join: {error:#}")),
        }
    }

    fn join_again(&mut self, cast: Cast, name: &NetworkName, used: &str) -> Result<(), Found> {
        let Some(leaver) = self.hosts.get(&cast.leaver).map(|one| one.id) else {
            return Ok(());
        };
        self.world.set_clock(leaver, 0);
        let invite = self.world.invite(&Terms::of(&[LAB]));
        let joined = invite.and_then(|invite| self.world.join(leaver, &invite));
        if joined.is_ok() {
            if let Some(placed) = self.hosts.get_mut(&cast.leaver) {
                placed.plan.networks = vec![LAB];
            }
            self.set_state(cast.leaver, State::Down);
            self.start(cast.leaver);
        }
        self.come(THIEF, used);
        // It is no member, whatever it does.
        self.set_state(THIEF, State::Gone);
        let until = self.world.now() + Duration::from_secs(REFUSED_S);
        self.within(COMPARED_S, |run| {
            let alone = run.misses(cast.leaver);
            alone
                .or_else(|| run.ignores(cast.leaver, name))
                .or_else(|| run.unsettled())
        })?;
        self.go_on(until)?;
        match self.meets(THIEF, None, "a session by an invite that was used") {
            Some(Failure::Late { what, host }) => Err(self.found(Failure::NoMember { what, host })),
            _ => Ok(()),
        }
    }
}
