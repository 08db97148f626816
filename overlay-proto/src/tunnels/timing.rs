//! What happens when time passes: repetitions, expiry, rekeying.

use std::time::{Duration, Instant};

use nat_traversal::entropy::Entropy;
use nat_traversal::path::Path;

use crate::drop_reason::DropReason;
use crate::ids::PeerId;
use crate::session::Session;
use crate::time::UnixTime;
use crate::wire::{DataHeader, InnerHeader, InnerKind, Lane, TAG_LEN};

use super::peer::{Backoff, Held, Peer};
use super::{CloseReason, TunnelEvent, Tunnels};

/// After a failed handshake the next one towards the same peer waits this long.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);
/// First repetition of the initiator's greeting.
const GREET_FIRST: Duration = Duration::from_millis(250);
/// Longest interval between greetings.
const GREET_LONGEST: Duration = Duration::from_secs(4);
/// A greeting without any packet back has failed after this long.
const GREET_LIFE: Duration = Duration::from_secs(10);

impl Tunnels {
    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant, wall: UnixTime, entropy: &mut dyn Entropy) {
        // New deadlines lie in the future, so this ends.
        while let Some(&(at, peer)) = self.timers.first() {
            if at > now {
                break;
            }
            let Some(mut state) = self.take(peer) else {
                self.timers.remove(&(at, peer));
                continue;
            };
            self.serve_pending(now, peer, &mut state);
            self.serve_sessions(now, peer, &mut state);
            self.greet(now, &mut state);
            if state.wants_rekey(now) {
                let path = state.path;
                self.begin(now, wall, entropy, peer, &mut state, path.as_slice());
            }
            self.put(now, peer, state);
        }
    }

    fn serve_pending(&mut self, now: Instant, peer: PeerId, state: &mut Peer) {
        let Some(pending) = &mut state.pending else {
            return;
        };
        if pending.resend.is_over(now) {
            self.drop_pending(now, state);
            state.retry_at = Some(now + RETRY_AFTER);
            self.events.push_back(TunnelEvent::HandshakeFailed {
                peer,
                reason: DropReason::NoSession,
            });
        } else if pending.resend.due(now) {
            for &path in &pending.paths {
                self.transmits.push(path, pending.message_for(&path));
            }
        }
    }

    fn serve_sessions(&mut self, now: Instant, peer: PeerId, state: &mut Peer) {
        if let Some(next) = state.next.take_if(|next| now >= next.expires) {
            self.half_open.remove(&next.request);
            self.retire(now, peer, &next.held, CloseReason::Unconfirmed);
        }
        for held in state.take_dead(now) {
            self.retire(now, peer, &held, CloseReason::Expired);
        }
    }

    /// Repeats greetings that nothing came back for.
    fn greet(&mut self, now: Instant, state: &mut Peer) {
        let path = state.path;
        for held in state.current.iter_mut().chain(&mut state.older) {
            let Some(greeting) = &mut held.greeting else {
                continue;
            };
            if held.session.has_opened() {
                held.greeting = None;
            } else if greeting.is_over(now) {
                held.greeting = None;
                held.unheard = true;
            } else if greeting.due(now)
                && let Some(path) = path
            {
                self.keep_alive(&held.session, path);
            }
        }
    }

    /// The greeting of a session that we initiated: the first goes out now.
    pub(super) fn start_greeting(&mut self, now: Instant, held: &mut Held, path: Path) {
        self.keep_alive(&held.session, path);
        held.greeting = Some(Backoff::new(now, GREET_FIRST, GREET_LONGEST, GREET_LIFE));
    }

    /// An empty packet on the slow path's lane.
    pub(super) fn keep_alive(&mut self, session: &Session, path: Path) {
        let header = InnerHeader::plain(InnerKind::KeepAlive);
        let mut inner = [0; InnerHeader::MAX_LEN];
        let inner_len = header.write(&mut inner);
        let mut bytes = vec![0; DataHeader::LEN + inner_len + TAG_LEN];
        let inner = inner.get(..inner_len).unwrap_or_default();
        // A session too old to seal with is replaced by its own timer.
        if session.seal_into(Lane(0), inner, &[], &mut bytes).is_ok() {
            self.transmits.push(path, bytes);
        }
    }
}
