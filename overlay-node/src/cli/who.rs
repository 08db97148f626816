//! Which node a word on the command line means.

use std::collections::BTreeMap;

use overlay_proto::ids::PeerId;

use crate::control_socket::api::ShownName;

/// An id may be cut as in the tables; all begin with the same 8 letters.
const LEAST_LETTERS: usize = 10;

/// Why a word names no single node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unclear {
    /// No node is called so.
    #[error("no node here is called `{0}`; see: farlan peers")]
    Nobody(String),
    /// Several are.
    #[error("{count} nodes are called `{word}`; name one by its id: {ids}", count = .ids.len(), ids = .ids.join(", "))]
    Several {
        /// What was asked for.
        word: String,
        /// Who is meant by it.
        ids: Vec<String>,
    },
}

type Wanted<'a> = &'a dyn Fn(&PeerId, &ShownName) -> bool;

/// The node that `word` means, of those `known`: its id, the first letters of its id, or its name.
/// A name that the authority signed goes before one that a node gives itself (marked with `~` in
/// tables, which may be typed, too).
pub(super) fn find(word: &str, known: &BTreeMap<PeerId, ShownName>) -> Result<PeerId, Unclear> {
    let by_id = |id: &PeerId| {
        let id = id.to_string();
        id == word || word.len() >= LEAST_LETTERS && id.starts_with(word)
    };
    let signed = |name: &ShownName| name.signed && name.name == word;
    let said = word.strip_prefix('~').unwrap_or(word);
    let unsigned = |name: &ShownName| !name.signed && !name.name.is_empty() && name.name == said;
    let pick = |wanted: Wanted<'_>| -> Vec<PeerId> {
        let found = known.iter().filter(|(id, name)| wanted(id, name));
        found.map(|(id, _)| *id).collect()
    };
    let ways: [Wanted<'_>; 3] = [&|id, _| by_id(id), &|_, name| signed(name), &|_, name| {
        unsigned(name)
    }];
    for way in ways {
        match pick(way).as_slice() {
            [] => {}
            [one] => return Ok(*one),
            several => {
                return Err(Unclear::Several {
                    word: word.to_owned(),
                    ids: several.iter().map(PeerId::to_string).collect(),
                });
            }
        }
    }
    Err(Unclear::Nobody(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_before_signed_names_before_others() {
        let (a, b, c) = (PeerId([1; 32]), PeerId([2; 32]), PeerId([3; 32]));
        let known = BTreeMap::from([
            (a, ShownName::signed("ash")),
            (b, ShownName::unsigned("oak")),
            (c, ShownName::unsigned("oak")),
        ]);
        assert_eq!(find("ash", &known), Ok(a));
        assert_eq!(find(&b.to_string(), &known), Ok(b));
        let letters = b.to_string().chars().take(20).collect::<String>();
        assert_eq!(find(&letters, &known), Ok(b));
        let unclear = find("oak", &known).unwrap_err().to_string();
        assert!(
            unclear.contains("2 nodes") && unclear.contains(&c.to_string()),
            "{unclear}"
        );
        for nobody in ["elm", "12D3KooW", "", "~ash"] {
            assert!(
                matches!(find(nobody, &known), Err(Unclear::Nobody(_))),
                "{nobody}"
            );
        }
    }
}
