//! `farlan join`: an invite becomes a membership.

use node_core::duration;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::{
    Chain, INVITE_PREFIX, Invite, InviteError, InviteId, MAX_INVITE_TEXT, Membership,
    MembershipError, Utc,
};
use overlay_proto::time::UnixTime;
use serde_json::json;
use zeroize::Zeroizing;

use super::ask::{self, Asked};
use super::output::{print, print_json};
use super::unit::start_command;
use super::{Globals, WrongUsage, tables, terminal};
use crate::control_socket::api::{Request, Response, ShownName};
use crate::control_socket::client::{self, ClientError};
use crate::state::{StateDir, wall_clock};

/// How long a running node may take for the receipt before the command ends.
const RUNNING_PATIENCE: Duration = Duration::from_secs(2);

/// Clocks that differ by less are as good as equal.
const SKEW_SHOWN_S: u64 = 60;

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The invite; `-` reads it from stdin, which keeps it out of the process list; `@FILE` from a
    /// file [default at a terminal: asks for it]
    #[arg(value_name = "INVITE | - | @FILE")]
    invite: Option<String>,
    /// The name of this node, if the invite gives none [default: the host's name]
    #[arg(long, value_name = "HOST", value_parser = super::rename::parse_name)]
    name: Option<String>,
    /// Do not ask the bootstrap now whether the invite can be used; the node asks when it starts
    #[arg(long)]
    offline: bool,
}

/// What became of the question for the receipt.
#[derive(Debug)]
enum Receipt {
    /// It is on disk. The witness's clock, if the receipt is new.
    There(Option<UnixTime>),
    /// Not yet: why.
    Missing(String),
}

/// `farlan join`.
pub(super) fn join(globals: &Globals, args: &JoinArgs) -> Result<()> {
    let text = read_invite(args.invite.as_deref())?;
    let invite = Invite::parse(&text).map_err(|error| with_file(error, args.invite.as_deref()))?;
    drop(text);
    let wall = wall_clock();
    // Before anything is written: a bad invite leaves no trace.
    invite
        .verify(wall)
        .map_err(|error| with_clock(error, wall))?;

    let state = globals.state();
    state.create()?;
    let edit = state.edit()?;
    let known = state.load_membership()?;
    refuse_other_overlay(&state, known.as_ref(), &invite)?;
    let node = state.load_or_create_identity()?;
    let id = invite.id();
    let newer = invite.accept(&node, wall)?;
    let revocations = state.load_revocations(newer.roots())?;
    if revocations.names_node(node.peer_id()) {
        bail!("{}", ask::identity_is_revoked(node.peer_id()));
    }
    let before = known.as_ref().map(Membership::to_bytes);
    let (membership, added) = merge(known, newer, wall)?;
    state.save_membership(&membership)?;
    if let Some(name) = &args.name {
        state.save_name(Some(name))?;
    }
    drop(edit);

    let running = reload(&state)?;
    let fresh = membership
        .chains()
        .iter()
        .find(|chain| chain.claimed_invite() == id);
    let awaited = fresh.filter(|chain| !chain.has_receipt()).cloned();
    let receipt = match awaited {
        None => Receipt::There(None),
        Some(_) if running => wait_for_node(&state, id)?,
        Some(_) if args.offline => {
            Receipt::Missing("the bootstrap was not asked (--offline)".to_owned())
        }
        Some(chain) => {
            progress(
                globals,
                "asking the bootstrap whether the invite can be used ..",
            );
            match ask::ask(&node, &membership, &revocations, &chain)? {
                Asked::Given(chain) => keep_receipt(&state, *chain)?,
                Asked::Silent(why) => Receipt::Missing(why),
                Asked::Refused(why) => {
                    restore(&state, before.as_ref().map(|bytes| bytes.as_slice()))?;
                    bail!("not joined: {why}");
                }
            }
        }
    };
    tell(
        globals,
        &state,
        &membership,
        &node.peer_id(),
        &added,
        running,
        &receipt,
    )
}

