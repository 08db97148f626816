//! The first program of the rig's guest; see `farlan_tests::rig`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match farlan_tests::rig::guest::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("farlan-rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}
