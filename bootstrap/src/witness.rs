//! The witness's books on disk: `DIR/receipts/OVERLAY/INVITE`, who used which invite.
//!
//! One small file for each invite that was used here. Nothing is ever removed. A node costs about 40 bytes. What is
//! counted, and when, is [`control_proto::admission::witness`].

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use control_proto::admission::witness::Books;
use host_services::files;
use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{InviteId, InviteUses};

use crate::state::{RECEIPTS, make};

/// The books in a state directory.
#[derive(Debug)]
pub(crate) struct DiskBooks {
    dir: PathBuf,
}

impl DiskBooks {
    /// The books in the state directory `state`.
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            dir: state.join(RECEIPTS),
        }
    }

    /// The directory and the name of the file for `invite`.
    fn place(&self, overlay: OverlayId, invite: InviteId) -> (PathBuf, String) {
        (self.dir.join(hex(&overlay.0)), hex(&invite.0))
    }
}

impl Books for DiskBooks {
    type Error = Error;

    fn uses(&mut self, overlay: OverlayId, invite: InviteId) -> Result<InviteUses> {
        let (dir, name) = self.place(overlay, invite);
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => InviteUses::from_bytes(&bytes)
                .with_context(|| format!("{} is damaged; restore it", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(InviteUses::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn keep(&mut self, overlay: OverlayId, invite: InviteId, uses: &InviteUses) -> Result<()> {
        let (dir, name) = self.place(overlay, invite);
        replace(&dir, &name, &uses.to_bytes())
            .with_context(|| format!("cannot write {}", dir.join(&name).display()))
    }
}

/// Whole or not at all, also when the power fails in between.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    make(dir)?;
    files::replace(&dir.join(name), &[bytes])?;
    // The names too: of the overlay's directory and of the one above it.
    let mut above = dir.ancestors().skip(1).take(2);
    above.try_for_each(files::sync_directory)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use control_proto::admission::{Counter, Witness};
    use overlay_proto::membership::WitnessRefusal;
    use overlay_proto::membership::test_authority::{BORN, TestOverlay};
    use overlay_proto::time::UnixTime;

    use super::*;

    #[test]
    fn trust_4_the_count_survives_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let mut overlay = TestOverlay::new(3, &["lab"]);
        let (id, nodes) = (overlay.id(), overlay.applications(2, 3));
        let key = overlay.witness.key;
        let ask = |n: usize, at: u64| {
            // Opened anew each time, as after a crash.
            let books = DiskBooks::new(state.path());
            Counter::new(key.clone(), books).receipt(id, &nodes[n], UnixTime(BORN.0 + at))
        };
        let first = ask(0, 1).unwrap();
        assert!(ask(1, 2).is_ok());
        assert_eq!(ask(2, 3), Err(WitnessRefusal::UsedUp(2)));
        assert_eq!(ask(0, 9_999), Ok(first));
    }

    #[test]
    fn a_damaged_book_gives_no_receipt() {
        let state = tempfile::tempdir().unwrap();
        let mut overlay = TestOverlay::new(3, &["lab"]);
        let (id, nodes) = (overlay.id(), overlay.applications(2, 2));
        let books = DiskBooks::new(state.path());
        let books = Counter::new(overlay.witness.key.clone(), books);
        books.receipt(id, &nodes[0], BORN).unwrap();
        let dir = state.path().join("receipts").join(hex(&id.0));
        let path = dir.join(hex(&nodes[0].member.invite_id.0));
        fs::write(&path, [1]).unwrap();
        let refused = books.receipt(id, &nodes[1], BORN);
        assert_eq!(refused, Err(WitnessRefusal::Unable));
        assert_eq!(fs::read(&path).unwrap(), [1]);
    }
}
