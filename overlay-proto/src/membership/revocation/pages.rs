//! A revocation list in pieces, for the channel of a session: it takes small messages and delivers
//! each once, in any order.
//!
//! ```text
//! page = id (8): the start of the list's hash | index (1) | count (1) | bytes (1 to 1,090)
//! ```
//! All pages but the last are full. What comes out is a list to be verified like any other.

use std::collections::BTreeMap;

use super::SignedRevocations;
use crate::drop_reason::DropReason;
use crate::membership::keys::labelled_hash;

/// Bytes of the list in one page: what a message of the channel has room for beside its header and
/// the two bytes of index and count.
pub const PAGE_BYTES: usize = 1_090;

/// Pages of one list.
pub const MAX_PAGES: usize = SignedRevocations::MAX_BYTES.div_ceil(PAGE_BYTES);

/// Lists of one peer that may be incomplete at once: as many as it can hold.
pub const MAX_ASSEMBLIES: usize = super::MAX_LISTS;

const _: () = assert!(MAX_PAGES <= 255, "the index is one byte");
const _: () = assert!(
    crate::wire::peer_message::PEER_MESSAGE_HEADER + 2 + PAGE_BYTES <= crate::wire::MAX_MESSAGE
);

/// A piece of an encoded list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<'a> {
    /// Of which list.
    pub id: u64,
    /// Which piece, from 0 on.
    pub index: u8,
    /// How many there are.
    pub count: u8,
    /// 1 to [`PAGE_BYTES`] bytes.
    pub bytes: &'a [u8],
}

impl<'a> Page<'a> {
    /// The pieces of `encoded`; none if it is longer than a list can be.
    pub fn split(encoded: &'a [u8]) -> impl Iterator<Item = Self> {
        let id = id_of(encoded);
        let count = u8::try_from(encoded.len().div_ceil(PAGE_BYTES)).unwrap_or(0);
        (0..count)
            .zip(encoded.chunks(PAGE_BYTES))
            .map(move |(index, bytes)| Self {
                id,
                index,
                count,
                bytes,
            })
    }

    fn is_right(&self) -> bool {
        let full = self.bytes.len() == PAGE_BYTES;
        let last = self.index.checked_add(1) == Some(self.count);
        self.index < self.count
            && usize::from(self.count) <= MAX_PAGES
            && (full || (last && (1..PAGE_BYTES).contains(&self.bytes.len())))
    }
}

#[derive(Debug)]
struct Incomplete {
    count: u8,
    pages: BTreeMap<u8, Vec<u8>>,
}

/// The lists that one peer is sending: at most [`MAX_ASSEMBLIES`] of 63 KiB. A list is removed when
/// it is whole; a further one takes the place of the one begun first. Drop it with the session.
#[derive(Debug, Default)]
pub struct PageAssembly(Vec<(u64, Incomplete)>);

impl PageAssembly {
    /// Takes a page; the encoded list if that was the last one missing.
    ///
    /// # Errors
    /// [`DropReason::ControlMalformed`] for a page that no list has, or pages that contradict each
    /// other: the whole list is forgotten then.
    pub fn take(&mut self, page: Page<'_>) -> Result<Option<Vec<u8>>, DropReason> {
        if !page.is_right() {
            return Err(DropReason::ControlMalformed);
        }
        let place = self.0.iter().position(|(id, _)| *id == page.id);
        let mut list = match place {
            Some(place) => self.0.remove(place).1,
            None => Incomplete {
                count: page.count,
                pages: BTreeMap::new(),
            },
        };
        if list.count != page.count {
            return Err(DropReason::ControlMalformed);
        }
        list.pages.insert(page.index, page.bytes.to_vec());
        if list.pages.len() < usize::from(list.count) {
            if self.0.len() >= MAX_ASSEMBLIES {
                self.0.remove(0);
            }
            self.0.push((page.id, list));
            return Ok(None);
        }
        let whole: Vec<u8> = list.pages.into_values().flatten().collect();
        if id_of(&whole) == page.id {
            Ok(Some(whole))
        } else {
            Err(DropReason::ControlMalformed)
        }
    }
}

fn id_of(encoded: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = labelled_hash("farlan/revocations-page/1", &[encoded]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
