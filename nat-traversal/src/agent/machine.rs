//! What the agent does inside: bursts, suspicion, death, choice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::choose::{PathOption, Tier, choose};
use super::probing::{Due, KEEP_CHOSEN, KEEP_RESERVE, Mode, Probed};
use super::reason::{ChoiceReason, FallbackReason};
use super::{MAX_EVENTS, PathAgent, PathEvent};
use crate::candidate::{Candidate, CandidateKind, MAX_CANDIDATES, is_private};
use crate::nat_kind::Mapping;
use crate::path::{Path, PathKind, SocketId};

/// Addresses that the peer was met at but did not tell; the rest of the 32 paths.
const MAX_UNLISTED: usize = 8;
/// All paths of a peer: told, met, relayed and one in reserve.
const MAX_PATHS: usize = 32;
const _: () = assert!(MAX_CANDIDATES + MAX_UNLISTED + 2 < MAX_PATHS);
/// Frames went out and nothing came back for so long: something is wrong.
const SILENCE: Duration = Duration::from_secs(2);
/// A pause in sending after which silence is counted anew.
const PAUSE: Duration = Duration::from_secs(3);
/// First wait before another burst; doubles up to 128 times, and never beyond the cap.
const CLIMB_FIRST: Duration = Duration::from_secs(5);
const CLIMB_CAP: Duration = Duration::from_secs(600);
/// The peer cannot make us start bursts more often than that.
const CLIMB_GAP: Duration = Duration::from_secs(2);
/// A reserve that was heard so recently is not asked again.
const RESERVE_FRESH: Duration = Duration::from_secs(1);

/// When frames were sent.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    since: Option<Instant>,
    pub(super) last: Option<Instant>,
}

impl Traffic {
    pub(super) fn sent(&mut self, now: Instant) {
        let paused = |last| now.saturating_duration_since(last) > PAUSE;
        if self.last.is_none_or(paused) {
            self.since = Some(now);
        }
        self.last = Some(now);
    }
}

/// When everything is probed again.
#[derive(Debug, Default)]
pub(super) struct Climb {
    /// The next burst; none while there is a direct path.
    pub(super) next: Option<Instant>,
    /// The next challenge on the chosen path tells the peer to probe as well.
    pub(super) announce: bool,
    step: u32,
    last: Option<Instant>,
}

impl Climb {
    pub(super) const fn restart(&mut self) {
        self.step = 0;
    }

    fn wait(&self) -> Duration {
        (CLIMB_FIRST * (1 << self.step.min(7))).min(CLIMB_CAP)
    }
}

/// What explains why there is no direct path.
#[derive(Debug, Default)]
pub(super) struct Situation {
    pub(super) local: Mapping,
    pub(super) remote: Mapping,
    pub(super) udp_blocked: bool,
    pub(super) budget_spent: bool,
    direct_lost: bool,
    told: usize,
    admitted: usize,
    other_family: usize,
}

impl Situation {
    pub(super) const fn reason(&self, searching: bool) -> FallbackReason {
        if self.udp_blocked {
            return FallbackReason::UdpBlocked;
        }
        if searching {
            return if self.direct_lost {
                FallbackReason::DirectLost
            } else {
                FallbackReason::Probing
            };
        }
        if self.told == 0 {
            return FallbackReason::NoCandidates;
        }
        if self.admitted == 0 {
            return if self.other_family > 0 {
                FallbackReason::NoCommonFamily
            } else {
                FallbackReason::CandidatesRefused
            };
        }
        match (self.local.is_dependent(), self.remote.is_dependent()) {
            (true, true) => FallbackReason::BothNatsDependent,
            (true, false) | (false, true) => FallbackReason::OneNatDependent,
            (false, false) if self.budget_spent => FallbackReason::BudgetSpent,
            (false, false) => FallbackReason::NoAnswer,
        }
    }
}

