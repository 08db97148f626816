//! Running programs: to the end with their output, or in the background with a log file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a finished program said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output, lossy UTF-8.
    pub stdout: String,
    /// Standard error, lossy UTF-8.
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(o: Output) -> Self {
        Self {
            code: o.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&o.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&o.stderr).into_owned(),
        }
    }
}

/// Runs `cmd` to its end, whatever its exit code.
///
/// # Errors
/// When it cannot be started.
pub fn finish(cmd: &mut Command) -> Result<Finished> {
    let out = cmd
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {cmd:?}"))?;
    Ok(out.into())
}

/// Runs `cmd` to its end with `input` on its standard input.
///
/// # Errors
/// When it cannot be started or does not take the input.
pub fn finish_with_input(cmd: &mut Command, input: &str) -> Result<Finished> {
    let mut child = cmd
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {cmd:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that refuses early closes its end: its exit code tells, not this write.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child.wait_with_output()?.into())
}

/// Runs `cmd` and returns its standard output.
///
/// # Errors
/// When it cannot be started or exits with another code than 0.
pub fn check(cmd: &mut Command) -> Result<String> {
    let out = finish(cmd)?;
    if out.code != 0 {
        bail!("{cmd:?} exited {}: {}{}", out.code, out.stdout, out.stderr);
    }
    Ok(out.stdout)
}

/// Runs `ip` with words split at spaces.
///
/// # Errors
/// When `ip` fails.
pub fn ip(words: &str) -> Result<String> {
    check(Command::new("ip").args(words.split_whitespace()))
}

/// A program in the background. Its output goes to a log file; dropping it kills it.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Proc {
    /// Starts `cmd` with both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(cmd: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = cmd
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {cmd:?}"))?;
        Ok(Self {
            child,
            what: format!("{cmd:?}"),
            log: log.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All output so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: kill takes two integers; the child is not reaped yet, so the pid is its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!(
                    "{} still runs after {timeout:?}:\n{}",
                    self.what,
                    tail(&self.log(), 40)
                );
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to stop (SIGTERM) and waits; after `timeout` it is killed and that is an error.
    ///
    /// # Errors
    /// When SIGTERM did not end it.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        let result = self.wait(timeout);
        if result.is_err() {
            self.kill();
        }
        result
    }

    /// Kills it (SIGKILL) and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the log contains `needle`; returns the log.
    ///
    /// # Errors
    /// When the program ends first or `timeout` passes; the error shows the log's tail.
    pub fn wait_log(&mut self, needle: &str, timeout: Duration) -> Result<String> {
        let end = Instant::now() + timeout;
        loop {
            let log = self.log();
            if log.contains(needle) {
                return Ok(log);
            }
            let ended = !self.is_running();
            if ended || Instant::now() >= end {
                let how = if ended { "ended" } else { "timed out" };
                bail!(
                    "{} {how} without {needle:?}:\n{}",
                    self.what,
                    tail(&log, 40)
                );
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Of the process `pid`, now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(dir.join("status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            Ok(number
                .with_context(|| format!("no {name} in {status}"))?
                .parse()?)
        };
        Ok(Self {
            memory_kib: field("VmRSS:")?,
            threads: field("Threads:")?,
            descriptors: std::fs::read_dir(dir.join("fd"))?.count(),
        })
    }

    /// Whether this is no more than `before`, apart from what an allocator keeps (a quarter and
    /// 8 MiB), a few sockets and connections under way, and threads of a pool.
    #[must_use]
    pub const fn is_flat(&self, before: &Self) -> bool {
        self.memory_kib <= before.memory_kib + before.memory_kib / 4 + 8192
            && self.descriptors <= before.descriptors + 8
            && self.threads <= before.threads + 2
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Polls `probe` every 20 ms until it gives a value; returns it and how long that took.
///
/// # Errors
/// After `timeout`, naming `what`.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok((value, start.elapsed()));
        }
        if start.elapsed() >= timeout {
            bail!("waited {timeout:?} for: {what}");
        }
        sleep(Duration::from_millis(20));
    }
}
