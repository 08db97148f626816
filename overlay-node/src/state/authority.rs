//! The authority's file: the key that admits nodes, and the books.

use overlay_proto::ids::{NetworkName, OverlayId};
use overlay_proto::membership::{
    AuthorityKey, InviteId, NetworkAuthority, OverlaySecret, Revocations, RootStore, SignedRoot,
};
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::books::Books;
use super::{OsEntropy, StateDir, StateError, file, wall_clock};

/// Networks of one authority.
pub const MAX_AUTHORITY_NETWORKS: usize = 1_024;
/// Invites in the books; those whose membership ended go first.
const MAX_ISSUED: usize = 16_384;
const MAX_BYTES: usize = 8 << 20;
const KIND: &str = "authority";

/// An invite in the authority's books. The invite itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedInvite {
    /// Its name.
    pub id: InviteId,
    /// The name it gives a node.
    pub name: Option<String>,
    /// Where it leads.
    pub networks: Vec<NetworkName>,
    /// When it was issued.
    pub issued: UnixTime,
    /// The last second in which it can be used.
    pub join_until: UnixTime,
    /// The last second of the memberships from it.
    pub member_until: UnixTime,
    /// How many nodes may use it.
    pub max_nodes: u32,
}

/// What the authority keeps.
#[derive(Debug)]
pub struct AuthorityState {
    /// The key of the newest root document.
    pub key: AuthorityKey,
    /// All root documents.
    pub roots: RootStore,
    /// The secret that invites carry.
    pub overlay_secret: OverlaySecret,
    /// At most [`MAX_AUTHORITY_NETWORKS`].
    pub networks: Vec<NetworkAuthority>,
    /// Oldest first.
    pub issued: Vec<IssuedInvite>,
    /// Who is out.
    pub revocations: Revocations,
    /// What is no key.
    pub books: Books,
}

/// In the file the books and the revocations follow; a file from before there were any ends here.
#[derive(Serialize, Deserialize)]
struct Kept {
    secret: [u8; 32],
    roots: Vec<SignedRoot>,
    overlay_secret: OverlaySecret,
    networks: Vec<NetworkAuthority>,
    issued: Vec<IssuedInvite>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl AuthorityState {
    /// A new overlay, in memory only.
    ///
    /// # Errors
    /// [`StateError::Damaged`], never in practice: the own root document did not verify.
    fn generate(state: &StateDir) -> Result<Self, StateError> {
        let key = AuthorityKey::generate(&mut OsEntropy);
        let roots = RootStore::from_roots([SignedRoot::first(&key, wall_clock())])
            .map_err(|error| StateError::of_content(&state.file(KIND), &error))?;
        Ok(Self {
            key,
            roots,
            overlay_secret: OverlaySecret::generate(&mut OsEntropy),
            networks: Vec::new(),
            issued: Vec::new(),
            revocations: Revocations::default(),
            books: Books::default(),
        })
    }

    /// The overlay.
    #[must_use]
    pub const fn overlay(&self) -> OverlayId {
        self.roots.overlay()
    }

    /// The network of that name.
    #[must_use]
    pub fn network(&self, name: &NetworkName) -> Option<&NetworkAuthority> {
        self.networks.iter().find(|network| network.name == *name)
    }

    /// Writes an invite into the books. When they are full, the one whose membership ends first is
    /// struck out.
    pub fn note_issued(&mut self, invite: IssuedInvite) {
        if self.issued.len() >= MAX_ISSUED {
            let first = (0..)
                .zip(&self.issued)
                .min_by_key(|(_, old)| old.member_until);
            if let Some((index, _)) = first {
                self.issued.remove(index);
            }
        }
        self.issued.push(invite);
    }
}

impl StateDir {
    /// Makes an overlay and keeps its authority.
    ///
    /// # Errors
    /// [`StateError::AuthorityExists`]; or the disk refuses.
    pub fn create_authority(&self) -> Result<AuthorityState, StateError> {
        self.create()?;
        let _edit = self.edit()?;
        if self.load_authority()?.is_some() {
            return Err(StateError::AuthorityExists(self.path().to_owned()));
        }
        let authority = AuthorityState::generate(self)?;
        self.save_authority(&authority)?;
        Ok(authority)
    }

