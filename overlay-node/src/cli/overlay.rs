//! What the authority knows of its overlay: `overlay` and `bootstrap`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::Subcommand;
use overlay_proto::membership::{MAX_BOOTSTRAPS, Revoked, bootstrap_peer, check_bootstrap};
use serde_json::json;

use super::Globals;
use super::output::{print, print_json};
use super::table::Table;
use crate::state::{AuthorityState, wall_clock};

#[derive(Debug, Subcommand)]
pub(super) enum BootstrapCommand {
    /// Add addresses: invites that name no bootstrap carry them
    Add {
        /// The full address of a bootstrap, which ends in /p2p/12D3..; up to 8 in all
        #[arg(required = true, value_name = "ADDR")]
        addresses: Vec<String>,
    },
    /// Remove addresses; invites that were made with them keep them
    Remove {
        /// An address, or a bootstrap's id (12D3..) for all addresses of it
        #[arg(required = true, value_name = "ADDR-or-ID")]
        addresses: Vec<String>,
    },
    /// List the addresses; the first names the bootstrap that counts the uses of invites
    List,
}

/// `farlan overlay`.
pub(super) fn overlay(globals: &Globals) -> Result<()> {
    let authority = globals.state().require_authority()?;
    let counts = Counts::of(&authority);
    let books = &authority.books;
    if globals.json {
        let networks: Vec<_> = authority
            .networks
            .iter()
            .map(|network| json!({ "name": network.name, "mtu": network.mtu, "epoch": network.epoch }))
            .collect();
        return print_json(&json!({
            "overlay": authority.overlay(), "networks": networks, "bootstraps": books.bootstraps,
            "invites": authority.issued.len(), "open": counts.open,
            "nodes_seen": counts.nodes, "revoked_invites": counts.revoked_invites,
            "revoked_nodes": counts.revoked_nodes,
        }));
    }
    let mut text = format!(
        "overlay     {}\ninvites     {} in the books, {} can be used now, {} revoked\n\
         nodes       {} seen (farlan invites --seen), {} revoked\n",
        authority.overlay(),
        authority.issued.len(),
        counts.open,
        counts.revoked_invites,
        counts.nodes,
        counts.revoked_nodes,
    );
    if books.bootstraps.is_empty() {
        text.push_str("bootstraps  none; type: farlan bootstrap add ADDR\n");
    }
    for address in &books.bootstraps {
        text.push_str(&format!("bootstrap   {address}\n"));
    }
    text.push('\n');
    if authority.networks.is_empty() {
        text.push_str("no networks; type: farlan network add NAME\n");
    } else {
        text.push_str(&networks(&authority));
    }
    print(&text)
}

/// The networks as a table.
pub(super) fn networks(authority: &AuthorityState) -> String {
    let mut table = Table::new(&["NAME", "MTU", "EPOCH"]);
    for network in &authority.networks {
        table.row(vec![
            network.name.to_string(),
            network.mtu.to_string(),
            network.epoch.to_string(),
        ]);
    }
    table.text()
}

struct Counts {
    /// Invites that can still be used.
    open: usize,
    revoked_invites: usize,
    revoked_nodes: usize,
    /// Nodes that were seen to have used an invite.
    nodes: usize,
}

impl Counts {
    fn of(authority: &AuthorityState) -> Self {
        let now = authority.roots.now(wall_clock());
        let revoked = &authority.revocations;
        let open = authority.issued.iter().filter(|invite| {
            let uses = authority.books.uses_of(invite.id).count();
            let left = u32::try_from(uses).is_ok_and(|uses| uses < invite.max_nodes);
            now <= invite.join_until && left && !revoked.names_invite(invite.id)
        });
        let is_invite = |entry: &&Revoked| matches!(entry, Revoked::Invite(_));
        let seen: BTreeSet<_> = authority.books.seen.iter().map(|used| used.node).collect();
        Self {
            open: open.count(),
            revoked_invites: revoked.entries().filter(is_invite).count(),
            revoked_nodes: revoked.entries().filter(|entry| !is_invite(entry)).count(),
            nodes: seen.len(),
        }
    }
}

/// `farlan bootstrap`.
pub(super) fn bootstrap(globals: &Globals, command: &BootstrapCommand) -> Result<()> {
    let state = globals.state();
    let authority = state.require_authority()?;
    if matches!(command, BootstrapCommand::List) {
        return list(globals, &authority);
    }
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    match command {
        BootstrapCommand::Add { addresses } => add(&mut authority, addresses)?,
        BootstrapCommand::Remove { addresses } => remove(&mut authority, addresses)?,
        BootstrapCommand::List => {}
    }
    state.save_authority(&authority)?;
    list(globals, &authority)
}

fn list(globals: &Globals, authority: &AuthorityState) -> Result<()> {
    let bootstraps = &authority.books.bootstraps;
    if globals.json {
        return print_json(&json!({ "bootstraps": bootstraps }));
    }
    if bootstraps.is_empty() {
        return print("no bootstraps added; each invite needs --bootstrap ADDR");
    }
    print(&bootstraps.join("\n"))
}

fn add(authority: &mut AuthorityState, addresses: &[String]) -> Result<()> {
    let bootstraps = &mut authority.books.bootstraps;
    for address in addresses {
        check_bootstrap(address)?;
        if !bootstraps.contains(address) {
            bootstraps.push(address.clone());
        }
    }
    if bootstraps.len() > MAX_BOOTSTRAPS {
        bail!(
            "{} addresses are too many; an invite holds at most {MAX_BOOTSTRAPS}; remove some with \
             `farlan bootstrap remove ADDR`",
            bootstraps.len()
        );
    }
    Ok(())
}

fn remove(authority: &mut AuthorityState, words: &[String]) -> Result<()> {
    let bootstraps = &mut authority.books.bootstraps;
    for word in words {
        let before = bootstraps.len();
        let peer = word.parse().ok();
        bootstraps.retain(|address| {
            let same_peer = peer.is_some() && bootstrap_peer(address) == peer;
            address != word && !same_peer
        });
        if bootstraps.len() == before {
            bail!("`{word}` is not a known bootstrap; see: farlan bootstrap list");
        }
    }
    Ok(())
}
