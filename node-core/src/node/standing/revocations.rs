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
use overlay_proto::wire::peer_message::PeerMessage;

use super::Standing;
use crate::node::outside::Outside;
use crate::node::switchboard::run::Node;
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
    pub(crate) talks: BTreeMap<PeerId, ListTalk>,
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

impl Node {
    /// The gate's book has changed to `held`: whoever is named is cut off here, and all others in session
    /// are told. It comes before any input that may depend on it.
    pub fn handle_revocations(&mut self, tick: Tick, held: Arc<Revocations>) {
        let before = std::mem::replace(&mut self.standing.revocations.held, Arc::clone(&held));
        tracing::info!(
            list = held.number().0,
            entries = held.entries().len(),
            "revocations"
        );
        self.tell_numbers();
        // Those that lost a certificate, and those whose certificates were forgotten meanwhile.
        let lost = self
            .standing
            .identity
            .verifier
            .set_revocations(Arc::clone(&held));
        let named = self.peers.known.values().filter(|peer| {
            let shown = peer
                .shown
                .invite
                .is_some_and(|invite| held.names_invite(invite));
            shown || held.names_node(peer.id)
        });
        let gone: BTreeSet<PeerId> = lost.into_iter().chain(named.map(|peer| peer.id)).collect();
        for peer in gone {
            self.cut_off(tick, peer);
        }
        self.judge_own(tick);
        let ids: Vec<PeerId> = self.peers.known.keys().copied().collect();
        for id in ids {
            if self.peers.tunnels.current(id).is_some() {
                self.send_lists(tick, id, |list| !before.lists().contains(list));
            }
        }
        // Now that it is known who must not have them.
        self.spread_epochs(tick);
        self.save_state(tick);
    }

    /// A certificate of `id` is void: its sessions end, and it leaves the networks that no other
    /// certificate of its proves.
    pub(crate) fn cut_off(&mut self, tick: Tick, id: PeerId) {
        self.peers.tunnels.close(tick.now, id);
        self.outside.fib_stale = true;
        let mut remains = false;
        for network in &mut self.networks.all {
            let rights =
                self.standing
                    .identity
                    .verifier
                    .rights_in(id, &network.secret.id, tick.wall);
            if rights.is_some() {
                remains = true;
            } else {
                network.directory.handle_member_gone(tick.now, id);
                self.networks.touched.insert(network.index);
            }
        }
        tracing::info!(peer = %id, remains, "revoked");
        if remains {
            self.touch_peer(id);
        } else if self.peers.known.remove(&id).is_some() {
            self.standing.revocations.talks.remove(&id);
            self.peers.changed = true;
        }
    }

    /// Is it us? Then another certificate is shown, or if there is none this node ends its sessions
    /// and dials nobody until it has joined anew; the user reads which of both it is.
    fn judge_own(&mut self, tick: Tick) {
        let (me, held) = (
            self.standing.identity.me,
            Arc::clone(&self.standing.revocations.held),
        );
        self.standing.warn_of_the_end(tick, &mut self.outside);
        let shown =
            Chain::decode(&self.standing.identity.chain).map(|chain| chain.claimed_invite());
        let Some(entry) = shown.ok().and_then(|invite| held.check(me, invite).err()) else {
            return;
        };
        tracing::error!("{entry}: this is about this node");
        if is_out(&self.standing.identity.membership, &held, me) {
            self.standing.last_refusal = Some(format!(
                "{entry} (list {}); ask for a new invite",
                held.number().0
            ));
            let peers: Vec<PeerId> = self.peers.known.keys().copied().collect();
            for peer in peers {
                self.peers.tunnels.close(tick.now, peer);
                self.peers.known.remove(&peer);
            }
            self.outside.fib_stale = true;
            self.peers.changed = true;
        }
        if let Err(error) = self.adopt(tick, self.standing.identity.membership.clone()) {
            tracing::error!(error = format!("{error:#}"), "no other certificate is used");
        }
    }

    /// A handshake told which list `id` holds. The lower side pulls first.
    pub(crate) fn compare_numbers(&mut self, tick: Tick, id: PeerId, theirs: u64, first: bool) {
        let ours = self.standing.revocations.held.state();
        if theirs > ours.number || (first && ours.number > 0 && theirs == ours.number) {
            // Two lists of one number are told apart by their digest.
            self.send_message(tick, id, &PeerMessage::ListsHeld(ours));
        } else if theirs < ours.number {
            self.send_lists(tick, id, |_| true);
        }
    }

    /// `id` says what it holds.
    pub(crate) fn handle_lists_held(&mut self, tick: Tick, id: PeerId, theirs: ListState) {
        let ours = self.standing.revocations.held.state();
        if ours.is_above(&theirs) {
            self.send_lists(tick, id, |_| true);
        } else if theirs.is_above(&ours) {
            self.send_message(tick, id, &PeerMessage::ListsHeld(ours));
        }
    }

    /// Hands lists to a peer in session.
    fn send_lists(&mut self, tick: Tick, id: PeerId, wanted: impl Fn(&SignedRevocations) -> bool) {
        let held = Arc::clone(&self.standing.revocations.held);
        let state = held.state();
        let talk = self.standing.revocations.talks.entry(id).or_default();
        if talk
            .sent
            .is_some_and(|(sent, at)| sent == state && tick.now < at + SAME_AGAIN)
        {
            // It may have restarted since, before its disk had them.
            talk.owed = true;
            return;
        }
        talk.sent = Some((state, tick.now));
        for list in held.lists().iter().filter(|list| wanted(list)) {
            for page in Page::split(&list.encode()) {
                self.send_message(tick, id, &PeerMessage::ListPage(page));
            }
        }
    }
}

/// Are `one` and `other` documents of the same overlay, and is `one` newer?
fn is_newer(one: &RootStore, other: &RootStore) -> bool {
    one.overlay() == other.overlay() && one.newest().version > other.newest().version
}
