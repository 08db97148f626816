//! One way to write what is signed or kept: a version byte, then postcard, one encoding per value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::MembershipError;

/// `version`, then the postcard of `body`.
pub(super) fn encode<T: Serialize>(version: u8, body: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    // Into a growing vector, from types whose lengths are known, this cannot fail; the empty
    // answer is refused by every decoder.
    match postcard::to_stdvec(body) {
        Ok(rest) => bytes.extend_from_slice(&rest),
        Err(_) => bytes.clear(),
    }
    bytes
}

/// Reads what [`encode`] wrote: at most `limit` bytes, `version` first, nothing after the body, and
/// the one encoding that [`encode`] makes, so that equal content has equal bytes.
pub(super) fn decode<T: Serialize + DeserializeOwned>(
    what: &'static str,
    version: u8,
    limit: usize,
    bytes: &[u8],
) -> Result<T, MembershipError> {
    if bytes.len() > limit {
        return Err(MembershipError::TooLong { what, limit });
    }
    let malformed = MembershipError::Malformed(what);
    let Some((&found, body)) = bytes.split_first() else {
        return Err(malformed);
    };
    if found > version {
        return Err(MembershipError::LaterVersion(what));
    }
    match postcard::take_from_bytes::<T>(body) {
        Ok((value, [])) if found == version && encode(version, &value) == bytes => Ok(value),
        _ => Err(malformed),
    }
}
