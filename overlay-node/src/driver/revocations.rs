//! Who is revoked: learnt from the control plane, in sessions or by hand; carried out; handed on
//! (TRUST.md 8).
//!
//! The gate of the control plane holds the one copy, because an admission may teach it; here is what
//! a change of it does to sessions and directories. Lists travel in sessions, too: members have no
//! control connections with each other, and the bootstraps may be gone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane::Gatekeeper;
use node_core::store::{Edit, Write};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::handshake::ListNumbers;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    Chain, ListState, Membership, Page, PageAssembly, Revocations, RootStore, SignedRevocations,
};
use overlay_proto::wire::peer_message::PeerMessage;

use super::node::Tick;
use super::run::Driver;

/// The same lists go to one peer at most this often: a question of 17 bytes must not cost 63 KiB
/// each time.
const SAME_AGAIN: Duration = Duration::from_secs(10);

/// What one peer is sending, and what it was sent. Removed with the peer's last session.
#[derive(Debug, Default)]
pub(crate) struct ListTalk {
    incoming: PageAssembly,
    sent: Option<(ListState, Instant)>,
    /// A part of what it was sent got lost: what is held has to be compared again.
    owed: bool,
}

/// What is revoked, as far as it has been carried out.
#[derive(Debug)]
pub(crate) struct Followed {
    /// Those of the gate.
    pub(crate) held: Arc<Revocations>,
    /// The lists on their way: at most one entry for each peer.
    pub(crate) talks: HashMap<PeerId, ListTalk>,
}

impl Followed {
    pub(super) fn new(held: Arc<Revocations>) -> Self {
        Self {
            held,
            talks: HashMap::new(),
        }
    }

    /// Something of what `peer` was sent did not get there.
    pub(super) fn owe(&mut self, peer: PeerId) {
        let talk = self.talks.entry(peer).or_default();
        (talk.sent, talk.owed) = (None, true);
    }

    /// Those with whom what is held is to be compared again.
    pub(super) fn take_owed(&mut self) -> Vec<PeerId> {
        let owed = self.talks.iter_mut().filter(|(_, talk)| talk.owed);
        let owed = owed.map(|(peer, talk)| {
            talk.owed = false;
            *peer
        });
        owed.collect()
    }
}