    /// The authority, if there is one here.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_authority(&self) -> Result<Option<AuthorityState>, StateError> {
        let path = self.file(KIND);
        let Some(bytes) = file::load(&path, KIND, MAX_BYTES)? else {
            return Ok(None);
        };
        let damaged = || StateError::Damaged(path.clone());
        let Ok((kept, rest)) = postcard::take_from_bytes::<Kept>(&bytes) else {
            return Err(damaged());
        };
        let key = AuthorityKey::from_secret(&kept.secret);
        let roots = RootStore::from_roots(kept.roots.iter().cloned())
            .map_err(|error| StateError::of_content(&path, &error))?;
        if roots.newest().authority != key.public() {
            return Err(damaged());
        }
        let (books, rest) = Books::take_from(rest).ok_or_else(damaged)?;
        let revocations = if rest.is_empty() {
            Revocations::default()
        } else {
            Revocations::from_bytes(rest, &roots)
                .map_err(|error| StateError::of_content(&path, &error))?
        };
        Ok(Some(AuthorityState {
            key,
            roots,
            revocations,
            books,
            overlay_secret: kept.overlay_secret.clone(),
            networks: kept.networks.clone(),
            issued: kept.issued.clone(),
        }))
    }

    /// The authority here.
    ///
    /// # Errors
    /// [`StateError::NoAuthority`], or as [`StateDir::load_authority`].
    pub fn require_authority(&self) -> Result<AuthorityState, StateError> {
        self.load_authority()?
            .ok_or_else(|| StateError::NoAuthority(self.path().to_owned()))
    }

    /// Keeps the authority; hold [`StateDir::edit`] since it was loaded.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_authority(&self, authority: &AuthorityState) -> Result<(), StateError> {
        let path = self.file(KIND);
        let kept = Kept {
            secret: *authority.key.secret_bytes(),
            roots: authority.roots.above(0).to_vec(),
            overlay_secret: authority.overlay_secret.clone(),
            networks: authority.networks.clone(),
            issued: authority.issued.clone(),
        };
        let Ok(mut bytes) = postcard::to_stdvec(&kept).map(Zeroizing::new) else {
            return Err(StateError::TooLarge { path });
        };
        bytes.extend_from_slice(&authority.books.to_tail());
        bytes.extend_from_slice(&authority.revocations.to_bytes());
        if bytes.len() > MAX_BYTES {
            return Err(StateError::TooLarge { path });
        }
        file::save(&path, KIND, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use overlay_proto::ids::PeerId;
    use overlay_proto::membership::{Revoked, SignedRevocations};

    use super::*;

    #[test]
    fn revocations_stay_and_an_older_file_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let mut authority = state.create_authority().unwrap();
        let entry = Revoked::Node(PeerId([3; 32]));
        let list = authority.revocations.successor(1, entry).unwrap();
        let list = SignedRevocations::sign(&authority.key, authority.overlay(), list);
        authority.revocations.take(list, &authority.roots).unwrap();
        let address = "/ip4/192.0.2.1/tcp/22611/p2p/x".to_owned();
        authority.books.bootstraps.push(address);
        state.save_authority(&authority).unwrap();
        let again = state.require_authority().unwrap();
        assert_eq!(again.revocations, authority.revocations);
        assert_eq!(again.books, authority.books);

        let bytes = file::load(&state.file(KIND), KIND, MAX_BYTES)
            .unwrap()
            .unwrap();
        let tail = authority.revocations.to_bytes().len();
        file::save(&state.file(KIND), KIND, &bytes[..bytes.len() - tail]).unwrap();
        let older = state.require_authority().unwrap();
        assert_eq!(older.revocations, Revocations::default());
        file::save(&state.file(KIND), KIND, &bytes[..bytes.len() - 1]).unwrap();
        assert!(state.require_authority().is_err());
    }
}
