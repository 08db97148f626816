//! `farlan revoke`, at the authority.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use clap::Args;
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::{RevocationLine, Revoked, SignedRevocations};
use overlay_proto::time::UnixTime;
use serde_json::json;
use zeroize::Zeroizing;

use super::Globals;
use super::invites::LEAST_ID;
use super::output::{print, print_json};
use crate::state::{AuthorityState, IssuedInvite, wall_clock};

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// A node's id (12D3..), the id of an invite as `farlan invites` shows it, or the name that an
    /// invite gave a node
    #[arg(value_name = "NODE-or-INVITE")]
    who: String,
    /// Begin a new epoch in these networks only [default: those of the invite; for a node's id those of
    /// the invites that it was seen to have used, or all]
    #[arg(long, num_args = 1.., value_name = "NAME")]
    network: Vec<NetworkName>,
}

/// `farlan revoke`: into the books, then one line on stdout. Once more for the same: the line again.
pub(super) fn revoke(globals: &Globals, args: &RevokeArgs) -> Result<()> {
    let state = globals.state();
    state.require_authority()?;
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    let now = authority.roots.now(wall_clock());
    let (entry, networks) = find(&authority, &args.who, now)?;
    let networks = if args.network.is_empty() {
        networks
    } else {
        args.network.clone()
    };
    let line = strike(&mut authority, entry, &networks, now)?;
    // What is handed out before it is in the books could not be handed out again.
    state.save_authority(&authority)?;
    let text = line.to_text();
    if globals.json {
        let list = line.list.list();
        print_json(&json!({
            "revocation": *text, "revoked": entry.to_string(), "list": list.number,
            "entries": list.entries.len(), "networks": networks,
        }))
    } else {
        print(&text)
    }
}

/// Who is meant, and the networks that know it.
fn find(
    authority: &AuthorityState,
    who: &str,
    now: UnixTime,
) -> Result<(Revoked, Vec<NetworkName>)> {
    if let Some(peer) = node(authority, who)? {
        return Ok((Revoked::Node(peer), networks_of(authority, peer)));
    }
    // As the table shows it, or whole.
    let by_id = |invite: &&IssuedInvite| {
        let id = invite.id.to_string();
        id == who || who.len() >= LEAST_ID && id.starts_with(who)
    };
    let by_name = |invite: &&IssuedInvite| invite.name.as_deref() == Some(who);
    let revoked = |invite: &IssuedInvite| authority.revocations.names_invite(invite.id);
    let live = |invite: &&IssuedInvite| now <= invite.member_until && !revoked(invite);
    let mut found: Vec<&IssuedInvite> = authority
        .issued
        .iter()
        .filter(by_name)
        .filter(live)
        .collect();
    if found.is_empty() {
        found = authority.issued.iter().filter(by_id).collect();
    }
    if found.is_empty() {
        // All of that name are revoked: the last line once more.
        found = authority
            .issued
            .iter()
            .rev()
            .filter(by_name)
            .take(1)
            .collect();
    }
    match found.as_slice() {
        [one] => {
            let exists = |name: &&NetworkName| authority.network(name).is_some();
            let networks = one.networks.iter().filter(exists);
            Ok((Revoked::Invite(one.id), networks.cloned().collect()))
        }
        [] => bail!(
            "no invite here has the id or the name `{who}`, and it is no node's id; see: farlan \
             invites; a name with a ~ is not signed: give the node's id, as `farlan peers --json` shows it \
             on a member"
        ),
        several => {
            let ids: Vec<String> = several.iter().map(|invite| invite.id.to_string()).collect();
            bail!(
                "{} invites name a node `{who}`; revoke each by its id: {}",
                several.len(),
                ids.join(", ")
            )
        }
    }
}

/// The node whose id, or the beginning of whose id, is `who`.
fn node(authority: &AuthorityState, who: &str) -> Result<Option<PeerId>> {
    if let Ok(peer) = who.parse::<PeerId>() {
        return Ok(Some(peer));
    }
    if !who.starts_with("12D3KooW") {
        return Ok(None);
    }
    let seen = authority.books.seen.iter().map(|used| used.node);
    let found: BTreeSet<PeerId> = seen
        .filter(|node| node.to_string().starts_with(who))
        .collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Some(one)),
        (None, _) => bail!(
            "no node with the id `{who}..` is in the books; give the whole id, as `farlan peers \
             --json` shows it on a member"
        ),
        _ => bail!("several nodes have ids that begin with `{who}`; give more of it"),
    }
}

/// The networks of the invites that `peer` was seen to have used; all if none was seen.
fn networks_of(authority: &AuthorityState, peer: PeerId) -> Vec<NetworkName> {
    let used = |invite: &&IssuedInvite| {
        let mut uses = authority.books.uses_of(invite.id);
        uses.any(|used| used.node == peer)
    };
    let invites = authority.issued.iter().filter(used);
    let known: BTreeSet<&NetworkName> = invites.flat_map(|invite| &invite.networks).collect();
    // A network that was removed has no epochs any more.
    let all = authority.networks.iter().map(|network| &network.name);
    let all = all.filter(|name| known.is_empty() || known.contains(name));
    all.cloned().collect()
}

/// Puts `entry` on the list, if it is not there, and begins new epochs.
fn strike(
    authority: &mut AuthorityState,
    entry: Revoked,
    networks: &[NetworkName],
    now: UnixTime,
) -> Result<RevocationLine> {
    let known = authority.revocations.entries().any(|known| *known == entry);
    let fresh = !known || authority.revocations.lists().len() != 1;
    if fresh {
        let version = authority.roots.newest().version;
        let next = authority
            .revocations
            .successor(version, entry)
            .context("cannot revoke: the list is full; only a new overlay has an empty one")?;
        let list = SignedRevocations::sign(&authority.key, authority.overlay(), next);
        authority.revocations.take(list, &authority.roots)?;
    }
    let epochs = epochs(authority, networks, fresh, now)?;
    let list = authority.revocations.lists().last();
    Ok(RevocationLine {
        roots: authority.roots.above(0).to_vec(),
        list: list.context("there is no list")?.clone(),
        epochs,
    })
}

/// The keys of the epochs that begin, or that began when the same was revoked before.
fn epochs(
    authority: &mut AuthorityState,
    networks: &[NetworkName],
    fresh: bool,
    now: UnixTime,
) -> Result<Vec<Zeroizing<Vec<u8>>>> {
    let list = authority.revocations.number();
    let mut epochs = Vec::new();
    for name in networks {
        let Some(network) = authority.networks.iter_mut().find(|n| n.name == *name) else {
            bail!("there is no network `{name}`; see: farlan network list");
        };
        let (key, roots) = (&authority.key, &authority.roots);
        let epoch = if fresh {
            network.next_epoch(key, roots, list, now)?
        } else {
            network.signed_epoch(key, roots, list, now)?
        };
        epochs.push(Zeroizing::new(epoch.encode()));
    }
    Ok(epochs)
}
