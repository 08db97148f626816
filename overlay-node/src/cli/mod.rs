//! The commands of `farlan`: parsing, dispatch, exit codes.
//!
//! Exit codes: 0 done; 1 failed, with one line on stderr that says what, why and what to do;
//! 2 wrong usage.

mod apply;
mod attach;
mod authority;
mod doctor;
mod duration;
mod join;
mod leave;
mod output;
mod pin;
mod ping;
mod revoke;
mod show;
mod tables;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use overlay_proto::ids::NetworkName;

use crate::control_socket::api::MacOrIp;
use crate::state::{DEFAULT_STATE, StateDir};

pub(crate) use apply::{said, take_epochs, take_roots};
pub use attach::{attach_now, detach_now};
pub(crate) use duration::show as show_duration;
pub use leave::detach_all;
pub use show::networks_on_disk;
pub use up::{NodeSetup, UpArgs, notify};

/// A peer-to-peer wide-area Ethernet for virtual machines.
#[derive(Debug, Parser)]
#[command(name = "farlan", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// The state directory
    #[arg(long, global = true, value_name = "DIR", env = "FARLAN_STATE", default_value = DEFAULT_STATE)]
    pub state: PathBuf,
    /// The configuration file [default: /etc/farlan/farlan.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print facts as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Globals {
    fn state(&self) -> StateDir {
        StateDir::at(&self.state)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an overlay: the authority's key and root document; prints the overlay id
    Init,
    /// Add or list networks, at the authority
    #[command(subcommand)]
    Network(authority::NetworkCommand),
    /// Make an invite, at the authority; prints it on one line: it is a secret
    Invite(authority::InviteArgs),
    /// List the invites that were made here, and what is revoked
    Invites,
    /// Revoke a node or an invite, at the authority; prints a line for `farlan apply -` on any member
    Revoke(revoke::RevokeArgs),
    /// Take a revocation, on any member
    Apply(apply::ApplyArgs),
    /// Join an overlay, or further networks of it
    Join(join::JoinArgs),
    /// Run the node in the foreground
    Up(UpArgs),
    /// Join a network to a bridge or a VM on this host
    Attach {
        #[command(flatten)]
        args: attach::AttachArgs,
        #[command(flatten)]
        extras: attach::AttachExtras,
    },
    /// Undo `attach`
    Detach {
        #[command(flatten)]
        args: attach::AttachArgs,
        #[command(flatten)]
        extras: attach::DetachExtras,
    },
    /// Keep what `attach --move-addresses` has moved
    Confirm,
    /// Bring back what was moved and not confirmed
    #[command(hide = true)]
    WatchMove,
    /// Leave the overlay: detach all, tell the others, forget its keys and this node's identity
    Leave(leave::LeaveArgs),
    /// List the networks of this node
    Networks,
    /// Show the node, its NAT, networks, peers and drops
    Status,
    /// List the peers and the paths to them
    Peers,
    /// List the MAC addresses known
    Macs {
        /// Of this network only
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// Say which node holds a MAC or an IP address
    Where {
        /// The address
        #[arg(value_name = "MAC-or-IP")]
        what: MacOrIp,
        /// In this network only
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// Check this host and the way to the bootstraps, before or after `farlan join`; fails if a check does
    Doctor(doctor::DoctorArgs),
    /// Ping a peer, or the peer that a guest lives on: path, time, loss, and why it is not direct
    Ping(ping::PingArgs),
    /// Say that a MAC address is on this host now, for migration hooks
    Announce {
        #[command(flatten)]
        args: pin::PinArgs,
        /// Pin it, too: it stays on this host whether it answers or not
        #[arg(long)]
        keep: bool,
    },
    /// Keep a MAC address on this host for good, whether it answers or not
    Pin(pin::PinArgs),
    /// Undo `pin`
    Unpin(pin::PinArgs),
    /// Print the version
    Version,
}

/// What the command line takes, for man pages and shell completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Wrong usage ends here, with code 2.
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}").replace(['\n', '\r'], " ");
            eprintln!("farlan: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let globals = &cli.globals;
    match &cli.command {
        Command::Init => authority::init(globals),
        Command::Network(command) => authority::network(globals, command),
        Command::Invite(args) => authority::invite(globals, args),
        Command::Invites => authority::invites(globals),
        Command::Revoke(args) => revoke::revoke(globals, args),
        Command::Apply(args) => apply::apply(globals, args),
        Command::Join(args) => join::join(globals, args),
        Command::Up(args) => up::up(globals, args),
        Command::Attach { args, extras } => attach::attach(globals, args, extras),
        Command::Detach { args, extras } => attach::detach(globals, args, extras),
        Command::Confirm => attach::confirm(globals),
        Command::WatchMove => attach::watch_move(globals),
        Command::Leave(args) => leave::leave(globals, args),
        Command::Networks => show::networks(globals),
        Command::Status => show::status(globals),
        Command::Peers => show::peers(globals),
        Command::Macs { network } => show::macs(globals, network.clone()),
        Command::Where { what, network } => show::locate(globals, *what, network.clone()),
        Command::Announce { args, keep } => pin::announce(globals, args, *keep),
        Command::Pin(args) => pin::pin(globals, args),
        Command::Unpin(args) => pin::unpin(globals, args),
        Command::Doctor(args) => doctor::doctor(globals, args),
        Command::Ping(args) => ping::ping(globals, args),
        Command::Version => show::version(globals),
    }
}
