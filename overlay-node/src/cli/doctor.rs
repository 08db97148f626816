//! `farlan doctor`: a line for each check, the cure below it.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::Globals;
use super::output::{print, print_json};
use crate::control_socket::api::{Request, Response};
use crate::control_socket::client;
use crate::doctor::{self, Contact, Finding, Verdict};

/// What `farlan doctor` takes.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Try this bootstrap, too: HOST:PORT or a multiaddr; before `farlan join` none is known
    #[arg(long, value_name = "ADDR")]
    bootstrap: Vec<Contact>,
}

/// Runs all checks; fails if one of them does.
pub(super) fn doctor(globals: &Globals, args: &DoctorArgs) -> Result<()> {
    let state = globals.state();
    let status = match client::call(&state.socket(), &Request::Status) {
        Ok(Response::Status(status)) => Some(status),
        _ => None,
    };
    let findings = doctor::examine(&state, status.as_deref(), args.bootstrap.clone());
    let failed = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail)
        .count();
    if globals.json {
        print_json(&json!({ "failed": failed, "findings": findings }))?;
    } else {
        print(&lines(&findings))?;
    }
    match failed {
        0 => Ok(()),
        1 => bail!("one check failed; its line above says what to do"),
        _ => bail!("{failed} checks failed; their lines above say what to do"),
    }
}

fn lines(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let Finding {
            check, evidence, ..
        } = finding;
        let verdict = finding.verdict.name();
        let cure = finding.cure.as_ref();
        let cure = cure.map_or_else(String::new, |cure| format!("{:21}-> {cure}\n", ""));
        format!("{verdict:<8} {check:<11} {evidence}\n{cure}")
    };
    findings.iter().map(line).collect()
}
