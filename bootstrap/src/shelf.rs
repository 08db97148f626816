//! What members taught about an overlay, on disk: `DIR/overlays/OVERLAY/roots` and `.../revocations`.
//!
//! The documents of the authority are checked again when they are read, so the files need no more
//! than to be whole. Without them a restarted bootstrap would let a revoked node in until the first
//! member that knows better comes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use control_proto::admission::Shelf;
use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{Revocations, RootStore};

use crate::state::OVERLAYS;
use crate::witness::{hex, replace};

const ROOTS: &str = "roots";
const REVOCATIONS: &str = "revocations";

/// Keeps what is learnt of one overlay.
#[derive(Debug)]
pub(crate) struct OverlayShelf {
    dir: PathBuf,
}

impl OverlayShelf {
    /// In the state directory `state`.
    pub(crate) fn new(state: &Path, overlay: OverlayId) -> Self {
        Self {
            dir: state.join(OVERLAYS).join(hex(&overlay.0)),
        }
    }

    /// What an earlier run kept; `None` before the first member came.
    pub(crate) fn load(&self) -> Result<Option<(RootStore, Revocations)>> {
        let Some(bytes) = self.read(ROOTS)? else {
            return Ok(None);
        };
        let damaged = |name| {
            let path = self.dir.join(name);
            format!("{} is damaged; restore it from a backup", path.display())
        };
        let roots = RootStore::from_bytes(&bytes).with_context(|| damaged(ROOTS))?;
        let revocations = match self.read(REVOCATIONS)? {
            Some(bytes) => {
                Revocations::from_bytes(&bytes, &roots).with_context(|| damaged(REVOCATIONS))?
            }
            None => Revocations::default(),
        };
        Ok(Some((roots, revocations)))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = replace(&self.dir, name, bytes) {
            let path = self.dir.join(name);
            tracing::error!(path = %path.display(), %error, "not kept; a restart will not know it");
        }
    }
}

impl Shelf for OverlayShelf {
    fn keep_revocations(&self, all: &Revocations) {
        self.write(REVOCATIONS, &all.to_bytes());
    }

    fn keep_roots(&self, roots: &RootStore) {
        self.write(ROOTS, &roots.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use overlay_proto::ids::PeerId;
    use overlay_proto::membership::Revoked;
    use overlay_proto::membership::test_authority::TestOverlay;

    use super::*;

    #[test]
    fn trust_8_a_restarted_bootstrap_still_knows() {
        let state = tempfile::tempdir().unwrap();
        let authority = TestOverlay::new(1, &[]);
        let roots = authority.roots.clone();
        let shelf = OverlayShelf::new(state.path(), roots.overlay());
        assert!(shelf.load().unwrap().is_none());
        shelf.keep_roots(&roots);
        let mut all = Revocations::default();
        let list = authority.next_list(Revoked::Node(PeerId([5; 32])));
        all.take(list, &roots).unwrap();
        shelf.keep_revocations(&all);
        let again = OverlayShelf::new(state.path(), roots.overlay());
        assert_eq!(again.load().unwrap(), Some((roots, all)));
        // A damaged list is no empty list.
        fs::write(again.dir.join(REVOCATIONS), [1]).unwrap();
        let error = format!("{:#}", again.load().unwrap_err());
        assert!(error.contains("damaged"), "{error}");
    }
}