/// A file's name without its `@` is an easy mistake.
fn with_file(error: InviteError, word: Option<&str>) -> anyhow::Error {
    match word {
        Some(file) if file != "-" && Path::new(file).is_file() => {
            anyhow!("{error}; to read it from the file, type: farlan join @{file}")
        }
        _ => error.into(),
    }
}

/// The clock of this host may be what is wrong.
fn with_clock(error: InviteError, wall: UnixTime) -> anyhow::Error {
    let expired = matches!(error, InviteError::Expired { .. });
    let error = anyhow::Error::from(error);
    if !expired {
        return error;
    }
    anyhow!(
        "{error}; this host's clock says {}: if that is wrong, set it (timedatectl set-ntp true) and \
         join again",
        Utc(wall)
    )
}

/// On disk, as the running node would.
fn keep_receipt(state: &StateDir, chain: Chain) -> Result<Receipt> {
    let at = chain.claimed_joined();
    let _edit = state.edit()?;
    let mut membership = state.require_membership()?;
    membership.take_receipt(chain)?;
    state.save_membership(&membership)?;
    Ok(Receipt::There(at))
}

/// What was there before a join that brought nothing.
fn restore(state: &StateDir, before: Option<&[u8]>) -> Result<()> {
    let _edit = state.edit()?;
    match before {
        Some(bytes) => state.save_membership(&Membership::from_bytes(bytes)?)?,
        None => state.remove_membership()?,
    }
    Ok(())
}

/// A running node asks by itself.
fn wait_for_node(state: &StateDir, invite: InviteId) -> Result<Receipt> {
    let until = Instant::now() + RUNNING_PATIENCE;
    loop {
        let membership = state.require_membership()?;
        let mut chains = membership.chains().iter();
        if chains.any(|chain| chain.claimed_invite() == invite && chain.has_receipt()) {
            return Ok(Receipt::There(None));
        }
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = match client::call(&state.socket(), &Request::Status) {
        Ok(Response::Status(status)) => status.refused,
        _ => None,
    };
    Ok(Receipt::Missing(refused.unwrap_or_else(|| {
        "the running node still asks the bootstrap; see: farlan status".to_owned()
    })))
}

/// For people who wait.
fn progress(globals: &Globals, line: &str) {
    if !globals.json && io::stderr().is_terminal() {
        eprintln!("{line}");
    }
}

#[allow(clippy::too_many_arguments, reason = "facts to print, each once")]
fn tell(
    globals: &Globals,
    state: &StateDir,
    membership: &Membership,
    node: &PeerId,
    added: &[NetworkName],
    running: bool,
    receipt: &Receipt,
) -> Result<()> {
    let name = state.node_name(membership)?;
    let signed = membership.name().is_some();
    let networks: Vec<_> = membership
        .networks()
        .iter()
        .map(|network| &network.name)
        .collect();
    let wall = wall_clock();
    let until = membership
        .own_member(wall)
        .ok()
        .map(|member| member.member_until);
    let (until, missing, clock) = match receipt {
        Receipt::There(at) => (until, None, at.and_then(|at| clock_off(wall, at))),
        Receipt::Missing(why) => (None, Some(why), None),
    };
    let start = start_command(state.path());
    if globals.json {
        return print_json(&json!({
            "overlay": membership.overlay(), "node": node, "name": name, "name_signed": signed,
            "networks": networks, "added": added, "member_until": until,
            "not_yet_member": missing, "clock": clock,
        }));
    }
    let member = match (until, missing) {
        (Some(until), _) => format!("until {}", Utc(until)),
        (None, Some(why)) if running => format!("not yet: {why}"),
        (None, Some(why)) => format!("not yet: {why}; asked again by `{start}`"),
        (None, None) => "-".to_owned(),
    };
    let next = match networks.first() {
        _ if running => "the running node uses it now".to_owned(),
        Some(network) => format!("next: farlan attach {network}, then {start}"),
        None => format!("next: {start}"),
    };
    let clock = clock.map_or_else(String::new, |clock| format!("warning   {clock}\n"));
    print(&format!(
        "overlay   {}\nnode      {node}\nname      {}\nadded     {}\nnetworks  {}\n\
         member    {member}\n{clock}{next}",
        membership.overlay(),
        tables::name(&ShownName { name, signed }),
        list(added.iter()),
        list(networks.into_iter()),
    ))
}

/// By how much this host's clock differs from that of the witness, if that is worth a word.
fn clock_off(here: UnixTime, there: UnixTime) -> Option<String> {
    let off = here.0.abs_diff(there.0);
    let way = if here > there { "ahead of" } else { "behind" };
    (off >= SKEW_SHOWN_S).then(|| {
        format!(
            "this host's clock is {} {way} the bootstrap's; set the wrong one (timedatectl set-ntp \
             true): above 10 minutes invites and memberships seem to have ended",
            duration::show(off)
        )
    })
}

fn list<'a>(names: impl Iterator<Item = &'a NetworkName>) -> String {
    let names: Vec<_> = names.map(NetworkName::as_str).collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}

