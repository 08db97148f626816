//! Locks on a state directory.

use std::path::Path;

use host_services::lock::{FileLock, LockFile};

use super::error::StateError;

/// Held until dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: FileLock,
}

/// What to do about another holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

pub(super) fn exclusive(directory: &Path, name: &str, wait: Wait) -> Result<StateLock, StateError> {
    let path = directory.join(name);
    let refused = |error| StateError::io("lock", &path, error);
    let file = LockFile::open(&path).map_err(refused)?;
    let locked = match wait {
        Wait::Yes => file.lock().map(Some),
        Wait::No => file.try_lock(),
    };
    let locked = locked.map_err(refused)?;
    let file = locked.ok_or_else(|| StateError::InUse(directory.to_owned()))?;
    Ok(StateLock { _file: file })
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
