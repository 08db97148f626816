//! The authority's file: the key that admits nodes, and the books.

use overlay_proto::ids::{NetworkName, OverlayId};
use overlay_proto::membership::{
    AuthorityKey, InviteId, NetworkAuthority, OverlaySecret, RootStore, SignedRoot,
};
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

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
}

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
        let Ok((kept, [])) = postcard::take_from_bytes::<Kept>(&bytes) else {
            return Err(damaged());
        };
        let key = AuthorityKey::from_secret(&kept.secret);
        let roots = RootStore::from_roots(kept.roots.iter().cloned())
            .map_err(|error| StateError::of_content(&path, &error))?;
        if roots.newest().authority != key.public() {
            return Err(damaged());
        }
        Ok(Some(AuthorityState {
            key,
            roots,
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
        match postcard::to_stdvec(&kept).map(Zeroizing::new) {
            Ok(bytes) if bytes.len() <= MAX_BYTES => file::save(&path, KIND, &bytes),
            _ => Err(StateError::TooLarge { path }),
        }
    }
}
