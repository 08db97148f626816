//! `farlan join`: an invite becomes a membership.

use std::fs::File;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use clap::Args;
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::{Invite, MAX_INVITE_TEXT, Membership, MembershipError};
use overlay_proto::time::UnixTime;
use serde_json::json;
use zeroize::Zeroizing;

use super::Globals;
use super::output::{print, print_json};
use crate::control_socket::api::Request;
use crate::control_socket::client::{self, ClientError};
use crate::state::{StateDir, wall_clock};

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The invite; `-` reads it from stdin, which keeps it out of the process list; `@FILE` from a file
    #[arg(value_name = "INVITE | - | @FILE")]
    invite: String,
    /// The name of this node, where the invite gives none
    #[arg(long, value_name = "HOST", value_parser = parse_name)]
    name: Option<String>,
}

fn parse_name(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if (1..=63).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 63 of A-Z, a-z, 0-9, - . and _".to_owned())
    }
}

/// `farlan join`.
pub(super) fn join(globals: &Globals, args: &JoinArgs) -> Result<()> {
    let text = read_invite(&args.invite)?;
    let invite = Invite::parse(&text)?;
    let wall = wall_clock();
    // Before anything is written: a bad invite leaves no trace.
    invite.verify(wall)?;

    let state = globals.state();
    state.create()?;
    let edit = state.edit()?;
    let known = state.load_membership()?;
    refuse_other_overlay(&state, known.as_ref(), &invite)?;
    let node = state.load_or_create_identity()?;
    let newer = invite.accept(&node, wall)?;
    let (membership, added) = merge(known, newer, wall)?;
    state.save_membership(&membership)?;
    if let Some(name) = &args.name {
        state.save_name(name)?;
    }
    drop(edit);

    let running = reload(&state)?;
    let name = membership.name().or(args.name.as_deref());
    let networks: Vec<_> = membership
        .networks()
        .iter()
        .map(|network| &network.name)
        .collect();
    if globals.json {
        return print_json(&json!({
            "overlay": membership.overlay(), "node": node.peer_id(), "name": name.unwrap_or(""),
            "networks": networks, "added": added,
        }));
    }
    let next = match networks.first() {
        _ if running => "the running node uses it now".to_owned(),
        Some(network) => format!("next: farlan attach {network}, then farlan up"),
        None => "next: farlan up".to_owned(),
    };
    print(&format!(
        "overlay   {}\nnode      {}\nname      {}\nadded     {}\nnetworks  {}\n{next}",
        membership.overlay(),
        node.peer_id(),
        name.unwrap_or("-"),
        list(added.iter()),
        list(networks.into_iter()),
    ))
}

fn list<'a>(names: impl Iterator<Item = &'a NetworkName>) -> String {
    let names: Vec<_> = names.map(NetworkName::as_str).collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}

fn read_invite(word: &str) -> Result<Zeroizing<String>> {
    // One byte more than is looked at, so that too long is seen as such.
    let most = u64::try_from(MAX_INVITE_TEXT)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::new());
    if word == "-" {
        let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
        read.context("cannot read the invite from stdin")?;
    } else if let Some(path) = word.strip_prefix('@') {
        let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.with_context(|| format!("cannot read the invite from {path}"))?;
    } else {
        bytes.extend_from_slice(word.as_bytes());
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(Zeroizing::new(text.to_owned()))
}

fn refuse_other_overlay(
    state: &StateDir,
    known: Option<&Membership>,
    invite: &Invite,
) -> Result<()> {
    match (known.map(Membership::overlay), invite.overlay()) {
        (Some(here), Some(there)) if here != there => bail!(
            "the invite is for overlay {there}, but {} is a member of overlay {here}; \
             join the other one with --state DIR",
            state.path().display()
        ),
        _ => Ok(()),
    }
}

fn merge(
    known: Option<Membership>,
    newer: Membership,
    wall: UnixTime,
) -> Result<(Membership, Vec<NetworkName>)> {
    let Some(mut membership) = known else {
        let names = newer.networks().iter().map(|network| network.name.clone());
        let added = names.collect();
        return Ok((newer, added));
    };
    match membership.merge(newer, wall) {
        Ok(merged) => Ok((membership, merged.added)),
        Err(error @ MembershipError::NetworkNameTaken(_)) => {
            Err(error).context("cannot join; use another state directory with --state DIR")
        }
        Err(error) => Err(error).context("cannot join"),
    }
}

/// Tells a running node. Is there one?
fn reload(state: &StateDir) -> Result<bool> {
    match client::call(&state.socket(), &Request::Reload) {
        Ok(_) => Ok(true),
        Err(ClientError::NotRunning(_)) => Ok(false),
        Err(error) => Err(error)
            .context("the membership is on disk, but the running node did not take it; restart it"),
    }
}
