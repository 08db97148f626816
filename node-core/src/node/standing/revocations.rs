//! Who is revoked: learnt from the control plane, in sessions or by hand; carried out; handed on
//! (TRUST.md 8).
//!
//! The gate of the control plane holds the one book, because an admission may teach it; here is what
//! a change of it does to sessions and directories. Lists travel in sessions, too: members have no
//! control connections with each other, and the bootstraps may be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::shown::is_out;
use crate::store::{Edit, Write};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::handshake::ListNumbers;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    Chain, ListState, Page, PageAssembly, Revocations, RootStore, SignedRevocations,
};

use super::{Said, Standing};
use crate::node::outside::Outside;
use crate::node::tick::Tick;

/// The same lists go to one peer at most this often: a question of 17 bytes must not cost 63 KiB
/// each time.
const SAME_AGAIN: Duration = Duration::from_secs(10);

/// What one peer is sending, and what it was sent. Removed with the peer's last session.
#[derive(Debug, Default)]
pub(crate) struct ListTalk {
    incoming: PageAssembly,
    sent: Option<(ListState, Instant)>,
    /// A part of what it was sent got lost, or may have: what is held has to be compared again.
    owed: bool,
}

/// What is revoked, as far as it has been carried out.
#[derive(Debug)]
pub struct Followed {
    /// Those of the gate, as it last told.
    pub held: Arc<Revocations>,
    /// The gate's root documents, as it last told. Lists are checked by them before the membership has them.
    roots: RootStore,
    /// The lists on their way: at most one entry for each peer.
    talks: BTreeMap<PeerId, ListTalk>,
}

impl Followed {
    pub(crate) fn new(held: Arc<Revocations>, roots: RootStore) -> Self {
        Self {
            held,
            roots,
            talks: BTreeMap::new(),
        }
    }

    /// Something of what `peer` was sent did not get there.
    pub(crate) fn owe(&mut self, peer: PeerId) {
        let talk = self.talks.entry(peer).or_default();
        (talk.sent, talk.owed) = (None, true);
    }

    /// Those with whom what is held is to be compared again.
    pub(crate) fn take_owed(&mut self) -> Vec<PeerId> {
        let owed = self.talks.iter_mut().filter(|(_, talk)| talk.owed);
        let owed = owed.map(|(peer, talk)| {
            talk.owed = false;
            *peer
        });
        owed.collect()
    }

    /// There is nothing to say to `peer` any more.
    pub(crate) fn end_talk(&mut self, peer: PeerId) {
        self.talks.remove(&peer);
    }

    /// Only those that `is_known` names are known.
    pub(super) fn retain_talks(&mut self, is_known: impl Fn(&PeerId) -> bool) {
        self.talks.retain(|peer, _| is_known(peer));
    }

    /// A handshake told the number `theirs` of the lists that `peer` holds. The lower side pulls `first`.
    fn compare(&mut self, now: Instant, peer: PeerId, theirs: u64, first: bool) -> Vec<Said> {
        let ours = self.held.state();
        if theirs > ours.number || (first && ours.number > 0 && theirs == ours.number) {
            // Two lists of one number are told apart by their digest.
            vec![Said::Held(ours)]
        } else if theirs < ours.number {
            self.hand_over(now, peer, |_| true)
        } else {
            Vec::new()
        }
    }

    /// `peer` says what it holds.
    fn answer(&mut self, now: Instant, peer: PeerId, theirs: ListState) -> Vec<Said> {
        let ours = self.held.state();
        if ours.is_above(&theirs) {
            self.hand_over(now, peer, |_| true)
        } else if theirs.is_above(&ours) {
            vec![Said::Held(ours)]
        } else {
            Vec::new()
        }
    }

    /// Lists for a peer in session.
    fn hand_over(
        &mut self,
        now: Instant,
        peer: PeerId,
        wanted: impl Fn(&SignedRevocations) -> bool,
    ) -> Vec<Said> {
        let state = self.held.state();
        let talk = self.talks.entry(peer).or_default();
        if talk
            .sent
            .is_some_and(|(sent, at)| sent == state && now < at + SAME_AGAIN)
        {
            // It may have restarted since, before its disk had them.
            talk.owed = true;
            return Vec::new();
        }
        talk.sent = Some((state, now));
        let wanted = self.held.lists().iter().filter(|list| wanted(list));
        wanted.map(|list| Said::List(list.encode())).collect()
    }
}

/// What a change of the gate's book means.
#[derive(Debug)]
#[must_use]
pub(crate) struct Changed {
    /// What was held before.
    before: Arc<Revocations>,
    /// Those that lost a certificate.
    pub(crate) gone: BTreeSet<PeerId>,
}

/// What the lists say of this node.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Own {
    /// Its certificate counts.
    Counts,
    /// It does not; another one is to be shown.
    Void,
    /// There is no other: this node is out.
    Out,
}

