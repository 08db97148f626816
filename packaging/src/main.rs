//! The program `farlan-manual DIR`: man pages and shell completions of both programs, written into
//! `DIR/PROGRAM`.
//!
//! They come from the same definitions that parse the command line, and `farlan.toml(5)` from
//! `docs/CONFIG.md`, so they cannot tell another story. The packages install them; the programs
//! themselves stay without this code.

mod completions;
mod pages;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Command;

/// The operator's file, explained.
const CONFIG: &str = include_str!("../../docs/CONFIG.md");

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(dir), None) = (words.next(), words.next()) else {
        eprintln!("usage: farlan-manual DIR");
        return ExitCode::from(2);
    };
    match write_all(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farlan-manual: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: OsString) -> Result<()> {
    let dir = PathBuf::from(dir);
    for command in [overlay_node::cli::command(), bootstrap::args::command()] {
        let own = dir.join(command.get_name());
        // No page of a command that is gone may stay.
        if own.exists() {
            fs::remove_dir_all(&own).with_context(|| format!("cannot empty {}", own.display()))?;
        }
        fs::create_dir_all(&own)
            .map_err(anyhow::Error::from)
            .and_then(|()| write(command, &own))
            .with_context(|| format!("cannot write into {}", own.display()))?;
    }
    let page = pages::of_markdown("farlan.toml", "the configuration of farlan", CONFIG);
    fs::write(dir.join("farlan/farlan.toml.5"), page).context("cannot write farlan.toml.5")
}

fn write(mut command: Command, dir: &Path) -> Result<()> {
    completions::write(&mut command, dir)?;
    pages::write(command, dir)
}
