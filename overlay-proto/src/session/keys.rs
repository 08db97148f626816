//! From the raw split of a handshake to the data keys of the lanes.

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::drop_reason::DropReason;
use crate::membership::derive;

/// How the data packets of a session are sealed (trust.md 12). The number is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM: the faster one where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305: for processors without them.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// What this program supports, best first.
    pub const PREFERENCE: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The suite of a number on the wire; `None` for one from a later version.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

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
    suite: Suite,
    direction: Direction,
    lane: u8,
) -> Result<LessSafeKey, DropReason> {
    let (secret, direction) = match direction {
        Direction::ToResponder => (&split.to_responder, 0),
        Direction::ToInitiator => (&split.to_initiator, 1),
    };
    let mut key = derive(
        secret,
        "farlan/data-key/1",
        &[suite.number(), direction, lane],
    );
    let unbound = UnboundKey::new(suite.algorithm(), &key);
    key.zeroize();
    unbound
        .map(LessSafeKey::new)
        .map_err(|_| DropReason::HandshakeInvalid)
}
