//! `farlan ping`: one sealed challenge on the path that frames use now, and how long its answer takes.
//!
//! A challenge is what the path agent sends, too (`nat_traversal::agent`), so a peer of any version
//! answers it. Its id is random; the answer that carries it is ours.

use std::time::{Duration, Instant};

use nat_traversal::agent::{Outgoing, ProbeMessage};
use nat_traversal::entropy::Entropy;
use overlay_proto::ids::{NetworkName, PeerId};

use crate::api::{MacOrIp, PeerReport, PingReport, Response};
use crate::node::effects::CallId;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// Challenges on their way at once; above it a user is refused.
const MAX_PINGS: usize = 32;

/// An answer that takes longer is lost: more than twice around the world.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Ping {
    id: u64,
    peer: PeerId,
    sent: Instant,
    call: CallId,
}

/// Challenges that wait for their answer. Bound: [`MAX_PINGS`]; removed by the answer or after
/// [`PATIENCE`].
#[derive(Debug, Default)]
pub struct Pings(Vec<Ping>);

impl Pings {
    /// When the next one is lost.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().map(|ping| ping.sent + PATIENCE).min()
    }
}

impl Node {
    /// `farlan ping`: challenges the peer that `to` names or lives on.
    pub(crate) fn ping(
        &mut self,
        tick: Tick,
        to: &str,
        network: Option<&NetworkName>,
        call: CallId,
    ) {
        let id = match self.peer_called(tick, to, network) {
            Ok(id) => id,
            Err(why) => {
                return self.outside.effects.reply(call, Response::Error(why));
            }
        };
        if self.users.pings.0.len() >= MAX_PINGS {
            let busy = "too many pings at once; try again in two seconds".to_owned();
            return self.outside.effects.reply(call, Response::Error(busy));
        }
        let path = self
            .peers
            .known
            .get(&id)
            .and_then(|peer| peer.agent.chosen());
        let Some(path) = path.filter(|_| self.peers.tunnels.current(id).is_some()) else {
            // Pinging is asking for a path.
            self.reach(tick, id);
            self.answer_ping(tick.now, id, None, call);
            return;
        };
        let challenge = self.outside.entropy.next_u64();
        let message = ProbeMessage::Challenge {
            id: challenge,
            in_use: true,
            climb: false,
        };
        self.users.pings.0.push(Ping {
            id: challenge,
            peer: id,
            sent: tick.now,
            call,
        });
        let padded_len = 0;
        let keys = self.candidates.underlay.relay_keys();
        self.peers.send_probe(
            &mut self.outside,
            keys,
            id,
            &Outgoing {
                path,
                message,
                padded_len,
            },
        );
    }

    /// The peer answered a challenge; `true` if it was a ping's.
    pub(crate) fn handle_pong(&mut self, now: Instant, from: PeerId, message: &ProbeMessage) {
        let ProbeMessage::Answer { id, .. } = message else {
            return;
        };
        let ours = |ping: &Ping| ping.id == *id && ping.peer == from;
        if let Some(place) = self.users.pings.0.iter().position(ours) {
            let ping = self.users.pings.0.swap_remove(place);
            let took = now.saturating_duration_since(ping.sent);
            self.answer_ping(now, from, Some(took), ping.call);
        }
    }

    /// Tells the users whose answers did not come.
    pub(crate) fn end_pings(&mut self, now: Instant) {
        let late = |ping: &mut Ping| now.saturating_duration_since(ping.sent) >= PATIENCE;
        let lost: Vec<Ping> = self.users.pings.0.extract_if(.., late).collect();
        for ping in lost {
            self.answer_ping(now, ping.peer, None, ping.call);
        }
    }

    fn answer_ping(&mut self, now: Instant, id: PeerId, took: Option<Duration>, call: CallId) {
        let response = self.report_on(now, id).map_or_else(
            || Response::Error("the peer has left meanwhile".to_owned()),
            |report: PeerReport| {
                Response::Ping(Box::new(PingReport {
                    node: report.node,
                    name: report.name,
                    path: report.path,
                    rtt_ms: took.map(|took| (took.as_secs_f64() * 1e5).round() / 100.0),
                }))
            },
        );
        self.outside.effects.reply(call, response);
    }

    /// The peer that has this name or id (or the beginning of it), or on which this MAC or IP lives.
    fn peer_called(
        &self,
        tick: Tick,
        to: &str,
        network: Option<&NetworkName>,
    ) -> Result<PeerId, String> {
        if let Ok(address) = to.parse::<MacOrIp>() {
            return self.peer_of_guest(tick, &address, network);
        }
        let reports = self.peer_reports(tick.now);
        let named: Vec<PeerId> = reports
            .iter()
            .filter(|peer| peer.name.name == to || peer.node.to_string() == to)
            .map(|peer| peer.node)
            .collect();
        // An id that begins so; names go first.
        let begins = |peer: &&PeerReport| to.len() >= 8 && peer.node.to_string().starts_with(to);
        let begun: Vec<PeerId> = reports
            .iter()
            .filter(begins)
            .map(|peer| peer.node)
            .collect();
        let found = if named.is_empty() { begun } else { named };
        match found.as_slice() {
            [one] => Ok(*one),
            [] if to == self.standing.identity.name
                || to == self.standing.identity.me.to_string() =>
            {
                Err(format!("{to} is this node"))
            }
            [] => Err(format!(
                "no peer is called {to}; `farlan peers` lists those that are known"
            )),
            _ => Err(format!(
                "several peers are called {to}; take the id from `farlan peers`"
            )),
        }
    }

    fn peer_of_guest(
        &self,
        tick: Tick,
        address: &MacOrIp,
        network: Option<&NetworkName>,
    ) -> Result<PeerId, String> {
        let mut nodes: Vec<(PeerId, bool)> = self
            .where_is(tick, address, network)
            .iter()
            .map(|report| (report.node, report.local))
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        match nodes.as_slice() {
            [(_, true)] => Err(format!("{address} is on this host, so no path leads to it")),
            [(node, false)] => Ok(*node),
            [] => Err(format!(
                "no node holds {address}; is the VM running, and has it sent a frame?"
            )),
            _ => Err(format!(
                "{address} is on several nodes; name its network with --network"
            )),
        }
    }
}
