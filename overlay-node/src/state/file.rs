//! One state file: framed, checked, replaced as a whole.
//!
//! ```text
//! "farlan" 0x00 | version (1) | body | SHA-256(kind | 0 | version | body), first 8 bytes
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::StateError;

const MAGIC: &[u8; 7] = b"farlan\0";
const VERSION: u8 = 1;
const SUM: usize = 8;

/// The body of the file; `None` if there is none. `kind` must be the one it was saved with.
pub(super) fn load(
    path: &Path,
    kind: &str,
    limit: usize,
) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", path, error)),
    };
    let frame = MAGIC.len() + 1 + SUM;
    let most = u64::try_from(limit.saturating_add(frame + 1)).unwrap_or(u64::MAX);
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| StateError::io("read", path, error))?;
    let damaged = || StateError::Damaged(path.to_owned());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (&version, _) = rest.split_first().ok_or_else(damaged)?;
    if version > VERSION {
        return Err(StateError::LaterVersion(path.to_owned()));
    }
    let middle = rest
        .len()
        .checked_sub(SUM)
        .filter(|&at| at >= 1)
        .ok_or_else(damaged)?;
    let (content, sum) = rest.split_at_checked(middle).ok_or_else(damaged)?;
    let body = content.get(1..).unwrap_or_default();
    if version != VERSION || sum != checksum(kind, content) || body.len() > limit {
        return Err(damaged());
    }
    Ok(Some(Zeroizing::new(body.to_vec())))
}

/// Replaces the file: temporary file (0600), sync, rename, sync of the directory.
pub(super) fn save(path: &Path, kind: &str, body: &[u8]) -> Result<(), StateError> {
    let mut content = Zeroizing::new(Vec::with_capacity(1 + body.len()));
    content.push(VERSION);
    content.extend_from_slice(body);
    let sum = checksum(kind, &content);
    let temporary = temporary_name(path);
    let written = write_new(&temporary, &[MAGIC, &content, &sum])
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| path.parent().map_or(Ok(()), sync_directory));
    written.map_err(|error| {
        // Best effort: the old file is whole either way.
        let _ = fs::remove_file(&temporary);
        StateError::io("write", path, error)
    })
}

/// Beside the file, so that the rename stays on one file system; one per process and thread.
fn temporary_name(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let thread = format!("{:?}", std::thread::current().id());
    let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
    path.with_file_name(format!(".{name}.{}-{digits}", std::process::id()))
}

/// Removes the temporary files that writers left who were killed. Best effort: they are no part of
/// the state, and a writer who lives keeps his.
pub(super) fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if writer_of(&name.to_string_lossy()).is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_file(entry.path());
        }
    }
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

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn checksum(kind: &str, content: &[u8]) -> [u8; SUM] {
    let mut hash = Sha256::new();
    hash.update(kind.as_bytes());
    hash.update([0]);
    hash.update(content);
    let whole: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = whole;
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn damaged_and_later_files_are_reported_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thing");
        save(&path, "thing", b"content").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            load(&path, "thing", 7).unwrap().unwrap().as_slice(),
            b"content"
        );
        assert!(matches!(
            load(&path, "thing", 6),
            Err(StateError::Damaged(_))
        ));
        assert!(matches!(
            load(&path, "other", 7),
            Err(StateError::Damaged(_))
        ));
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(load(&path, "thing", 100).is_err());
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(
                load(&path, "thing", 100),
                Err(StateError::Damaged(_))
            ));
        }
        let mut later = whole;
        later[7] = 2;
        fs::write(&path, &later).unwrap();
        assert!(matches!(
            load(&path, "thing", 100),
            Err(StateError::LaterVersion(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), later);
    }
}
