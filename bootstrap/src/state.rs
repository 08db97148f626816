//! The state directory: the identity in `DIR/identity`, 32 bytes of ed25519 secret, mode 0600, and a lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use overlay_proto::membership::NodeKey;
use zeroize::Zeroizing;

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
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let open = || {
        make(dir)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
    };
    let file = open().with_context(|| cannot_write(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "a farlan-bootstrap runs on {} already; stop it first (systemctl stop farlan-bootstrap), or \
             choose another --state",
            dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn create(dir: &Path, path: &Path) -> Result<NodeKey> {
    make(dir)?;
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())?;
    // Whole or not at all, also when the power fails in between.
    let temporary = dir.join("identity.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(secret.as_slice())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()?;
    Ok(NodeKey::from_secret(&secret))
}

fn make(dir: &Path) -> std::io::Result<()> {
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
