//! The commands of the authority: `init`, `network`, `invite`, `invites`.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::{
    InviteRequest, MAX_MTU, MIN_MTU, NetworkAuthority, Revoked, Rights, Utc, issue_invite,
};
use serde_json::json;

use super::output::{Table, or_dash, print, print_json};
use super::{Globals, duration};
use crate::state::{AuthorityState, IssuedInvite, MAX_AUTHORITY_NETWORKS, OsEntropy, wall_clock};

/// How long a membership lasts (TRUST.md 3), unless the invite itself lasts longer.
const MEMBER_FOR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Add a network
    Add {
        /// Its name: 1 to 12 of a-z, 0-9 and -
        name: NetworkName,
        /// The guests' IP MTU, in bytes
        #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..=i64::from(MAX_MTU)))]
        mtu: u16,
    },
    /// List the networks
    List,
}

#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// A network to let the node in; may be given up to 8 times
    #[arg(long, required = true, num_args = 1.., value_name = "NAME")]
    network: Vec<NetworkName>,
    /// The full address of a bootstrap, which ends in /p2p/12D3..; may be given up to 8 times
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR")]
    bootstrap: Vec<String>,
    /// The name of the node
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// How long the invite can be used: 30m, 24h, 7d
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration::parse)]
    expires: Duration,
    /// How many nodes may use it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// A right, instead of `send` and `relay`; may be given several times. Only `send` is enforced in
    /// this version
    #[arg(long, num_args = 1.., value_name = "RIGHT")]
    right: Vec<Rights>,
}

/// `farlan init`.
pub(super) fn init(globals: &Globals) -> Result<()> {
    let state = globals.state();
    let authority = state.create_authority()?;
    if globals.json {
        return print_json(&json!({ "overlay": authority.overlay() }));
    }
    print(&format!(
        "The authority's key is in {}; nobody can replace it. Copy the file now and after\n\
         each network, invite and revocation, and keep the copy offline.\n\
         Next: farlan network add NAME. The overlay's id:\n{}",
        state.path().join("authority").display(),
        authority.overlay()
    ))
}

/// `farlan network`.
pub(super) fn network(globals: &Globals, command: &NetworkCommand) -> Result<()> {
    match command {
        NetworkCommand::Add { name, mtu } => add_network(globals, name, *mtu),
        NetworkCommand::List => list_networks(globals),
    }
}

fn add_network(globals: &Globals, name: &NetworkName, mtu: u16) -> Result<()> {
    let state = globals.state();
    // Before the lock, which would need the directory.
    state.require_authority()?;
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    if authority.network(name).is_some() {
        bail!("network `{name}` exists already; choose another name");
    }
    if authority.networks.len() >= MAX_AUTHORITY_NETWORKS {
        bail!("an overlay holds {MAX_AUTHORITY_NETWORKS} networks; make another overlay");
    }
    let network = NetworkAuthority::create(name.clone(), mtu, &mut OsEntropy);
    authority.networks.push(network);
    state.save_authority(&authority)?;
    if globals.json {
        return print_json(&json!({ "name": name, "mtu": mtu }));
    }
    print(&format!(
        "network {name} added; invite nodes with: farlan invite --network {name} .."
    ))
}

fn list_networks(globals: &Globals) -> Result<()> {
    let authority = globals.state().require_authority()?;
    if globals.json {
        let list: Vec<_> = authority
            .networks
            .iter()
            .map(|network| json!({ "name": network.name, "mtu": network.mtu, "epoch": network.epoch }))
            .collect();
        return print_json(&list);
    }
    let mut table = Table::new(&["NAME", "MTU", "EPOCH"]);
    for network in &authority.networks {
        table.row(vec![
            network.name.to_string(),
            network.mtu.to_string(),
            network.epoch.to_string(),
        ]);
    }
    print(&table.text())
}

/// `farlan invite`.
pub(super) fn invite(globals: &Globals, args: &InviteArgs) -> Result<()> {
    let state = globals.state();
    state.require_authority()?;
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    let request = request(&authority, args)?;
    let now = authority.roots.now(wall_clock());
    let (join_until, member_until) = (request.join_until, request.member_until);
    let invite = issue_invite(
        &authority.key,
        &authority.roots,
        &authority.overlay_secret,
        request,
        now,
        &mut OsEntropy,
    )
    .context("cannot make the invite")?;
    authority.note_issued(IssuedInvite {
        id: invite.id(),
        name: args.name.clone(),
        networks: args.network.clone(),
        issued: now,
        join_until,
        member_until,
        max_nodes: args.nodes,
    });
    // Into the books first: an invite that is out but not in them could not be revoked.
    state.save_authority(&authority)?;
    let text = invite.to_text();
    if globals.json {
        print_json(&json!({ "invite": *text, "id": invite.id().to_string() }))
    } else {
        print(&text)
    }
}

fn request(authority: &AuthorityState, args: &InviteArgs) -> Result<InviteRequest> {
    let mut networks = Vec::new();
    for name in &args.network {
        let Some(network) = authority.network(name) else {
            bail!("there is no network `{name}`; add it with: farlan network add {name}");
        };
        networks.push(network.secret());
    }
    let now = authority.roots.now(wall_clock());
    let rights = args.right.iter().copied().reduce(|all, right| all | right);
    Ok(InviteRequest {
        networks,
        rights: rights.unwrap_or(Rights::DEFAULT),
        name: args.name.clone(),
        join_until: now.plus(args.expires),
        member_until: now.plus(MEMBER_FOR.max(args.expires)),
        max_nodes: args.nodes,
        witness: None,
        bootstraps: args.bootstrap.clone(),
    })
}

/// `farlan invites`.
pub(super) fn invites(globals: &Globals) -> Result<()> {
    let authority = globals.state().require_authority()?;
    let names = |invite: &IssuedInvite| {
        let names: Vec<_> = invite.networks.iter().map(NetworkName::as_str).collect();
        names.join(",")
    };
    if globals.json {
        let list: Vec<_> = authority
            .issued
            .iter()
            .map(|invite| {
                json!({
                    "id": invite.id.to_string(), "name": invite.name, "networks": invite.networks,
                    "issued": invite.issued, "join_until": invite.join_until,
                    "member_until": invite.member_until, "nodes": invite.max_nodes,
                    "revoked": authority.revocations.names_invite(invite.id),
                })
            })
            .collect();
        return print_json(&list);
    }
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "NETWORKS",
        "NODES",
        "JOIN UNTIL",
        "MEMBER UNTIL",
        "REVOKED",
    ]);
    for invite in &authority.issued {
        table.row(vec![
            invite.id.to_string(),
            or_dash(invite.name.as_ref()),
            names(invite),
            invite.max_nodes.to_string(),
            Utc(invite.join_until).to_string(),
            Utc(invite.member_until).to_string(),
            if authority.revocations.names_invite(invite.id) {
                "yes".to_owned()
            } else {
                "-".to_owned()
            },
        ]);
    }
    let mut text = table.text();
    for entry in authority.revocations.entries() {
        if let Revoked::Node(peer) = entry {
            let _ = writeln!(text, "revoked node  {peer}");
        }
    }
    print(&text)
}