impl Standing {
    /// Is this node out? It meets nobody then.
    pub(crate) fn is_out(&self) -> bool {
        is_out(
            &self.identity.membership,
            &self.revocations.held,
            self.identity.me,
        )
    }

    /// A piece of a list came from `id`.
    pub(crate) fn handle_list_page(&mut self, out: &mut Outside, id: PeerId, page: Page<'_>) {
        let talk = self.revocations.talks.entry(id).or_default();
        match talk.incoming.take(page) {
            Ok(None) => {}
            Ok(Some(list)) => {
                if let Err(error) = self.learn_list(out, id, &list) {
                    tracing::warn!(peer = %id, error = format!("{error:#}"), "a revocation list does not count");
                    out.drops.count(DropReason::ControlMalformed);
                }
            }
            Err(reason) => out.drops.count(reason),
        }
    }

    /// The gate's book has changed to `held`.
    pub(crate) fn handle_revocations(&mut self, held: Arc<Revocations>) -> Changed {
        let before = std::mem::replace(&mut self.revocations.held, Arc::clone(&held));
        tracing::info!(
            list = held.number().0,
            entries = held.entries().len(),
            "revocations"
        );
        // Those that lost a certificate, and those whose certificates were forgotten meanwhile.
        let lost = self.identity.verifier.set_revocations(Arc::clone(&held));
        let named = self.theirs.named_by(&held);
        let gone = lost.into_iter().chain(named).collect();
        Changed { before, gone }
    }

    /// Is it us? Then another certificate is shown, or if there is none this node ends its sessions
    /// and dials nobody until it has joined anew; the user reads which of both it is.
    pub(crate) fn judge_own(&mut self, tick: Tick, out: &mut Outside) -> Own {
        self.warn_of_the_end(tick, out);
        let (me, held) = (self.identity.me, &self.revocations.held);
        let shown = Chain::decode(&self.identity.chain).map(|chain| chain.claimed_invite());
        let Some(entry) = shown.ok().and_then(|invite| held.check(me, invite).err()) else {
            return Own::Counts;
        };
        tracing::error!("{entry}: this is about this node");
        if !self.is_out() {
            return Own::Void;
        }
        self.last_refusal = Some(format!(
            "{entry} (list {}); ask for a new invite",
            held.number().0
        ));
        Own::Out
    }

    /// What is new in the book, for a peer in session.
    pub(crate) fn hand_news(&mut self, now: Instant, peer: PeerId, news: &Changed) -> Vec<Said> {
        let lists = &mut self.revocations;
        lists.hand_over(now, peer, |list| !news.before.lists().contains(list))
    }

    /// A handshake told which list `peer` holds. The lower side pulls `first`.
    pub(crate) fn compare_numbers(
        &mut self,
        now: Instant,
        peer: PeerId,
        theirs: u64,
        first: bool,
    ) -> Vec<Said> {
        self.revocations.compare(now, peer, theirs, first)
    }

    /// `peer` says what it holds.
    pub(crate) fn handle_lists_held(
        &mut self,
        now: Instant,
        peer: PeerId,
        theirs: ListState,
    ) -> Vec<Said> {
        self.revocations.answer(now, peer, theirs)
    }

    /// The newest root documents of this overlay that the gate or the membership has.
    pub(crate) fn known_roots(&self) -> &RootStore {
        let own = self.identity.membership.roots();
        let theirs = &self.revocations.roots;
        if is_newer(theirs, own) { theirs } else { own }
    }

    /// Are `roots` newer than all documents that are known here?
    pub(crate) fn knows_older(&self, roots: &RootStore) -> bool {
        is_newer(roots, self.known_roots())
    }

    /// The gate has learnt newer root documents, and kept them.
    pub(crate) fn handle_roots(&mut self, out: &mut Outside, roots: RootStore) {
        self.revocations.roots = roots;
        self.follow_roots(out);
    }

    /// The node goes by the gate's root documents, too, once they are in the membership.
    pub(crate) fn follow_roots(&self, out: &mut Outside) {
        let roots = &self.revocations.roots;
        if is_newer(roots, self.identity.membership.roots()) {
            let roots = Box::new(roots.clone());
            out.store.put(Write::Edit(Edit::FollowRoots(roots)));
        }
    }

    /// What handshakes are to name as held here.
    pub(crate) fn list_numbers(&self) -> ListNumbers {
        ListNumbers {
            root: self.identity.membership.roots().newest().version,
            revocation: self.revocations.held.number().0,
        }
    }
}

/// Are `one` and `other` documents of the same overlay, and is `one` newer?
fn is_newer(one: &RootStore, other: &RootStore) -> bool {
    one.overlay() == other.overlay() && one.newest().version > other.newest().version
}
