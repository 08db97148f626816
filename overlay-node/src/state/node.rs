//! A node's files: identity, keys, membership, and small facts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use host_services::files;
use overlay_proto::Entropy;
use overlay_proto::handshake::static_public;
use overlay_proto::membership::{
    MAX_LISTS, Membership, NodeKey, Revocations, RootStore, SignedRevocations,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{OsEntropy, StateDir, StateError, file, host_name};

/// Far above any of the small files.
const MAX_SMALL: usize = 4_096;
/// Above the bound of [`Membership::from_bytes`], which judges.
const MAX_MEMBERSHIP: usize = 128 * 1024;
/// As many lists as [`Revocations`] holds.
const MAX_REVOCATIONS: usize = 16 + MAX_LISTS * (4 + SignedRevocations::MAX_BYTES);

/// The node's x25519 static key and the sequence of the signature over it.
#[derive(Clone)]
pub struct StaticKey {
    /// The secret half, erased on drop.
    pub secret: Zeroizing<[u8; 32]>,
    /// The public half.
    pub public: [u8; 32],
    /// Of the newest signature; it only grows.
    pub sequence: u64,
}

impl std::fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticKey")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// The ports that the node bound last, to bind again after a restart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPorts {
    /// The data path, IPv4.
    pub udp4: Option<u16>,
    /// The data path, IPv6.
    pub udp6: Option<u16>,
    /// The control plane over QUIC.
    pub quic: Option<u16>,
    /// The control plane over TCP.
    pub tcp: Option<u16>,
}

impl StateDir {
    /// The node's identity, if it has one.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_identity(&self) -> Result<Option<NodeKey>, StateError> {
        let secret = self.load_small::<[u8; 32]>("identity")?;
        Ok(secret.map(|secret| NodeKey::from_secret(&Zeroizing::new(secret))))
    }

    /// The node's identity, made now if it has none. Hold [`StateDir::edit`].
    ///
    /// # Errors
    /// As [`StateDir::load_identity`], or the disk refuses.
    pub fn load_or_create_identity(&self) -> Result<NodeKey, StateError> {
        if let Some(key) = self.load_identity()? {
            return Ok(key);
        }
        let key = NodeKey::generate(&mut OsEntropy);
        self.save_small("identity", &*key.secret_bytes())?;
        Ok(key)
    }

    /// The x25519 static key, made now if there is none, with a sequence above all before: sign
    /// it with this sequence. Call it once per start.
    ///
    /// # Errors
    /// Damaged, of a later version, or the disk refuses.
    pub fn next_static_key(&self) -> Result<StaticKey, StateError> {
        let (secret, last) = match self.load_small::<([u8; 32], u64)>("static")? {
            Some((secret, last)) => (Zeroizing::new(secret), last),
            None => {
                let mut secret = Zeroizing::new([0; 32]);
                OsEntropy.fill(&mut *secret);
                (secret, 0)
            }
        };
        let sequence = last.saturating_add(1);
        self.save_small("static", &(*secret, sequence))?;
        Ok(StaticKey {
            public: static_public(&secret),
            secret,
            sequence,
        })
    }

    /// What the invites gave, if the node has joined.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_membership(&self) -> Result<Option<Membership>, StateError> {
        let path = self.file("membership");
        file::load(&path, "membership", MAX_MEMBERSHIP)?
            .map(|bytes| Membership::from_bytes(&bytes))
            .transpose()
            .map_err(|error| StateError::of_content(&path, &error))
    }

    /// The membership here.
    ///
    /// # Errors
    /// [`StateError::NoMembership`], or as [`StateDir::load_membership`].
    pub fn require_membership(&self) -> Result<Membership, StateError> {
        self.load_membership()?
            .ok_or_else(|| StateError::NoMembership(self.path().to_owned()))
    }

    /// Keeps the membership. `join` writes it, too: hold [`StateDir::edit`] since it was loaded.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_membership(&self, membership: &Membership) -> Result<(), StateError> {
        file::save(
            &self.file("membership"),
            "membership",
            &membership.to_bytes(),
        )
    }

    /// Forgets the membership alone. Hold [`StateDir::edit`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_membership(&self) -> Result<(), StateError> {
        remove(&self.file("membership"))
    }

    /// The revocations known here; none at first. `roots` says whose signature counts.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_revocations(&self, roots: &RootStore) -> Result<Revocations, StateError> {
        let path = self.file("revocations");
        let Some(bytes) = file::load(&path, "revocations", MAX_REVOCATIONS)? else {
            return Ok(Revocations::default());
        };
        Revocations::from_bytes(&bytes, roots)
            .map_err(|error| StateError::of_content(&path, &error))
    }

    /// Keeps the revocations. While a node runs it alone writes them: hold [`StateDir::lock`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_revocations(&self, all: &Revocations) -> Result<(), StateError> {
        file::save(&self.file("revocations"), "revocations", &all.to_bytes())
    }

    /// The name that this host's operator gave the node; the authority's goes first.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_name(&self) -> Result<Option<String>, StateError> {
        self.load_small("name")
    }

    /// Keeps the operator's name for the node; `None` forgets it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_name(&self, name: Option<&str>) -> Result<(), StateError> {
        match name {
            Some(name) => self.save_small("name", &name),
            None => remove(&self.file("name")),
        }
    }

    /// What people call this node: the authority's name for it, else the operator's, else the host's.
    ///
    /// # Errors
    /// As [`StateDir::load_name`].
    pub fn node_name(&self, membership: &Membership) -> Result<String, StateError> {
        let signed = membership.name().map(str::to_owned);
        let name = signed.or(self.load_name()?).or_else(host_name);
        Ok(name.unwrap_or_default())
    }

    /// The ports bound last; none known at first.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_ports(&self) -> Result<BoundPorts, StateError> {
        Ok(self.load_small("ports")?.unwrap_or_default())
    }

    /// Keeps the bound ports.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_ports(&self, ports: &BoundPorts) -> Result<(), StateError> {
        self.save_small("ports", ports)
    }

    /// A handshake timestamp that no message 1 of this node has reached yet (TRUST.md 11); 0 at
    /// first.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_handshake_time(&self) -> Result<u64, StateError> {
        Ok(self.load_small("handshake-time")?.unwrap_or_default())
    }

    /// Keeps a handshake timestamp. To save disk writes, keep one well ahead of those in use.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_handshake_time(&self, time: u64) -> Result<(), StateError> {
        self.save_small("handshake-time", &time)
    }

    /// A number that no list of candidates and no signal of this node has gone beyond; 0 at first.
    ///
    /// # Errors
    /// Damaged, of a later version, or unreadable.
    pub fn load_sequences(&self) -> Result<u64, StateError> {
        Ok(self.load_small("sequences")?.unwrap_or_default())
    }

    /// Keeps such a number.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_sequences(&self, bound: u64) -> Result<(), StateError> {
        self.save_small("sequences", &bound)
    }

    /// Removes what makes this host a member: identity and keys, membership, and what was learnt in the
    /// overlay. The authority's files stay if they are here, and the ports and the name for the next
    /// time. The membership goes last: what was interrupted can be done again.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn forget_membership(&self) -> Result<(), StateError> {
        let _edit = self.edit()?;
        let dir = self.path();
        let entries = fs::read_dir(dir).map_err(|error| StateError::io("read", dir, error))?;
        let blobs = entries.flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("blob-"))
        });
        let rest = [
            "attachments.json",
            "handshake-time",
            "sequences",
            "static",
            "identity",
            // A list that another overlay's authority has signed counts for none.
            "revocations",
            "membership",
        ];
        for path in blobs.chain(rest.map(|name| self.file(name))) {
            remove(&path)?;
        }
        files::sync_directory(dir).map_err(|error| StateError::io("sync", dir, error))
    }

    fn load_small<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.file(name);
        let Some(bytes) = file::load(&path, name, MAX_SMALL)? else {
            return Ok(None);
        };
        match postcard::take_from_bytes(&bytes) {
            Ok((value, [])) => Ok(Some(value)),
            _ => Err(StateError::Damaged(path)),
        }
    }

    fn save_small<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path: PathBuf = self.file(name);
        match postcard::to_stdvec(value).map(Zeroizing::new) {
            Ok(bytes) if bytes.len() <= MAX_SMALL => file::save(&path, name, &bytes),
            _ => Err(StateError::TooLarge { path }),
        }
    }
}

