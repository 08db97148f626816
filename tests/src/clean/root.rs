//! The root file system that all clean hosts begin with, and the cgroup that each is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::proc::check;

/// A Debian as small as debootstrap makes it, and what every installed one has: systemd with its
/// clock, and `ip`. Another list is another directory.
const PACKAGES: &str = "systemd-sysv,dbus,systemd-timesyncd,iproute2";

/// The directory of what is built.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// The clean root, of this machine's own release: the programs under test suit its C library. The
/// first run makes it, in a minute.
pub(super) fn debian() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("Debian or Ubuntu")?;
    let all = target_dir().join("clean-debian");
    fs::create_dir_all(&all)?;
    let root = fs::canonicalize(&all)?.join(format!("{codename}-{}", PACKAGES.replace(',', "-")));
    if root.exists() {
        return Ok(root);
    }
    // Complete or not there: an interrupted run leaves only a directory that the next one removes.
    let new = root.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    let include = format!("--include={PACKAGES}");
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", &include, codename])
        .arg(&new);
    check(&mut make)?;
    fs::rename(&new, &root)?;
    Ok(root)
}

/// Makes a cgroup for a host: its systemd makes its own below it. Removes those of dead runs.
pub(super) fn cgroup(name: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let top = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some("cgroup2")).then(|| PathBuf::from(place))
    });
    let top = top.context("no cgroup2 is mounted; type: mount -t cgroup2 cgroup2 /mnt")?;
    for entry in fs::read_dir(&top)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix("flab")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_cgroup(&entry.path());
        }
    }
    let cgroup = top.join(name);
    fs::create_dir_all(&cgroup)?;
    Ok(cgroup)
}

/// Removes the cgroup of a host that has ended, with those below it.
pub(super) fn remove_cgroup(cgroup: &Path) {
    // The last processes may still be on their way out.
    let line = "for n in 1 2 3 4 5 6 7 8 9 10; do find \"$0\" -depth -type d -exec rmdir {} + 2>/dev/null; \
                [ -d \"$0\" ] || break; sleep 0.1; done";
    let _ = Command::new("sh").args(["-c", line]).arg(cgroup).status();
}
