//! `farlan doctor`: what on this host, or on the way to the bootstraps, keeps the overlay from working.
//!
//! Each check gives one [`Finding`]: a verdict, the evidence it rests on, and what cures it. It works
//! before and after `farlan join`, with the node running or not, changes nothing, and sends a few small
//! packets to the bootstraps alone. A running node knows some things better (its ports, the NAT, the
//! clocks): then its word counts.

mod host;
mod node;
mod reach;

use serde::Serialize;

use crate::control_socket::api::StatusReport;
use crate::state::StateDir;

pub use reach::Contact;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Nothing is wrong, but it is good to know.
    Note,
    /// It works, but not for everybody or not for long.
    Warning,
    /// The overlay does not work like this.
    Fail,
}

impl Verdict {
    /// The word in front of the line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fail => "FAIL",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, a word or two.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do; `null` where nothing is wrong.
    pub cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, evidence: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, evidence, None)
    }

    fn note(check: &'static str, evidence: impl Into<String>) -> Self {
        Self::new(check, Verdict::Note, evidence, None)
    }

    fn warning(check: &'static str, evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, evidence, Some(cure.into()))
    }

    fn fail(check: &'static str, evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, evidence, Some(cure.into()))
    }

    fn new(
        check: &'static str,
        verdict: Verdict,
        evidence: impl Into<String>,
        cure: Option<String>,
    ) -> Self {
        Self {
            check,
            verdict,
            evidence: evidence.into(),
            cure,
        }
    }
}

/// Looks at everything. `status` is the running node's word, if one runs; `contacts` are bootstraps to
/// try beside those of the membership.
#[must_use]
pub fn examine(
    state: &StateDir,
    status: Option<&StatusReport>,
    contacts: Vec<Contact>,
) -> Vec<Finding> {
    let mut findings = vec![host::tun(), host::rights(status)];
    findings.extend(host::bridging());
    let (contacts, of_membership) = node::membership(state, contacts);
    findings.extend(of_membership);
    findings.push(host::own_port(state, status));
    let reached = reach::try_all(contacts);
    findings.extend(reach::findings(&reached));
    findings.push(host::clock(status));
    let view = host::view();
    findings.push(reach::nat(&reached, &view, status));
    findings.push(host::ipv6());
    findings.extend(host::mtu(&reached, &view));
    findings.extend(host::firewall(state));
    findings.extend(host::loops(state));
    findings.extend(status.into_iter().flat_map(node::warnings));
    findings
}
