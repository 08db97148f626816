//! `farlan apply`: a member, or the authority, takes what `farlan revoke` printed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use node_core::store::{take_epochs, take_roots};
use overlay_proto::membership::{MAX_REVOCATION_TEXT, RevocationLine, Taken};
use zeroize::Zeroizing;

use super::Globals;
use super::output::{print, print_json};
use crate::control_socket::api::{Request, Response, SecretLine};
use crate::control_socket::client::{self, ClientError};
use crate::state::{StateDir, wall_clock};
use node_core::node::standing::applying::said;

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The revocation; `-` reads it from stdin, which keeps it out of the process list; `@FILE` from
    /// a file
    #[arg(value_name = "- | @FILE")]
    line: String,
}

/// `farlan apply`.
pub(super) fn apply(globals: &Globals, args: &ApplyArgs) -> Result<()> {
    let text = read(&args.line)?;
    let line = RevocationLine::parse(&text)?;
    let state = globals.state();
    let known_at_authority = apply_to_authority(&state, &line)?;
    let done = if state.load_membership()?.is_some() {
        apply_to_node(&state, &text, &line)?
    } else if let Some(said) = known_at_authority {
        said
    } else {
        // Says what to do.
        state.require_membership()?;
        return Ok(());
    };
    if globals.json {
        print_json(&serde_json::json!({ "done": done }))
    } else {
        print(&done)
    }
}

/// By the running node, or else on its disk.
fn apply_to_node(state: &StateDir, text: &str, line: &RevocationLine) -> Result<String> {
    let request = Request::Apply {
        line: SecretLine(text.to_owned()),
    };
    match client::call(&state.socket(), &request) {
        Ok(Response::Done(said)) => return Ok(said),
        Ok(_) => return Err(ClientError::Unexpected.into()),
        Err(ClientError::NotRunning(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // A node that starts meanwhile would not see what is written here.
    let _stopped = state.lock()?;
    let _edit = state.edit()?;
    let mut membership = state.require_membership()?;
    take_roots(membership.roots_mut(), line)?;
    let mut revocations = state.load_revocations(membership.roots())?;
    let taken = revocations.take(line.list.clone(), membership.roots())?;
    let networks = take_epochs(&mut membership, line, wall_clock())?;
    state.save_revocations(&revocations)?;
    state.save_membership(&membership)?;
    Ok(said(taken, &revocations, &networks))
}

/// An authority whose state was copied learns what the other copy has revoked.
fn apply_to_authority(state: &StateDir, line: &RevocationLine) -> Result<Option<String>> {
    if state.load_authority()?.is_none() {
        return Ok(None);
    }
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    let taken = authority
        .revocations
        .take(line.list.clone(), &authority.roots)?;
    if taken != Taken::Known {
        state.save_authority(&authority)?;
    }
    Ok(Some(said(taken, &authority.revocations, &[])))
}

fn read(word: &str) -> Result<Zeroizing<String>> {
    // One byte more than is looked at, so that too long is seen as such.
    let most = u64::try_from(MAX_REVOCATION_TEXT)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::new());
    if word == "-" {
        let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
        read.context("cannot read the revocation from stdin")?;
    } else if let Some(path) = word.strip_prefix('@') {
        let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.with_context(|| format!("cannot read the revocation from {path}"))?;
    } else if Path::new(word).is_file() {
        bail!("to read the revocation from that file, type: farlan apply @{word}");
    } else {
        bail!("write `-` and give the revocation on stdin, or @FILE; it holds keys");
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(Zeroizing::new(text.to_owned()))
}
