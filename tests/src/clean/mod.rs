//! Clean hosts: a new Debian with its own systemd, on which nothing but Debian was ever installed.
//!
//! A host is a namespace of the lab with a mount, PID, UTS, IPC and cgroup namespace of its own, in
//! which `boot.sh` starts systemd on a root from debootstrap. It boots in a second, since it needs no
//! machine. The root is made once and kept below the target directory; a host writes to a file system
//! in memory above it, so each host is new.

pub mod debs;
pub mod readme;
mod root;
pub mod transcript;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Ns;
use crate::proc::{self, Finished, Proc, wait_for};
use transcript::Transcript;

pub use root::target_dir;

/// How long systemd may take to start all it has.
const BOOT: Duration = Duration::from_secs(60);

/// What starts a host, moved into a cgroup of its own first. $1: that cgroup; then `ip netns exec ..`.
const START: &str = "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"";

/// A clean host that runs.
#[derive(Debug)]
pub struct CleanHost {
    /// Its place in the lab's network.
    pub ns: Ns,
    name: String,
    /// PID 1, as it is called outside.
    pid: String,
    cgroup: PathBuf,
    process: Proc,
    transcript: Transcript,
}

impl CleanHost {
    /// Boots a host called `name` in `ns`; what is typed on it comes into `transcript`.
    ///
    /// # Errors
    /// When there is no clean root, or systemd does not start.
    pub fn boot(ns: &Ns, name: &str, transcript: &Transcript) -> Result<Self> {
        let root = root::debian()?;
        let dir = ns.lab().dir().join(format!("{name}-clean"));
        fs::create_dir_all(&dir)?;
        let cgroup = root::cgroup(ns.full_name())?;
        let script = dir.join("boot.sh");
        fs::write(&script, include_str!("boot.sh"))?;
        let mut cmd = Command::new("setsid");
        cmd.args(["bash", "-c", START, "start"]).arg(&cgroup);
        cmd.args(["ip", "netns", "exec", ns.full_name()]);
        cmd.args(["unshare", "-mpuiC", "--fork", "--kill-child", "bash"]);
        cmd.arg(script).arg(root).arg(&dir).arg(name);
        let log = ns.lab().dir().join(format!("{name}-systemd.log"));
        let process = Proc::spawn(&mut cmd, &log)?;
        let mut host = Self {
            ns: ns.clone(),
            name: name.to_owned(),
            pid: String::new(),
            cgroup,
            process,
            transcript: transcript.clone(),
        };
        let pid = || fs::read_to_string(dir.join("pid")).ok();
        let (pid, _) = wait_for("the first process", BOOT, || {
            pid().filter(|pid| pid.ends_with('\n'))
        })
        .with_context(|| host.process.log())?;
        pid.trim().clone_into(&mut host.pid);
        wait_for("systemd", BOOT, || {
            let state = host.quietly("systemctl is-system-running").ok()?.stdout;
            ["running", "degraded"]
                .contains(&state.trim())
                .then_some(())
        })
        .with_context(|| host.process.log())?;
        Ok(host)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A shell line of root's at the host, without a word in the transcript: what the lab does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn quietly(&self, line: &str) -> Result<Finished> {
        proc::finish(&mut self.shell(line))
    }

