//! The witness's books on disk: `DIR/receipts/OVERLAY/INVITE`, who used which invite.
//!
//! One small file for each invite that was used here. Nothing is ever removed: an invite must not
//! become usable again, whatever the clock says. A node costs about 40 bytes.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use control_proto::admission::Witness;
use host_services::files;
use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{Application, InviteUses, NodeKey, SignedPart, WitnessRefusal};
use overlay_proto::time::UnixTime;

use crate::state::{RECEIPTS, make};

/// Counts the uses of invites and signs receipts.
#[derive(Debug)]
pub(crate) struct Books {
    dir: PathBuf,
    key: NodeKey,
    /// Held while a file is read and replaced: two nodes must not both be the last one.
    writing: Mutex<()>,
}

impl Books {
    /// The books in the state directory `state`, of the bootstrap with `key`.
    pub(crate) fn new(state: &Path, key: &NodeKey) -> Self {
        Self {
            dir: state.join(RECEIPTS),
            key: key.clone(),
            writing: Mutex::default(),
        }
    }

    fn count(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<Result<SignedPart, WitnessRefusal>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.dir.join(hex(&overlay.0));
        let name = hex(&application.member.invite_id.0);
        let path = dir.join(&name);
        let mut uses = match fs::read(&path) {
            Ok(bytes) => InviteUses::from_bytes(&bytes)
                .with_context(|| format!("{} is damaged; restore it", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => InviteUses::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let before = uses.len();
        let receipt = match uses.count(application, now) {
            Ok(receipt) => receipt,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if uses.len() > before {
            replace(&dir, &name, &uses.to_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Ok(receipt.sign(&self.key, overlay)))
    }
}

impl Witness for Books {
    fn receipt(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let node = application.member.peer;
        if application.witness != self.key.peer_id() {
            return Err(WitnessRefusal::OtherWitness);
        }
        match self.count(overlay, application, now) {
            Ok(Ok(receipt)) => {
                tracing::info!(%overlay, %node, "a node joined");
                Ok(receipt)
            }
            Ok(Err(refusal)) => {
                tracing::info!(%overlay, %node, %refusal, "a node got no receipt");
                Err(refusal)
            }
            Err(error) => {
                tracing::error!(%overlay, %node, error = format!("{error:#}"), "no receipt");
                Err(WitnessRefusal::Unable)
            }
        }
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
    use overlay_proto::membership::test_authority::{BORN, TestOverlay};

    use super::*;

    #[test]
    fn trust_4_the_count_survives_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let mut overlay = TestOverlay::new(3, &["lab"]);
        let (id, nodes) = (overlay.id(), overlay.applications(2, 3));
        let key = overlay.witness.key;
        let ask = |n: usize, at: u64| {
            // Opened anew each time, as after a crash.
            Books::new(state.path(), &key).receipt(id, &nodes[n], UnixTime(BORN.0 + at))
        };
        let first = ask(0, 1).unwrap();
        assert!(ask(1, 2).is_ok());
        assert_eq!(ask(2, 3), Err(WitnessRefusal::UsedUp(2)));
        assert_eq!(ask(0, 9_999), Ok(first));
        let elsewhere = Books::new(state.path(), &NodeKey::from_secret(&[8; 32]));
        let refused = elsewhere.receipt(id, &nodes[2], BORN);
        assert_eq!(refused, Err(WitnessRefusal::OtherWitness));
    }

    #[test]
    fn a_damaged_book_gives_no_receipt() {
        let state = tempfile::tempdir().unwrap();
        let mut overlay = TestOverlay::new(3, &["lab"]);
        let (id, nodes) = (overlay.id(), overlay.applications(2, 2));
        let books = Books::new(state.path(), &overlay.witness.key);
        books.receipt(id, &nodes[0], BORN).unwrap();
        let dir = state.path().join("receipts").join(hex(&id.0));
        let path = dir.join(hex(&nodes[0].member.invite_id.0));
        fs::write(&path, [1]).unwrap();
        let refused = books.receipt(id, &nodes[1], BORN);
        assert_eq!(refused, Err(WitnessRefusal::Unable));
        assert_eq!(fs::read(&path).unwrap(), [1]);
    }
}
