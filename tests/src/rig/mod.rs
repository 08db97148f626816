//! A lab inside a virtual machine, for what the kernel of the machine that runs the tests may lack:
//! bridges that filter VLANs, VLAN devices, VRFs. A QEMU guest boots a distribution's kernel once; in it
//! the same lab as elsewhere ([`crate::lab`]) makes namespaces, a WAN, a bootstrap and two nodes.
//!
//! A *case* is a function that is given this scene and fails by an error or a panic. To add one, write
//! the function in a file below `cases/` and name it in [`cases::ALL`]. It runs *in the guest*
//! ([`guest`]); what it prints, and a line with its outcome, come over the serial line to the test
//! outside ([`run`]).

pub mod cases;
pub mod guest;
pub mod scene;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::machine::{Contents, Image, installed};
use crate::overlay::program;
use crate::proc::Proc;

/// Modules of the guest; those that they need come along.
const MODULES: [&str; 8] = [
    "tun",
    "veth",
    "bridge",
    "8021q",
    "dummy",
    "vrf",
    "macvlan",
    "af_packet",
];

/// Programs of this machine that the guest gets, besides busybox.
const TOOLS: [&str; 3] = ["ip", "bridge", "ping"];

/// Programs of the workspace that the guest gets.
const PROGRAMS: [&str; 3] = ["farlan", "farlan-bootstrap", "farlan-rig"];

const INIT: &str = r"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/rig:/bin HOME=/tmp FARLAN_BIN_DIR=/rig
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
INSMOD
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
farlan-rig
reboot -f
";

const MEMORY_MIB: u32 = 1024;

/// Starts a line of the serial console that tells how a case ended.
const OUTCOME: &str = "rig-case";

/// How one case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    fn line(&self) -> String {
        let failure = self.failure.as_deref().unwrap_or("ok");
        let millis = self.took.as_millis();
        format!(
            "{OUTCOME} {} {millis} {}",
            self.name,
            failure.replace('\n', " | ")
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(&format!("{OUTCOME} "))?;
        let mut words = rest.trim_end().splitn(3, ' ');
        let (name, millis, failure) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            name: name.to_owned(),
            failure: (failure != "ok").then(|| failure.to_owned()),
            took: Duration::from_millis(millis.parse().ok()?),
        })
    }
}

/// Boots the guest with its files below `dir` and runs the cases `names`, or all if there are none.
/// Returns how each ended, in the order of [`cases::ALL`].
///
/// # Errors
/// When the guest cannot be made, or ends before the cases have.
pub fn run(dir: &Path, names: &[&str], limit: Duration) -> Result<Vec<Outcome>> {
    let start = Instant::now();
    let mut programs: Vec<PathBuf> = PROGRAMS.iter().map(|name| program(name)).collect();
    for tool in TOOLS {
        programs.push(installed(tool)?);
    }
    let contents = Contents {
        modules: &MODULES,
        programs: &programs,
        init: INIT,
    };
    let image = Image::pack(dir, &contents)?;
    println!("the rig's image is packed after {:?}", start.elapsed());
    let serial = dir.join("rig-serial.log");
    let words = format!("loglevel=3 cases={}", names.join(","));
    let qemu = Command::new("qemu-system-x86_64");
    let mut qemu = image.qemu(qemu, MEMORY_MIB, &serial, &words);
    // Two processors, since a kernel with one does not show what two do; `max` has AES instructions.
    qemu.args(["-smp", "2", "-cpu", "max"]);
    let mut machine = Proc::spawn(&mut qemu, &dir.join("rig.log"))?;
    let ended = machine.wait(limit.saturating_sub(start.elapsed()));
    let console = fs::read(&serial).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    println!("{console}");
    println!("the rig ended after {:?}", start.elapsed());
    ended.context("the rig did not come to its end in time")?;
    let outcomes: Vec<Outcome> = console.lines().filter_map(Outcome::parse).collect();
    let ran: Vec<&str> = outcomes.iter().map(|one| one.name.as_str()).collect();
    let wanted: Vec<&str> = cases::chosen(names).map(|case| case.name).collect();
    ensure!(ran == wanted, "ran {ran:?}, not {wanted:?}");
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_cross_the_serial_line() {
        for failure in [None, Some("lost 3 of 10 pings".to_owned())] {
            let outcome = Outcome {
                name: "vlans".to_owned(),
                failure,
                took: Duration::from_millis(1234),
            };
            let line = format!("[    1.2] {}", outcome.line());
            assert_eq!(Outcome::parse(&line), Some(outcome));
        }
        assert_eq!(Outcome::parse("something else"), None);
    }
}
