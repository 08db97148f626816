//! What the authority writes down beside its keys: where its bootstraps are, and who was seen to
//! have used which invite.
//!
//! ```text
//! tail of the file = 0xb0 | postcard of Later | revocations       or   revocations   or   nothing
//! ```
//! The first byte is above every version of the revocations, so that an older program says that the
//! file is of a later version. As long as there is nothing to write down it is left out.

use overlay_proto::ids::PeerId;
use overlay_proto::membership::{InviteId, MAX_BOOTSTRAPS};
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};

const MARK: u8 = 0xb0;

/// Uses in the books; the oldest go first.
pub const MAX_SEEN: usize = 32_768;

/// A node that has used an invite: proven by its certificate with the witness's receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenUse {
    /// The invite.
    pub invite: InviteId,
    /// The node.
    pub node: PeerId,
    /// When the witness gave the receipt.
    pub time: UnixTime,
}

/// The part of the books that is no key.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// For invites that name no others; the first is their witness. At most [`MAX_BOOTSTRAPS`].
    pub bootstraps: Vec<String>,
    /// At most [`MAX_SEEN`], oldest first.
    pub seen: Vec<SeenUse>,
}

impl Books {
    /// Notes a use; `true` if it was not known.
    pub fn see(&mut self, used: SeenUse) -> bool {
        let same = |known: &SeenUse| known.invite == used.invite && known.node == used.node;
        if self.seen.iter().any(same) {
            return false;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.remove(0);
        }
        self.seen.push(used);
        true
    }

    /// Who has used `invite`, as far as is known here.
    pub fn uses_of(&self, invite: InviteId) -> impl Iterator<Item = &SeenUse> {
        self.seen.iter().filter(move |used| used.invite == invite)
    }

    /// What goes before the revocations.
    pub(super) fn to_tail(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if *self != Self::default()
            && let Ok(body) = postcard::to_stdvec(self)
        {
            bytes.push(MARK);
            bytes.extend(body);
        }
        bytes
    }

    /// Reads [`Books::to_tail`]; the books and the rest, or `None` if they are damaged.
    pub(super) fn take_from(tail: &[u8]) -> Option<(Self, &[u8])> {
        let Some((&MARK, body)) = tail.split_first() else {
            return Some((Self::default(), tail));
        };
        let (books, rest) = postcard::take_from_bytes::<Self>(body).ok()?;
        let bounded = books.bootstraps.len() <= MAX_BOOTSTRAPS && books.seen.len() <= MAX_SEEN;
        bounded.then_some((books, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(n: u8) -> SeenUse {
        SeenUse {
            invite: InviteId([n; 32]),
            node: PeerId([n; 32]),
            time: UnixTime(7),
        }
    }

    #[test]
    fn what_is_written_comes_back_before_the_rest() {
        let mut books = Books::default();
        assert!(books.to_tail().is_empty());
        assert_eq!(
            Books::take_from(&[1, 2]),
            Some((books.clone(), &[1, 2][..]))
        );
        books
            .bootstraps
            .push("/ip4/192.0.2.1/tcp/1/p2p/x".to_owned());
        assert!(books.see(used(1)) && !books.see(used(1)) && books.see(used(2)));
        let mut tail = books.to_tail();
        tail.extend([1, 2]);
        assert_eq!(Books::take_from(&tail), Some((books.clone(), &[1, 2][..])));
        assert_eq!(books.uses_of(InviteId([2; 32])).count(), 1);
        assert!(Books::take_from(&[MARK, 0xff]).is_none());
    }
}
