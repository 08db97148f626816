//! The two judges: a member's gate and a bootstrap's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::membership::{
    Application, CLOCK_TOLERANCE, Chain, InviteId, MembershipError, Revocations, Revoked,
    RootStore, SignedPart, SignedRoot, Taken, WitnessRefusal,
};
use overlay_proto::time::UnixTime;

use super::book::{Book, Shelf};
use super::hello::{Hello, MAX_DATA_ADDRS};
use super::{Admitted, Gatekeeper, Refusal, Witness};

/// What a member's gate goes by.
#[derive(Debug, Clone)]
pub struct MemberState {
    /// The root documents this member trusts.
    pub roots: RootStore,
    /// Its own encoded certificate chain; while that has no receipt, only the witness is let in, and
    /// asked for it.
    pub chain: Vec<u8>,
    /// The bootstraps that its invites pin; few.
    pub bootstraps: Vec<PeerId>,
}

/// Admits members of the own overlay and the pinned bootstraps, but nobody who is revoked.
#[derive(Debug)]
pub struct MemberGate {
    state: Mutex<MemberState>,
    book: Book,
}

impl MemberGate {
    /// A gate that goes by `state`, and by `revocations` and what is learnt after them, which goes
    /// to `shelf`.
    #[must_use]
    pub fn new(
        state: MemberState,
        revocations: Revocations,
        shelf: Option<Arc<dyn Shelf>>,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            book: Book::new(revocations, shelf),
        }
    }

    /// Goes by `state` from now on; newer root documents learnt meanwhile stay.
    pub fn set(&self, state: MemberState) {
        let mut held = self.lock();
        let newer = held.roots.newest().version > state.roots.newest().version;
        let roots = if newer && held.roots.overlay() == state.roots.overlay() {
            held.roots.clone()
        } else {
            state.roots
        };
        if roots.newest().version > held.roots.newest().version {
            self.book.forget_retired(&roots);
        }
        *held = MemberState { roots, ..state };
    }

    /// The root documents, with those learnt from others: to be kept on disk when they grew.
    #[must_use]
    pub fn roots(&self) -> RootStore {
        self.lock().roots.clone()
    }

    /// The own certificate, with the receipt once the witness has given it: to be kept on disk then.
    #[must_use]
    pub fn chain(&self) -> Vec<u8> {
        self.lock().chain.clone()
    }

    fn lock(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge_member(
        &self,
        peer: PeerId,
        chain: &[u8],
        roots: &[Vec<u8>],
        now: UnixTime,
    ) -> Result<(InviteId, UnixTime), Refusal> {
        let known = self.roots();
        let newer = learn(Some(&known), known.overlay(), roots)?;
        let (invite, until) = verify(peer, chain, &newer, now)?;
        let mut state = self.lock();
        if newer.newest().version > state.roots.newest().version {
            state.roots = newer.clone();
            drop(state);
            self.book.follow(&newer);
        }
        not_revoked(&self.book, peer, invite)?;
        Ok((invite, until))
    }
}

impl MemberState {
    fn has_receipt(&self) -> Result<bool, Refusal> {
        Ok(Chain::decode(&self.chain)?.has_receipt())
    }

    /// A bootstrap lets us in: with the receipt, if we have none.
    fn take_receipt(&mut self, receipt: Option<SignedPart>, now: UnixTime) -> Result<(), Refusal> {
        let chain = Chain::decode(&self.chain)?;
        if chain.has_receipt() {
            return Ok(());
        }
        let receipt = receipt.ok_or(Refusal::NotYetMember)?;
        let chain = chain.with_receipt(receipt);
        chain.verify(&self.roots, now)?;
        self.chain = chain.encode();
        Ok(())
    }
}

impl Gatekeeper for MemberGate {
    fn own_hello(&self) -> Vec<u8> {
        let state = self.lock();
        Hello::Member {
            roots: state
                .roots
                .above(0)
                .iter()
                .map(SignedRoot::encode)
                .collect(),
            chain: state.chain.clone(),
            root_number: state.roots.newest().version,
            lists: self.book.held().state(),
        }
        .encode()
    }