    /// Types a line as root; it is in the transcript with what it printed, and in that order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn types(&self, line: &str) -> Result<Said> {
        self.types_with(line, "")
    }

    /// Types a line again and again until what it prints is `good`; only that is in the transcript.
    ///
    /// # Errors
    /// After `limit`, with what it printed last.
    pub fn types_until(
        &self,
        line: &str,
        limit: Duration,
        good: impl Fn(&str) -> bool,
    ) -> Result<Said> {
        let mut last = String::new();
        let found = wait_for(&format!("{}# {line}", self.name), limit, || {
            let out = self.quietly(&format!("exec 2>&1; {line}")).ok()?;
            out.stdout.clone_into(&mut last);
            good(&last).then_some(out)
        });
        match found {
            Ok((out, _)) => Ok(self.said(line, out)),
            Err(error) => {
                self.transcript.typed(&self.name, line, &last, -1);
                Err(error)
            }
        }
    }

    /// Types a line at a terminal, where the program sees one, and `answer` once it has asked with
    /// `question`.
    ///
    /// # Errors
    /// As [`CleanHost::types`].
    pub fn types_at_terminal(&self, line: &str, question: &str, answer: &str) -> Result<Said> {
        let quoted = line.replace('\'', "'\\''");
        let mut cmd = self.shell(&format!("script -qec '{quoted}' /dev/null"));
        cmd.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cmd.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut stdin = stdin.context("stdin")?;
        let mut stdout = stdout.context("stdout")?;
        let mut text = Vec::new();
        let mut chunk = [0; 1024];
        let mut asked = false;
        loop {
            let count = stdout.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            text.extend_from_slice(&chunk[..count]);
            if !asked && String::from_utf8_lossy(&text).contains(question) {
                asked = true;
                stdin.write_all(answer.as_bytes())?;
            }
        }
        let code = child.wait()?.code().unwrap_or(-1);
        anyhow::ensure!(
            asked,
            "no question {question:?}: {}",
            String::from_utf8_lossy(&text)
        );
        let stdout = String::from_utf8_lossy(&text).into_owned();
        let stderr = String::new();
        Ok(self.said(
            line,
            Finished {
                code,
                stdout,
                stderr,
            },
        ))
    }

    /// As [`CleanHost::types`], with something on standard input.
    ///
    /// # Errors
    /// As [`CleanHost::types`].
    pub fn types_with(&self, line: &str, input: &str) -> Result<Said> {
        let both = self.shell(&format!("exec 2>&1; {line}"));
        let out = proc::finish_with_input(&mut { both }, input)?;
        Ok(self.said(line, out))
    }

    fn said(&self, line: &str, out: Finished) -> Said {
        let text = out.stdout.replace("\r\n", "\n");
        self.transcript.typed(&self.name, line, &text, out.code);
        Said {
            line: format!("{}# {line}", self.name),
            text,
            code: out.code,
        }
    }

    /// Ends by itself after 60 s, whatever it waits for.
    fn shell(&self, line: &str) -> Command {
        let mut cmd = Command::new("timeout");
        cmd.args(["-k", "5", "60", "nsenter", "--all", "--target", &self.pid]);
        cmd.args(["env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8"]);
        cmd.args(["TERM=dumb", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        cmd.args(["bash", "-c", &format!("cd /root; {line}")]);
        cmd
    }

    /// Copies a file of the outside to `/root` of the host.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn bring(&self, file: &Path) -> Result<()> {
        let name = file.file_name().context("a file's name")?;
        let into = format!("/proc/{}/root/root", self.pid);
        fs::copy(file, Path::new(&into).join(name))?;
        Ok(())
    }

    /// A file of the host.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        let root = format!("/proc/{}/root", self.pid);
        Ok(fs::read_to_string(
            Path::new(&root).join(path.trim_start_matches('/')),
        )?)
    }
}

impl Drop for CleanHost {
    fn drop(&mut self) {
        // `unshare` takes PID 1 along, and that all the others.
        self.process.kill();
        root::remove_cgroup(&self.cgroup);
    }
}

/// What a typed line printed, both outputs in their order.
#[derive(Debug, Clone)]
pub struct Said {
    line: String,
    /// The output.
    pub text: String,
    code: i32,
}

impl Said {
    /// It succeeded, and said each of `words`.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn works(&self, words: &[&str]) -> &Self {
        assert_eq!(self.code, 0, "{}\n{}", self.line, self.text);
        self.says(words)
    }

    /// It failed, and said each of `words`, without a word of the language it is written in.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> &Self {
        assert_ne!(self.code, 0, "{}\n{}", self.line, self.text);
        assert_ne!(self.code, 124, "hangs: {}\n{}", self.line, self.text);
        for riddle in ["panicked", "os error 2", "Caused by", "Some("] {
            assert!(!self.text.contains(riddle), "{}\n{}", self.line, self.text);
        }
        self.says(words)
    }

    /// It said each of `words`, wherever lines were broken.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        let flat = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            let found = flat.contains(word) || self.text.contains(word);
            assert!(found, "no {word:?}\n{}\n{}", self.line, self.text);
        }
        self
    }

    /// The command that the message names as the cure and that begins with `start`.
    ///
    /// # Panics
    /// When it names none.
    #[track_caller]
    #[must_use]
    pub fn cure(&self, start: &str) -> String {
        let all = transcript::commands(&self.text);
        let found = all.iter().find(|command| command.starts_with(start));
        let found = found.unwrap_or_else(|| {
            panic!(
                "no command {start:?} in {all:?}\n{}\n{}",
                self.line, self.text
            )
        });
        found.clone()
    }
}
