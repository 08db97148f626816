//! Who counts the uses of invites (TRUST.md 4).

use std::fmt::{Debug, Display};
use std::sync::{Mutex, MutexGuard, PoisonError};

use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{
    Application, InviteId, InviteUses, NodeKey, SignedPart, WitnessRefusal,
};
use overlay_proto::time::UnixTime;

/// The witness that a gate asks.
pub trait Witness: Debug + Send + Sync {
    /// The signed receipt for a node of `overlay` whose certificate was verified but for the
    /// receipt. The use is on disk before this returns; the same node gets the same receipt.
    ///
    /// # Errors
    /// Why there is none.
    fn receipt(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal>;
}

/// Where a witness keeps who has used which invite. Nothing is ever removed: an invite must not become usable again,
/// whatever the clock says.
pub trait Books: Debug + Send {
    /// What is wrong with them, for the operator.
    type Error: Display;

    /// Who has used `invite` so far.
    ///
    /// # Errors
    /// They cannot be read, or are damaged: damaged ones are no empty ones.
    fn uses(&mut self, overlay: OverlayId, invite: InviteId) -> Result<InviteUses, Self::Error>;

    /// Keeps `uses` in the place of those before. They are on disk when this returns.
    ///
    /// # Errors
    /// They are not.
    fn keep(
        &mut self,
        overlay: OverlayId,
        invite: InviteId,
        uses: &InviteUses,
    ) -> Result<(), Self::Error>;
}

/// A witness with its books: it counts the uses of the invites that name it, and signs receipts.
#[derive(Debug)]
pub struct Counter<B> {
    key: NodeKey,
    /// Held while uses are read, counted and kept: two nodes must not both be the last one.
    books: Mutex<B>,
}

impl<B: Books> Counter<B> {
    /// The witness with `key`, which keeps its books in `books`.
    #[must_use]
    pub const fn new(key: NodeKey, books: B) -> Self {
        Self {
            key,
            books: Mutex::new(books),
        }
    }

    /// The books; nothing is counted while they are held.
    pub fn books(&self) -> MutexGuard<'_, B> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<Result<SignedPart, WitnessRefusal>, B::Error> {
        let invite = application.member.invite_id;
        let mut books = self.books();
        let mut uses = books.uses(overlay, invite)?;
        let before = uses.len();
        let receipt = match uses.count(application, now) {
            Ok(receipt) => receipt,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Kept before the receipt is handed out: one that nobody remembers is one node too many.
        if uses.len() > before {
            books.keep(overlay, invite, &uses)?;
        }
        Ok(Ok(receipt.sign(&self.key, overlay)))
    }
}

impl<B: Books> Witness for Counter<B> {
    fn receipt(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let node = application.member.peer;
        if application.witness != self.key.peer_id() {
            return Err(WitnessRefusal::OtherWitness);
        }
        match self.count(overlay, application, now) {
            Ok(Ok(receipt)) => {
                tracing::info!(%overlay, %node, "a node joined");
                Ok(receipt)
            }
            Ok(Err(refusal)) => {
                tracing::info!(%overlay, %node, %refusal, "a node got no receipt");
                Err(refusal)
            }
            Err(error) => {
                tracing::error!(%overlay, %node, error = format!("{error:#}"), "no receipt");
                Err(WitnessRefusal::Unable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use overlay_proto::membership::test_authority::{BORN, TestOverlay};

    use super::*;

    /// Books of one overlay in memory; a full disk takes nothing.
    #[derive(Debug, Default)]
    struct Memory {
        uses: BTreeMap<InviteId, InviteUses>,
        is_full: bool,
        writes: u32,
    }

    impl Books for Memory {
        type Error = &'static str;

        fn uses(&mut self, _: OverlayId, invite: InviteId) -> Result<InviteUses, Self::Error> {
            Ok(self.uses.get(&invite).cloned().unwrap_or_default())
        }

        fn keep(
            &mut self,
            _: OverlayId,
            invite: InviteId,
            uses: &InviteUses,
        ) -> Result<(), Self::Error> {
            if self.is_full {
                return Err("no space left on device");
            }
            self.writes += 1;
            self.uses.insert(invite, uses.clone());
            Ok(())
        }
    }

    #[test]
    fn trust_4_a_use_is_kept_before_its_receipt() {
        let mut overlay = TestOverlay::new(3, &["lab"]);
        let (id, nodes) = (overlay.id(), overlay.applications(1, 2));
        let counter = Counter::new(overlay.witness.key.clone(), Memory::default());
        counter.books().is_full = true;
        let ask = |n: usize| counter.receipt(id, &nodes[n], BORN);
        assert_eq!(ask(0), Err(WitnessRefusal::Unable));
        counter.books().is_full = false;
        // What could not be kept has used nothing up.
        let first = ask(1).unwrap();
        assert_eq!(ask(0), Err(WitnessRefusal::UsedUp(1)));
        // The same node again needs no disk.
        counter.books().is_full = true;
        assert_eq!(ask(1), Ok(first));
        assert_eq!(counter.books().writes, 1);
    }

    #[test]
    fn trust_4_only_the_witness_that_the_invite_names_counts() {
        let mut overlay = TestOverlay::new(3, &["lab"]);
        let (id, nodes) = (overlay.id(), overlay.applications(1, 1));
        let elsewhere = Counter::new(NodeKey::from_secret(&[8; 32]), Memory::default());
        let refused = elsewhere.receipt(id, &nodes[0], BORN);
        assert_eq!(refused, Err(WitnessRefusal::OtherWitness));
        assert!(elsewhere.books().uses.is_empty());
    }
}
