//! What `farlan revoke` prints and `farlan apply` takes: one line of text.
//!
//! ```text
//! farlan-revocation-PUBLIC           anybody may read it: the list, and the root documents
//! farlan-revocation-PUBLIC.SECRET    and the keys of the epochs that begin: for members only
//!
//! PUBLIC = BASE64URL( 1 | postcard of root documents, signed list     | checksum (8) )
//! SECRET = BASE64URL( 1 | postcard of a list of encoded signed epochs | checksum (8) )
//! ```
//! Everything in it is signed by the authority; the checksums are for people who copy text.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::SignedRevocations;
use crate::membership::codec;
use crate::membership::error::MembershipError;
use crate::membership::keys::labelled_hash;
use crate::membership::root::{MAX_ROOTS, SignedRoot};

/// What every line begins with.
pub const REVOCATION_PREFIX: &str = "farlan-revocation-";

/// The longest text that is looked at, in bytes: a full list (86 KB in base64) and the epochs of all
/// 1,024 networks that an authority may have (260 KB).
pub const MAX_REVOCATION_TEXT: usize = 384 * 1024;

/// Epochs in a line: the networks that an authority may have.
const MAX_EPOCHS: usize = 1_024;
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// A line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The text is something else.
    #[error("this is no revocation; one begins with `farlan-revocation-`")]
    NotALine,
    /// Cut off, changed, or with something after its end.
    #[error("the revocation is damaged ({0}); copy it again as one whole line")]
    Damaged(&'static str),
    /// Made by a later version of the program.
    #[error("the revocation is of a later version ({0}); update this program")]
    LaterVersion(u8),
}

/// A line that parses; nothing in it is verified yet. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationLine {
    /// The root documents, version 1 first, so that a node that missed one can check the list.
    pub roots: Vec<SignedRoot>,
    /// The list.
    pub list: SignedRevocations,
    /// Encoded signed epochs: secret.
    pub epochs: Vec<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for RevocationLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationLine")
            .field("list", self.list.list())
            .field("epochs", &self.epochs.len())
            .finish_non_exhaustive()
    }
}

impl RevocationLine {
    /// The line to hand over: secret if there are epochs.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let public = codec::encode(VERSION, &(&self.roots, self.list.encode()));
        let mut text = Zeroizing::new(format!("{REVOCATION_PREFIX}{}", *armour(&public)));
        if !self.epochs.is_empty() {
            let epochs: Vec<&[u8]> = self.epochs.iter().map(|epoch| epoch.as_slice()).collect();
            let secret = Zeroizing::new(codec::encode(VERSION, &epochs));
            text.push('.');
            text.push_str(&armour(&secret));
        }
        text
    }

    /// Reads [`RevocationLine::to_text`]; white space, as terminals put it into long lines, is
    /// ignored.
    ///
    /// # Errors
    /// A [`LineError`] that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        if text.len() > MAX_REVOCATION_TEXT {
            return Err(LineError::NotALine);
        }
        let joined: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let encoded = joined
            .strip_prefix(REVOCATION_PREFIX)
            .ok_or(LineError::NotALine)?;
        let (public, secret) = match encoded.split_once('.') {
            Some((public, secret)) => (public, Some(secret)),
            None => (encoded, None),
        };
        let unread = |_: MembershipError| LineError::Damaged("its content does not parse");
        let body = unarmour(public)?;
        let (roots, list): (Vec<SignedRoot>, Vec<u8>) =
            codec::decode("revocation", VERSION, MAX_REVOCATION_TEXT, &body).map_err(unread)?;
        let epochs = match secret.map(unarmour).transpose()? {
            Some(body) => Zeroizing::new(
                codec::decode::<Vec<Vec<u8>>>("epochs", VERSION, MAX_REVOCATION_TEXT, &body)
                    .map_err(unread)?,
            ),
            None => Zeroizing::default(),
        };
        if roots.len() > MAX_ROOTS || epochs.len() > MAX_EPOCHS {
            return Err(LineError::Damaged("its content breaks a bound"));
        }
        Ok(Self {
            roots,
            list: SignedRevocations::decode(&list).map_err(unread)?,
            epochs: epochs.iter().cloned().map(Zeroizing::new).collect(),
        })
    }
}

fn armour(body: &[u8]) -> Zeroizing<String> {
    let bytes = Zeroizing::new([body, &checksum(body)].concat());
    Zeroizing::new(BASE64URL_NOPAD.encode(&bytes))
}

fn unarmour(text: &str) -> Result<Zeroizing<Vec<u8>>, LineError> {
    let bytes = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| LineError::Damaged("it is cut off or holds a wrong character"))?;
    let (body, sum) = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .and_then(|middle| bytes.split_at_checked(middle))
        .ok_or(LineError::Damaged("it is cut off"))?;
    if sum != checksum(body) {
        return Err(LineError::Damaged("its checksum is wrong"));
    }
    match body.first() {
        Some(&version) if version > VERSION => Err(LineError::LaterVersion(version)),
        _ => Ok(Zeroizing::new(body.to_vec())),
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, e, f, g, h, ..] = labelled_hash("farlan/revocation-checksum", &[body]);
    [a, b, c, d, e, f, g, h]
}
