//! The state directory: everything that must survive a restart.
//!
//! Each file is written whole to a temporary file, synced and renamed, so that a crash leaves the
//! old or the new content, never a mixture; what a killed writer left goes with the next lock. A file that is damaged or of a later version is
//! reported and left alone. All files are 0600; the directory can be entered by others because the
//! control socket, which has its own rights, is in it.
//!
//! | file | content |
//! |---|---|
//! | `authority` | authority key, root documents, network seeds, issued invites, revocations |
//! | `identity` | the node's ed25519 key |
//! | `static` | the node's x25519 key and the sequence of its signature |
//! | `membership` | what the invites gave |
//! | `revocations` | every revocation list known, see `Revocations` |
//! | `name`, `ports`, `handshake-time` | small facts, one each |
//! | `blob-*` | caches and counters of the driver, opaque here |
//! | `attachments.json` | what is attached on this host ([`crate::attachments`]) |
//! | `lock`, `edit.lock`, `attachments.lock` | taken by the running node; by whoever changes a file; an attachment |

mod authority;
mod books;
mod clocks;
mod error;
mod file;
mod host_name;
mod lock;
mod node;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use host_services::files;

pub use authority::{AuthorityState, IssuedInvite, MAX_AUTHORITY_NETWORKS};
pub use books::{Books, MAX_SEEN, SeenUse};
pub use clocks::{clock_readings, wall_clock};
pub use error::StateError;
pub use host_name::host_name;
pub use host_services::OsEntropy;
pub use lock::StateLock;
pub use node::{BoundPorts, StaticKey};

/// Where the state is if nobody says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/farlan";

/// The largest blob, in bytes: 4,096 claims a network and the roster fit many times over.
pub const MAX_BLOB: usize = 16 << 20;

/// A state directory. Cheap to clone; methods read and write the disk at once.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The directory at `path`, which need not exist: reading finds nothing then.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the directory (mode 0755) and its parents where they are missing.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn create(&self) -> Result<(), StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.path)
            .map_err(|error| StateError::io("make", &self.path, error))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket's place.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("farlan.sock")
    }

    /// Takes the directory for a running node; held until the lock is dropped.
    ///
    /// # Errors
    /// [`StateError::InUse`] if a node runs on it.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let lock = lock::exclusive(&self.path, "lock", lock::Wait::No)?;
        files::sweep(&self.path);
        Ok(lock)
    }

    /// Takes the right to change files that several programs write (`membership`, `authority`);
    /// waits for another holder. Hold it from reading to writing, and briefly.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn edit(&self) -> Result<StateLock, StateError> {
        let lock = lock::exclusive(&self.path, "edit.lock", lock::Wait::Yes)?;
        files::sweep(&self.path);
        Ok(lock)
    }

    /// Takes the right to change what is attached; waits for another holder. The node, a command and
    /// the watcher of a move all do.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn attaching(&self) -> Result<StateLock, StateError> {
        lock::exclusive(&self.path, "attachments.lock", lock::Wait::Yes)
    }

    /// What [`StateDir::save_blob`] kept under `name`; `None` if there is nothing.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_blob(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        file::load(&self.blob_path(name)?, "blob", MAX_BLOB)
            .map(|found| found.map(|bytes| bytes.to_vec()))
    }

    /// Keeps up to [`MAX_BLOB`] opaque bytes under `name` (1 to 32 of a-z, 0-9 and -). Syncs the
    /// disk: call it from a thread that may wait.
    ///
    /// # Errors
    /// [`StateError::Io`], a bad name, or too many bytes.
    pub fn save_blob(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.blob_path(name)?;
        if bytes.len() > MAX_BLOB {
            return Err(StateError::TooLarge { path });
        }
        file::save(&path, "blob", bytes)
    }

    fn blob_path(&self, name: &str) -> Result<PathBuf, StateError> {
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if (1..=32).contains(&name.len()) && name.bytes().all(legal) {
            Ok(self.path.join(format!("blob-{name}")))
        } else {
            Err(StateError::BlobName(name.to_owned()))
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("deep/state"));
        assert!(state.load_blob("roster").unwrap().is_none());
        state.create().unwrap();
        state.save_blob("roster", b"one").unwrap();
        state.save_blob("roster", b"two").unwrap();
        assert_eq!(state.load_blob("roster").unwrap().unwrap(), b"two");
        for name in ["", "../x", "A", "a b"] {
            assert!(state.save_blob(name, b"").is_err(), "{name}");
        }
        // Nothing but the file is left behind.
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1);
    }
}
