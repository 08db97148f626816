//! Locks on a state directory: `flock`, which the kernel drops with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::StateError;

/// Held until dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// What to do about another holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

pub(super) fn exclusive(directory: &Path, name: &str, wait: Wait) -> Result<StateLock, StateError> {
    let path = directory.join(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| StateError::io("lock", &path, error))?;
    loop {
        let locked = match wait {
            Wait::Yes => file.lock().map_err(TryLockError::Error),
            Wait::No => file.try_lock(),
        };
        match locked {
            Ok(()) => return Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(directory.to_owned())),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(StateError::io("lock", &path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_per_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = exclusive(dir.path(), "lock", Wait::No).unwrap();
        let second = exclusive(dir.path(), "lock", Wait::No);
        assert!(matches!(second, Err(StateError::InUse(_))));
        assert!(exclusive(dir.path(), "edit.lock", Wait::Yes).is_ok());
        drop(first);
        assert!(exclusive(dir.path(), "lock", Wait::No).is_ok());
    }
}
