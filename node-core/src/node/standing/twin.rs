//! Another machine with this node's identity: a cloned host, a restored snapshot, a copied state
//! directory.
//!
//! Bootstraps see two runs of one identity take turns (docs/adr/0034) and say so. Here the user is
//! warned as long as they go on saying it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::questions::Question;
use overlay_proto::Entropy;

use super::Standing;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

/// The warning goes this long after it was last heard of: two that dial once in ten seconds each are
/// heard of more often.
const HEARD_OF: Duration = Duration::from_secs(60);

/// When the other machine was last heard of.
#[derive(Debug, Default)]
pub struct Twin(Option<Instant>);

impl Twin {
    /// It was heard of.
    fn note(&mut self, now: Instant) {
        self.0 = Some(now);
    }

    /// It has just been silent for long enough to be gone.
    fn take_gone(&mut self, now: Instant) -> bool {
        self.0
            .take_if(|heard| now.duration_since(*heard) >= HEARD_OF)
            .is_some()
    }
}

impl Standing {
    /// A bootstrap sees this node at `ours`, and another machine with the same identity at `theirs`.
    /// `state`: the state directory, for people.
    pub(crate) fn handle_twin(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        state: &str,
        (ours, theirs): (SocketAddr, SocketAddr),
    ) {
        self.twin.note(tick.now);
        let text = format!(
            "another machine has this node's identity: this one is seen at {ours}, the other at {theirs}, and \
             they throw each other off. Was this host cloned, restored from a snapshot, or {state} copied? \
             Let one of them keep it; on the other stop the node, delete {state} and run `farlan join -` \
             with an invite of its own"
        );
        out.warnings.raise(tick.now, Topic::Twin, "", text);
    }

    /// The other machine may be gone.
    pub(crate) fn check_twin(&mut self, tick: Tick, out: &mut Outside) {
        if self.twin.take_gone(tick.now) {
            out.warnings.lower(Topic::Twin, "");
        }
    }

    /// This run counts as another one from now on: the machine may be a copy of one that goes on.
    /// Handshakes have to name what is returned.
    #[must_use]
    pub(crate) fn begin_incarnation(&mut self, out: &mut Outside) -> u32 {
        self.identity.incarnation = out.entropy.next_u32();
        self.tell_incarnation(out);
        self.identity.incarnation
    }

    /// Tells the bootstraps which run of the process this is.
    pub(crate) fn tell_incarnation(&self, out: &mut Outside) {
        let incarnation = self.identity.incarnation;
        out.asking.put(Question::SetIncarnation(incarnation));
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
    fn the_warning_ends_once_when_nothing_is_heard_any_more() {
        let (mut twin, now) = (Twin::default(), Instant::now());
        assert!(!twin.take_gone(now));
        twin.note(now);
        assert!(!twin.take_gone(now + HEARD_OF / 2));
        twin.note(now + HEARD_OF / 2);
        assert!(!twin.take_gone(now + HEARD_OF));
        assert!(twin.take_gone(now + HEARD_OF * 2));
        assert!(!twin.take_gone(now + HEARD_OF * 2));
    }
}
