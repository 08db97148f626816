//! `farlan invites`: the books of the authority.
//!
//! The authority is offline: it does not see who uses an invite. A member does. `farlan members
//! --json` on any member prints the certificates of all it knows, and `farlan invites --seen` takes
//! that: each certificate carries the receipt of the witness, which proves who used which invite and
//! when, whoever brings it.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use clap::Args;
use overlay_proto::membership::{Chain, MembershipError, Revoked, Utc};
use serde::Deserialize;
use serde_json::json;

use super::Globals;
use super::output::{print, print_json};
use super::table::{Table, list, or_dash, telling};
use super::tables::short;
use crate::state::{AuthorityState, IssuedInvite, SeenUse, wall_clock};

/// Letters of an invite's id in a table.
pub(super) const LEAST_ID: usize = 6;

/// What a member with 4,096 others prints fits.
const MAX_SEEN_TEXT: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct InvitesArgs {
    /// Learn who has used the invites from a file that `farlan members --json` printed on a member; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    seen: Option<String>,
}

/// `farlan invites`.
pub(super) fn invites(globals: &Globals, args: &InvitesArgs) -> Result<()> {
    let state = globals.state();
    let mut authority = state.require_authority()?;
    if let Some(word) = &args.seen {
        let members = read(word)?;
        let _edit = state.edit()?;
        authority = state.require_authority()?;
        for member in members {
            see(&mut authority, &member)?;
        }
        state.save_authority(&authority)?;
    }
    if globals.json {
        let all: Vec<_> = authority
            .issued
            .iter()
            .map(|one| report(&authority, one))
            .collect();
        return print_json(&all);
    }
    print(&table(&authority))
}

/// The part of a member's report that proves something.
#[derive(Debug, Deserialize)]
struct Shown {
    certificate: String,
}

fn read(word: &str) -> Result<Vec<Shown>> {
    let mut text = String::new();
    let read = if word == "-" {
        io::stdin()
            .lock()
            .take(MAX_SEEN_TEXT)
            .read_to_string(&mut text)
    } else {
        File::open(word).and_then(|file| file.take(MAX_SEEN_TEXT).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {word}"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{word} is not what `farlan members --json` prints on a member"))
}

/// Notes the use that a certificate proves.
fn see(authority: &mut AuthorityState, shown: &Shown) -> Result<()> {
    let chain = Chain::from_text(&shown.certificate).context("copy the file again")?;
    let wall = authority.roots.now(wall_clock());
    let member = match chain.verify(&authority.roots, wall) {
        Ok(member) => member,
        Err(error @ MembershipError::Foreign) => {
            return Err(error).context("the file is from another overlay");
        }
        // It has ended, or has no receipt: it proves nothing, and the others may.
        Err(_) => return Ok(()),
    };
    if let Some(time) = chain.claimed_joined() {
        authority.books.see(SeenUse {
            invite: member.invite_id,
            node: member.peer,
            time,
        });
    }
    Ok(())
}

fn report(authority: &AuthorityState, invite: &IssuedInvite) -> serde_json::Value {
    let uses = authority.books.uses_of(invite.id);
    let uses: Vec<_> = uses
        .map(|used| json!({ "node": used.node, "at": used.time }))
        .collect();
    json!({
        "id": invite.id.to_string(), "name": invite.name, "networks": invite.networks,
        "issued": invite.issued, "join_until": invite.join_until,
        "member_until": invite.member_until, "nodes": invite.max_nodes,
        "revoked": authority.revocations.names_invite(invite.id),
        "used_by": if uses.is_empty() { None } else { Some(uses) },
    })
}

/// Without the time zone, which the heading says.
fn minute(at: overlay_proto::time::UnixTime) -> String {
    Utc(at).to_string().trim_end_matches(" UTC").to_owned()
}

fn table(authority: &AuthorityState) -> String {
    let heading = [
        "ID",
        "NAME",
        "NETWORKS",
        "NODES",
        "JOIN UNTIL UTC",
        "MEMBER UNTIL UTC",
        "REVOKED",
        "USED BY",
    ];
    let mut table = Table::new(&heading)
        .cut(&["NAME"])
        .wrap(&["NETWORKS", "USED BY"]);
    let issued = &authority.issued;
    let ids: Vec<String> = issued.iter().map(|invite| invite.id.to_string()).collect();
    let letters = telling(&ids, LEAST_ID);
    let nodes: Vec<String> = authority
        .books
        .seen
        .iter()
        .map(|used| used.node.to_string())
        .collect();
    let node_letters = telling(&nodes, super::tables::LEAST_ID);
    let mut unknown = false;
    for (invite, id) in issued.iter().zip(&ids) {
        let uses = authority.books.uses_of(invite.id);
        let uses: Vec<String> = uses
            .map(|used| {
                let node = short(&used.node.to_string(), node_letters);
                format!("{node} {}", minute(used.time))
            })
            .collect();
        unknown |= uses.is_empty();
        let revoked = authority.revocations.names_invite(invite.id);
        table.row(vec![
            short(id, letters),
            or_dash(invite.name.as_ref()),
            list(&invite.networks, ", "),
            invite.max_nodes.to_string(),
            minute(invite.join_until),
            minute(invite.member_until),
            if revoked { "yes" } else { "-" }.to_owned(),
            if uses.is_empty() {
                "?".to_owned()
            } else {
                uses.join(", ")
            },
        ]);
    }
    let mut text = table.text();
    for entry in authority.revocations.entries() {
        if let Revoked::Node(peer) = entry {
            let _ = writeln!(text, "revoked node  {peer}");
        }
    }
    if unknown {
        text.push_str(
            "? = not known here; on a member: farlan members --json > FILE, then here: farlan \
             invites --seen FILE\n",
        );
    }
    text
}

/// A name is given to one host at a time.
///
/// # Errors
/// A membership with that name counts, or may still begin.
pub(super) fn refuse_taken_name(authority: &AuthorityState, name: &str) -> Result<()> {
    let now = authority.roots.now(wall_clock());
    let taken = authority.issued.iter().rev().find(|invite| {
        invite.name.as_deref() == Some(name)
            && now <= invite.member_until
            && !authority.revocations.names_invite(invite.id)
    });
    let Some(taken) = taken else {
        return Ok(());
    };
    bail!(
        "`{name}` is the name that invite {} gives until {}; choose another name, or `farlan revoke \
         {name}` first; for the same host once more add --again",
        short(&taken.id.to_string(), LEAST_ID),
        Utc(taken.member_until)
    )
}
