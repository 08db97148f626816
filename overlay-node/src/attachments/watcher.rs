//! The watcher of a move: a process of its own that brings the addresses back.
//!
//! Whoever moves addresses may be gone in the next moment: the SSH session that typed it, the node.
//! So before anything is changed the same program is started again, in a session of its own, and
//! the move begins only once it says that it watches. It ends when the move is confirmed. It brings
//! all back at the deadline; at once if its starter ends before the move is whole (the pipe between
//! them breaks), or if it is told to end (SIGTERM): who stops the service ends the trial.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::moving;

/// The hidden command that the watcher runs as.
pub const COMMAND: &str = "watch-move";

/// How often the watcher looks whether the move was confirmed.
const LOOK: Duration = Duration::from_millis(500);

/// What it says once it watches, and what it is told once the move is whole.
const READY: &str = "ready";
const WHOLE: &[u8] = b"whole";

/// A watcher that runs.
#[derive(Debug)]
pub(super) struct Watcher {
    pipe: ChildStdin,
}

impl Watcher {
    /// Starts `program` to watch the moves of `dir`; returns when it watches.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        // To the log of the node; a terminal may be gone when there is something to say.
        let stderr = if std::io::stderr().is_terminal() {
            Stdio::null()
        } else {
            Stdio::inherit()
        };
        let mut child = Command::new(program)
            .arg("--state")
            .arg(dir)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .current_dir("/")
            .spawn()
            .context("cannot start the watcher of the move, so nothing was moved")?;
        match begin(&mut child) {
            Ok(pipe) => {
                // Reaped when it ends, which is soon after the deadline at the latest.
                std::thread::spawn(move || child.wait());
                Ok(Self { pipe })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The move is whole: from now on the deadline counts.
    pub(super) fn whole(mut self) {
        // If it has ended the node brings the addresses back.
        let _ = self.pipe.write_all(WHOLE);
    }
}

fn begin(child: &mut Child) -> anyhow::Result<ChildStdin> {
    let stdout = child.stdout.take().context("no pipe from the watcher")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != READY {
        bail!("the watcher of the move did not start, so nothing was moved; try again");
    }
    child.stdin.take().context("no pipe to the watcher")
}

/// What the watcher does, from its start to its end. Lines for its log.
///
/// # Errors
/// The move cannot be brought back.
pub async fn watch(dir: &Path) -> anyhow::Result<Vec<String>> {
    // SAFETY: setsid takes nothing and changes this process only. It fails for a group's leader, which
    // is one already.
    unsafe { libc::setsid() };
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    let (sender, mut whole) = oneshot::channel();
    std::thread::spawn(move || {
        let mut told = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut told);
        let _ = sender.send(read.is_ok() && told == WHOLE);
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}").and_then(|()| stdout.flush())?;
    let (mut told, mut ending) = (false, false);
    loop {
        let at_once = tokio::select! {
            is_whole = &mut whole, if !told => {
                told = true;
                !is_whole.unwrap_or(false)
            }
            _ = terminate.recv() => {
                ending = true;
                true
            }
            () = tokio::time::sleep(LOOK) => false,
        };
        match moving::waits(dir)? {
            None if told || at_once => return Ok(Vec::new()),
            Some(left) if at_once || left.is_zero() => {
                let lines = moving::roll_back(dir, true).await?;
                if ending || moving::waits(dir)?.is_none() {
                    return Ok(lines);
                }
                // It is tried again.
                say(&lines);
            }
            _ => {}
        }
    }
}

/// Lines for the log. Nobody may read them.
pub fn say(lines: &[String]) {
    for line in lines {
        let _ = writeln!(std::io::stderr(), "farlan: {line}");
    }
}
