//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::error::ContextKind;
use clap::{CommandFactory, Parser};
use overlay_proto::ids::OverlayId;

/// First contact for the nodes of an overlay.
///
/// Prints its full addresses, for `farlan invite --network NETWORK --bootstrap ADDR`, and serves until
/// it is told to stop.
#[derive(Debug, Parser)]
#[command(name = "farlan-bootstrap", version)]
pub struct Args {
    /// An overlay to serve, as `farlan init` printed it; one or more
    #[arg(long, value_name = "ID", required = true, num_args = 1..)]
    overlay: Vec<OverlayId>,
    /// The state directory, which contains the identity
    #[arg(
        long,
        value_name = "DIR",
        env = "FARLAN_STATE",
        default_value = "/var/lib/farlan-bootstrap"
    )]
    pub state: PathBuf,
    /// HOST:PORT (data PORT/udp, control PORT/tcp and PORT+1/udp) or a multiaddr; a second IP
    /// address makes a second STUN server [default: port 22611 of all addresses]
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub listen: Vec<String>,
    /// The public addresses, if a NAT translates the --listen addresses (AWS, GCP: always)
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub external: Vec<String>,
    /// Print the addresses as JSON
    #[arg(long)]
    pub json: bool,
    /// The rate limit of one member at the relay, in Mbit/s
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub relay_quota_mbit: u32,
}

/// What to do where `--overlay` is missing or no id: a unit's log shows it to whoever forgot the flags.
pub const OVERLAY_HINT: &str = "which overlay? `farlan overlay` at the authority prints its id; with the \
    package, write FARLAN_BOOTSTRAP_FLAGS=\"--overlay ID\" with that id into \
    /etc/default/farlan-bootstrap, then type: systemctl restart farlan-bootstrap";

/// Is `--overlay` what is missing or wrong?
#[must_use]
pub fn is_about_overlay(error: &clap::Error) -> bool {
    let named = error.get(ContextKind::InvalidArg);
    named.is_some_and(|named| named.to_string().contains("--overlay"))
}

/// What the command line takes, for man pages and shell completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Overlays that one process serves; each has a swarm of its own.
const MAX_OVERLAYS: usize = 64;

impl Args {
    /// The overlays, without repeats.
    ///
    /// # Errors
    /// There are more than one process serves.
    pub fn overlays(&self) -> Result<Vec<OverlayId>> {
        let mut ids = Vec::new();
        for &id in &self.overlay {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        anyhow::ensure!(
            ids.len() <= MAX_OVERLAYS,
            "more than {MAX_OVERLAYS} overlays; start a second farlan-bootstrap with its own \
             --state and --listen"
        );
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage() {
        assert!(Args::try_parse_from(["farlan-bootstrap"]).is_err());
        let bad = Args::try_parse_from(["farlan-bootstrap", "--overlay", "x"]).unwrap_err();
        assert_eq!(bad.exit_code(), 2);
        assert!(is_about_overlay(&bad));
        let none = Args::try_parse_from(["farlan-bootstrap", "--json"]).unwrap_err();
        assert!(is_about_overlay(&none));
        let other = Args::try_parse_from(["farlan-bootstrap", "--what"]).unwrap_err();
        assert!(!is_about_overlay(&other));
        let id = OverlayId([7; 32]).to_string();
        let twice = ["farlan-bootstrap", "--overlay", &id, "--overlay", &id];
        let args = Args::try_parse_from(twice).unwrap();
        assert_eq!(args.overlays().unwrap(), [OverlayId([7; 32])]);
    }
}