    fn answer(&self, verdict: &Result<Admitted, Refusal>) -> Option<Vec<u8>> {
        match verdict {
            Ok(_) => Some(self.own_hello()),
            Err(Refusal::Revoked(_)) => Some(revoked_hello(&self.book)),
            Err(_) => None,
        }
    }

    fn wants_lists(&self, peer: PeerId, hello: &[u8], now: UnixTime) -> bool {
        match Hello::decode(hello) {
            Ok(Hello::Member {
                roots,
                chain,
                lists,
                ..
            }) if lists.is_above(&self.book.held().state()) => {
                self.judge_member(peer, &chain, &roots, now).is_ok()
            }
            _ => false,
        }
    }

    fn has_ended(&self, until: UnixTime, now: UnixTime) -> bool {
        is_past(until, self.roots().now(now))
    }

    fn revocations(&self) -> Arc<Revocations> {
        self.book.held()
    }

    fn take_revocations(&self, list: &[u8]) -> Result<Taken, MembershipError> {
        self.book.take(list, &self.roots())
    }

    fn admit(
        &self,
        peer: PeerId,
        hello: &[u8],
        we_dialed: bool,
        now: UnixTime,
    ) -> Result<Admitted, Refusal> {
        let mut state = self.lock();
        let pinned = state.bootstraps.contains(&peer);
        match Hello::decode(hello)? {
            Hello::Infra { .. } if !pinned => Err(Refusal::NotPinned(peer)),
            Hello::Infra { overlay, .. } if overlay != state.roots.overlay() => {
                Err(Refusal::OtherOverlay(overlay))
            }
            Hello::Infra { .. } if self.book.held().names_node(peer) => {
                Err(Refusal::Revoked(Revoked::Node(peer)))
            }
            Hello::Infra {
                data_addrs,
                receipt,
                ..
            } => {
                state.take_receipt(receipt, now)?;
                Ok(Admitted::Infra { data_addrs })
            }
            Hello::NoReceipt(_) if !pinned => Err(Refusal::NotPinned(peer)),
            Hello::NoReceipt(refusal) => Err(Refusal::NoReceipt(refusal)),
            Hello::Revoked(_) => Err(Refusal::WeAreRevoked),
            Hello::Pull => Err(Refusal::Malformed),
            Hello::Member { .. } if pinned && we_dialed => Err(Refusal::WrongRole),
            Hello::Member { .. } if !state.has_receipt()? => Err(Refusal::NotYetMember),
            Hello::Member {
                roots,
                chain,
                root_number,
                lists,
            } => {
                drop(state);
                let (invite, until) = self.judge_member(peer, &chain, &roots, now)?;
                Ok(Admitted::Member {
                    root_number,
                    lists,
                    invite,
                    until,
                    receipt: None,
                })
            }
        }
    }
}

/// Admits members of the overlays that a bootstrap is told to serve, and nobody else.
#[derive(Debug)]
pub struct InfraGate {
    overlay: OverlayId,
    data_addrs: Vec<SocketAddr>,
    /// `None` until the first member has shown the documents; then never older ones.
    roots: Mutex<Option<RootStore>>,
    witness: Option<Arc<dyn Witness>>,
    book: Book,
}

impl InfraGate {
    /// A gate for the members of `overlay`. They are told `data_addrs`, of which the first
    /// [`MAX_DATA_ADDRS`] count; an unspecified IP stands for the one they are connected to.
    /// `known`: what was known before a restart. `witness`: the books; without them nobody gets a
    /// receipt here. What is learnt goes to `shelf`.
    #[must_use]
    pub fn new(
        overlay: OverlayId,
        mut data_addrs: Vec<SocketAddr>,
        known: Option<(RootStore, Revocations)>,
        witness: Option<Arc<dyn Witness>>,
        shelf: Option<Arc<dyn Shelf>>,
    ) -> Self {
        data_addrs.truncate(MAX_DATA_ADDRS);
        let (roots, revocations) = known
            .filter(|(roots, _)| roots.overlay() == overlay)
            .unzip();
        Self {
            overlay,
            data_addrs,
            roots: Mutex::new(roots),
            witness,
            book: Book::new(revocations.unwrap_or_default(), shelf),
        }
    }

