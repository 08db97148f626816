//! Lock files: `flock`, which the kernel drops with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file that can be locked. Its content is nobody's business, and it stays when it is unlocked: a file
/// that is removed could be locked by two at once.
#[derive(Debug)]
pub struct LockFile(File);

/// Held until dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl LockFile {
    /// The file at `path`, made (mode 0600) where it is missing.
    ///
    /// # Errors
    /// The directory is missing, or the right to write there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(Self)
    }

    /// Takes the lock if it is free; `None` if another holds it, in this process or in any.
    ///
    /// # Errors
    /// The system refuses.
    pub fn try_lock(self) -> io::Result<Option<FileLock>> {
        loop {
            match self.0.try_lock() {
                Err(TryLockError::Error(error)) if is_interrupted(&error) => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Ok(()) => return Ok(Some(FileLock { _file: self.0 })),
            }
        }
    }

    /// Takes the lock, and waits for whoever holds it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn lock(self) -> io::Result<FileLock> {
        loop {
            match self.0.lock() {
                Err(error) if is_interrupted(&error) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(FileLock { _file: self.0 }),
            }
        }
    }
}

fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name| LockFile::open(&dir.path().join(name)).unwrap();
        let first = open("lock").try_lock().unwrap();
        assert!(first.is_some());
        assert!(open("lock").try_lock().unwrap().is_none());
        assert!(open("other").lock().is_ok());
        drop(first);
        assert!(open("lock").try_lock().unwrap().is_some());
        let mode = |name| {
            let file = dir.path().join(name).metadata().unwrap();
            file.permissions().mode() & 0o777
        };
        assert_eq!(mode("lock"), 0o600);
    }

    #[test]
    fn who_waits_gets_it_when_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = LockFile::open(&path).unwrap().lock().unwrap();
        let (sender, taken) = channel();
        let waiting = std::thread::spawn(move || {
            let lock = LockFile::open(&path).unwrap().lock();
            sender.send(lock.is_ok()).unwrap();
        });
        let early = taken.recv_timeout(Duration::from_millis(20));
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        drop(first);
        assert!(taken.recv_timeout(Duration::from_secs(10)).unwrap());
        waiting.join().unwrap();
    }

    #[test]
    fn without_its_directory_there_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let error = LockFile::open(&dir.path().join("no/lock")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
