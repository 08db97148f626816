//! What the state directory and the running node say.

use overlay_proto::membership::Utc;

use super::Finding;
use super::reach::Contact;
use crate::control_socket::api::StatusReport;
use crate::state::{StateDir, wall_clock};

/// The membership, and the bootstraps to try: those given, and those that it names.
pub(super) fn membership(
    state: &StateDir,
    mut contacts: Vec<Contact>,
) -> (Vec<Contact>, Vec<Finding>) {
    let membership = match state.load_membership() {
        Ok(Some(membership)) => membership,
        Ok(None) => {
            let note = Finding::note("membership", "this host has joined no overlay yet");
            return (contacts, vec![note]);
        }
        Err(error) => {
            let cure = "run this as root, or name the right directory with --state";
            return (
                contacts,
                vec![Finding::fail("membership", error.to_string(), cure)],
            );
        }
    };
    for text in membership.bootstraps() {
        match text.parse::<Contact>() {
            Ok(contact) => Contact::add(&mut contacts, contact),
            Err(error) => tracing::debug!(error, "an address of the membership"),
        }
    }
    let now = membership.roots().now(wall_clock());
    let mut findings = Vec::new();
    if membership.without_receipt().next().is_some() {
        findings.push(Finding::note(
            "membership",
            "the witness of the invite has not been asked yet; `farlan up` does",
        ));
    }
    findings.push(match membership.own_member(now) {
        Ok(member) => Finding::ok("membership", format!("until {}", Utc(member.member_until))),
        Err(error) => Finding::fail(
            "membership",
            error.to_string(),
            "set the clock if it is wrong; else get a new invite, then: farlan join -",
        ),
    });
    (contacts, findings)
}

/// What the running node warns of.
pub(super) fn warnings(status: &StatusReport) -> impl Iterator<Item = Finding> + '_ {
    let warnings = status.warnings.iter();
    warnings.map(|text| Finding::warning("node", text.clone(), "as it says"))
}
