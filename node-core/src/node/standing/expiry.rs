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

use crate::node::storing::Outcome;
use crate::node::switchboard::run::Node;
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
    pub(crate) receipts_at: Option<Instant>,
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

impl Node {
    /// Does what is due; part of the housekeeping.
    pub(crate) fn check_expiry(&mut self, tick: Tick) {
        if self
            .standing
            .expiry
            .receipts_at
            .is_some_and(|at| at <= tick.now)
        {
            self.standing.expiry.receipts_at = None;
            for infra in self.candidates.up().collect::<Vec<_>>() {
                self.ask_for_receipts(infra);
            }
        }
        // Epoch keys have ends, too, and peers may have become worthy of one.
        self.follow_epochs(tick);
        self.spread_epochs(tick);
        if tick.now < self.standing.expiry.judge_at {
            return;
        }
        self.standing.expiry.judge_at = tick.now + JUDGE_EVERY;
        self.judge_members(tick);
        self.renew_static(tick);
        self.drop_ended(tick);
        self.warn_of_the_end(tick);
    }

    /// Warns of the end of our own membership, for each network.
    pub(crate) fn warn_of_the_end(&mut self, tick: Tick) {
        let membership = &self.standing.identity.membership;
        let mine = membership.networks();
        let stays = |about: &str| mine.iter().any(|one| one.name.as_str() == about);
        self.outside.warnings.retain(Topic::Membership, stays);
        for network in mine {
            let text = self.what_ends(tick, &network.id, &network.name);
            let name = network.name.as_str();
            self.outside
                .warnings
                .set(tick.now, Topic::Membership, name, text);
        }
    }

    fn what_ends(&self, tick: Tick, id: &NetworkId, network: &NetworkName) -> Option<String> {
        let membership = &self.standing.identity.membership;
        let now = membership.roots().now(tick.wall);
        let (me, held) = (self.standing.identity.me, &self.standing.revocations.held);
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

    /// Cuts off whoever's certificates have ended: its claims are void, its sessions closed.
    pub(crate) fn judge_members(&mut self, tick: Tick) {
        let mut gone: Vec<PeerId> = Vec::new();
        for network in &mut self.networks.all {
            let ended: Vec<PeerId> = network
                .directory
                .certificates()
                .filter(|(id, chain)| {
                    *id != self.standing.identity.me
                        && !self.standing.identity.is_member(
                            *id,
                            &network.secret.id,
                            chain,
                            tick.wall,
                        )
                })
                .map(|(id, _)| id)
                .collect();
            for id in ended {
                tracing::info!(peer = %id, network = %network.secret.name, "its certificate does not count any more");
                network.directory.handle_member_expired(tick.now, id);
                self.networks.touched.insert(network.index);
                gone.push(id);
            }
        }
        for id in gone {
            // What it still shares with us, if anything, is agreed anew.
            self.peers.tunnels.close(tick.now, id);
        }
    }

    /// Signs our x25519 key again before the signature ends.
    fn renew_static(&mut self, tick: Tick) {
        if tick.wall.plus(STATIC_RENEWAL) < self.standing.identity.static_until {
            return;
        }
        // The sequence on disk grows first: of two signatures the higher counts.
        self.outside.store.put(Write::NextStatic);
    }

    /// There is a sequence for the next signature.
    pub(crate) fn handle_next_static(&mut self, tick: Tick, result: Outcome) {
        match result {
            Ok(Done::Static { public, sequence })
                if public == self.standing.identity.static_public =>
            {
                self.standing.identity.sign_static(sequence, tick.wall);
                let chain = self.standing.identity.chain.clone();
                self.peers
                    .tunnels
                    .set_identity(chain, self.standing.identity.signed_static.clone());
                for network in &mut self.networks.all {
                    network.register_at = None;
                }
                tracing::info!("the node's x25519 key is signed for another year");
            }
            Ok(_) => tracing::error!(
                "the x25519 key on disk is not the one in use; restart the node to use it"
            ),
            Err(refused) => tracing::error!(%refused, "the x25519 key was not signed again"),
        }
    }

    /// Gives up certificates of ours that have ended where there is another, and keys of epochs
    /// long gone.
    fn drop_ended(&mut self, tick: Tick) {
        let mut membership = self.standing.identity.membership.clone();
        if membership.forget_ended(tick.wall) {
            self.outside.store.put(Write::Edit(Edit::ForgetEnded));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
