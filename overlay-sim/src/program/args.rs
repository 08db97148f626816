//! What can be asked for.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Run whole nodes of the overlay in virtual time: real cryptography, a virtual network, guests that talk.
///
/// Without a command one history is run: nodes start, and things happen to them that its seed decides (restarts, partitions, NATs
/// that restart, guests that move or lie, a revocation, a hostile member, ..). Then all is healed, and everybody has to reach
/// everybody. The same seed prints the same, but for the lines that begin with "cost:".
#[derive(Debug, Parser)]
#[command(name = "overlay-sim", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a history that was printed
    Replay {
        /// The file with the history
        file: PathBuf,
        /// List what happens
        #[arg(long)]
        events: bool,
    },
    /// Run the histories of a list, and some with fresh seeds
    Seeds(SeedsArgs),
    /// Measure how long a newcomer takes until its guest reaches that of a given member
    Join(JoinArgs),
    /// Draw measurements: reads lines that --json printed, writes an SVG to the standard output
    Plot {
        /// Files with such lines
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Options of a run.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RunArgs {
    /// How many nodes there are in all
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) nodes: u32,
    /// How long things happen, in minutes of virtual time
    #[arg(long, value_name = "M", default_value_t = 3.0)]
    pub(crate) minutes: f64,
    /// What the history is made of
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// So many overlays with as many nodes each and a bootstrap of their own. They share nothing, so they run beside each other
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) networks: u32,
    /// Guests on each node
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) guests: u16,
    /// Nothing happens: nodes start, guests talk, links lose nothing. One network in each overlay; otherwise there are two, and
    /// above 75 nodes one for each 25, and some nodes are in two of them
    #[arg(long)]
    pub(crate) calm: bool,
    /// List what happens
    #[arg(long)]
    pub(crate) events: bool,
    /// Print one line of JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not look for the smallest history when one fails
    #[arg(long)]
    pub(crate) no_shrink: bool,
    /// How many overlays run at the same time
    #[arg(long, value_name = "N", default_value_t = cores())]
    pub(crate) jobs: usize,
}

impl RunArgs {
    /// The command that runs one overlay of this run again.
    pub(crate) fn again(&self, seed: u64) -> String {
        format!(
            "cargo run --release -p overlay-sim -- --nodes {} --minutes {} --seed {seed} --guests {}{} --events",
            self.nodes / self.networks.max(1),
            self.minutes,
            self.guests,
            if self.calm { " --calm" } else { "" }
        )
    }
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SeedsArgs {
    /// A file with a history on each line: nodes, minutes, seed
    pub(crate) list: PathBuf,
    /// So many more, with seeds that nobody has run yet
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fresh: u32,
    /// Nodes of the fresh ones
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) nodes: u32,
    /// Minutes of the fresh ones
    #[arg(long, value_name = "M", default_value_t = 1.0)]
    pub(crate) minutes: f64,
    /// How many run at the same time
    #[arg(long, value_name = "N", default_value_t = cores())]
    pub(crate) jobs: usize,
    /// Do not look for the smallest history when one fails
    #[arg(long)]
    pub(crate) no_shrink: bool,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct JoinArgs {
    /// Members of the network
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) nodes: u32,
    /// Newcomers, one after the other
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) newcomers: u16,
    /// Decides who is where
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one line of JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
