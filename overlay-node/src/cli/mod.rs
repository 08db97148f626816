//! The commands of `farlan`: parsing, dispatch, exit codes.
//!
//! Exit codes: 0 done; 1 failed, with one line on stderr that says what, why and what to do;
//! 2 wrong usage. Under `--json` that line is an object `{"error": "..", "code": 1}`.

mod apply;
mod ask;
mod attach;
mod authority;
mod doctor;
mod invites;
mod join;
mod leave;
pub mod manual;
mod members;
mod output;
mod overlay;
mod pin;
mod ping;
mod rename;
mod revoke;
mod show;
mod table;
mod tables;
mod terminal;
mod unit;
mod up;
mod who;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use overlay_proto::ids::NetworkName;

use crate::attachments;
use crate::state::{DEFAULT_STATE, StateDir};

pub use attach::{attach_now, detach_now};
pub use leave::detach_all;
pub use show::networks_on_disk;
pub(crate) use unit::{start_command, stop_command};
pub use up::{NodeSetup, UpArgs};

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
    /// Print one JSON value with the facts or with what was done; an error goes to stderr
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
    /// Show the overlay, at the authority: its id, networks, bootstraps and the number of invites
    Overlay,
    /// Add, remove or list networks, at the authority
    #[command(subcommand)]
    Network(authority::NetworkCommand),
    /// Add, remove or list the bootstraps that invites carry, at the authority
    #[command(subcommand)]
    Bootstrap(overlay::BootstrapCommand),
    /// Make an invite, at the authority; prints it on one line: it is a secret
    Invite(authority::InviteArgs),
    /// List the invites that were made here, who has used them, and what is revoked
    Invites(invites::InvitesArgs),
    /// Revoke a node or an invite, at the authority; prints a line for `farlan apply -` on any member
    Revoke(revoke::RevokeArgs),
    /// Apply a revocation, on any member; it tells the others
    Apply(apply::ApplyArgs),
    /// Join an overlay, or further networks of it
    Join(join::JoinArgs),
    /// Set this node's name, if the authority gave it none
    Rename(rename::RenameArgs),
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
    /// Confirm `attach --move-addresses`; without it the addresses move back
    Confirm,
    /// Leave the overlay: detach all networks, tell the other nodes, erase the keys and this node's identity
    Leave(leave::LeaveArgs),
    /// List the networks of this node
    Networks,
    /// Show the node, its NAT, networks, peers and drops
    Status,
    /// List the peers and the paths to them
    Peers {
        /// Only these peers, by name or id [default: all]
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// List the members of this node's networks
    Members {
        /// Only in this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// List the known MAC addresses and their nodes
    Macs {
        /// Only in this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
        /// Only on this node, by name or id
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// Show which node has a MAC or IP address, or which addresses a node has
    Where {
        /// The address, or the node's name or id
        #[arg(value_name = "MAC-or-IP")]
        what: String,
        /// Only in this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// Check this host and its connection to the bootstraps, before or after `farlan join`; fails if a check fails
    Doctor(doctor::DoctorArgs),
    /// Ping a peer, or the peer of a guest: shows path, time, loss, and why the path is not direct
    Ping(ping::PingArgs),
    /// Announce that a MAC address is on this host now, for migration hooks
    Announce {
        #[command(flatten)]
        args: pin::PinArgs,
        /// Also pin it: it stays on this host even if it does not answer
        #[arg(long)]
        keep: bool,
    },
    /// Keep a MAC address on this host, even if it does not answer
    Pin(pin::PinArgs),
    /// Undo `pin`
    Unpin(pin::PinArgs),
    /// Print the version
    Version,
}

/// The watcher of a move (`attach --move-addresses`) is this program, too, but no command for people:
/// neither help nor completions know it.
#[derive(Debug, Parser)]
struct Watcher {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: WatcherCommand,
}

#[derive(Debug, Subcommand)]
enum WatcherCommand {
    /// Bring back what was moved and not confirmed
    WatchMove,
}

/// What the command line takes, for man pages and shell completions.
#[must_use]
pub fn command() -> clap::Command {
    let names: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let all = Cli::command().mut_subcommand("detach", |detach| {
        detach
            .mut_arg("bridge", |arg| {
                arg.help("Only if the network is attached to this bridge")
            })
            .mut_arg("vm", |arg| {
                arg.help("Remove this tap of a VM; the network stays attached")
            })
            .mut_arg("nic", |arg| {
                arg.help(
                    "Take this NIC off the bridge, with its addresses; the network stays attached",
                )
            })
    });
    names.into_iter().fold(all, |all, name| {
        let Some(examples) = manual::help_text(&name) else {
            return all;
        };
        all.mut_subcommand(&name, |command| command.after_help(examples))
    })
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if words
        .iter()
        .any(|word| word == attachments::watcher::COMMAND)
        && let Ok(watcher) = Watcher::try_parse_from(&words)
    {
        let WatcherCommand::WatchMove = watcher.command;
        return report(&watcher.globals, attach::watch_move(&watcher.globals));
    }
    let parsed = command().try_get_matches_from(&words);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is no error; wrong usage ends here, with code 2.
            if error.use_stderr() && words.iter().any(|word| word == "--json") {
                let text = error.render().to_string();
                let line = text.lines().next().unwrap_or_default();
                print_error(line.trim_start_matches("error: "), 2);
                return ExitCode::from(2);
            }
            error.exit();
        }
    };
    report(&cli.globals, run(&cli))
}

/// The exit code, and the one line on stderr of a command that failed.
fn report(globals: &Globals, outcome: Result<()>) -> ExitCode {
    let error = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    let code = if error.is::<WrongUsage>() { 2 } else { 1 };
    let line = format!("{error:#}").replace(['\n', '\r'], " ");
    if globals.json {
        print_error(&line, code);
    } else {
        eprintln!("farlan: {line}");
    }
    ExitCode::from(code)
}

/// One JSON object on stderr, so that stdout holds facts and nothing else.
fn print_error(line: &str, code: u8) {
    eprintln!("{}", serde_json::json!({ "error": line, "code": code }));
}

/// Wrong usage that shows only when the command runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

fn run(cli: &Cli) -> Result<()> {
    let globals = &cli.globals;
    match &cli.command {
        Command::Init => authority::init(globals),
        Command::Network(command) => authority::network(globals, command),
        Command::Invite(args) => authority::invite(globals, args),
        Command::Invites(args) => invites::invites(globals, args),
        Command::Overlay => overlay::overlay(globals),
        Command::Bootstrap(command) => overlay::bootstrap(globals, command),
        Command::Members { network } => members::members(globals, network.clone()),
        Command::Revoke(args) => revoke::revoke(globals, args),
        Command::Apply(args) => apply::apply(globals, args),
        Command::Join(args) => join::join(globals, args),
        Command::Rename(args) => rename::rename(globals, args),
        Command::Up(args) => up::up(globals, args),
        Command::Attach { args, extras } => attach::attach(globals, args, extras),
        Command::Detach { args, extras } => attach::detach(globals, args, extras),
        Command::Confirm => attach::confirm(globals),
        Command::Leave(args) => leave::leave(globals, args),
        Command::Networks => show::networks(globals),
        Command::Status => show::status(globals),
        Command::Peers { nodes } => show::peers(globals, nodes),
        Command::Macs { network, node } => show::macs(globals, network.clone(), node.as_deref()),
        Command::Where { what, network } => show::locate(globals, what, network.clone()),
        Command::Announce { args, keep } => pin::announce(globals, args, *keep),
        Command::Pin(args) => pin::pin(globals, args),
        Command::Unpin(args) => pin::unpin(globals, args),
        Command::Doctor(args) => doctor::doctor(globals, args),
        Command::Ping(args) => ping::ping(globals, args),
        Command::Version => show::version(globals),
    }
}
