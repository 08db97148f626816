//! What two that meet do with each other's revocation lists, between the hellos.
//!
//! ```text
//! dialer                                             listener
//! own_hello ---------------------------------------> wants_lists?
//!            <------------------------------- Pull   yes
//! lists_of   --------------------------------------> take_lists, then admit
//!            <--------- answer, and lists_of where lists_follow
//! take_lists, then admit
//! ```

use overlay_proto::membership::SignedRevocations;

use super::Gatekeeper;
use super::hello::Hello;

/// Does `answer` bring the lists that whoever said `hello` lacks? Both sides decide it alike.
#[must_use]
pub fn lists_follow(answer: &[u8], hello: &[u8]) -> bool {
    let lists = |bytes| Hello::decode(bytes).ok().and_then(|hello| hello.lists());
    match (lists(answer), lists(hello)) {
        (Some(theirs), Some(ours)) => theirs.is_above(&ours),
        _ => false,
    }
}

/// All that the gate holds, encoded.
#[must_use]
pub fn lists_of(gate: &dyn Gatekeeper) -> Vec<Vec<u8>> {
    let held = gate.revocations();
    held.lists().iter().map(SignedRevocations::encode).collect()
}

/// A list that does not count changes nothing: the hello is judged by those that do.
pub fn take_lists(gate: &dyn Gatekeeper, lists: &[Vec<u8>]) {
    for list in lists {
        if let Err(error) = gate.take_revocations(list) {
            tracing::warn!(%error, "a revocation list does not count");
        }
    }
}
