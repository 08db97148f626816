//! What a node shows to another member before there is a session between them.
//!
//! The bootstrap keeps cards under the blinded name of the network and hands them out; it can
//! neither read nor make one. A card is signed by its node, then sealed under the epoch key:
//!
//! ```text
//! | version 1 | nonce (12) | AES-256-GCM( length (2) | signed card | zeros ) | tag (16) |
//! ```
//!
//! What is sealed is a multiple of 256 bytes; all together at most [`MAX_SEALED_CARD`].

use nat_traversal::candidate::{Candidate, MAX_CANDIDATES};
use serde::{Deserialize, Serialize};

use super::roster::{RosterEntry, SignedRosterEntry};
use super::seal::{NONCE_LEN, open_padded, seal_padded};
use super::signed::{Document, Signed, VERSION, decode, encode};
use crate::Entropy;
use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::{Label, MAX_CHAIN_BYTES, derive};

/// Bytes of a sealed card at most.
pub const MAX_SEALED_CARD: usize = 4096;
/// Bytes of the signed x25519 static at most.
pub const MAX_STATIC_DOCUMENT: usize = 256;
/// Bytes of a name at most.
pub const MAX_NAME: usize = 64;
/// Sealed content is padded to a multiple of this.
pub(super) const PADDING: usize = 256;

const SEAL_LABEL: &str = "farlan/card-seal/1";

/// What a card says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The node's roster entry.
    pub entry: SignedRosterEntry,
    /// Its certificate chain, as `membership` encodes it, at most [`MAX_CHAIN_BYTES`] bytes.
    pub chain: Vec<u8>,
    /// Its signed x25519 static, as `membership` encodes it, at most [`MAX_STATIC_DOCUMENT`] bytes.
    pub static_document: Vec<u8>,
    /// Where it may be reached, at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// Grows with each card of this node.
    pub sequence: u64,
    /// Its name, at most [`MAX_NAME`] bytes; only a name in the certificate counts as proven.
    pub name: String,
}

/// A card as it was signed.
pub type SignedCard = Signed<Card>;

impl Document for Card {
    const LABEL: Label = Label::new("farlan/card/1");
    const MAX_BYTES: usize = 2900;
    const REFUSED: DropReason = DropReason::RosterInvalid;

    fn check(&self, signer: &PeerId) -> Result<(), DropReason> {
        let sound = self.entry.signer() == *signer
            && self.chain.len() <= MAX_CHAIN_BYTES
            && self.static_document.len() <= MAX_STATIC_DOCUMENT
            && self.candidates.len() <= MAX_CANDIDATES
            && self.name.len() <= MAX_NAME;
        if sound {
            Ok(())
        } else {
            Err(DropReason::RosterInvalid)
        }
    }
}

/// A card whose signatures are good. Whether its chain is good, `membership` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedCard {
    /// The card.
    pub card: Card,
    /// Its roster entry, opened.
    pub entry: RosterEntry,
}

impl OpenedCard {
    /// Checks the signatures of card and roster entry.
    ///
    /// # Errors
    /// [`DropReason::RosterInvalid`].
    pub fn open(
        signed: &SignedCard,
        overlay: &OverlayId,
        network: &NetworkId,
    ) -> Result<Self, DropReason> {
        let card = signed.open(overlay)?;
        let entry = card.entry.open(overlay)?;
        if entry.network == *network {
            Ok(Self { card, entry })
        } else {
            Err(DropReason::RosterInvalid)
        }
    }
}

/// Seals a signed card for members of the network.
///
/// # Errors
/// [`DropReason::RosterInvalid`] if it gets longer than [`MAX_SEALED_CARD`].
pub fn seal_card(
    card: &SignedCard,
    epoch_key: &[u8; 32],
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, DropReason> {
    let mut nonce = [0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let content = encode(card).ok_or(DropReason::RosterInvalid)?;
    let key = derive(epoch_key, SEAL_LABEL, b"");
    let sealed = seal_padded(&key, nonce, SEAL_LABEL.as_bytes(), &content, PADDING)
        .ok_or(DropReason::RosterInvalid)?;
    let mut out = vec![VERSION];
    out.extend_from_slice(&sealed);
    if out.len() <= MAX_SEALED_CARD {
        Ok(out)
    } else {
        Err(DropReason::RosterInvalid)
    }
}

/// Opens what [`seal_card`] made and checks all signatures.
///
/// # Errors
/// [`DropReason::RosterInvalid`].
pub fn open_card(
    bytes: &[u8],
    epoch_key: &[u8; 32],
    overlay: &OverlayId,
    network: &NetworkId,
) -> Result<OpenedCard, DropReason> {
    if bytes.len() > MAX_SEALED_CARD {
        return Err(DropReason::RosterInvalid);
    }
    let Some((&VERSION, sealed)) = bytes.split_first() else {
        return Err(DropReason::RosterInvalid);
    };
    let key = derive(epoch_key, SEAL_LABEL, b"");
    let signed: SignedCard = open_padded(&key, SEAL_LABEL.as_bytes(), sealed)
        .and_then(|content| decode(&content))
        .ok_or(DropReason::RosterInvalid)?;
    OpenedCard::open(&signed, overlay, network)
}
