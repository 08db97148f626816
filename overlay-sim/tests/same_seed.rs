//! The same seed is the same history, to the byte, in two processes: what differs from run to run is on lines that say so.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the helper here is only called by a test"
)]

use std::process::Command;

/// What a run prints, all but what it cost.
fn history(seed: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_overlay-sim"));
    let shape = [
        "--nodes",
        "12",
        "--minutes",
        "0.5",
        "--events",
        "--no-shrink",
    ];
    let output = program.args(shape).args(["--seed", seed]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let lines = said.lines().filter(|line| !line.starts_with("cost: "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_same_seed_is_the_same_history_in_two_processes() {
    let first = history("7");
    assert!(first.contains("\ndigest "), "{first}");
    assert!(first.contains("all is healed"), "{first}");
    assert_eq!(history("7"), first);
    assert_ne!(history("8"), first);
}
