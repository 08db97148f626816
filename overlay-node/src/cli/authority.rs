//! The commands of the authority: `init`, `network`, `invite`.

use node_core::duration;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::{
    InviteRequest, MAX_MTU, MIN_MTU, NetworkAuthority, Rights, Utc, issue_invite,
};
use serde_json::json;

use super::invites::refuse_taken_name;
use super::output::{print, print_json};
use super::{Globals, WrongUsage};
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
    /// Remove a network: no node can be invited to it any more. Nodes that are in it stay in it
    Remove {
        /// Its name
        name: NetworkName,
        /// Remove it even if nodes are in it
        #[arg(long)]
        force: bool,
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
    /// [default: those of `farlan bootstrap list`]
    #[arg(long, num_args = 1.., value_name = "ADDR")]
    bootstrap: Vec<String>,
    /// The name of the node, signed by the authority. Only one host at a time can have it
    #[arg(long, value_name = "HOST", value_parser = super::rename::parse_name)]
    name: Option<String>,
    /// Allow a name that a host already has: to add networks, or for a longer membership
    #[arg(long, requires = "name")]
    again: bool,
    /// How long the invite can be used: 30m, 24h, 7d
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration::parse)]
    expires: Duration,
    /// How many nodes may use it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// A right, instead of `send` and `relay`; may be given several times. There is also `bridge-nic`:
    /// a node without it warns where a NIC is attached
    #[arg(long, num_args = 1.., value_name = "RIGHT")]
    right: Vec<Rights>,
    /// Write the invite into this new file, which its owner alone may read, and not to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
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
        NetworkCommand::Remove { name, force } => remove_network(globals, name, *force),
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

fn remove_network(globals: &Globals, name: &NetworkName, force: bool) -> Result<()> {
    let state = globals.state();
    state.require_authority()?;
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    if authority.network(name).is_none() {
        bail!("there is no network `{name}`; see: farlan network list");
    }
    let now = authority.roots.now(wall_clock());
    let live = authority.issued.iter().filter(|invite| {
        invite.networks.contains(name)
            && now <= invite.member_until
            && !authority.revocations.names_invite(invite.id)
    });
    let live = live.count();
    if live > 0 && !force {
        bail!(
            "{live} invites that count lead to network `{name}`; revoke them first, or add --force: \
             its members then stay together, but nobody can join them and no revocation changes \
             their keys"
        );
    }
    authority.networks.retain(|network| network.name != *name);
    state.save_authority(&authority)?;
    if globals.json {
        return print_json(&json!({ "name": name, "removed": true, "live_invites": live }));
    }
    print(&format!(
        "network {name} removed; a new one of that name would be another network"
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
    print(&super::overlay::networks(&authority))
}

/// `farlan invite`.
pub(super) fn invite(globals: &Globals, args: &InviteArgs) -> Result<()> {
    let state = globals.state();
    if args.bootstrap.is_empty() {
        let authority = state.load_authority()?;
        let known = authority.is_some_and(|authority| !authority.books.bootstraps.is_empty());
        if !known {
            return Err(WrongUsage(
                "name a bootstrap with --bootstrap ADDR, or once for all invites: farlan bootstrap \
                 add ADDR"
                    .to_owned(),
            )
            .into());
        }
    }
    state.require_authority()?;
    let _edit = state.edit()?;
    let mut authority = state.require_authority()?;
    if let Some(name) = args.name.as_deref().filter(|_| !args.again) {
        refuse_taken_name(&authority, name)?;
    }
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
    // The file before the books: one that cannot be written leaves no invite behind.
    let output = args.output.as_deref().map(NewFile::create).transpose()?;
    // Into the books first: an invite that is out but not in them could not be revoked.
    state.save_authority(&authority)?;
    let text = invite.to_text();
    let id = invite.id().to_string();
    let Some(file) = output else {
        return if globals.json {
            print_json(&json!({ "invite": *text, "id": id, "join_until": join_until }))
        } else {
            print(&text)
        };
    };
    let path = file.write(&text)?;
    if globals.json {
        return print_json(&json!({ "id": id, "output": path, "join_until": join_until }));
    }
    print(&format!(
        "invite {id} is in {}; it is a secret until it is used, by {}. On the host that it is \
         carried to: `farlan join @{}`",
        path.display(),
        Utc(join_until),
        path.file_name().unwrap_or_default().display()
    ))
}

/// A file that did not exist, for its owner alone; removed unless it is written.
struct NewFile {
    path: PathBuf,
    file: File,
    whole: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => anyhow!(
                "{} exists already, and an invite overwrites nothing; choose another file",
                path.display()
            ),
            _ => anyhow!(
                "cannot write {}: {error}; choose another file",
                path.display()
            ),
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            whole: false,
        })
    }

    fn write(mut self, text: &str) -> Result<PathBuf> {
        let written = self.file.write_all(text.as_bytes());
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.whole = true;
        Ok(self.path.clone())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.whole {
            // Best effort: half an invite is of no use to anybody.
            let _ = fs::remove_file(&self.path);
        }
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
        bootstraps: if args.bootstrap.is_empty() {
            authority.books.bootstraps.clone()
        } else {
            args.bootstrap.clone()
        },
    })
}
