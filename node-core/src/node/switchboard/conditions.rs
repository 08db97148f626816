//! Is there anything that keeps frames from passing, or soon will? Looked at every second, so that
//! `farlan status` says within seconds what is wrong and what to do.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::control::BootstrapAddr;
use crate::underlay::UdpAnswer;
use overlay_proto::ids::PeerId;

use crate::api::{BootstrapReport, BootstrapState};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

/// Clocks that differ by more are worth a warning; memberships bear 10 minutes.
const CLOCK_WARNING_S: i64 = 120;

/// A bootstrap takes a while to connect; before that nothing is wrong.
const PATIENCE_S: u64 = 4;

impl Node {
    /// Raises and lowers the warnings about this node's own condition.
    pub(crate) fn check_conditions(&mut self, tick: Tick) {
        self.check_networks(tick.now);
        let text = (!self.candidates.underlay.has_address()).then(|| {
            "this host has no address but loopback and those of guest networks; \
             connect it to a network, then frames pass by themselves"
                .to_owned()
        });
        self.outside
            .warnings
            .set(tick.now, Topic::Underlay, "", text);
        self.check_admission(tick);
        self.check_bootstraps(tick);
    }

    fn check_networks(&mut self, now: Instant) {
        let names: Vec<&str> = self
            .networks
            .all
            .iter()
            .map(|network| network.secret.name.as_str())
            .collect();
        let stays = |about: &str| names.contains(&about);
        self.outside.warnings.retain(Topic::Attachment, stays);
        for network in &self.networks.all {
            let name = network.secret.name.as_str();
            let is_bare = network.attached.is_none()
                && self.networks.interfaces.is_without(&network.secret.name);
            let text = is_bare.then(|| {
                format!(
                    "network {name} is not attached on this host, so none of its guests are here; \
                     type: farlan attach {name}"
                )
            });
            self.outside
                .warnings
                .set(now, Topic::Attachment, name, text);
        }
    }

    /// Nobody lets this node in, or it still waits for its receipt.
    fn check_admission(&mut self, tick: Tick) {
        let waits = self
            .standing
            .identity
            .membership
            .without_receipt()
            .next()
            .map(overlay_proto::membership::Chain::claimed_witness);
        let early = tick
            .now
            .duration_since(self.standing.identity.epoch)
            .as_secs()
            < PATIENCE_S;
        let text = match (&self.standing.last_refusal, waits) {
            (Some(why), _) => Some(format!("this node is not admitted: {why}")),
            (None, Some(witness)) if !early && !self.candidates.is_up(witness) => Some(format!(
                "this node is no member yet: the witness of its invite, bootstrap {witness}, was not \
                 reached; it must be up once"
            )),
            _ => None,
        };
        self.outside
            .warnings
            .set(tick.now, Topic::Admission, "", text);
    }

    fn check_bootstraps(&mut self, tick: Tick) {
        let early = tick
            .now
            .duration_since(self.standing.identity.epoch)
            .as_secs()
            < PATIENCE_S;
        // One that refuses this node is up: the warning about the admission says why.
        let none_up =
            !self.candidates.is_any_up() && !early && self.standing.last_refusal.is_none();
        let mut silent = BTreeSet::new();
        for report in self.bootstrap_reports() {
            let id = report.node.to_string();
            let down = (none_up && report.state == BootstrapState::Down).then(|| {
                let why = report.why.as_deref().unwrap_or("it does not answer");
                let addresses = report.addresses.join(" ");
                format!(
                    "no bootstrap is up: {addresses}: {why}; there, `systemctl status farlan-bootstrap` says \
                     whether it runs, `systemctl start farlan-bootstrap` starts it; its ports must be open"
                )
            });
            self.outside
                .warnings
                .set(tick.now, Topic::Bootstrap, &id, down);
            if report.state == BootstrapState::Up && report.udp == Some(false) {
                silent.insert(report.node);
            }
        }
        self.check_udp(tick.now, &silent);
    }

