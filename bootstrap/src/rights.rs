//! As whom the program runs: as the owner of its state directory, and as nobody else.
//!
//! The package gives the directory to a user of its own. Started by hand as root, the program would
//! leave files there that the service cannot read later; so it becomes that user first.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Files that are looked at; a witness has one for each invite that was used.
const MAX_FILES: usize = 100_000;

/// Becomes the owner of `dir`, if this process is root's and the directory is not: the program begins
/// anew as that user. Returns where nothing has to change.
///
/// # Errors
/// The user may not run the program, or files of another user are in the way.
pub(crate) fn become_owner(dir: &Path) -> Result<()> {
    let Ok(owner) = fs::metadata(dir) else {
        // It is still to be made, and belongs to whoever makes it.
        return Ok(());
    };
    let me = fs::metadata("/proc/self").context("no /proc")?.uid();
    if me != 0 && me != owner.uid() {
        // The file that cannot be written says it best.
        return Ok(());
    }
    refuse_foreign_files(dir, owner.uid())?;
    if me == owner.uid() {
        return Ok(());
    }
    let name = user(owner.uid());
    eprintln!(
        "farlan-bootstrap: {} belongs to {name}: going on as that user",
        dir.display()
    );
    // Other groups of root's are given up, too: the standard library does it before it sets the user.
    let error = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .uid(owner.uid())
        .gid(owner.gid())
        .exec();
    Err(error)
        .with_context(|| format!("cannot go on as {name}; type: systemctl start farlan-bootstrap"))
}

/// Files of others in `dir` would be found one by one, when each is needed.
fn refuse_foreign_files(dir: &Path, owner: u32) -> Result<()> {
    let Some((path, other)) = foreign_file(dir, owner) else {
        return Ok(());
    };
    let (owner, other) = (user(owner), user(other));
    bail!(
        "{} belongs to {other}, but the directory to {owner}: an earlier run as {other} left it; type: \
         chown -R {owner}: {}",
        path.display(),
        dir.display()
    )
}

/// The first file below `dir` that is not `owner`'s, and whose it is.
fn foreign_file(dir: &Path, owner: u32) -> Option<(PathBuf, u32)> {
    let mut waiting = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            seen += 1;
            // Not through links: what they lead to is not ours to judge.
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.uid() != owner {
                return Some((entry.path(), found.uid()));
            }
            if found.is_dir() && seen < MAX_FILES {
                waiting.push(entry.path());
            }
        }
    }
    None
}

/// The name of a user, or the number.
fn user(id: u32) -> String {
    named(id).unwrap_or(None).unwrap_or_else(|| id.to_string())
}

fn named(id: u32) -> io::Result<Option<String>> {
    let lines = fs::read_to_string("/etc/passwd")?;
    Ok(lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == id).then(|| name.to_owned())
    }))
}
