//! Namespaces with one owner: everything a [`Lab`] makes goes when the lab goes.
//!
//! Three nets catch what is left. Dropping the lab removes it. A *reaper*, a shell in its own
//! session that waits for the end of a pipe the lab holds, removes it when the process was
//! interrupted or killed. [`sweep`], run by every new lab, removes what dead processes left.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};

use crate::overlay;
use crate::proc::{self, Finished, Proc};
use crate::wan::Wan;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removes the namespaces and the directory of one prefix: kills what runs inside first. All links go down
/// before the namespaces: frames that go round in a loop keep the socket they came from, and that keeps its
/// namespace for ever.
const REAP: &str = r#"
for ns in $(ls /run/netns 2>/dev/null | grep "^$1"); do
    for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
    ip -n "$ns" link set group default down 2>/dev/null
done
for ns in $(ls /run/netns 2>/dev/null | grep "^$1"); do ip netns del "$ns" 2>/dev/null; done
case "$2" in */flab*) rm -rf -- "$2";; esac
exit 0
"#;

/// One lab: a set of namespaces, a directory for state and logs, and the WAN between the sites.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    dir: PathBuf,
    wan: Wan,
    reaper: Child,
    programs: OnceLock<PathBuf>,
}

impl Lab {
    /// An empty lab whose WAN draws its randomness from `FARLAN_SEED`, or from 1.
    ///
    /// # Errors
    /// When the directory, the WAN or the reaper cannot be made.
    pub fn new() -> Result<Arc<Self>> {
        let seed = std::env::var("FARLAN_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(1);
        Self::with_seed(seed)
    }

    /// An empty lab with the given seed. The seed is printed, so that a failure can be repeated.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_seed(seed: u64) -> Result<Arc<Self>> {
        sweep();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("flab{}-{n}-", std::process::id());
        let dir = std::env::temp_dir().join(prefix.trim_end_matches('-'));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut cmd = Command::new("sh");
        // The pipe's other end closes when this process ends, however it ends.
        cmd.arg("-c")
            .arg(format!("trap '' INT TERM HUP; read _; {REAP}"))
            .args(["reaper", &prefix])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: setsid is async-signal-safe and touches no memory of this process.
        unsafe {
            cmd.pre_exec(|| {
                libc::setsid();
                Ok(())
            });
        }
        let reaper = cmd.spawn().context("cannot start the reaper")?;
        let wan = Wan::start(seed)?;
        println!("lab {prefix} seed {seed} dir {}", dir.display());
        Ok(Arc::new(Self {
            prefix,
            dir,
            wan,
            reaper,
            programs: OnceLock::new(),
        }))
    }

    /// The WAN between the sites.
    #[must_use]
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// From now on this lab's hosts run the programs in `dir`: those of another release, say. Once for a lab.
    pub fn use_programs(&self, dir: &Path) {
        let fresh = self.programs.set(dir.to_owned()).is_ok();
        assert!(fresh, "this lab has its programs already");
    }

    /// The program `name` that this lab's hosts run.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs
            .get()
            .map_or_else(|| overlay::program(name), |dir| dir.join(name))
    }

    /// The lab's directory: state directories, logs, captures.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Prints the tail of every log in the lab's directory: what a failed test leaves to read.
    pub fn print_logs(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "log") {
                let text = std::fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                println!("--- {}\n{}", path.display(), proc::tail(&text, 60));
            }
        }
    }

    /// The prefix of the names of its namespaces.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Makes a namespace with its loopback up.
    ///
    /// Bridge netfilter is off in it: a bridge there is a plain switch. A test about bridge
    /// netfilter switches it on again.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn namespace(self: &Arc<Self>, name: &str) -> Result<Ns> {
        let full = format!("{}{name}", self.prefix);
        proc::ip(&format!("netns add {full}"))?;
        proc::ip(&format!("-n {full} link set lo up"))?;
        let ns = Ns {
            full,
            name: name.to_owned(),
            lab: Arc::clone(self),
        };
        ns.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        ns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        for table in ["iptables", "ip6tables", "arptables"] {
            // The file is absent where the module is not loaded, and then there is nothing to do.
            let _ = ns.sysctl(&format!("net/bridge/bridge-nf-call-{table}"), "0");
        }
        Ok(ns)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        println!("{}", self.wan.report());
        if std::thread::panicking() {
            self.print_logs();
        }
        // `FARLAN_KEEP_LOGS=DIR` keeps a copy of state and logs for a look afterwards.
        if let Some(to) = std::env::var_os("FARLAN_KEEP_LOGS") {
            let _ = Command::new("cp").arg("-a").arg(&self.dir).arg(to).status();
        }
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

/// Removes what labs of dead processes left: namespaces and directories named `flab<pid>-..`.
pub fn sweep() {
    let dead = |name: &str| -> Option<String> {
        let pid = name.strip_prefix("flab")?.split('-').next()?;
        let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
        (is_pid && !Path::new("/proc").join(pid).exists()).then(|| format!("flab{pid}-"))
    };
    let tmp = std::env::temp_dir();
    let mut prefixes = std::collections::BTreeSet::new();
    for dir in [Path::new("/run/netns"), &tmp] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(prefix) = dead(&name) else { continue };
            if dir == tmp {
                let _ = std::fs::remove_dir_all(entry.path());
            }
            prefixes.insert(prefix);
        }
    }
    for prefix in prefixes {
        let _ = Command::new("sh")
            .args(["-c", REAP, "sweep", &prefix, ""])
            .status();
    }
}

/// A network namespace of a lab.
#[derive(Debug, Clone)]
pub struct Ns {
    full: String,
    name: String,
    lab: Arc<Lab>,
}

impl Ns {
    /// The name within the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that `ip netns` knows.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// The lab it belongs to.
    #[must_use]
    pub fn lab(&self) -> &Arc<Lab> {
        &self.lab
    }

    /// `ip -n NS ..`, words split at spaces.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, words: &str) -> Result<String> {
        proc::ip(&format!("-n {} {words}", self.full))
    }

    /// A command that will run inside. Its pid is the program's own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut cmd = Command::new("ip");
        cmd.args(["netns", "exec", &self.full]).arg(program);
        cmd
    }

    /// Runs a shell line inside, to its end.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub fn sh(&self, line: &str) -> Result<Finished> {
        proc::finish(self.command("sh").args(["-c", line]))
    }

    /// Runs a shell line inside in the background; output goes to `NAME.log` in the lab's directory.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, line: &str) -> Result<Proc> {
        let log = self.lab.dir().join(format!("{}-{name}.log", self.name));
        Proc::spawn(
            self.command("sh").args(["-c", &format!("exec {line}")]),
            &log,
        )
    }

    /// Sets a sysctl (path below `/proc/sys`).
    ///
    /// # Errors
    /// When the kernel has no such knob or refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let line = format!("echo {value} > /proc/sys/{path}");
        proc::check(self.command("sh").args(["-c", &line]))?;
        Ok(())
    }

    /// Runs `work` on a new thread inside this namespace; sockets it opens stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or what `work` returns.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = std::fs::File::open(Path::new("/run/netns").join(&self.full))?;
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsRawFd;
            // SAFETY: setns takes a descriptor that `file` keeps open, and changes this thread only.
            if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(std::io::Error::last_os_error()).context("setns");
            }
            work()
        });
        thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e))
    }
}
