//! The two judges: a member's gate and a bootstrap's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::membership::{
    Chain, MembershipError, RevocationNumber, RootStore, SignedPart, SignedRoot, WitnessRefusal,
};
use overlay_proto::time::UnixTime;

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

/// Admits members of the own overlay and the pinned bootstraps.
#[derive(Debug)]
pub struct MemberGate(Mutex<MemberState>);

impl MemberGate {
    /// A gate that goes by `state`.
    #[must_use]
    pub const fn new(state: MemberState) -> Self {
        Self(Mutex::new(state))
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemberState {
    fn has_receipt(&self) -> Result<bool, Refusal> {
        Ok(Chain::decode(&self.chain)?.has_receipt())
    }

    /// A bootstrap lets us in: with the receipt, if we have none.
    fn take_receipt(&mut self, receipt: Option<SignedPart>) -> Result<(), Refusal> {
        let chain = Chain::decode(&self.chain)?;
        if chain.has_receipt() {
            return Ok(());
        }
        let receipt = receipt.ok_or(Refusal::NotYetMember)?;
        let chain = chain.with_receipt(receipt);
        chain.verify(&self.roots, wall())?;
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
            revocation_number: RevocationNumber::NONE.0,
        }
        .encode()
    }

    fn admit(&self, peer: PeerId, hello: &[u8], we_dialed: bool) -> Result<Admitted, Refusal> {
        let mut state = self.lock();
        let pinned = state.bootstraps.contains(&peer);
        match Hello::decode(hello)? {
            Hello::Infra { .. } if !pinned => Err(Refusal::NotPinned),
            Hello::Infra { overlay, .. } if overlay != state.roots.overlay() => {
                Err(Refusal::OtherOverlay(overlay))
            }
            Hello::Infra {
                data_addrs,
                receipt,
                ..
            } => {
                state.take_receipt(receipt)?;
                Ok(Admitted::Infra { data_addrs })
            }
            Hello::NoReceipt(_) if !pinned => Err(Refusal::NotPinned),
            Hello::NoReceipt(refusal) => Err(Refusal::NoReceipt(refusal)),
            Hello::Member { .. } if pinned && we_dialed => Err(Refusal::WrongRole),
            Hello::Member { .. } if !state.has_receipt()? => Err(Refusal::NotYetMember),
            Hello::Member {
                roots,
                chain,
                root_number,
                revocation_number,
            } => {
                let newer = learn(Some(&state.roots), state.roots.overlay(), &roots)?;
                verify(peer, &chain, &newer)?;
                state.roots = newer;
                Ok(Admitted::Member {
                    root_number,
                    revocation_number,
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
}

impl InfraGate {
    /// A gate for the members of `overlay`. They are told `data_addrs`, of which the first
    /// [`MAX_DATA_ADDRS`] count; an unspecified IP stands for the one they are connected to.
    /// `roots`: what was known before a restart. `witness`: the books; without them nobody gets a
    /// receipt here.
    #[must_use]
    pub fn new(
        overlay: OverlayId,
        mut data_addrs: Vec<SocketAddr>,
        roots: Option<RootStore>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Self {
        data_addrs.truncate(MAX_DATA_ADDRS);
        Self {
            overlay,
            data_addrs,
            roots: Mutex::new(roots.filter(|roots| roots.overlay() == overlay)),
            witness,
        }
    }

    fn hello(&self, receipt: Option<SignedPart>) -> Vec<u8> {
        Hello::Infra {
            overlay: self.overlay,
            data_addrs: self.data_addrs.clone(),
            revocation_number: RevocationNumber::NONE.0,
            receipt,
        }
        .encode()
    }

    /// The receipt that `chain` lacks; `None` if it has one that counts.
    fn judge(
        &self,
        peer: PeerId,
        chain: &[u8],
        roots: &RootStore,
    ) -> Result<Option<SignedPart>, Refusal> {
        let chain = Chain::decode(chain)?;
        let application = chain.apply(roots, wall())?;
        if application.member.peer != peer {
            return Err(Refusal::WrongPeer(application.member.peer));
        }
        if chain.has_receipt() {
            chain.verify(roots, wall())?;
            return Ok(None);
        }
        let witness = self.witness.as_ref();
        witness
            .ok_or(WitnessRefusal::OtherWitness)
            .and_then(|books| books.receipt(self.overlay, &application, roots.now(wall())))
            .map(Some)
            .map_err(Refusal::NoReceipt)
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
            _ => None,
        }
    }

    fn receipt(&self, peer: PeerId, chain: &[u8]) -> Result<SignedPart, WitnessRefusal> {
        let roots = self.roots().ok_or(WitnessRefusal::Unable)?;
        match self.judge(peer, chain, &roots) {
            Ok(Some(receipt)) => Ok(receipt),
            Err(Refusal::NoReceipt(refusal)) => Err(refusal),
            _ => Err(WitnessRefusal::OtherWitness),
        }
    }

    fn admit(&self, peer: PeerId, hello: &[u8], _we_dialed: bool) -> Result<Admitted, Refusal> {
        let Hello::Member {
            roots,
            chain,
            root_number,
            revocation_number,
        } = Hello::decode(hello)?
        else {
            return Err(Refusal::WrongRole);
        };
        let known = self.roots();
        let newer = learn(known.as_ref(), self.overlay, &roots)?;
        // The witness may wait for its disk, so nothing is locked meanwhile.
        let receipt = self.judge(peer, &chain, &newer)?;
        let mut held = self.lock();
        let version = |roots: &RootStore| roots.newest().version;
        if held.as_ref().map(version) < Some(version(&newer)) {
            *held = Some(newer);
        }
        Ok(Admitted::Member {
            root_number,
            revocation_number,
            receipt,
        })
    }
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

fn verify(peer: PeerId, chain: &[u8], roots: &RootStore) -> Result<(), Refusal> {
    let member = Chain::decode(chain)?.verify(roots, wall())?;
    if member.peer == peer {
        Ok(())
    } else {
        Err(Refusal::WrongPeer(member.peer))
    }
}

/// A clock before 1970 reads as 1970; the floor of the root documents corrects it.
fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