    fn hello(&self, receipt: Option<SignedPart>) -> Vec<u8> {
        Hello::Infra {
            overlay: self.overlay,
            data_addrs: self.data_addrs.clone(),
            lists: self.book.held().state(),
            receipt,
        }
        .encode()
    }

    /// Whom `chain` names, but for the receipt that it may lack, and the documents that it brought.
    fn read(
        &self,
        peer: PeerId,
        chain: &[u8],
        roots: &[Vec<u8>],
        now: UnixTime,
    ) -> Result<(Application, RootStore), Refusal> {
        let newer = learn(self.roots().as_ref(), self.overlay, roots)?;
        let application = Chain::decode(chain)?.apply(&newer, now)?;
        if application.member.peer == peer {
            Ok((application, newer))
        } else {
            Err(Refusal::WrongPeer(application.member.peer))
        }
    }

    /// The receipt that `chain` lacks; `None` if it has one that counts.
    fn receipt_for(
        &self,
        application: &Application,
        chain: &[u8],
        roots: &RootStore,
        now: UnixTime,
    ) -> Result<Option<SignedPart>, Refusal> {
        // Before the books: a revoked invite is not counted any more.
        let member = &application.member;
        not_revoked(&self.book, member.peer, member.invite_id)?;
        let chain = Chain::decode(chain)?;
        if chain.has_receipt() {
            chain.verify(roots, now)?;
            return Ok(None);
        }
        let witness = self.witness.as_ref();
        witness
            .ok_or(WitnessRefusal::OtherWitness)
            .and_then(|books| books.receipt(self.overlay, application, roots.now(now)))
            .map(Some)
            .map_err(Refusal::NoReceipt)
    }

    /// Takes documents that came with a membership that counts.
    fn take_roots(&self, newer: &RootStore) {
        let version = |roots: &RootStore| roots.newest().version;
        let mut held = self.lock();
        if held.as_ref().map(version) < Some(version(newer)) {
            *held = Some(newer.clone());
            drop(held);
            self.book.follow(newer);
        }
    }