    /// Bootstraps that are up, but whose addresses for frames' datagrams are silent.
    fn check_udp(&mut self, now: Instant, silent: &BTreeSet<PeerId>) {
        let blocked = self.candidates.underlay.is_udp_blocked();
        let up: Vec<PeerId> = self.candidates.up().collect();
        for &infra in &up {
            let text = silent.contains(&infra).then(|| {
                let addrs = self.candidates.underlay.udp_of(&infra).map(|(addrs, _)| addrs);
                let addrs = addrs.unwrap_or_default().iter();
                let addrs: Vec<String> = addrs.map(ToString::to_string).collect();
                let addrs = addrs.join(" and ");
                let means = if blocked {
                    "no frame passes until then, unless peers are on one LAN"
                } else {
                    "its relay and its word about this node's address are missing until then"
                };
                format!(
                    "bootstrap {infra} is up, but no UDP answer comes from {addrs}; open this UDP port at \
                     the bootstrap, and let UDP out of this site's firewall; {means}"
                )
            });
            self.outside
                .warnings
                .set(now, Topic::Udp, &infra.to_string(), text);
        }
        let stays = |about: &str| up.iter().any(|infra| infra.to_string() == about);
        self.outside.warnings.retain(Topic::Udp, stays);
    }

    /// The bootstraps that the membership names, and how each is.
    pub fn bootstrap_reports(&self) -> Vec<BootstrapReport> {
        let mut reports: Vec<BootstrapReport> = Vec::new();
        for text in self.standing.identity.membership.bootstraps() {
            let addr = BootstrapAddr::new(text);
            let Some(node) = addr.peer() else { continue };
            let bare = addr.place().to_owned();
            if let Some(known) = reports.iter_mut().find(|report| report.node == node) {
                if !known.addresses.contains(&bare) {
                    known.addresses.push(bare);
                }
            } else {
                reports.push(self.bootstrap_report(node, bare));
            }
        }
        reports
    }

    fn bootstrap_report(&self, node: PeerId, address: String) -> BootstrapReport {
        let up = self.candidates.is_up(node);
        let (data, udp) = self
            .candidates
            .underlay
            .udp_of(&node)
            .unwrap_or((&[], UdpAnswer::Awaited));
        let reason = self
            .candidates
            .unreachable
            .iter()
            .find(|(at, _)| at.peer() == Some(node))
            .map(|(_, why)| why.clone());
        BootstrapReport {
            node,
            addresses: vec![address],
            state: if up {
                BootstrapState::Up
            } else {
                BootstrapState::Down
            },
            why: reason.filter(|_| !up),
            data: data.to_vec(),
            udp: match udp {
                UdpAnswer::Awaited => None,
                UdpAnswer::Answers => Some(true),
                UdpAnswer::Silent => Some(false),
            },
            clock_ahead_s: self.candidates.underlay.clock_of(&node),
        }
    }

    /// A bootstrap said what time it is there, in milliseconds. The round trip, a second or so, is nothing beside
    /// what is warned of.
    pub(crate) fn handle_clock(&mut self, tick: Tick, infra: PeerId, millis: u64) {
        let (Ok(theirs), Ok(ours)) = (i64::try_from(millis / 1000), i64::try_from(tick.wall.0))
        else {
            return;
        };
        let ahead_s = theirs - ours;
        self.candidates.underlay.note_clock(&infra, ahead_s);
        let text = (ahead_s.abs() > CLOCK_WARNING_S).then(|| clock_warning(infra, ahead_s));
        self.outside
            .warnings
            .set(tick.now, Topic::Clock, &infra.to_string(), text);
    }
}

fn clock_warning(infra: PeerId, ahead_s: i64) -> String {
    let by = crate::duration::show(ahead_s.unsigned_abs());
    let way = if ahead_s > 0 { "behind" } else { "ahead of" };
    format!(
        "this host's clock is {by} {way} that of bootstrap {infra}; set the wrong one of the two \
         (timedatectl set-ntp true): beyond 10 minutes invites and memberships seem to have ended"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_named_with_its_sign() {
        let infra = PeerId([1; 32]);
        assert!(clock_warning(infra, 7200).contains("clock is 2h behind that of"));
        assert!(clock_warning(infra, -7200).contains("clock is 2h ahead of that of"));
    }
}
