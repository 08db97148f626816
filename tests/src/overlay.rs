//! The programs under test: an overlay's authority, its bootstraps and its nodes.
//!
//! Only the command-line contract is used here, never a crate of the workspace: what these tests
//! show is what a user gets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{Lab, Ns};
use crate::proc::{self, Finished, Proc, wait_for};
use crate::site::Host;

/// Default port of the contract.
pub const PORT: u16 = 22_611;

/// The program `name`: from `FARLAN_BIN_DIR`, else from `release` of the target directory.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let dir = std::env::var_os("FARLAN_BIN_DIR").map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
                PathBuf::from,
            );
            target.join("release")
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    let hint = "build it with: cargo build --release";
    assert!(path.exists(), "{} is missing; {hint}", path.display());
    path
}

/// `farlan` in namespace `ns` with state directory `state`, without arguments yet.
#[must_use]
pub fn farlan(ns: &Ns, state: &Path) -> Command {
    with_state(ns.command(ns.lab().program("farlan")), state)
}

fn with_state(mut cmd: Command, state: &Path) -> Command {
    cmd.env("FARLAN_STATE", state);
    if std::env::var_os("FARLAN_LOG").is_none() {
        cmd.env("FARLAN_LOG", "info");
    }
    cmd
}

/// The authority of an overlay: a state directory with the key, in a namespace without network.
#[derive(Debug)]
pub struct Authority {
    ns: Ns,
    state: PathBuf,
    /// The overlay id, as `farlan init` printed it.
    pub id: String,
    /// A program put in front of `farlan`, such as `faketime -f -2h`.
    wrapper: Vec<String>,
    /// Names that have an invite.
    invited: Mutex<BTreeSet<String>>,
}

/// What an invite is to say.
#[derive(Debug, Clone, Copy)]
pub struct InviteSpec<'a> {
    /// Networks.
    pub networks: &'a [&'a str],
    /// The host's name.
    pub name: &'a str,
    /// Full addresses of bootstraps.
    pub bootstraps: &'a [String],
    /// `--expires`.
    pub expires: &'a str,
}

impl Authority {
    /// `farlan init` and `farlan network add` for each network. `name` tells overlays of one lab apart.
    ///
    /// # Errors
    /// When a command fails.
    pub fn init(lab: &Arc<Lab>, name: &str, networks: &[&str]) -> Result<Self> {
        Self::init_with_clock(lab, name, networks, None)
    }

    /// Adds a network whose guests may send packets of up to `mtu` bytes.
    ///
    /// # Errors
    /// When the command fails.
    pub fn add_network(&self, name: &str, mtu: u16) -> Result<()> {
        self.run(&["network", "add", name, "--mtu", &mtu.to_string()])?;
        Ok(())
    }

    /// As [`Authority::init`], with the clock of all its commands shifted, e.g. by `-2h`.
    ///
    /// # Errors
    /// As [`Authority::init`].
    pub fn init_with_clock(
        lab: &Arc<Lab>,
        name: &str,
        networks: &[&str],
        shift: Option<&str>,
    ) -> Result<Self> {
        let ns = lab.namespace(&format!("{name}-auth"))?;
        let mut authority = Self {
            state: lab.dir().join(format!("{name}-authority")),
            ns,
            id: String::new(),
            wrapper: Vec::new(),
            invited: Mutex::default(),
        };
        authority.set_clock(shift);
        let out = authority.run(&["init"])?;
        let id = out.lines().last().unwrap_or_default().trim();
        ensure!(
            !id.is_empty() && !id.contains(' '),
            "no overlay id on the last line: {out:?}"
        );
        id.clone_into(&mut authority.id);
        for network in networks {
            authority.run(&["network", "add", network])?;
        }
        Ok(authority)
    }

    /// The clock of its commands from now on: shifted by so many seconds, e.g. `-7200`, or right.
    pub fn set_clock(&mut self, shift: Option<&str>) {
        self.wrapper = match shift {
            Some(by) => ["faketime", "-f", by].map(str::to_owned).to_vec(),
            None => Vec::new(),
        };
    }

