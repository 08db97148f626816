//! One state file: framed, checked, replaced as a whole.
//!
//! ```text
//! "farlan" 0x00 | version (1) | body | SHA-256(kind | 0 | version | body), first 8 bytes
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use host_services::files;
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

/// Replaces the file, for its owner alone.
pub(super) fn save(path: &Path, kind: &str, body: &[u8]) -> Result<(), StateError> {
    let mut content = Zeroizing::new(Vec::with_capacity(1 + body.len()));
    content.push(VERSION);
    content.extend_from_slice(body);
    let sum = checksum(kind, &content);
    files::replace(path, &[MAGIC, &content, &sum])
        .map_err(|error| StateError::io("write", path, error))
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
