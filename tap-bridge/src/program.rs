//! Starting programs of the host, and what they say.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

/// The program's output, or one line that says why there is none. Waits for it.
pub(crate) fn run(
    program: &str,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<String, String> {
    run_with(program, words, "")
}

/// As [`run`], with `input` to read, some kilobytes at most.
pub(crate) fn run_with(
    program: &str,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: &str,
) -> Result<String, String> {
    let failed = |error| format!("{program}: {error}");
    // Looking every few seconds must not cost the guests a turn: last in the queue for the core. What is said
    // is read, so it has to be English.
    let mut child = Command::new("nice")
        .env("LC_ALL", "C")
        .args(["-n", "19", program])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read all says itself why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let line = said.lines().next().unwrap_or("it failed").to_owned();
    Err(line)
}