    /// An invite.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn invite(&self, spec: &InviteSpec<'_>) -> Result<String> {
        let mut args = vec!["invite", "--name", spec.name, "--expires", spec.expires];
        let mut invited = self.invited.lock().unwrap_or_else(PoisonError::into_inner);
        if !invited.insert(spec.name.to_owned()) {
            args.push("--again");
        }
        drop(invited);
        for network in spec.networks {
            args.extend(["--network", network]);
        }
        for address in spec.bootstraps {
            args.extend(["--bootstrap", address]);
        }
        let out = self.run(&args)?;
        let invite = out.trim();
        ensure!(
            invite.starts_with("farlan-invite-") && invite.lines().count() == 1,
            "not one line with an invite: {out:?}"
        );
        Ok(invite.to_owned())
    }

    /// `farlan revoke WHO`: the line for `farlan apply -`.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn revoke(&self, who: &str) -> Result<String> {
        let out = self.run(&["revoke", who])?;
        let line = out.trim();
        ensure!(
            line.starts_with("farlan-revocation-") && line.lines().count() == 1,
            "not one line with a revocation: {out:?}"
        );
        Ok(line.to_owned())
    }

    /// `farlan invites --json`.
    ///
    /// # Errors
    /// When the command fails or prints no JSON.
    pub fn invites(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["invites", "--json"])?)?)
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let farlan = self.ns.lab().program("farlan");
        let mut cmd = match self.wrapper.split_first() {
            Some((wrapper, rest)) => {
                let mut cmd = self.ns.command(wrapper);
                cmd.args(rest).arg(farlan);
                cmd
            }
            None => self.ns.command(farlan),
        };
        proc::check(cmd.env("FARLAN_STATE", &self.state).args(args))
    }
}

/// A running `farlan-bootstrap`.
#[derive(Debug)]
pub struct Bootstrap {
    /// Where it runs.
    pub host: Host,
    /// Its full addresses, with `/p2p/`.
    pub addresses: Vec<String>,
    /// The process.
    pub process: Proc,
}

impl Bootstrap {
    /// Starts it on `host` for overlay `id`, on every address of the host.
    ///
    /// # Errors
    /// When it does not print its address within 10 s.
    pub fn start(host: &Host, id: &str) -> Result<Self> {
        Self::start_with(host, id, &[])
    }

    /// As [`Bootstrap::start`], with more arguments.
    ///
    /// # Errors
    /// As [`Bootstrap::start`].
    pub fn start_with(host: &Host, id: &str, more: &[&str]) -> Result<Self> {
        let at = |addr: &std::net::IpAddr| std::net::SocketAddr::new(*addr, PORT).to_string();
        let listen: Vec<String> = host.addrs.iter().map(at).collect();
        Self::launch(host, id, &listen, more)
    }

    /// As [`Bootstrap::start`], with `--listen` for each of `listen`; without any it listens on every
    /// address there is, and does not know which of them others use.
    ///
    /// # Errors
    /// As [`Bootstrap::start`].
    pub fn start_on(host: &Host, id: &str, listen: &[String]) -> Result<Self> {
        Self::launch(host, id, listen, &[])
    }

    fn launch(host: &Host, id: &str, listen: &[String], more: &[&str]) -> Result<Self> {
        let name = host.ns.name();
        let dir = host.ns.lab().dir();
        let mut cmd = host.ns.command(host.ns.lab().program("farlan-bootstrap"));
        cmd.args(["--overlay", id, "--state"])
            .arg(dir.join(format!("{name}-state")));
        for one in listen {
            cmd.args(["--listen", one]);
        }
        cmd.args(more);
        let log = dir.join(format!("{name}-bootstrap.log"));
        // How many tasks it has is said in the debug log.
        let levels = "info,libp2p_kad=error,libp2p_swarm=warn,farlan_bootstrap::serve=debug";
        let mut process = Proc::spawn(cmd.env("RUST_LOG", levels), &log)?;
        process.wait_log("/p2p/", Duration::from_secs(10))?;
        // The line may come in parts; what belongs to the first announcement is there soon.
        std::thread::sleep(Duration::from_millis(200));
        let mut addresses: Vec<String> = process
            .log()
            .split(|c: char| c.is_whitespace() || "\"',;()[]".contains(c))
            .filter(|w| w.starts_with('/') && w.contains("/p2p/"))
            .map(str::to_owned)
            .collect();
        addresses.sort();
        addresses.dedup();
        ensure!(!addresses.is_empty(), "no address in: {}", process.log());
        Ok(Self {
            host: host.clone(),
            addresses,
            process,
        })
    }
}

/// A host with a state directory, and `farlan up` while it runs.
#[derive(Debug)]
pub struct Node {
    /// Where it runs.
    pub host: Host,
    /// Its name in the overlay.
    pub name: String,
    /// The state directory.
    pub state: PathBuf,
    process: Option<Proc>,
}

