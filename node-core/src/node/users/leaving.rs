//! Leaving the overlay (`farlan leave`), and those that left.
//!
//! The word "left" is signed like every roster entry and goes, with the withdrawal of all claims, to
//! every member there is a session with. Channels repeat what is not acknowledged, so the node stays
//! for [`LINGER`], then forgets what makes it a member, answers the command and ends.

use std::time::{Duration, Instant};

use crate::store::Write;
use anyhow::{Result, anyhow};
use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;

use crate::api::Response;
use crate::node::effects::CallId;
use crate::node::storing::Outcome;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// Time for the last word to arrive: several round trips around the world, and a repetition.
const LINGER: Duration = Duration::from_millis(1500);

/// Past the end of any node: the card is laid down no more.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The node is on its way out.
#[derive(Debug)]
pub struct Leaving {
    /// When what makes it a member is forgotten; `None`: it is being forgotten.
    until: Option<Instant>,
    /// Who asked for it; `None`: it is done, and the node ends.
    call: Option<CallId>,
}

impl Leaving {
    /// When that is.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Has the node left? Then it ends.
    pub const fn is_over(&self) -> bool {
        self.call.is_none()
    }
}

impl Node {
    /// Everything is detached: the networks are told.
    ///
    /// # Errors
    /// For the user: what cannot be said.
    pub(crate) fn leave_networks(&mut self, tick: Tick) -> Result<()> {
        for network in &mut self.networks.all {
            let schedule = &mut self.introductions.schedule;
            schedule.put_off(network.index, tick.now + NEVER);
            network
                .directory
                .handle_leave(tick.now)
                .map_err(|reason| anyhow!("cannot say so: {}", reason.meaning()))?;
            self.networks.touched.insert(network.index);
        }
        Ok(())
    }

    /// Stays until the last word has arrived; then `call` is answered.
    pub fn linger(&mut self, tick: Tick, call: CallId) {
        self.users.leaving = Some(Leaving {
            until: Some(tick.now + LINGER),
            call: Some(call),
        });
    }

    /// Forgets what makes this node a member, once the last word has had its time. Nothing is written after it.
    pub fn forget_when_due(&mut self, now: Instant) {
        let mut leaving = self.users.leaving.as_mut();
        let until = leaving.as_mut().and_then(|leaving| leaving.until.as_mut());
        if until.is_some_and(|until| *until <= now) {
            if let Some(leaving) = leaving {
                leaving.until = None;
            }
            self.outside.store.put(Write::Leave);
        }
    }

    /// It is forgotten, or the disk refused: the last thing that this node does.
    pub(crate) fn handle_left(&mut self, result: Outcome) {
        let overlay = self.standing.identity.membership.overlay();
        let response = match result {
            Ok(_) => {
                tracing::info!(%overlay, "the node has left the overlay and ends");
                Response::Done(format!(
                    "left overlay {overlay}; the others know, and the node has ended"
                ))
            }
            Err(error) => {
                tracing::error!(%error, "the node has left, but not all is forgotten");
                Response::Error(format!(
                    "the others know that this node left, but {error}; run `farlan leave` again"
                ))
            }
        };
        if let Some(call) = self.users.leaving.as_mut().and_then(|one| one.call.take()) {
            self.outside.effects.reply(call, response);
        }
    }

    /// Ends what there is with members that have said that they left.
    pub(crate) fn part_from_leavers(&mut self, tick: Tick, net: NetIndex) {
        let Some(network) = self.networks.all.get(usize::from(net.0)) else {
            return;
        };
        let gone: Vec<PeerId> = self
            .peers
            .known
            .keys()
            .copied()
            .filter(|id| network.directory.has_left(id))
            .filter(|id| {
                let mut others = self.networks.all.iter();
                !others.any(|other| other.directory.member(id).is_some())
            })
            .collect();
        for id in gone {
            tracing::info!(peer = %id, "a member left");
            self.peers.tunnels.close(tick.now, id);
            self.forget_peer(id);
            self.peers.changed = true;
            self.outside.fib_stale = true;
        }
    }
}