impl Driver {
    /// Has the gate learnt more? Then whoever is named is cut off here, and all others in session
    /// are told.
    pub(crate) fn follow_revocations(&mut self, tick: Tick) {
        let held = self.gate.revocations();
        if Arc::ptr_eq(&held, &self.revocations.held) {
            return;
        }
        let before = std::mem::replace(&mut self.revocations.held, Arc::clone(&held));
        tracing::info!(
            list = held.number().0,
            entries = held.entries().len(),
            "revocations"
        );
        self.tell_numbers();
        // Those that lost a certificate, and those whose certificates were forgotten meanwhile.
        let lost = self.node.verifier.set_revocations(Arc::clone(&held));
        let named = self.peers.values().filter(|peer| {
            let shown = peer.invite.is_some_and(|invite| held.names_invite(invite));
            shown || held.names_node(peer.id)
        });
        let gone: BTreeSet<PeerId> = lost.into_iter().chain(named.map(|peer| peer.id)).collect();
        for peer in gone {
            self.cut_off(tick, peer);
        }
        self.judge_own(tick);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            if self.tunnels.current(id).is_some() {
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
        self.tunnels.close(tick.now, id);
        self.fib_stale = true;
        let mut remains = false;
        for network in &mut self.networks {
            let rights = self
                .node
                .verifier
                .rights_in(id, &network.secret.id, tick.wall);
            if rights.is_some() {
                remains = true;
            } else {
                network.directory.handle_member_gone(tick.now, id);
                self.touched_networks.insert(network.index);
            }
        }
        tracing::info!(peer = %id, remains, "revoked");
        if remains {
            self.touch_peer(id);
        } else if self.peers.remove(&id).is_some() {
            self.revocations.talks.remove(&id);
            self.peers_changed = true;
        }
    }

    /// Is it us? Then another certificate is shown, or if there is none this node ends its sessions
    /// and dials nobody until it has joined anew.
    fn judge_own(&mut self, tick: Tick) {
        let (me, held) = (self.node.me, Arc::clone(&self.revocations.held));
        let shown = Chain::decode(&self.node.chain).map(|chain| chain.claimed_invite());
        let Some(entry) = shown.ok().and_then(|invite| held.check(me, invite).err()) else {
            return;
        };
        self.last_refusal = Some(format!(
            "{entry} (list {}); ask for a new invite",
            held.number().0
        ));
        tracing::error!("{entry}: this is about this node");
        if is_out(&self.node.membership, &held, me) {
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            for peer in peers {
                self.tunnels.close(tick.now, peer);
                self.peers.remove(&peer);
            }
            self.fib_stale = true;
            self.peers_changed = true;
        }
        if let Err(error) = self.adopt(tick, self.node.membership.clone()) {
            tracing::error!(error = format!("{error:#}"), "no other certificate is used");
        }
    }

    /// Is this node out? It meets nobody then.
    pub(crate) fn is_out(&self) -> bool {
        is_out(&self.node.membership, &self.revocations.held, self.node.me)
    }

    /// A handshake told which list `id` holds. The lower side pulls first.
    pub(crate) fn compare_numbers(&mut self, tick: Tick, id: PeerId, theirs: u64, first: bool) {
        let ours = self.revocations.held.state();
        if theirs > ours.number || (first && ours.number > 0 && theirs == ours.number) {
            // Two lists of one number are told apart by their digest.
            self.send_message(tick, id, &PeerMessage::ListsHeld(ours));
        } else if theirs < ours.number {
            self.send_lists(tick, id, |_| true);
        }
    }

    /// `id` says what it holds.
    pub(crate) fn handle_lists_held(&mut self, tick: Tick, id: PeerId, theirs: ListState) {
        let ours = self.revocations.held.state();
        if ours.is_above(&theirs) {
            self.send_lists(tick, id, |_| true);
        } else if theirs.is_above(&ours) {
            self.send_message(tick, id, &PeerMessage::ListsHeld(ours));
        }
    }

    /// A piece of a list came from `id`.
    pub(crate) fn handle_list_page(&mut self, id: PeerId, page: Page<'_>) {
        let talk = self.revocations.talks.entry(id).or_default();
        match talk.incoming.take(page) {
            Ok(None) => {}
            Ok(Some(list)) => {
                if let Err(error) = self.learn_list(id, &list) {
                    tracing::warn!(peer = %id, error = format!("{error:#}"), "a revocation list does not count");
                    self.drops.count(DropReason::ControlMalformed);
                }
            }
            Err(reason) => self.drops.count(reason),
        }
    }

    /// The gate has learnt newer root documents, and kept them: the node goes by them, too.
    pub(crate) fn follow_roots(&mut self) {
        let version = |roots: &RootStore| roots.newest().version;
        if version(&self.gate.roots()) <= version(self.node.membership.roots()) {
            return;
        }
        let roots = Box::new(self.gate.roots());
        self.store.put(Write::Edit(Edit::FollowRoots(roots)));
    }

    /// Handshakes name what we hold.
    pub(crate) fn tell_numbers(&mut self) {
        self.tunnels.set_lists(ListNumbers {
            root: self.node.membership.roots().newest().version,
            revocation: self.revocations.held.number().0,
        });
    }

    /// Hands lists to a peer in session.
    fn send_lists(&mut self, tick: Tick, id: PeerId, wanted: impl Fn(&SignedRevocations) -> bool) {
        let held = Arc::clone(&self.revocations.held);
        let state = held.state();
        let talk = self.revocations.talks.entry(id).or_default();
        if talk
            .sent
            .is_some_and(|(sent, at)| sent == state && tick.now < at + SAME_AGAIN)
        {
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

/// Does no certificate of this node count any more?
pub(super) fn is_out(membership: &Membership, revocations: &Revocations, me: PeerId) -> bool {
    showable(membership, revocations, me).is_none()
}

/// The certificate to show: the usual one, or one that is not revoked.
pub(super) fn showable<'a>(
    membership: &'a Membership,
    revocations: &Revocations,
    me: PeerId,
) -> Option<&'a Chain> {
    let counts = |chain: &&Chain| revocations.check(me, chain.claimed_invite()).is_ok();
    let usual = membership.chain().filter(counts);
    let with_receipt = |chain: &&Chain| chain.has_receipt();
    let others = || membership.chains().iter().filter(counts);
    usual
        .or_else(|| others().find(with_receipt))
        .or_else(|| others().next())
}

#[cfg(test)]
mod tests {
    use overlay_proto::SeededEntropy;
    use overlay_proto::membership::{
        AuthorityKey, InviteRequest, InviteUses, NetworkAuthority, NodeKey, OverlaySecret, Revoked,
        Rights, SignedRoot, issue_invite,
    };
    use overlay_proto::time::UnixTime;

    use super::*;

    const BORN: UnixTime = UnixTime(1_800_000_000);

    /// An authority, and a node that joined by an invite for each of two networks.
    fn two_invites() -> (AuthorityKey, NodeKey, Membership) {
        let mut entropy = SeededEntropy::new(8);
        let authority = AuthorityKey::generate(&mut entropy);
        let roots = RootStore::from_roots([SignedRoot::first(&authority, BORN)]).unwrap();
        let secret = OverlaySecret::generate(&mut entropy);
        let witness = NodeKey::generate(&mut entropy);
        let node = NodeKey::generate(&mut entropy);
        let mut all: Option<Membership> = None;
        for name in ["lab", "home"] {
            let network = NetworkAuthority::create(name.parse().unwrap(), 1_500, &mut entropy);
            let request = InviteRequest {
                networks: vec![network.secret()],
                rights: Rights::DEFAULT,
                name: None,
                join_until: UnixTime(BORN.0 + 3_600),
                member_until: UnixTime(BORN.0 + 86_400),
                max_nodes: 1,
                witness: None,
                bootstraps: vec![format!("/ip4/192.0.2.1/tcp/1/p2p/{}", witness.peer_id())],
            };
            let invite =
                issue_invite(&authority, &roots, &secret, request, BORN, &mut entropy).unwrap();
            let mut joined = invite.accept(&node, BORN).unwrap();
            let chain = joined.chain().unwrap().clone();
            let application = chain.apply(&roots, BORN).unwrap();
            let receipt = InviteUses::default().count(&application, BORN).unwrap();
            let receipt = receipt.sign(&witness, roots.overlay());
            joined.take_receipt(chain.with_receipt(receipt)).unwrap();
            match &mut all {
                Some(all) => drop(all.merge(joined, BORN).unwrap()),
                None => all = Some(joined),
            }
        }
        (authority, node, all.unwrap())
    }

    #[test]
    fn trust_8_a_node_shows_what_is_not_revoked_and_is_out_with_its_last_invite() {
        let (authority, node, membership) = two_invites();
        let me = node.peer_id();
        let mut all = Revocations::default();
        let mut revoke = |entry| {
            let list = all.successor(1, entry).unwrap();
            let list = SignedRevocations::sign(&authority, membership.overlay(), list);
            all.take(list, membership.roots()).unwrap();
            showable(&membership, &all, me).map(Chain::claimed_invite)
        };
        let usual = membership.chain().unwrap().claimed_invite();
        let other = membership
            .chains()
            .iter()
            .map(Chain::claimed_invite)
            .find(|invite| *invite != usual)
            .unwrap();
        assert_eq!(revoke(Revoked::Node(PeerId([9; 32]))), Some(usual));
        assert_eq!(revoke(Revoked::Invite(usual)), Some(other));
        assert_eq!(revoke(Revoked::Invite(other)), None);
        assert!(is_out(&membership, &all, me));
    }
}
