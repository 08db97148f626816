//! The number of the authority's revocation list (trust.md 8).

use serde::{Deserialize, Serialize};

/// Which revocation list a node holds. Numbers grow; both ends name theirs at every upgrade and
/// handshake, and the lower side pulls first.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct RevocationNumber(pub u64);

impl RevocationNumber {
    /// No list was ever issued.
    pub const NONE: Self = Self(0);
}
