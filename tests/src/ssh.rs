//! A real SSH server on a host, and sessions to it that show whether they live.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Ns;
use crate::proc::{self, Proc, wait_for};

/// Where the server listens.
const PORT: u16 = 2222;

/// An `sshd` in a namespace; ends when this is dropped.
#[derive(Debug)]
pub struct SshServer {
    key: PathBuf,
    _process: Proc,
}

impl SshServer {
    /// Starts `sshd` on all addresses of `ns`, with a key of its own to log in with.
    ///
    /// # Errors
    /// When it does not listen within 10 s.
    pub fn start(ns: &Ns) -> Result<Self> {
        let dir = ns.lab().dir().join(format!("{}-ssh", ns.name()));
        std::fs::create_dir_all(&dir)?;
        // Where sshd gives up its rights; the packages make it at boot.
        std::fs::create_dir_all("/run/sshd")?;
        let (host_key, key) = (dir.join("host"), dir.join("user"));
        for file in [&host_key, &key] {
            let mut cmd = std::process::Command::new("ssh-keygen");
            proc::check(cmd.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file))?;
        }
        let config = dir.join("config");
        let text = format!(
            "Port {PORT}\nHostKey {}\nAuthorizedKeysFile {}.pub\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n",
            host_key.display(),
            key.display()
        );
        std::fs::write(&config, text)?;
        let line = format!("$(command -v sshd) -D -e -f {}", config.display());
        let mut process = ns.spawn("sshd", &line)?;
        process.wait_log("Server listening on ::", Duration::from_secs(10))?;
        Ok(Self {
            key,
            _process: process,
        })
    }

    /// A session from `ns` to `address` that counts aloud.
    ///
    /// # Errors
    /// When it does not count within 10 s.
    pub fn session(&self, ns: &Ns, address: IpAddr) -> Result<SshSession> {
        let name = format!("ssh-{}", address.to_string().replace([':', '.'], "-"));
        let count = "i=0; while sleep 0.05; do i=$((i+1)); echo count $i; done";
        let line = format!(
            "ssh -n -i {} -p {PORT} -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR \
             -o UserKnownHostsFile=/dev/null root@{address} '{count}'",
            self.key.display()
        );
        let process = ns.spawn(&name, &line)?;
        let mut session = SshSession { process };
        session.goes_on("at its start")?;
        Ok(session)
    }
}

/// One session: one process, one TCP connection.
#[derive(Debug)]
pub struct SshSession {
    process: Proc,
}

impl SshSession {
    /// The last number that was heard.
    fn heard(&self) -> u64 {
        let log = self.process.log();
        let mut lines = log.lines().rev();
        let last = lines.find_map(|line| line.strip_prefix("count ")?.parse().ok());
        last.unwrap_or(0)
    }

    /// Checks that the session lives: it is heard counting on within 5 s. Returns how long it took.
    ///
    /// # Errors
    /// When it has ended or is silent.
    pub fn goes_on(&mut self, when: &str) -> Result<Duration> {
        let before = self.heard();
        let counted = wait_for("the session counts", Duration::from_secs(10), || {
            (self.heard() > before + 3).then_some(())
        });
        let log = proc::tail(&self.process.log(), 3);
        ensure!(self.process.is_running(), "the session ended {when}: {log}");
        let (_, took) = counted.with_context(|| format!("the session is silent {when}: {log}"))?;
        Ok(took)
    }
}
