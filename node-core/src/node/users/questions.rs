//! `farlan where` for a MAC that is being looked up: answered when it is found, or after a while.

use std::time::{Duration, Instant};

use overlay_proto::ids::NetworkName;

use crate::api::{MacOrIp, Response};
use crate::node::effects::{CallId, Effects};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// Longer than a look-up takes (2 s), shorter than the patience of the control socket (5 s).
const PATIENCE: Duration = Duration::from_millis(2500);

/// Users that wait at once; above it the oldest is answered with what is known.
const MAX_QUESTIONS: usize = 32;

#[derive(Debug)]
struct Question {
    since: Instant,
    what: MacOrIp,
    network: Option<NetworkName>,
    call: CallId,
}

/// Users that wait for a look-up.
#[derive(Debug, Default)]
pub struct OpenQuestions(Vec<Question>);

impl OpenQuestions {
    /// Lets a user wait for `what`; one who is too many is answered by `effects`.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        what: MacOrIp,
        network: Option<NetworkName>,
        call: CallId,
        effects: &mut Effects,
    ) {
        if self.0.len() >= MAX_QUESTIONS {
            let oldest = self.0.remove(0);
            effects.reply(oldest.call, Response::Macs(Vec::new()));
        }
        self.0.push(Question {
            since: now,
            what,
            network,
            call,
        });
    }

    /// When the next user has waited long enough.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0
            .iter()
            .map(|question| question.since + PATIENCE)
            .min()
    }
}

impl Node {
    /// Answers `call` once `what` is found.
    pub(crate) fn wait_for_look_up(
        &mut self,
        tick: Tick,
        what: MacOrIp,
        network: Option<NetworkName>,
        call: CallId,
    ) {
        let effects = &mut self.outside.effects;
        self.users
            .open_questions
            .push(tick.now, what, network, call, effects);
    }

    /// Answers the users whose MAC was found or who waited long enough.
    pub(crate) fn answer_questions(&mut self, tick: Tick) {
        let waiting = std::mem::take(&mut self.users.open_questions.0);
        for question in waiting {
            let found = self.where_is(tick, &question.what, question.network.as_ref());
            if !found.is_empty() || tick.now.duration_since(question.since) >= PATIENCE {
                self.outside
                    .effects
                    .reply(question.call, Response::Macs(found));
            } else {
                self.users.open_questions.0.push(question);
            }
        }
    }
}
