//! When a peer was sought, and when it is sought again.
//!
//! Seeking is two things: a handshake on every path that may work, and a greeting through a bootstrap. While nothing comes of them
//! both become rarer. How the waiting ends:
//!
//! | what happened | handshakes | greetings | away? |
//! |---|---|---|---|
//! | it told other addresses, or there is a relay in common: [`Attempts::renew`] | at once | soon | no |
//! | a bootstrap is up, for us: [`Attempts::hasten`] | soon | soon | as before |
//! | it has greeted us, so a bootstrap is up for it: [`Attempts::note_greeted_by`] | at once | one in return | no |
//! | a session: the default | at once | at once | no |
//!
//! A greeting in return does not end the waiting for the next one: two nodes that see each other at the bootstrap, and between
//! whom nothing passes, would greet each other for ever.

use std::time::{Duration, Instant};

/// A handshake goes on for 10 s by itself; the first repetition comes right after it.
pub(crate) const FIRST_REDIAL: Duration = Duration::from_secs(10);

/// The longest time between two handshakes with a peer that does not answer.
const LONGEST_REDIAL: Duration = Duration::from_secs(300);

/// A peer is greeted again only after this time, doubled up to 64 times: a greeting is a message on the bootstrap, and a
/// peer that is gone answers none.
pub(crate) const GREET_EVERY: Duration = Duration::from_secs(5);

/// A greeting is answered by one where none was sent for this long: both greeting within it know each other's card.
const ANSWER_AFTER: Duration = Duration::from_secs(30);

/// A packet for a session that is no more lets a handshake begin out of turn no more often.
pub(crate) const STRAY_EVERY: Duration = Duration::from_secs(1);

/// Who was sought for so long and gave no sign is away: broadcasts do not wait for it. What is slow, two
/// lost handshakes over a relay, is through by then.
pub(crate) const AWAY_AFTER: Duration = Duration::from_secs(10);

/// When we last tried to reach a peer, and how often in vain.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// The first of them.
    since: Option<Instant>,
    dialled: Option<Instant>,
    in_vain: u32,
    greeted: Option<Instant>,
    greetings: u32,
    /// How often its turn has come since the waiting ended.
    turns: u32,
    /// When a stray last had an effect.
    strayed: Option<Instant>,
    /// It counts as away, as far as the `Fib` was told.
    away: bool,
}

impl Attempts {
    /// What failed before may work now. What limits how often others are spoken to stays.
    pub(crate) fn renew(&mut self) {
        *self = Self {
            greeted: self.greeted,
            strayed: self.strayed,
            ..Self::default()
        };
    }

    /// The peer may be there again: it is sought as at first. Whether it is away, it alone can say.
    pub(crate) const fn hasten(&mut self) {
        (self.dialled, self.in_vain) = (None, 0);
        (self.greetings, self.turns) = (0, 0);
    }

    /// The peer has greeted us. `true`: a greeting in return is due; it counts as sent.
    pub(crate) fn note_greeted_by(&mut self, now: Instant) -> bool {
        *self = Self {
            greeted: self.greeted,
            greetings: self.greetings,
            strayed: self.strayed,
            ..Self::default()
        };
        let lately = |at| now.duration_since(at) < ANSWER_AFTER;
        let answers = !self.greeted.is_some_and(lately);
        if answers {
            self.greeted = Some(now);
        }
        answers
    }

    /// The peer answers, so the next handshake waits no longer than after a first one.
    pub(crate) const fn note_answered(&mut self) {
        self.in_vain = 0;
    }

    /// There is a path: it is not sought any more.
    pub(crate) const fn note_found(&mut self) {
        self.since = None;
    }

    fn dial_is_due(&self, now: Instant) -> bool {
        let wait = FIRST_REDIAL * 2_u32.saturating_pow(self.in_vain.min(8));
        let wait = wait.min(LONGEST_REDIAL);
        let early = |at| now.duration_since(at) < wait;
        !self.dialled.is_some_and(early)
    }

    /// May a handshake begin now? Counts it if so.
    pub(crate) fn may_dial(&mut self, now: Instant) -> bool {
        let due = self.dial_is_due(now);
        if due {
            self.since.get_or_insert(now);
            let again = self.dialled.replace(now).is_some();
            self.in_vain += u32::from(again);
        }
        due
    }

    fn greeting_is_due(&self, now: Instant) -> bool {
        let wait = GREET_EVERY * 2_u32.saturating_pow(self.greetings.min(6));
        let early = |at| now.duration_since(at) < wait;
        !self.greeted.is_some_and(early)
    }

    /// May it be greeted now? Counts it if so.
    pub(crate) fn may_greet(&mut self, now: Instant) -> bool {
        let due = self.greeting_is_due(now);
        if due {
            self.since.get_or_insert(now);
            let again = self.greeted.replace(now).is_some();
            self.greetings += u32::from(again);
        }
        due
    }

