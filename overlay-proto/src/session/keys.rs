//! From the raw split of a handshake to the data keys of the lanes.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::drop_reason::DropReason;
use crate::membership::derive;

use super::cipher::{Cipher, Key};

/// Who sent message 1 of the handshake that made a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We did.
    Initiator,
    /// The peer did.
    Responder,
}

/// What a handshake yields: the raw split of Noise, 32 bytes for each direction. Wiped when
/// dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RawSplit {
    /// Initiator to responder.
    pub to_responder: [u8; 32],
    /// Responder to initiator.
    pub to_initiator: [u8; 32],
}

/// Keys do not belong into logs.
impl std::fmt::Debug for RawSplit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawSplit(..)")
    }
}

/// Which way a data packet goes, in terms of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToResponder,
    ToInitiator,
}

impl Direction {
    /// The direction in which a node with `role` sends.
    pub(super) const fn sent_by(role: Role) -> Self {
        match role {
            Role::Initiator => Self::ToResponder,
            Role::Responder => Self::ToInitiator,
        }
    }

    pub(super) const fn reverse(self) -> Self {
        match self {
            Self::ToResponder => Self::ToInitiator,
            Self::ToInitiator => Self::ToResponder,
        }
    }
}

/// The key of one lane in one direction:
/// HKDF-SHA256(raw split of the direction, label, suite, direction, lane).
///
/// # Errors
/// `HandshakeInvalid` when the library refuses the key, which it does for wrong lengths only.
pub(super) fn lane_key(
    split: &RawSplit,
    cipher: Cipher,
    direction: Direction,
    lane: u8,
) -> Result<Key, DropReason> {
    let (secret, direction) = match direction {
        Direction::ToResponder => (&split.to_responder, 0),
        Direction::ToInitiator => (&split.to_initiator, 1),
    };
    let mut key = derive(
        secret,
        "farlan/data-key/1",
        &[cipher.suite.number(), direction, lane],
    );
    let made = Key::new(cipher, &key);
    key.zeroize();
    made
}