/// The path to a peer as `farlan status --json` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathView {
    /// `direct`, `relayed`, `stream` or `none`.
    pub kind: String,
    /// The peer's or the relay's address.
    pub remote: String,
    /// Why it is not direct; empty when the program gives no reason.
    pub why: String,
    /// The largest datagram proven, in bytes; 0 without a path.
    pub mtu: u64,
}

impl Node {
    /// A node on `host` that has joined nothing yet.
    #[must_use]
    pub fn new(host: &Host, name: &str) -> Self {
        Self {
            host: host.clone(),
            name: name.to_owned(),
            state: host.ns.lab().dir().join(format!("{name}-state")),
            process: None,
        }
    }

    /// Runs a `farlan` command to its end. Exit code 124: it did not end within 60 s.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Finished> {
        proc::finish(self.command().args(args))
    }

    fn command(&self) -> Command {
        let mut cmd = self.host.ns.command("timeout");
        cmd.args(["-k", "5", "60"])
            .arg(self.host.ns.lab().program("farlan"));
        with_state(cmd, &self.state)
    }

    /// Runs a `farlan` command that must succeed; returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn farlan(&self, args: &[&str]) -> Result<String> {
        proc::check(self.command().args(args))
    }

    /// `farlan join -` with the invite on standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(&self, invite: &str) -> Result<Finished> {
        let mut cmd = self.command();
        proc::finish_with_input(cmd.args(["join", "-"]), &format!("{invite}\n"))
    }

    /// As [`Node::join`], without a question to the bootstrap.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join_offline(&self, invite: &str) -> Result<Finished> {
        let mut cmd = self.command();
        let cmd = cmd.args(["join", "--offline", "-"]);
        proc::finish_with_input(cmd, &format!("{invite}\n"))
    }

    /// `farlan apply -` with the line on standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_apply(&self, line: &str) -> Result<Finished> {
        let mut cmd = self.command();
        proc::finish_with_input(cmd.args(["apply", "-"]), &format!("{line}\n"))
    }

    /// As [`Node::try_apply`]; it must succeed. What it says.
    ///
    /// # Errors
    /// When it fails.
    pub fn apply(&self, line: &str) -> Result<String> {
        let out = self.try_apply(line)?;
        ensure!(out.code == 0, "apply failed: {out:?}");
        Ok(out.stdout)
    }

    /// As [`Node::join`], with the clock of the command shifted, e.g. by `-2h`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join_with_clock(&self, invite: &str, shift: &str) -> Result<Finished> {
        let mut cmd = self.host.ns.command("timeout");
        cmd.args(["-k", "5", "60", "faketime", "-f", shift]);
        let mut cmd = with_state(cmd, &self.state);
        cmd.arg(self.host.ns.lab().program("farlan"))
            .args(["join", "--offline", "-"]);
        proc::finish_with_input(&mut cmd, &format!("{invite}\n"))
    }

    /// Starts `farlan up` and returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn up(&mut self, args: &[&str]) -> Result<()> {
        self.up_with_env(args, &[])
    }

    /// As [`Node::up`], with more in the environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn up_with_env(&mut self, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let log = self
            .host
            .ns
            .lab()
            .dir()
            .join(format!("{}-farlan.log", self.name));
        let mut cmd = farlan(&self.host.ns, &self.state);
        cmd.envs(env.iter().copied());
        self.process = Some(Proc::spawn(cmd.arg("up").args(args), &log)?);
        Ok(())
    }

    /// As [`Node::up`], with the wall clock of the node shifted by so many seconds, e.g. `+3600`.
    ///
    /// # Errors
    /// As [`Node::up`].
    pub fn up_with_clock(&mut self, shift: &str) -> Result<()> {
        self.set_clock(shift)?;
        let clock = self.clock().display().to_string();
        let log = format!("{}-farlan.log", self.name);
        // Not the wrapper `faketime`, which would get the signals in place of the node. Only the
        // calendar is shifted: timers go by the other clock.
        let mut cmd = with_state(self.host.ns.command("env"), &self.state);
        cmd.arg("LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1")
            .arg(format!("FAKETIME_TIMESTAMP_FILE={clock}"))
            .args([
                "FAKETIME_CACHE_DURATION=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ])
            .arg(self.host.ns.lab().program("farlan"))
            .arg("up");
        self.process = Some(Proc::spawn(&mut cmd, &self.host.ns.lab().dir().join(log))?);
        Ok(())
    }

    /// Sets the wall clock of a node that [`Node::up_with_clock`] started; within a second.
    ///
    /// # Errors
    /// The file that its clock is read from cannot be written.
    pub fn set_clock(&self, shift: &str) -> Result<()> {
        let file = self.clock();
        std::fs::write(&file, format!("{shift}\n")).with_context(|| format!("{file:?}"))
    }

    fn clock(&self) -> PathBuf {
        let dir = self.host.ns.lab().dir();
        dir.join(format!("{}-clock", self.name))
    }

    /// Starts `farlan up` and waits until it answers `farlan status`.
    ///
    /// # Errors
    /// When it does not within 10 s.
    pub fn up_and_ready(&mut self) -> Result<()> {
        self.up(&[])?;
        self.ready()
    }

    /// Waits until the running node answers `farlan status`.
    ///
    /// # Errors
    /// When it ends, or does not within 10 s.
    pub fn ready(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while self.status().is_err() {
            let name = &self.name;
            let process = self.process.as_mut().context("not started")?;
            ensure!(process.is_running(), "{name} ended: {}", process.log());
            ensure!(
                Instant::now() < end,
                "{name} does not answer: {}",
                process.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The running process.
    ///
    /// # Panics
    /// When the node was not started.
    pub fn process(&mut self) -> &mut Proc {
        self.process.as_mut().expect("the node was started")
    }

    /// Stops it as an administrator would (SIGTERM) and checks that it ends cleanly.
    ///
    /// # Errors
    /// When it does not stop within 5 s or exits with another code than 0.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(Duration::from_secs(5))?;
            ensure!(
                status.success(),
                "{} ended with {status} after SIGTERM",
                self.name
            );
        }
        Ok(())
    }

    /// `farlan status --json`.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.farlan(&["status", "--json"])?)?)
    }

    /// `farlan macs --json`.
    ///
    /// # Errors
    /// When it fails or prints no list.
    pub fn macs(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.farlan(&["macs", "--json"])?)?)
    }

    /// Its PeerId.
    ///
    /// # Errors
    /// When `status` fails.
    pub fn id(&self) -> Result<String> {
        let status = self.status()?;
        Ok(status["node"]
            .as_str()
            .context("node in status")?
            .to_owned())
    }

    /// The value of a drop counter; 0 when it is not listed.
    ///
    /// # Errors
    /// When `status` fails.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        Ok(self.status()?["drops"][reason].as_u64().unwrap_or(0))
    }

    /// The path to the peer with the given name, if the peer is known.
    ///
    /// # Errors
    /// When `status` fails.
    pub fn path_to(&self, peer: &str) -> Result<Option<PathView>> {
        let status = self.status()?;
        let peers = status["peers"].as_array().context("peers in status")?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(peers.iter().find(|p| p["name"] == peer).map(|p| PathView {
            kind: text(&p["path"]["kind"]),
            remote: text(&p["path"]["remote"]),
            why: text(&p["path"]["why"]),
            mtu: p["path"]["mtu"].as_u64().unwrap_or(0),
        }))
    }

    /// Waits for a path to `peer` that `good` accepts; returns it and how long that took.
    ///
    /// # Errors
    /// After `timeout`, with the last path seen.
    pub fn wait_path(
        &self,
        peer: &str,
        timeout: Duration,
        good: impl Fn(&PathView) -> bool,
    ) -> Result<(PathView, Duration)> {
        let (start, mut last) = (Instant::now(), None);
        while start.elapsed() < timeout {
            last = self.path_to(peer)?;
            if let Some(path) = last.as_ref().filter(|p| good(p)) {
                return Ok((path.clone(), start.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "{} has no such path to {peer} after {timeout:?}, but {last:?}",
            self.name
        )
    }

    /// Waits for a path of `kind`.
    ///
    /// # Errors
    /// As [`Node::wait_path`].
    pub fn wait_kind(&self, peer: &str, kind: &str, timeout: Duration) -> Result<PathView> {
        let (path, took) = self.wait_path(peer, timeout, |p| p.kind == kind)?;
        println!("{} -> {peer}: {path:?} after {took:?}", self.name);
        Ok(path)
    }

    /// Waits until this node holds a claim for `mac`; returns the entry of `farlan macs`.
    ///
    /// # Errors
    /// After `timeout`.
    pub fn wait_mac(&self, mac: &str, timeout: Duration) -> Result<Value> {
        let what = format!("{} knows {mac}", self.name);
        let (entry, _) = wait_for(&what, timeout, || {
            self.macs().ok()?.into_iter().find(|m| m["mac"] == mac)
        })?;
        Ok(entry)
    }
}
