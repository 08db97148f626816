//! The state directory: the identity in `DIR/identity`, 32 bytes of ed25519 secret, mode 0600, and a lock.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use host_services::lock::{FileLock, LockFile};
use host_services::{OsEntropy, files};
use overlay_proto::membership::NodeKey;
use zeroize::Zeroizing;

/// Directories with one for each overlay in them: the witness's books and the shelves.
pub(crate) const RECEIPTS: &str = "receipts";
pub(crate) const OVERLAYS: &str = "overlays";

/// The identity in `dir`; made there at the first start.
pub(crate) fn identity(dir: &Path) -> Result<NodeKey> {
    let path = dir.join("identity");
    match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => {
            let secret: &[u8; 32] = bytes.as_slice().try_into().with_context(|| {
                format!("{} is damaged; restore it from a backup", path.display())
            })?;
            Ok(NodeKey::from_secret(secret))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(dir, &path).with_context(|| cannot_write(&path))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Keeps a second process off `dir` for as long as it lives: two witnesses would give one place twice.
///
/// # Errors
/// Another process has it, or it cannot be written.
pub(crate) fn lock(dir: &Path) -> Result<FileLock> {
    let path = dir.join("lock");
    let file = make(dir).and_then(|()| LockFile::open(&path));
    let file = file.with_context(|| cannot_write(&path))?;
    let locked = file.try_lock();
    let locked = locked.with_context(|| format!("cannot lock {}", path.display()))?;
    let Some(lock) = locked else {
        bail!(
            "a farlan-bootstrap runs on {} already; stop it first (systemctl stop farlan-bootstrap), or \
             choose another --state",
            dir.display()
        );
    };
    sweep(dir);
    Ok(lock)
}

/// What a killed process was about to write is no part of the state.
fn sweep(dir: &Path) {
    files::sweep(dir);
    for all in [RECEIPTS, OVERLAYS].map(|name| fs::read_dir(dir.join(name))) {
        for overlay in all.into_iter().flatten().flatten() {
            files::sweep(&overlay.path());
        }
    }
}

fn create(dir: &Path, path: &Path) -> Result<NodeKey> {
    make(dir)?;
    let key = NodeKey::generate(&mut OsEntropy);
    files::replace(path, &[key.secret_bytes().as_slice()])?;
    Ok(key)
}

/// Makes `dir` and those above it, for the owner alone (mode 0700), where they are missing.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn cannot_write(path: &Path) -> String {
    format!(
        "cannot write {}; run as root or as its owner (with the package `systemctl start \
         farlan-bootstrap`), or choose another --state",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_process_for_each_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains("choose another --state"), "{error}");
        drop(first);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn what_a_killed_process_left_goes_with_the_next_lock() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        for place in ["", "receipts/ab", "overlays/ab"] {
            let place = dir.path().join(place);
            make(&place).unwrap();
            fs::write(place.join(format!(".thing.{}-1", ended.id())), b"half").unwrap();
            fs::write(place.join("thing"), b"whole").unwrap();
        }
        let _lock = lock(dir.path()).unwrap();
        for (place, left) in [("", 4), ("receipts/ab", 1), ("overlays/ab", 1)] {
            let place = dir.path().join(place);
            assert_eq!(fs::read_dir(&place).unwrap().count(), left, "{place:?}");
            assert!(place.join("thing").exists());
        }
    }

    #[test]
    fn made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        let first = identity(&inner).unwrap().peer_id();
        assert_eq!(identity(&inner).unwrap().peer_id(), first);
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(inner.join("identity")), 0o600);
        assert_eq!(mode(inner.clone()), 0o700);
        fs::write(inner.join("identity"), [1; 31]).unwrap();
        assert!(identity(&inner).is_err());
    }
}
