//! Between the slow path and the control plane's gate, which learns in admissions what the slow path then follows.
//!
//! What is revoked counts before anything else (TRUST.md 8), so the shell compares the book before each input, and hands
//! in what is new first. Root documents are looked at with each event and every second.

use std::sync::Arc;

use control_plane::{ControlEvent, Multiaddr};
use control_proto::admission::gates::MemberState;
use control_proto::admission::{Gatekeeper, MemberGate};
use node_core::control::{self, BootstrapAddr, GateState};

use super::{Shell, read_clocks};
use node_core::node::tick::Tick;

impl Shell {
    /// Each input begins with it: now, and nothing of it counts that the gate knows to be revoked.
    pub(crate) fn begin(&mut self) -> Tick {
        let tick = read_clocks();
        let held = self.outside.gate.revocations();
        if !Arc::ptr_eq(&held, &self.node.standing.revocations.held) {
            self.node.handle_revocations(tick, held);
        }
        tick
    }

    /// Has the gate learnt newer root documents?
    pub(super) fn look_at_roots(&mut self) {
        let roots = self.outside.gate.roots();
        if self.node.knows_older(&roots) {
            self.node.handle_roots(roots);
        }
    }

    /// Something happened on the control plane.
    pub(crate) fn handle_control_event(&mut self, event: ControlEvent) {
        let tick = self.begin();
        self.look_at_roots();
        if let Some(event) = told(event, &self.outside.gate) {
            self.node.handle_control_event(tick, event);
        }
    }
}

/// What the gate goes by from now on, in its own words.
pub(super) fn member_state(state: GateState) -> MemberState {
    let GateState {
        roots,
        chain,
        bootstraps,
    } = state;
    MemberState {
        roots,
        chain,
        bootstraps,
    }
}

/// An event in the words of the slow path; `None` for what it has no use for.
fn told(event: ControlEvent, gate: &MemberGate) -> Option<control::ControlEvent> {
    Some(match event {
        ControlEvent::InfraUp {
            peer,
            remote,
            data_addrs,
        } => control::ControlEvent::InfraUp {
            peer,
            remote,
            data_addrs,
            chain: gate.chain(),
        },
        ControlEvent::InfraDown { peer } => control::ControlEvent::InfraDown { peer },
        ControlEvent::Signal { from, envelope } => control::ControlEvent::Signal { from, envelope },
        ControlEvent::Refused { addr, reason } => control::ControlEvent::Refused {
            addr: bootstrap_addr(&addr),
            reason,
        },
        ControlEvent::Unreachable { addr, reason } => control::ControlEvent::Unreachable {
            addr: bootstrap_addr(&addr),
            reason,
        },
        ControlEvent::Twins { addrs, .. } => control::ControlEvent::Twins { addrs },
        // Its book is compared before each input.
        ControlEvent::RevocationsGrew => return None,
        ControlEvent::ListenFailed { .. } => {
            tracing::debug!(?event, "control plane");
            return None;
        }
    })
}

fn bootstrap_addr(addr: &Multiaddr) -> BootstrapAddr {
    BootstrapAddr::new(&addr.to_string())
}
