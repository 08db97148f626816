//! What ends: the certificates of peers, our own, the signature over our x25519 key (TRUST.md 8, 10).
//!
//! Handshakes judge certificate and key of the peer anew, so at each rekey, and a session without a
//! rekey is dead after three minutes. Here is the rest: who has ended is cut off at once, whether
//! there is a session or not, and what is ours is renewed in time.

use std::time::{Duration, Instant};

use crate::store::{Done, Edit, Write};
use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::membership::Utc;
use overlay_proto::time::UnixTime;

use super::Standing;
use crate::node::outside::Outside;
use crate::node::storing::Outcome;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

/// How often all certificates are judged again: below the two minutes of a rekey.
const JUDGE_EVERY: Duration = Duration::from_secs(30);

/// The user is warned of the end of the membership this long before.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The x25519 key is signed for as long as a certificate lives by default, ..
pub(crate) const STATIC_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// .. and again this long before the end: peers that are met rarely know the newer one by then.
const STATIC_RENEWAL: Duration = Duration::from_secs(30 * 24 * 3600);

/// A witness that did not answer is asked again after this.
const RECEIPT_AGAIN: Duration = Duration::from_secs(60);

/// When to look next.
#[derive(Debug)]
pub struct Expiry {
    judge_at: Instant,
    /// A witness did not answer.
    receipts_at: Option<Instant>,
}

impl Expiry {
    /// All is looked at with the first housekeeping.
    pub const fn new(now: Instant) -> Self {
        Self {
            judge_at: now,
            receipts_at: None,
        }
    }

    /// The witness of a certificate did not answer.
    pub(crate) fn ask_later(&mut self, now: Instant) {
        self.receipts_at = Some(now + RECEIPT_AGAIN);
    }

    /// Are witnesses to be asked again now? `true` once.
    pub(crate) fn take_receipts_due(&mut self, now: Instant) -> bool {
        self.receipts_at.take_if(|at| *at <= now).is_some()
    }

    /// Are all certificates to be judged now? The next time comes after this one.
    pub(crate) fn take_judging_due(&mut self, now: Instant) -> bool {
        let due = now >= self.judge_at;
        if due {
            self.judge_at = now + JUDGE_EVERY;
        }
        due
    }
}

/// What to tell the user about the end of the membership in a network, if it is near or over.
fn warning(network: &NetworkName, until: UnixTime, now: UnixTime) -> Option<String> {
    let ends = match until {
        until if until <= now => "ended",
        until if until <= now.plus(WARN_BEFORE) => "ends",
        _ => return None,
    };
    let until = Utc(until);
    Some(format!(
        "the membership in {network} {ends} on {until}; get a new invite, then: farlan join -"
    ))
}

impl Standing {
    /// Warns of the end of our own membership, for each network.
    pub(crate) fn warn_of_the_end(&self, tick: Tick, out: &mut Outside) {
        let mine = self.identity.membership.networks();
        let stays = |about: &str| mine.iter().any(|one| one.name.as_str() == about);
        out.warnings.retain(Topic::Membership, stays);
        for network in mine {
            let text = self.what_ends(tick, &network.id, &network.name);
            let name = network.name.as_str();
            out.warnings.set(tick.now, Topic::Membership, name, text);
        }
    }

    fn what_ends(&self, tick: Tick, id: &NetworkId, network: &NetworkName) -> Option<String> {
        let membership = &self.identity.membership;
        let now = membership.roots().now(tick.wall);
        let (me, held) = (self.identity.me, &self.revocations.held);
        let help = "get a new invite, then: farlan join -";
        let own = membership.chain_for(id);
        let awaited = || membership.without_receipt().next();
        match own.or_else(awaited) {
            Some(chain) if held.check(me, chain.claimed_invite()).is_err() => {
                Some(format!("the membership in {network} was revoked; {help}"))
            }
            Some(chain) => warning(network, chain.claimed_end(), now),
            // The certificate is given up once there is another, which is for other networks.
            None => Some(format!("the membership in {network} ended; {help}")),
        }
    }

    /// Whose certificates in `network` do not count any more, of those that its directory knows.
    pub(crate) fn ended_in<'a>(
        &self,
        tick: Tick,
        network: &NetworkId,
        certificates: impl Iterator<Item = (PeerId, &'a [u8])>,
    ) -> Vec<PeerId> {
        let others = certificates.filter(|(id, _)| *id != self.identity.me);
        let ended =
            others.filter(|(id, chain)| !self.identity.is_member(*id, network, chain, tick.wall));
        ended.map(|(id, _)| id).collect()
    }

    /// What of ours has ended, or will soon.
    pub(crate) fn look_at_own_ends(&self, tick: Tick, out: &mut Outside) {
        self.renew_static(tick, out);
        self.drop_ended(tick, out);
        self.warn_of_the_end(tick, out);
    }

    /// Signs our x25519 key again before the signature ends.
    fn renew_static(&self, tick: Tick, out: &mut Outside) {
        if tick.wall.plus(STATIC_RENEWAL) < self.identity.static_until {
            return;
        }
        // The sequence on disk grows first: of two signatures the higher counts.
        out.store.put(Write::NextStatic);
    }

    /// There is a sequence for the next signature. `true`: it is signed, and to be shown from now on.
    #[must_use]
    pub(crate) fn handle_next_static(&mut self, tick: Tick, result: Outcome) -> bool {
        match result {
            Ok(Done::Static { public, sequence }) if public == self.identity.static_public => {
                self.identity.sign_static(sequence, tick.wall);
                tracing::info!("the node's x25519 key is signed for another year");
                return true;
            }
            Ok(_) => tracing::error!(
                "the x25519 key on disk is not the one in use; restart the node to use it"
            ),
            Err(refused) => tracing::error!(%refused, "the x25519 key was not signed again"),
        }
        false
    }

    /// Gives up certificates of ours that have ended where there is another, and keys of epochs
    /// long gone.
    fn drop_ended(&self, tick: Tick, out: &mut Outside) {
        let mut membership = self.identity.membership.clone();
        if membership.forget_ended(tick.wall) {
            out.store.put(Write::Edit(Edit::ForgetEnded));
        }
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
    fn all_are_judged_at_once_and_then_twice_a_minute() {
        let now = Instant::now();
        let mut expiry = Expiry::new(now);
        assert!(expiry.take_judging_due(now) && !expiry.take_judging_due(now));
        assert!(!expiry.take_judging_due(now + JUDGE_EVERY / 2));
        assert!(expiry.take_judging_due(now + JUDGE_EVERY));
    }

    #[test]
    fn a_witness_that_did_not_answer_is_asked_again_once() {
        let now = Instant::now();
        let mut expiry = Expiry::new(now);
        assert!(!expiry.take_receipts_due(now + RECEIPT_AGAIN));
        expiry.ask_later(now);
        assert!(!expiry.take_receipts_due(now + RECEIPT_AGAIN / 2));
        assert!(expiry.take_receipts_due(now + RECEIPT_AGAIN));
        assert!(!expiry.take_receipts_due(now + RECEIPT_AGAIN * 2));
    }

    #[test]
    fn the_user_is_warned_a_month_ahead() {
        let now = UnixTime(1_800_000_000);
        let lab = "lab".parse().unwrap();
        let day = |days: u64| warning(&lab, UnixTime(now.0 + days * 24 * 3600), now);
        assert_eq!(day(31), None);
        assert!(day(30).unwrap().contains("in lab ends on 2027"));
        assert!(day(0).unwrap().contains("ended on"));
    }
}
