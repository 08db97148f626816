//! What two members say to each other through a third party before they have a session.
//!
//! The carrier knows sender and receiver, since it routes; it learns no more. A signal is signed,
//! with both names and a growing sequence, then sealed under the epoch key of a network both are in:
//!
//! ```text
//! | version 1 | hint (4) | nonce (12) | AES-256-GCM( length (2) | signed signal | zeros ) | tag (16) |
//! ```
//!
//! The hint is the start of the network's rendezvous key. Sender and receiver are in the
//! additional data, so that a carrier cannot send a signal to somebody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::card::{PADDING, SignedCard};
use super::seal::{NONCE_LEN, open_padded, seal_padded};
use super::signed::{Document, Signed, VERSION, decode, encode};
use crate::Entropy;
use crate::drop_reason::DropReason;
use crate::ids::{OverlayId, PeerId};
use crate::membership::{Label, NodeKey, derive, rendezvous_blind};

/// Bytes of a sealed signal at most.
pub const MAX_SEALED_SIGNAL: usize = 4096;

/// Senders whose last sequence is remembered.
const MAX_SENDERS: usize = 1024;
const HINT_LEN: usize = 4;
const SEAL_LABEL: &str = "farlan/signal-seal/1";

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// "I want to talk to you: this is me, and here I may be reached." Answered with a Hello of
    /// one's own if the sequence of the card that the other knows is older.
    Hello(SignedCard),
    /// "I am going."
    Bye,
}

/// A signal with its route, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedSignal {
    /// Who says it.
    pub from: PeerId,
    /// To whom.
    pub to: PeerId,
    /// Grows with each signal of the sender, also over restarts.
    pub sequence: u64,
    /// What.
    pub signal: Signal,
}

impl Document for RoutedSignal {
    const LABEL: Label = Label::new("farlan/signal/1");
    const MAX_BYTES: usize = 3200;
    const REFUSED: DropReason = DropReason::ControlMalformed;

    fn check(&self, signer: &PeerId) -> Result<(), DropReason> {
        let own_card = match &self.signal {
            Signal::Hello(card) => card.signer() == *signer,
            Signal::Bye => true,
        };
        if self.from == *signer && own_card {
            Ok(())
        } else {
            Err(DropReason::ControlMalformed)
        }
    }
}

/// Signs and seals a signal.
///
/// # Errors
/// [`DropReason::ControlMalformed`] if `from` is not the signer or it gets too long.
pub fn seal_signal(
    signal: &RoutedSignal,
    key: &NodeKey,
    overlay: &OverlayId,
    epoch_key: &[u8; 32],
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, DropReason> {
    let mut nonce = [0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let content =
        encode(&Signed::seal(signal, key, overlay)?).ok_or(DropReason::ControlMalformed)?;
    let seal = derive(epoch_key, SEAL_LABEL, b"");
    let aad = route(&signal.from, &signal.to);
    let sealed =
        seal_padded(&seal, nonce, &aad, &content, PADDING).ok_or(DropReason::ControlMalformed)?;
    let mut out = vec![VERSION];
    out.extend_from_slice(&hint(epoch_key));
    out.extend_from_slice(&sealed);
    if out.len() <= MAX_SEALED_SIGNAL {
        Ok(out)
    } else {
        Err(DropReason::ControlMalformed)
    }
}

/// Is `bytes` sealed under this epoch key? Cheap, and no proof: tells which key to try.
#[must_use]
pub fn signal_is_for(bytes: &[u8], epoch_key: &[u8; 32]) -> bool {
    bytes.get(1..=HINT_LEN) == Some(hint(epoch_key).as_slice())
}

/// Opens what [`seal_signal`] made; `from` and `to` are what the carrier says. The sequence is for
/// [`SignalInbox::accept`].
///
/// # Errors
/// [`DropReason::ControlMalformed`].
pub fn open_signal(
    bytes: &[u8],
    from: &PeerId,
    to: &PeerId,
    overlay: &OverlayId,
    epoch_key: &[u8; 32],
) -> Result<RoutedSignal, DropReason> {
    if bytes.len() > MAX_SEALED_SIGNAL || bytes.first() != Some(&VERSION) {
        return Err(DropReason::ControlMalformed);
    }
    let key = derive(epoch_key, SEAL_LABEL, b"");
    let signed: Signed<RoutedSignal> = bytes
        .get(1 + HINT_LEN..)
        .and_then(|sealed| open_padded(&key, &route(from, to), sealed))
        .and_then(|content| decode(&content))
        .ok_or(DropReason::ControlMalformed)?;
    let routed = signed.open(overlay)?;
    if routed.from == *from && routed.to == *to {
        Ok(routed)
    } else {
        Err(DropReason::ControlMalformed)
    }
}

/// The highest sequence of each sender. Bound: 1,024 senders; the one that was heard first goes.
#[derive(Debug, Default)]
pub struct SignalInbox {
    last: BTreeMap<PeerId, (u64, u64)>,
    heard: u64,
}

impl SignalInbox {
    /// Is this signal newer than all before from that sender? Remembers it if so.
    pub fn accept(&mut self, from: PeerId, sequence: u64) -> bool {
        if self
            .last
            .get(&from)
            .is_some_and(|(last, _)| *last >= sequence)
        {
            return false;
        }
        if self.last.len() >= MAX_SENDERS
            && !self.last.contains_key(&from)
            && let Some(oldest) = self.oldest()
        {
            self.last.remove(&oldest);
        }
        self.heard += 1;
        self.last.insert(from, (sequence, self.heard));
        true
    }

    fn oldest(&self) -> Option<PeerId> {
        self.last
            .iter()
            .min_by_key(|(_, (_, heard))| *heard)
            .map(|(peer, _)| *peer)
    }
}

fn hint(epoch_key: &[u8; 32]) -> [u8; HINT_LEN] {
    let [a, b, c, d, ..] = rendezvous_blind(epoch_key);
    [a, b, c, d]
}

fn route(from: &PeerId, to: &PeerId) -> Vec<u8> {
    [SEAL_LABEL.as_bytes(), &from.0, &to.0].concat()
}
