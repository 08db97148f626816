//! Runs whole nodes in virtual time, by the hundred: histories out of seeds, the same seed the same history, to the byte.

mod program;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = program::args::Args::parse();
    match program::run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "overlay-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}
