//! `farlan leave`: the opposite of `farlan join`.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use super::Globals;
use super::attach::{change, detach_now, runtime};
use crate::attachments;
use crate::control_socket::api::{AttachRequest, Request};
use crate::state::StateDir;

/// How long to wait for the node to end after it has left.
const END: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Args)]
pub(super) struct LeaveArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// `farlan leave`.
pub(super) fn leave(globals: &Globals, args: &LeaveArgs) -> Result<()> {
    let state = globals.state();
    let overlay = state.require_membership()?.overlay();
    if !args.yes {
        let cut_off = runtime()?.block_on(cut_off(&state))?;
        ask(&format!(
            "This node leaves overlay {overlay}: its attachments, keys and identity go, and only a new \
             invite brings it back.\n{cut_off}Type yes to leave: "
        ))?;
    }
    change(globals, Request::Leave, async |state| {
        detach_all(state).await?;
        state.forget_membership()?;
        Ok(format!(
            "left overlay {overlay}; no node ran here, so nobody was told: the others drop what it \
             claimed within 10 min"
        ))
    })?;
    wait_for_end(&state);
    Ok(())
}

/// Which running guests lose their network: a line for each network that has some.
async fn cut_off(state: &StateDir) -> Result<String> {
    let mut lines = String::new();
    for record in attachments::load(state.path())? {
        if let Some(used) = attachments::in_use(state.path(), &record.network).await? {
            lines.push_str(&format!(
                "Of network {} it cuts off {used}.\n",
                record.network
            ));
        }
    }
    Ok(lines)
}

fn ask(question: &str) -> Result<()> {
    if !io::stdin().is_terminal() {
        bail!("leaving cannot be undone; add --yes where there is no terminal to ask at");
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question}").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("not left; nothing was changed");
    }
    Ok(())
}

/// Detaches everything, as `farlan detach --force` does: whoever leaves was asked already. Moved addresses go back to their NICs.
///
/// # Errors
/// The first network that cannot be detached; it and those after it stay attached.
pub async fn detach_all(state: &StateDir) -> Result<()> {
    for record in attachments::load(state.path())? {
        let request = AttachRequest {
            force: true,
            ..AttachRequest::new(record.network)
        };
        detach_now(state, &request).await?;
    }
    Ok(())
}

/// A node that has left ends by itself; the next `farlan up` should not meet it.
fn wait_for_end(state: &StateDir) {
    let until = Instant::now() + END;
    while state.lock().is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
}
