//! A move of addresses to a bridge that waits for `farlan confirm`. A watcher beside the node undoes it when its time is
//! over; this node looks after the watcher.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::node::effects::{CallId, Effect, response};
use crate::node::host_orders::HostTask;
use crate::node::switchboard::run::Node;

/// How long after its deadline a move is left to its watcher.
const WATCHER_GRACE: Duration = Duration::from_secs(2);

/// Whether a move waits.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// When to look whether one that nobody confirmed was brought back.
    due: Option<Instant>,
}

impl Moves {
    /// How long a move still waits; `None`: there is none.
    fn note(&mut self, now: Instant, left: Option<Duration>) {
        self.due = left.map(|left| now + left + WATCHER_GRACE);
    }

    const fn is_waiting(&self) -> bool {
        self.due.is_some()
    }

    /// Is the watcher's time over? `true` once.
    fn poll_overdue(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

impl Node {
    /// A move of addresses may wait for a confirmation: the watcher undoes it, and this node looks
    /// after the watcher.
    pub fn look_at_move(&mut self) {
        self.outside.effects.push(Effect::LookAtMove);
    }

    /// How long a move still waits; `None`: there is none.
    pub fn handle_move(&mut self, now: Instant, left: Result<Option<Duration>>) {
        let left = left.unwrap_or_else(|error| {
            tracing::error!("whether a move waits for a confirmation is unknown: {error:#}");
            None
        });
        self.users.moves.note(now, left);
    }

    /// Moves the addresses of a NIC, beside the slow path, that had none yet when the node started.
    pub(crate) fn retry_moves(&mut self) {
        // While a move waits for its confirmation nothing is made whole. The watcher may have undone the move; only
        // the disk tells.
        if !self.users.moves.is_waiting() && self.networks.some_nic_waits(&*self.outside.sight) {
            self.outside.effects.push(Effect::LookAtRecords);
        }
    }

    /// Brings moved addresses back, beside the slow path, if the watcher has not.
    pub(crate) fn watch_move(&mut self, now: Instant) {
        if self.users.moves.poll_overdue(now) {
            self.outside.effects.push(Effect::Host(HostTask::RollBack));
        }
    }

    /// `farlan confirm` while the node runs.
    pub(crate) fn confirm(&mut self, call: CallId) {
        self.outside
            .effects
            .push(Effect::Host(HostTask::Confirm(call)));
    }

    /// What came of it.
    pub(crate) fn handle_confirmed(&mut self, call: CallId, done: Result<String>) {
        if done.is_ok() {
            self.users.moves = Moves::default();
        }
        self.outside.effects.reply(call, response(done));
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_left_to_its_watcher_until_that_must_have_acted() {
        let now = Instant::now();
        let mut moves = Moves::default();
        assert!(!moves.is_waiting() && !moves.poll_overdue(now));
        let left = Duration::from_secs(60);
        moves.note(now, Some(left));
        assert!(moves.is_waiting() && !moves.poll_overdue(now + left));
        let over = now + left + WATCHER_GRACE;
        assert!(moves.poll_overdue(over) && !moves.is_waiting());
        assert!(!moves.poll_overdue(over), "once");
        moves.note(now, Some(left));
        moves.note(now, None);
        assert!(!moves.is_waiting());
    }
}
