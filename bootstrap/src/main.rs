//! The program `farlan-bootstrap`: first contact, DHT storage, envelopes, reflector and UDP relay.
//!
//! It is no member: it holds no network key, and all it does for an overlay is checked by the
//! members themselves. One swarm serves one overlay, because one DHT must not mix two; the data
//! plane (reflector and relay) is shared by all. The rooms:
//! - `args` (in the library): the command line; `listen`: which sockets that means.
//! - `rights`: as whom it runs. `state`: the identity on disk. `data_plane`: the UDP sockets. `relay`: allocations.
//! - `witness`: who used which invite. `shelf`: what members taught about an overlay.
//! - `serve`: starts everything, prints the addresses, waits for the signal to stop.

#![forbid(unsafe_code)]

mod data_plane;
mod listen;
mod relay;
mod rights;
mod serve;
mod shelf;
mod state;
mod witness;

use std::io::IsTerminal;
use std::process::ExitCode;

use bootstrap::args;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Kademlia warns when a server starts before the first member came.
const DEFAULT_LOG: &str = "info,libp2p_kad=error,libp2p_swarm=warn,quinn=warn";

/// The exit code after which the unit does not start again.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors and end here.
            if !error.use_stderr() {
                error.exit();
            }
            let _ = error.print();
            if args::is_about_overlay(&error) {
                eprintln!("farlan-bootstrap: {}", args::OVERLAY_HINT);
            }
            return WRONG_USAGE.into();
        }
    };
    if let Err(error) = rights::become_owner(&args.state) {
        eprintln!("farlan-bootstrap: {error:#}");
        // As wrong usage, it does not get better by trying again.
        return WRONG_USAGE.into();
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG)),
        )
        .finish()
        .with(control_plane::OneASecond::default())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve::run(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farlan-bootstrap: {error:#}");
            ExitCode::FAILURE
        }
    }
}