fn read_invite(word: Option<&str>) -> Result<Zeroizing<String>> {
    // One byte more than is looked at, so that too long is seen as such.
    let most = MAX_INVITE_TEXT.saturating_add(1);
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut bytes = Zeroizing::new(Vec::new());
    match word {
        None | Some("-") if io::stdin().is_terminal() => return prompt(most),
        None => {
            return Err(WrongUsage(
                "no invite, and no terminal to ask at; type `farlan join -` and give it on stdin, or \
                 `farlan join @FILE`"
                    .to_owned(),
            )
            .into());
        }
        Some("-") => {
            let read = io::stdin().lock().take(limit).read_to_end(&mut bytes);
            read.context("cannot read the invite from stdin")?;
        }
        Some(word) => match word.strip_prefix('@') {
            Some(path) => {
                let read =
                    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
                read.with_context(|| format!("cannot read the invite from {path}"))?;
            }
            None => bytes.extend_from_slice(word.as_bytes()),
        },
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks at the terminal. The invite ends by itself when its checksum fits: no Ctrl-D, no Enter.
fn prompt(most: usize) -> Result<Zeroizing<String>> {
    let prompt = "Paste the invite (it is not shown; Ctrl-C ends): ";
    let read = terminal::read_secret(prompt, most, judge);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => anyhow!("not joined; nothing was changed"),
        _ => anyhow!("cannot read the invite from the terminal: {error}; type `farlan join @FILE`"),
    })
}

/// Is what was typed a whole invite, or something that can never become one?
fn judge(text: &str) -> terminal::Next {
    match Invite::parse(text) {
        // Cut off so far, or wrapped by an e-mail program: the rest may follow.
        Err(InviteError::Damaged(_)) => terminal::Next::More,
        Err(InviteError::NotAnInvite) => {
            let typed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            // A line that was ended, and no invite begins so.
            let ended = text.ends_with(['\n', '\r']) && !typed.is_empty();
            if ended && !INVITE_PREFIX.starts_with(&typed) {
                terminal::Next::Done
            } else {
                terminal::Next::More
            }
        }
        Ok(_) | Err(_) => terminal::Next::Done,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use terminal::Next;

    #[test]
    fn typing_ends_when_the_invite_is_whole_or_cannot_become_one() {
        for (typed, next) in [
            ("", Next::More),
            ("\n", Next::More),
            ("farlan-inv", Next::More),
            ("farlan-invite-AAAA", Next::More),
            ("farlan-invite-AAAA\n", Next::More),
            ("yes", Next::More),
            ("yes\n", Next::Done),
        ] {
            assert_eq!(judge(typed), next, "{typed:?}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much() {
        let said = |here, there| clock_off(UnixTime(here), UnixTime(there));
        assert_eq!(said(1_000, 1_059), None);
        let ahead = said(8_200, 1_000).unwrap();
        assert!(ahead.contains("2h ahead of the bootstrap's"), "{ahead}");
        let behind = said(1_000, 1_090).unwrap();
        assert!(behind.contains("1m 30s behind"), "{behind}");
    }
}