    /// How often its turn has come since the waiting ended; `None`: it is not its turn.
    pub(crate) fn turns(&self, now: Instant) -> Option<u32> {
        let due = self.dial_is_due(now) || self.greeting_is_due(now);
        due.then_some(self.turns)
    }

    /// Its turn has come.
    pub(crate) const fn note_turn(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// Do the repetitions of the first handshake still run?
    pub(crate) fn just_dialled(&self, now: Instant) -> bool {
        let young = |at| now.duration_since(at) < FIRST_REDIAL;
        self.in_vain == 0 && self.dialled.is_none_or(young)
    }

    /// Has it given no sign since it was sought? Whoever is reached is not sought.
    pub(crate) fn is_away(&self, now: Instant) -> bool {
        let since = self.since;
        since.is_some_and(|at| now.duration_since(at) >= AWAY_AFTER)
    }

    /// `true` once when it has become [away](Self::is_away).
    pub(crate) fn note_away(&mut self, now: Instant) -> bool {
        let away = self.is_away(now);
        !std::mem::replace(&mut self.away, away) && away
    }

    /// May a stray from it have an effect now? Counts it if so.
    pub(crate) fn may_answer_stray(&mut self, now: Instant) -> bool {
        let last = self.strayed;
        if last.is_some_and(|at| now.duration_since(at) < STRAY_EVERY) {
            return false;
        }
        self.strayed = Some(now);
        true
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// How often each is done within `time`, looked at each second.
    fn counts(attempts: &mut Attempts, start: Instant, time: Duration) -> (u32, u32) {
        let (mut dials, mut greetings) = (0, 0);
        for second in 0..u32::try_from(time.as_secs()).unwrap() {
            let now = start + Duration::from_secs(1) * second;
            dials += u32::from(attempts.may_dial(now));
            greetings += u32::from(attempts.may_greet(now));
        }
        (dials, greetings)
    }

    #[test]
    fn who_does_not_answer_is_sought_ever_more_rarely() {
        let (start, mut attempts) = (Instant::now(), Attempts::default());
        // At 0, 10 and 30 s; at 0, 5, 15 and 35 s.
        assert_eq!(counts(&mut attempts, start, MINUTE), (3, 4));
        let hour = start + 60 * MINUTE;
        counts(&mut attempts, start + MINUTE, 59 * MINUTE);
        assert_eq!(counts(&mut attempts, hour, 60 * MINUTE), (12, 11));
    }

    #[test]
    fn when_a_bootstrap_is_up_a_peer_is_sought_as_at_first_and_is_as_away_as_before() {
        let (start, mut attempts) = (Instant::now(), Attempts::default());
        counts(&mut attempts, start, 10 * MINUTE);
        let now = start + 10 * MINUTE;
        assert!(attempts.is_away(now));
        attempts.hasten();
        assert!(attempts.is_away(now));
        // At 0, 10 and 30 s, both: it was greeted before.
        assert_eq!(counts(&mut attempts, now, MINUTE), (3, 3));
    }

    #[test]
    fn who_greets_is_dialled_at_once_and_greeted_in_return_once() {
        let (start, mut attempts) = (Instant::now(), Attempts::default());
        counts(&mut attempts, start, 60 * MINUTE);
        let now = start + 60 * MINUTE;
        assert!(attempts.note_greeted_by(now) && !attempts.is_away(now));
        assert!(attempts.may_dial(now));
        // It goes on, as in answer to ours.
        let soon = now + Duration::from_secs(1);
        assert!(!attempts.note_greeted_by(soon) && attempts.may_dial(soon));
        assert!(!attempts.may_greet(now + 5 * MINUTE));
        assert!(attempts.may_greet(now + 6 * MINUTE));
    }

    /// Whatever they do when they are greeted, they do not keep each other at it.
    #[test]
    fn two_that_greet_each_other_and_never_meet_become_silent() {
        let (start, mut pair) = (Instant::now(), [Attempts::default(), Attempts::default()]);
        let mut counted = [0; 2];
        for second in 0..2 * 3600_u32 {
            let now = start + Duration::from_secs(1) * second;
            for from in 0..2 {
                let (mut from, mut greets) = (from, pair[from].may_greet(now));
                while greets {
                    counted[usize::from(second >= 3600)] += 1;
                    from = 1 - from;
                    greets = pair[from].note_greeted_by(now);
                }
            }
        }
        let [first, second] = counted;
        assert!(first <= 40, "{first} in the first hour");
        assert!(second <= 2 * 3600 / 300 + 2, "{second} in the second hour");
    }

    #[test]
    fn turns_go_to_those_that_had_the_fewest() {
        let (now, mut attempts) = (Instant::now(), Attempts::default());
        assert_eq!(attempts.turns(now), Some(0));
        attempts.note_turn();
        assert_eq!(attempts.turns(now), Some(1));
        assert!(attempts.may_dial(now) && attempts.may_greet(now));
        assert_eq!(attempts.turns(now), None);
        attempts.hasten();
        assert_eq!(attempts.turns(now), Some(0));
    }
}