/// Removes a file that may be missing.
fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_forgets_the_member_and_keeps_the_authority() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let first = state.load_or_create_identity().unwrap().peer_id();
        state.next_static_key().unwrap();
        state.save_handshake_time(9).unwrap();
        state.save_sequences(9).unwrap();
        state.save_blob("peers", b"x").unwrap();
        state.save_revocations(&Revocations::default()).unwrap();
        state.save_name(Some("here")).unwrap();
        fs::write(dir.path().join("authority"), b"x").unwrap();
        state.forget_membership().unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["authority", "edit.lock", "name"]);
        // Again after it was interrupted; and another node next time.
        state.forget_membership().unwrap();
        let next = state.load_or_create_identity().unwrap().peer_id();
        assert_ne!(first, next);
    }

    #[test]
    fn identity_and_keys_stay() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        assert!(state.load_identity().unwrap().is_none());
        let key = state.load_or_create_identity().unwrap();
        assert_eq!(
            state.load_or_create_identity().unwrap().peer_id(),
            key.peer_id()
        );
        let first = state.next_static_key().unwrap();
        let second = state.next_static_key().unwrap();
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!(first.public, second.public);
        assert_eq!(state.load_handshake_time().unwrap(), 0);
        state.save_handshake_time(9).unwrap();
        assert_eq!(state.load_handshake_time().unwrap(), 9);
        state.save_sequences(8).unwrap();
        assert_eq!(state.load_sequences().unwrap(), 8);
        let ports = BoundPorts {
            udp4: Some(22_611),
            ..BoundPorts::default()
        };
        state.save_ports(&ports).unwrap();
        assert_eq!(state.load_ports().unwrap(), ports);
    }
}