impl PathAgent {
    /// What is due by time: challenges, the end of bursts, deaths, the next climb.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        if self.suspect_at().is_some_and(|at| at <= now) {
            self.suspect_chosen();
        }
        let paths: Vec<Path> = self.paths.keys().copied().collect();
        for path in paths {
            match self
                .paths
                .get_mut(&path)
                .and_then(|probed| probed.take_due(now))
            {
                Some(Due::Challenge) => self.enqueue(path),
                Some(Due::BurstOver) => self.burst_over(path),
                Some(Due::Dead) => self.kill(now, path),
                None => {}
            }
        }
        self.ask_reserves(now);
        if self.climb.next.is_some_and(|at| at <= now) {
            self.climb.step = self.climb.step.saturating_add(1);
            self.start_burst(now, true);
        }
        self.handle_mtu_timeout(now);
    }

    /// Whether the chosen path is direct.
    pub(super) fn is_direct(&self) -> bool {
        self.chosen
            .is_some_and(|path| path.kind() == PathKind::Direct)
    }

    pub(super) fn tier(&self, path: &Path) -> Tier {
        let ip = path.remote.ip().to_canonical();
        if path.kind() == PathKind::Relayed {
            Tier::Relayed
        } else if ip.is_ipv6() || is_private(ip) || self.candidates.filter.shares_subnet(ip) {
            Tier::Near
        } else {
            Tier::Direct
        }
    }

    /// Filters the peer's candidates anew; gives how many are refused.
    pub(super) fn rebuild(&mut self, now: Instant) -> usize {
        let seen_at: Vec<_> = (self.candidates.remote.iter())
            .filter(|own| {
                matches!(
                    own.kind,
                    CandidateKind::Reflexive | CandidateKind::PortMapped
                )
            })
            .map(|own| own.addr.ip().to_canonical())
            .collect();
        let (mut wanted, mut refused) = (Vec::new(), 0);
        self.situation.told = 0;
        self.situation.other_family = 0;
        for candidate in &self.candidates.remote {
            if candidate.kind == CandidateKind::Relayed {
                continue;
            }
            self.situation.told += 1;
            if self.candidates.filter.admit(candidate, &seen_at).is_err() {
                refused += 1;
            } else if !self.speaks(candidate) {
                self.situation.other_family += 1;
            } else {
                wanted.push(Path::direct(candidate.addr));
            }
        }
        self.situation.admitted = wanted.len();
        for (path, probed) in &mut self.paths {
            if path.kind() == PathKind::Direct {
                probed.listed = wanted.contains(path);
            }
        }
        let filter = &self.candidates.filter;
        (self.paths).retain(|path, probed| match path.kind() {
            PathKind::Relayed => true,
            // A proven one may have become a way through the overlay itself: an address or a route of
            // this host has changed.
            _ => (probed.listed || probed.proven) && filter.admit_source(path.remote).is_ok(),
        });
        if self
            .chosen
            .is_some_and(|path| !self.paths.contains_key(&path))
        {
            self.rechoose(now, None);
            self.start_burst(now, true);
        }
        for path in wanted {
            if !self.paths.contains_key(&path)
                && self.meet(path, true)
                && let Some(probed) = self.paths.get_mut(&path)
            {
                probed.burst(now);
            }
        }
        refused
    }

    /// Whether a socket of ours speaks the candidate's family; yes while we know nothing.
    fn speaks(&self, candidate: &Candidate) -> bool {
        let family = SocketId::for_addr(&candidate.addr);
        let own = |own: &Candidate| SocketId::for_addr(&own.addr) == family;
        self.candidates.local.is_empty() || self.candidates.local.iter().any(own)
    }

    /// Makes `path` known, unless the filter or the bounds speak against it.
    pub(super) fn meet(&mut self, path: Path, listed: bool) -> bool {
        if self.paths.contains_key(&path) {
            return true;
        }
        let direct = path.kind() == PathKind::Direct;
        if direct && self.candidates.filter.admit_source(path.remote).is_err() {
            return false;
        }
        let unlisted = self.paths.values().filter(|probed| !probed.listed).count();
        if !listed && unlisted >= MAX_UNLISTED && !self.drop_unlisted() {
            return false;
        }
        self.make_room();
        let tier = self.tier(&path);
        self.paths.insert(path, Probed::new(&path, tier, listed));
        true
    }

    /// Keeps the number of paths below its bound.
    pub(super) fn make_room(&mut self) {
        while self.paths.len() >= MAX_PATHS {
            if self.drop_unlisted() {
                continue;
            }
            let (chosen, relay) = (self.chosen, self.relay);
            let spare = |path: &&Path| Some(**path) != chosen && Some(**path) != relay;
            let Some(path) = self.paths.keys().find(spare).copied() else {
                return;
            };
            self.paths.remove(&path);
        }
    }

    /// Removes one met path that is not in use, an unproven one first.
    fn drop_unlisted(&mut self) -> bool {
        let chosen = self.chosen;
        let spare = (self.paths.iter())
            .filter(|(path, probed)| !probed.listed && Some(**path) != chosen)
            .min_by_key(|(_, probed)| (probed.proven, probed.heard))
            .map(|(path, _)| *path);
        spare.is_some_and(|path| self.paths.remove(&path).is_some())
    }

    pub(super) fn handle_challenge(&mut self, now: Instant, path: Path, in_use: bool, climb: bool) {
        self.ask_back(now, path);
        if let Some(probed) = self.paths.get_mut(&path) {
            probed.heard = Some(now);
        }
        let long_ago = |last| now.saturating_duration_since(last) >= CLIMB_GAP;
        if climb && self.climb.last.is_none_or(long_ago) {
            self.start_burst(now, false);
        }
        if in_use && !self.controlling && self.preferred != Some(path) {
            self.preferred = Some(path);
            self.rechoose(now, None);
        }
    }

    /// Asks back where something authentic came from, unless that path is proven or just asked.
    pub(super) fn ask_back(&mut self, now: Instant, path: Path) {
        if !self.meet(path, false) {
            return;
        }
        if self
            .paths
            .get_mut(&path)
            .is_some_and(|probed| probed.ask_back(now))
        {
            self.enqueue(path);
        }
    }

    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        path: Path,
        id: u64,
        observed: Option<SocketAddr>,
    ) {
        let Some(probed) = self.paths.get_mut(&path) else {
            return;
        };
        let (silent, on_credit) = (probed.mode == Mode::Urgent, probed.credit.is_some());
        if !probed.answered(now, id) {
            return;
        }
        if silent && self.chosen == Some(path) {
            // It lives, and yet nothing came back: perhaps large datagrams only are lost.
            probed.mtu.suspect(now);
        }
        if path.kind() == PathKind::Direct {
            self.answered.truncate(MAX_PATHS - 1);
            self.answered.push(path.remote.ip());
            if let Some(addr) = observed {
                self.tell(PathEvent::Observed {
                    socket: path.socket,
                    observer: path.remote,
                    addr,
                });
            }
        }
        self.settle(path);
        self.rechoose(now, None);
        if on_credit && self.chosen == Some(path) {
            self.tell(PathEvent::Proven { path });
        }
        self.tell_mtu();
    }

    /// Gives a proven path the mode of its role.
    pub(super) fn settle(&mut self, path: Path) {
        let (chosen, relay) = (self.chosen == Some(path), self.relay == Some(path));
        if let Some(probed) = self.paths.get_mut(&path) {
            probed.mode = match (chosen, relay) {
                (true, _) => Mode::Keep(KEEP_CHOSEN),
                (false, true) => Mode::Keep(KEEP_RESERVE),
                (false, false) => Mode::Rest,
            };
        }
    }

    /// Chooses anew; `why` overrides the reason that the change itself tells.
    pub(super) fn rechoose(&mut self, now: Instant, why: Option<ChoiceReason>) {
        let pick = self.pick();
        if pick == self.chosen {
            return;
        }
        let was_direct = self.is_direct();
        let old = std::mem::replace(&mut self.chosen, pick);
        let old_tier = old.map(|path| self.tier(&path));
        if let Some(old) = old {
            self.settle(old);
            if let Some(probed) = self.paths.get_mut(&old) {
                probed.mtu.stop();
            }
        }
        let Some(path) = pick else {
            self.tell(PathEvent::Lost);
            self.climb.next = Some(now + CLIMB_FIRST);
            return;
        };
        let tier = self.tier(&path);
        if let Some(probed) = self.paths.get_mut(&path) {
            probed.mtu.start(now);
        }
        // One in doubt goes on being asked quickly: it answers or is given up, too.
        if let Some(probed) = self
            .paths
            .get_mut(&path)
            .filter(|probed| !probed.in_doubt())
        {
            probed.keep(KEEP_CHOSEN);
        }
        let told = match old_tier {
            None => ChoiceReason::OnlyOne,
            Some(old) if tier < old => ChoiceReason::BetterTier,
            Some(_) => ChoiceReason::BetterPath,
        };
        let rtt = self.rtt();
        self.tell(PathEvent::Chosen {
            path,
            rtt,
            why: why.unwrap_or(told),
        });
        self.tell_mtu();
        if self.is_direct() {
            self.climb = Climb {
                last: self.climb.last,
                ..Climb::default()
            };
            self.situation.direct_lost = false;
            self.situation.budget_spent = false;
        } else if was_direct || self.climb.next.is_none() {
            self.climb.restart();
            self.climb.next = Some(now + self.climb.wait());
        }
    }

    /// The path to use. One in reserve that is in doubt itself counts only when there is no other.
    fn pick(&self) -> Option<Path> {
        let options = |doubtful: bool| -> Vec<PathOption> {
            let counts = |path: &Path, probed: &Probed| {
                probed.proven && (doubtful || self.chosen == Some(*path) || !probed.in_doubt())
            };
            (self.paths.iter())
                .filter(|(path, probed)| counts(path, probed))
                .map(|(path, probed)| PathOption {
                    path: *path,
                    tier: probed.tier,
                    rtt: probed.rtt,
                })
                .collect()
        };
        choose(self.chosen, self.preferred, &options(false))
            .or_else(|| choose(self.chosen, self.preferred, &options(true)))
    }

    /// Probes everything unproven. `announce`: ask the peer to do so at the same time.
    pub(super) fn start_burst(&mut self, now: Instant, announce: bool) {
        self.climb.last = Some(now);
        self.situation.budget_spent = false;
        if !self.is_direct() {
            self.climb.next = Some(now + self.climb.wait());
        }
        for probed in self.paths.values_mut() {
            if !probed.proven && !matches!(probed.mode, Mode::Burst(..)) {
                probed.burst(now);
            }
        }
        if let (true, Some(chosen)) = (announce, self.chosen) {
            self.climb.announce = true;
            self.enqueue(chosen);
        }
    }

    fn burst_over(&mut self, path: Path) {
        let relay = self.relay == Some(path);
        if let Some(probed) = self.paths.get_mut(&path) {
            if relay {
                probed.mode = Mode::Keep(KEEP_RESERVE);
                probed.unanswered = 0;
            } else if !probed.listed && !probed.proven {
                self.paths.remove(&path);
            }
        }
    }

    /// A path has died: another takes over, and what is lost is searched again.
    fn kill(&mut self, now: Instant, path: Path) {
        if let Some(probed) = self.paths.get_mut(&path) {
            probed.die();
        }
        self.burst_over(path);
        if self.chosen != Some(path) {
            return;
        }
        self.preferred = self.preferred.filter(|preferred| *preferred != path);
        self.situation.direct_lost = path.kind() == PathKind::Direct;
        self.rechoose(now, Some(ChoiceReason::PreviousDied));
        if !self.is_direct() {
            self.start_burst(now, true);
        }
    }

    /// A path is not ours any more.
    pub(super) fn forget(&mut self, now: Instant, path: Path) {
        if let Some(probed) = self.paths.get_mut(&path) {
            probed.listed = false;
        }
        self.kill(now, path);
        self.paths.remove(&path);
    }

    /// When silence on the chosen path becomes suspicious.
    pub(super) fn suspect_at(&self) -> Option<Instant> {
        let probed = self.paths.get(&self.chosen?)?;
        let (since, last) = (self.traffic.since?, self.traffic.last?);
        let silent_since = probed.heard.map_or(since, |heard| heard.max(since));
        let waits = probed.mode != Mode::Urgent && last >= silent_since;
        waits.then(|| silent_since + SILENCE)
    }

    pub(super) fn suspect_chosen(&mut self) {
        if let Some(probed) = self.chosen.and_then(|path| self.paths.get_mut(&path)) {
            probed.suspect();
        }
    }

    /// Once two challenges on the chosen path are open, asks the other proven paths, so that one
    /// of them is known to work when the chosen one is given up.
    fn ask_reserves(&mut self, now: Instant) {
        let Some(chosen) = self.chosen else { return };
        let in_doubt = self.paths.get(&chosen).is_some_and(Probed::in_doubt);
        if !in_doubt {
            return;
        }
        let stale = |heard| now.saturating_duration_since(heard) > RESERVE_FRESH;
        for (path, probed) in &mut self.paths {
            if *path != chosen && probed.proven && probed.heard.is_none_or(stale) {
                probed.suspect();
            }
        }
    }

    pub(super) fn enqueue(&mut self, path: Path) {
        if !self.queue.contains(&path) {
            self.queue.push_back(path);
        }
    }

    pub(super) fn tell(&mut self, event: PathEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
