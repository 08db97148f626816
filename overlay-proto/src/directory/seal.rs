//! Sealing with padding.
//!
//! Cards, signals and DHT records are kept or carried by nodes that are no members. They are sealed
//! with AES-256-GCM under keys derived from the network's epoch key, and padded, so that the keeper
//! learns neither content nor its exact length.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of the nonce in front of what is sealed.
pub(super) const NONCE_LEN: usize = 12;
/// Bytes of the tag behind it.
pub(super) const TAG_LEN: usize = 16;
/// Bytes of the length in front of padded content, big-endian.
const LENGTH_LEN: usize = 2;

/// `nonce | AES-256-GCM(length | content | zeros) | tag`; the padded content is the smallest multiple
/// of `step` bytes. `None` if `content` is longer than 65,535 bytes or the cipher refuses.
pub(super) fn seal_padded(
    key: &[u8; 32],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    content: &[u8],
    step: usize,
) -> Option<Vec<u8>> {
    let length = u16::try_from(content.len()).ok()?;
    let padded = (LENGTH_LEN + content.len()).next_multiple_of(step.max(1));
    let mut sealed = Vec::with_capacity(padded + TAG_LEN);
    sealed.extend_from_slice(&length.to_be_bytes());
    sealed.extend_from_slice(content);
    sealed.resize(padded, 0);
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            &mut sealed,
        )
        .ok()?;
    let mut out = nonce.to_vec();
    out.append(&mut sealed);
    Some(out)
}

/// The reverse of [`seal_padded`]; `None` for anything that it did not make.
pub(super) fn open_padded(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    if sealed.len() < NONCE_LEN + LENGTH_LEN + TAG_LEN {
        return None;
    }
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut buffer = rest.to_vec();
    let padded = cipher(key)?
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(aad),
            &mut buffer,
        )
        .ok()?;
    let (length, content) = padded.split_first_chunk::<LENGTH_LEN>()?;
    let content = content.get(..usize::from(u16::from_be_bytes(*length)))?;
    Some(content.to_vec())
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key)
        .ok()
        .map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_hides_the_length_and_comes_off() {
        let key = [3; 32];
        for length in [0, 1, 253, 254, 255, 600] {
            let content = vec![0xa5; length];
            let sealed = seal_padded(&key, [9; NONCE_LEN], b"aad", &content, 256).unwrap();
            assert_eq!((sealed.len() - NONCE_LEN - TAG_LEN) % 256, 0);
            assert_eq!(open_padded(&key, b"aad", &sealed).unwrap(), content);
            assert_eq!(open_padded(&key, b"other", &sealed), None);
            assert_eq!(open_padded(&[4; 32], b"aad", &sealed), None);
        }
    }
}
