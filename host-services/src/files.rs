//! Files that must be whole after a crash.
//!
//! [`replace`] writes beside the file, syncs, renames and syncs the directory: whoever reads finds the old
//! content or the new one, and what was reported as written is there after a power cut. A writer who is
//! killed leaves his temporary file; [`sweep`] takes it away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces the file at `path` by one for its owner alone (mode 0600) with `parts` behind each other.
/// Several may write the same file at once: one of them is the last. Waits for the disk.
///
/// # Errors
/// The system refuses; the old file is whole, unless only the directory could not be synced.
pub fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let written = write_new(&temporary, parts)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| path.parent().map_or(Ok(()), sync_directory));
    written.inspect_err(|_| {
        // Best effort: the old file is whole either way.
        let _ = fs::remove_file(&temporary);
    })
}

/// Waits until what was made, renamed and removed in `directory` is on disk; an empty path is the working
/// directory.
///
/// # Errors
/// The system refuses.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let here = directory.as_os_str().is_empty();
    let directory = if here { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

/// Removes from `directory` the temporary files that writers left who were killed. Best effort: they are no
/// part of the state, and a writer who lives keeps his.
pub fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if writer_of(&name.to_string_lossy()).is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Beside the file, so that the rename stays on one file system; one per process and thread.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let thread = format!("{:?}", std::thread::current().id());
    let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
    path.with_file_name(format!(".{name}.{}-{digits}", std::process::id()))
}

/// The process that made the temporary file `name`, as [`temporary_name`] wrote it.
fn writer_of(name: &str) -> Option<u32> {
    let (_, made_by) = name.strip_prefix('.')?.rsplit_once('.')?;
    let (pid, thread) = made_by.split_once('-')?;
    thread
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    pid.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // A crash may have left one of the same name; it was never part of the state.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thing");
        fs::write(&path, b"old and longer").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut reader = File::open(&path).unwrap();
        replace(&path, &[b"new", b"", b" text"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new text");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // Who has the old one open reads it to its end.
        let mut old = Vec::new();
        io::Read::read_to_end(&mut reader, &mut old).unwrap();
        assert_eq!(old, b"old and longer");
        assert_eq!(names(dir.path()), ["thing"]);
    }

    #[test]
    fn what_cannot_be_replaced_is_left_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // No file takes the place of a directory that is not empty.
        let path = dir.path().join("thing");
        fs::create_dir_all(path.join("inside")).unwrap();
        assert!(replace(&path, &[b"x"]).is_err());
        assert!(path.join("inside").exists());
        assert_eq!(names(dir.path()), ["thing"]);
        let missing = replace(&dir.path().join("no/thing"), &[b"x"]).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn several_writers_at_once_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thing");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace(path, &[&[writer; 1_000], &[writer; 9_000]]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 10_000);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(names(dir.path()), ["thing"]);
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let own = temporary_name(&dir.path().join("thing"));
        let left = format!(".thing.{}-1", ended.id());
        for name in [left.as_str(), "thing", ".other", ".thing.x-1"] {
            fs::write(dir.path().join(name), b"half").unwrap();
        }
        fs::write(&own, b"half").unwrap();
        sweep(dir.path());
        assert!(own.exists());
        assert!(!dir.path().join(left).exists());
        assert_eq!(names(dir.path()).len(), 4);
        sweep(&dir.path().join("missing"));
    }

    #[test]
    fn the_working_directory_has_no_name_and_is_synced() {
        sync_directory(Path::new("")).unwrap();
        assert!(sync_directory(Path::new("/no such directory")).is_err());
    }
}