    /// The root documents learnt: to be kept on disk when they grew.
    #[must_use]
    pub fn roots(&self) -> Option<RootStore> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<RootStore>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gatekeeper for InfraGate {
    fn own_hello(&self) -> Vec<u8> {
        self.hello(None)
    }

    fn answer(&self, verdict: &Result<Admitted, Refusal>) -> Option<Vec<u8>> {
        match verdict {
            Ok(Admitted::Member { receipt, .. }) => Some(self.hello(receipt.clone())),
            Err(Refusal::NoReceipt(refusal)) => Some(Hello::NoReceipt(*refusal).encode()),
            Err(Refusal::Revoked(_)) => Some(revoked_hello(&self.book)),
            _ => None,
        }
    }

    fn receipt(
        &self,
        peer: PeerId,
        chain: &[u8],
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let judged = self
            .read(peer, chain, &[], now)
            .and_then(|(application, roots)| self.receipt_for(&application, chain, &roots, now));
        match judged {
            Ok(Some(receipt)) => Ok(receipt),
            Err(Refusal::NoReceipt(refusal)) => Err(refusal),
            Err(Refusal::Revoked(_)) => Err(WitnessRefusal::Revoked),
            _ => Err(WitnessRefusal::OtherWitness),
        }
    }

    fn wants_lists(&self, peer: PeerId, hello: &[u8], now: UnixTime) -> bool {
        match Hello::decode(hello) {
            Ok(Hello::Member {
                roots,
                chain,
                lists,
                ..
            }) if lists.is_above(&self.book.held().state()) => {
                let read = self.read(peer, &chain, &roots, now);
                // The lists are checked by them.
                read.inspect(|(_, newer)| self.take_roots(newer)).is_ok()
            }
            _ => false,
        }
    }

    fn has_ended(&self, until: UnixTime, now: UnixTime) -> bool {
        let now = self.roots().map_or(now, |roots| roots.now(now));
        is_past(until, now)
    }

    fn revocations(&self) -> Arc<Revocations> {
        self.book.held()
    }

    fn take_revocations(&self, list: &[u8]) -> Result<Taken, MembershipError> {
        let roots = self.roots().ok_or(MembershipError::Foreign)?;
        self.book.take(list, &roots)
    }

    fn admit(
        &self,
        peer: PeerId,
        hello: &[u8],
        _we_dialed: bool,
        now: UnixTime,
    ) -> Result<Admitted, Refusal> {
        let Hello::Member {
            roots,
            chain,
            root_number,
            lists,
        } = Hello::decode(hello)?
        else {
            return Err(Refusal::WrongRole);
        };
        let (application, newer) = self.read(peer, &chain, &roots, now)?;
        // The witness may wait for its disk, so nothing is locked meanwhile.
        let receipt = self.receipt_for(&application, &chain, &newer, now)?;
        self.take_roots(&newer);
        Ok(Admitted::Member {
            root_number,
            lists,
            invite: application.member.invite_id,
            until: application.member.member_until,
            receipt,
        })
    }
}

fn not_revoked(book: &Book, peer: PeerId, invite: InviteId) -> Result<(), Refusal> {
    book.held()
        .check(peer, invite)
        .map_err(|error| match error {
            MembershipError::Revoked(entry) => Refusal::Revoked(entry),
            other => other.into(),
        })
}

fn revoked_hello(book: &Book) -> Vec<u8> {
    Hello::Revoked(book.held().state()).encode()
}

/// `known` with the documents it lacks. Nothing is ever taken back.
fn learn(
    known: Option<&RootStore>,
    overlay: OverlayId,
    encoded: &[Vec<u8>],
) -> Result<RootStore, Refusal> {
    let mut roots = encoded.iter().map(|bytes| SignedRoot::decode(bytes));
    let mut store = match known {
        Some(known) => known.clone(),
        None => {
            let first = roots
                .next()
                .ok_or(MembershipError::Invalid("root document"))??;
            RootStore::new(overlay, first)?
        }
    };
    for root in roots {
        let root = root?;
        if let Err(error) = store.advance(root) {
            return Err(foreign(overlay, encoded).unwrap_or_else(|| error.into()));
        }
    }
    Ok(store)
}

/// Documents of another overlay deserve that name, whatever else is wrong with them.
fn foreign(overlay: OverlayId, encoded: &[Vec<u8>]) -> Option<Refusal> {
    let first = SignedRoot::decode(encoded.first()?).ok()?;
    let theirs = RootStore::from_roots([first]).ok()?.overlay();
    (theirs != overlay).then_some(Refusal::OtherOverlay(theirs))
}

fn verify(
    peer: PeerId,
    chain: &[u8],
    roots: &RootStore,
    now: UnixTime,
) -> Result<(InviteId, UnixTime), Refusal> {
    let member = Chain::decode(chain)?.verify(roots, now)?;
    if member.peer == peer {
        Ok((member.invite_id, member.member_until))
    } else {
        Err(Refusal::WrongPeer(member.peer))
    }
}

/// As certificates are judged at the gate.
fn is_past(until: UnixTime, now: UnixTime) -> bool {
    now > until.plus(CLOCK_TOLERANCE)
}

#[cfg(test)]
mod tests {
    use overlay_proto::membership::test_authority::TestOverlay;

    use super::*;

    #[test]
    fn trust_1_lists_of_a_key_end_when_the_node_tells_of_its_retirement() {
        let mut overlay = TestOverlay::new(7, &["lab"]);
        let state = |roots: &RootStore| MemberState {
            roots: roots.clone(),
            chain: Vec::new(),
            bootstraps: Vec::new(),
        };
        let gate = MemberGate::new(state(&overlay.roots), Revocations::default(), None);
        let thief = PeerId([5; 32]);
        let list = overlay.next_list(Revoked::Node(thief)).encode();
        gate.take_revocations(&list).unwrap();
        assert!(gate.revocations().names_node(thief));
        overlay.rotate(2);
        gate.set(state(&overlay.roots));
        assert!(!gate.revocations().names_node(thief));
    }
}
