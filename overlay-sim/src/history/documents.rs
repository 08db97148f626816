//! Who is a member no more, and who has which document of the authority.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use node_core::api::Request;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::CLOCK_TOLERANCE;

use super::failure::{Failure, Found};
use super::plan::{HostPlan, mac_of};
use super::run::{Placed, Run, State};
use crate::world::Terms;

/// Whoever the bootstrap knows to be revoked has no session any more with a node that was connected to it all the time since. What
/// is lost on the way is asked for again within 10 s.
pub const CUT_OFF_S: u64 = 15;

/// How late a node notices that a membership has ended: it looks every 30 s, with its housekeeping of every 5 s.
const NOTICED_S: u64 = 36;

/// What the authority has done, and what has ended.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Those that were revoked, and since when the bootstraps know. Bound: the events.
    pub(super) revoked: BTreeMap<PeerId, Option<Duration>>,
    /// Those whose membership has ended, and when. Bound: the hosts.
    ended: BTreeMap<PeerId, Duration>,
    /// What was typed, and where. Bound: the events.
    pub(super) lines: Vec<(u16, Request)>,
    /// A host that takes no list.
    pub(super) deaf: Option<u16>,
}

/// The terms of a host's membership.
pub(super) fn terms_of(plan: &HostPlan) -> Terms {
    let whole = Terms::of(&plan.networks);
    if plan.ends_s == 0 {
        return whole;
    }
    // What has ended counts for some time longer, since clocks differ.
    let made_ago = 2 * CLOCK_TOLERANCE;
    let counts_for = made_ago + Duration::from_secs(plan.ends_s) - CLOCK_TOLERANCE;
    Terms {
        made_ago,
        join_for: counts_for,
        member_for: counts_for,
        ..whole
    }
}

impl Run<'_> {
    /// Each second.
    pub(super) fn look_at_standing(&mut self) -> Result<(), Found> {
        self.end_memberships();
        for placed in self.hosts.values_mut() {
            let count = |before: u64, holds: bool| if holds { before + 1 } else { 0 };
            let is_connected = self.world.is_connected(placed.id);
            placed.connected_s = count(placed.connected_s, is_connected);
            let is_right =
                self.world.is_running(placed.id) && self.world.clock_ahead(placed.id) == 0;
            placed.right_s = count(placed.right_s, is_right);
        }
        let met = self.meets_revoked().or_else(|| self.meets_ended());
        met.map_or(Ok(()), |failure| Err(self.found(failure)))
    }

    fn end_memberships(&mut self) {
        let now = self.world.now();
        for placed in self.hosts.values_mut() {
            let ends = placed.plan.ends_s;
            let is_member = matches!(placed.state, State::Up | State::Down | State::Waits);
            if ends == 0 || now.as_secs() < ends || !is_member {
                continue;
            }
            placed.state = State::Gone;
            if let Some(peer) = self.world.peer(placed.id) {
                self.standing.ended.insert(peer, now);
            }
        }
    }

    /// Members whose node runs.
    pub(super) fn members(&self) -> impl Iterator<Item = &Placed> {
        self.hosts.values().filter(|one| one.state == State::Up)
    }

    /// Whoever is revoked is cut off by all who can know it.
    fn meets_revoked(&mut self) -> Option<Failure> {
        let now = self.world.now();
        for (peer, since) in &mut self.standing.revoked {
            if since.is_none() && self.world.is_known_revoked(*peer) {
                *since = Some(now);
            }
        }
        let long_ago = |at: Duration| now.saturating_sub(at).as_secs() >= CUT_OFF_S;
        let revoked = self.standing.revoked.iter();
        let known = revoked.filter(|(_, since)| since.is_some_and(long_ago));
        let known: BTreeSet<PeerId> = known.map(|(peer, _)| *peer).collect();
        let deaf = self.standing.deaf;
        let could_know =
            |placed: &&Placed| placed.connected_s >= CUT_OFF_S && Some(placed.plan.host) != deaf;
        self.members().filter(could_know).find_map(|placed| {
            let sessions = self.world.sessions(placed.id);
            let with = *sessions.iter().find(|peer| known.contains(peer))?;
            let host = placed.plan.host;
            Some(Failure::SessionWithRevoked { host, with })
        })
    }

    /// Whoever is a member no more is parted from by all whose clocks are right.
    fn meets_ended(&self) -> Option<Failure> {
        let now = self.world.now();
        let long_ago = |at: &Duration| now.saturating_sub(*at).as_secs() > NOTICED_S;
        let ended = self.standing.ended.iter();
        let ended: BTreeSet<PeerId> = ended
            .filter(|(_, at)| long_ago(at))
            .map(|(peer, _)| *peer)
            .collect();
        if ended.is_empty() {
            return None;
        }
        let mut members = self.members().filter(|one| one.right_s > NOTICED_S);
        members.find_map(|placed| {
            let sessions = self.world.sessions(placed.id);
            let host = placed.plan.host;
            let late = |what| Some(Failure::Late { what, host });
            if sessions.iter().any(|peer| ended.contains(peer)) {
                return late("no session with a member that has ended");
            }
            let owned = self.guests.iter().any(|(guest, one)| {
                let name = self.names.get(one.network);
                let owner = name.and_then(|name| self.world.owner(placed.id, name, mac_of(*guest)));
                owner.is_some_and(|owner| ended.contains(&owner))
            });
            owned
                .then(|| late("forgotten what a member claimed that has ended"))
                .flatten()
        })
    }

    /// Whoever typed a line and still is a member types it once more; for who is none all others do.
    pub(super) fn apply_lost_lines(&mut self) {
        for (at, line) in std::mem::take(&mut self.standing.lines) {
            let ids = match self.up(at) {
                Some(id) => vec![id],
                None => self.members().map(|placed| placed.id).collect(),
            };
            for id in ids {
                let _ = self.world.ask(id, line.clone());
            }
        }
    }

    /// A member that lacks a document; only those of one network are looked at, or all.
    pub(super) fn lacks_document(&self, of: Option<usize>) -> Option<Failure> {
        let (list, epochs) = self.world.newest();
        let members = self.members();
        let mut members = members.filter(|one| of.is_none_or(|of| one.plan.networks.contains(&of)));
        members.find_map(|placed| {
            let host = placed.plan.host;
            let is_deaf = self.standing.deaf == Some(host);
            if !is_deaf && self.world.held_list(placed.id) != Some(list) {
                let what = "the newest revocation list";
                return Some(Failure::Late { what, host });
            }
            let networks = placed.plan.networks.iter();
            let mut networks = networks.filter(|index| of.is_none_or(|of| of == **index));
            networks.find_map(|index| {
                let (name, newest) = self.names.get(*index).zip(epochs.get(*index))?;
                let what = "the newest keys of its network";
                let has_them = self.world.held_epoch(placed.id, name) == Some(*newest);
                (!has_them).then_some(Failure::Late { what, host })
            })
        })
    }

    /// A member that lacks a document or a bootstrap.
    pub(super) fn unsettled(&self) -> Option<Failure> {
        let lacks = self.lacks_document(None);
        lacks.or_else(|| {
            let mut members = self.members();
            let alone = members.find(|placed| !self.world.is_connected(placed.id))?;
            Some(Failure::Late {
                what: "a connection with each bootstrap",
                host: alone.plan.host,
            })
        })
    }
}
