//! What happens when datagrams come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nat_traversal::entropy::Entropy;
use nat_traversal::path::Path;
use sha2::{Digest, Sha256};

use crate::drop_reason::DropReason;
use crate::handshake::{
    Agreement, FinishError, PeerVerifier, ask_for_cookie, check_request, cookie_receiver, finish,
    has_mac2, read_cookie, read_request, respond, response_receiver, without_mac2,
};
use crate::ids::PeerId;
use crate::session::{Role, Session, SessionNames};
use crate::time::UnixTime;
use crate::wire::{DatagramKind, SessionIndex};

use super::limits::Source;
use super::peer::{Held, Installed, Next, Peer};
use super::{CloseReason, HANDSHAKE_TIMEOUT, TunnelEvent, Tunnels};

/// How long an answered handshake waits for the first packet: as long as the initiator repeats
/// message 1, and a while for its greeting.
const CONFIRM_WITHIN: Duration = Duration::from_secs(HANDSHAKE_TIMEOUT.as_secs() + 2);

impl Tunnels {
    /// Takes a datagram of kind `HandshakeInit`, `HandshakeResponse` or `CookieReply`.
    ///
    /// # Errors
    /// The reason to count when the datagram was dropped. A repetition of what is known is none.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        wall: UnixTime,
        entropy: &mut dyn Entropy,
        verifier: &dyn PeerVerifier,
        datagram: &[u8],
        from: Path,
    ) -> Result<(), DropReason> {
        match DatagramKind::parse(datagram)? {
            DatagramKind::HandshakeInit => {
                self.handle_request(now, wall, entropy, verifier, datagram, from)
            }
            DatagramKind::HandshakeResponse => {
                self.handle_response(now, wall, verifier, datagram, from)
            }
            DatagramKind::CookieReply => self.handle_cookie(datagram, from),
            _ => Err(DropReason::UnknownDatagramKind),
        }
    }

    /// A packet opened under the session `index`, which may have [awaited](Session::awaits_confirmation)
    /// it, and came on `path` in a datagram of `received` bytes.
    pub fn handle_opened(
        &mut self,
        now: Instant,
        index: SessionIndex,
        path: Path,
        received: usize,
    ) {
        let Some(&peer) = self.by_index.get(&index) else {
            return;
        };
        let Some(mut state) = self.take(peer) else {
            return;
        };
        let confirmed = state
            .next
            .take_if(|next| next.held.session.local_index == index);
        if let Some(next) = confirmed {
            self.half_open.remove(&next.request);
            next.held.session.confirm();
            state.path = Some(path);
            // The initiator learns that its greeting was heard.
            self.keep_alive(&next.held.session, path);
            self.install(now, peer, &mut state, next.held, (path, received));
        }
        self.put(now, peer, state);
    }

    /// The handshake under way with `peer` says its message 1 on `path` now, whatever its schedule.
    /// `false`: there is none on that path.
    ///
    /// For a peer that does not know yet that we have restarted: its packets for sessions of the
    /// run before show that it is there. They prove nothing, so the caller bounds how often.
    pub fn repeat(&mut self, peer: PeerId, path: Path) -> bool {
        let pending = self
            .peers
            .get(&peer)
            .and_then(|state| state.pending.as_ref());
        let Some(pending) = pending.filter(|pending| pending.paths.contains(&path)) else {
            return false;
        };
        self.transmits.push(path, pending.message_for(&path));
        true
    }

    /// Message 1.
    fn handle_request(
        &mut self,
        now: Instant,
        wall: UnixTime,
        entropy: &mut dyn Entropy,
        verifier: &dyn PeerVerifier,
        datagram: &[u8],
        from: Path,
    ) -> Result<(), DropReason> {
        check_request(&self.local, datagram)?;
        // A repetition with the mac2 we asked for is the same request.
        let digest: [u8; 32] = Sha256::digest(without_mac2(datagram)).into();
        if let Some(next) = self
            .half_open
            .peer_of(&digest)
            .and_then(|peer| self.peers.get(&peer)?.next.as_ref())
        {
            self.transmits.push(from, next.response.clone());
            return Ok(());
        }
        // All limits before the costly part.
        if self.load.request(now, self.half_open.len()) {
            self.demand_cookie(now, entropy, datagram, from)?;
        }
        let source = Source::of(&from);
        self.half_open.admit(source)?;
        let index = self.draw_index(entropy)?;
        let request = read_request(&self.local, verifier, wall, entropy, datagram)?;
        let peer = request.peer();
        self.timestamps.accept(peer, request.timestamp(), now)?;
        let (agreement, response) = respond(&self.local, request, index, entropy)?;
        let session = new_session(&agreement, index, Role::Responder, now)?;

        let mut state = self
            .take(peer)
            .unwrap_or_else(|| Peer::new(agreement.static_key));
        state.static_key = agreement.static_key;
        if let Some(old) = state.next.take() {
            self.half_open.remove(&old.request);
            self.retire(now, peer, &old.held, CloseReason::Replaced);
        }
        let held = Held {
            session,
            incarnation: agreement.incarnation,
            crossed: state.pending.as_ref().map(|pending| pending.index),
            greeting: None,
            unheard: false,
        };
        self.announce(&state, &held, agreement, (from, datagram.len()));
        self.by_index.insert(index, peer);
        self.half_open.insert(digest, peer, source);
        self.transmits.push(from, response.clone());
        state.next = Some(Next {
            held,
            request: digest,
            response,
            expires: now + CONFIRM_WITHIN,
        });
        self.put(now, peer, state);
        Ok(())
    }

    /// Under load: goes on only with a message that carries the mac2 of its source.
    fn demand_cookie(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        datagram: &[u8],
        from: Path,
    ) -> Result<(), DropReason> {
        let cookie = self.cookies.cookie(now, entropy, &from);
        if has_mac2(datagram, &cookie) {
            return Ok(());
        }
        let reply = ask_for_cookie(&self.local, datagram, &cookie, entropy)?;
        self.transmits.push(from, reply);
        Err(DropReason::HandshakeCookie)
    }

    /// The responder is under load: message 1 goes out again on this path, at once and from now
    /// on with mac2.
    fn handle_cookie(&mut self, datagram: &[u8], from: Path) -> Result<(), DropReason> {
        let index = cookie_receiver(datagram)?;
        let pending = self
            .by_index
            .get(&index)
            .and_then(|peer| self.peers.get_mut(peer)?.pending.as_mut())
            .filter(|pending| pending.index == index && pending.paths.contains(&from))
            .ok_or(DropReason::HandshakeUnexpected)?;
        let cookie = read_cookie(&self.local, &pending.initiation, &pending.message, datagram)?;
        if pending.cookies.contains(&(from, cookie)) {
            return Ok(());
        }
        pending.cookies.retain(|(path, _)| *path != from);
        pending.cookies.push((from, cookie));
        self.transmits.push(from, pending.message_for(&from));
        Ok(())
    }

    /// Message 2.
    fn handle_response(
        &mut self,
        now: Instant,
        wall: UnixTime,
        verifier: &dyn PeerVerifier,
        datagram: &[u8],
        from: Path,
    ) -> Result<(), DropReason> {
        let index = response_receiver(&self.local, datagram)?;
        let Some(&peer) = self.by_index.get(&index) else {
            return Err(DropReason::HandshakeUnexpected);
        };
        let Some(mut state) = self.take(peer) else {
            return Err(DropReason::HandshakeUnexpected);
        };
        let outcome = self.finish_pending(now, wall, verifier, datagram, from, &mut state, index);
        self.put(now, peer, state);
        outcome
    }

    #[allow(clippy::too_many_arguments)] // All of a datagram's context, and the peer taken out.
    fn finish_pending(
        &mut self,
        now: Instant,
        wall: UnixTime,
        verifier: &dyn PeerVerifier,
        datagram: &[u8],
        from: Path,
        state: &mut Peer,
        index: SessionIndex,
    ) -> Result<(), DropReason> {
        let Some(pending) = state.pending.as_mut().filter(|one| one.index == index) else {
            // The same answer came on another path before: the index is a session's by now.
            let known = state
                .sessions()
                .any(|session| session.local_index == index && session.was_initiator());
            return if known {
                Ok(())
            } else {
                Err(DropReason::HandshakeUnexpected)
            };
        };
        let peer = pending.initiation.peer();
        let made = finish(
            &self.local,
            &mut pending.initiation,
            verifier,
            wall,
            datagram,
        )
        .and_then(|agreement| {
            new_session(&agreement, index, Role::Initiator, now)
                .map(|session| (agreement, session))
                .map_err(FinishError::Refused)
        });
        let (agreement, session) = match made {
            Ok(made) => made,
            Err(FinishError::NotThePeer(reason)) => return Err(reason),
            Err(FinishError::Refused(reason)) => {
                self.drop_pending(now, state);
                state.retry_at = Some(now + super::timing::RETRY_AFTER);
                self.events
                    .push_back(TunnelEvent::HandshakeFailed { peer, reason });
                return Err(reason);
            }
        };
        state.pending = None;
        state.retry_at = None;
        self.pending = self.pending.saturating_sub(1);
        let mut held = Held {
            session,
            incarnation: agreement.incarnation,
            crossed: None,
            greeting: None,
            unheard: false,
        };
        state.path = Some(from);
        self.announce(state, &held, agreement, (from, datagram.len()));
        self.start_greeting(now, &mut held, from);
        self.install(now, peer, state, held, (from, datagram.len()));
        Ok(())
    }

    fn announce(
        &mut self,
        state: &Peer,
        held: &Held,
        agreement: Agreement,
        (path, received): (Path, usize),
    ) {
        self.events.push_back(TunnelEvent::Established {
            peer: agreement.peer,
            session: Arc::clone(&held.session),
            path,
            received,
            first: state.sessions().next().is_none(),
            incarnation: agreement.incarnation,
            peer_chain: agreement.chain,
            static_key: agreement.static_key,
            lists: agreement.lists,
        });
    }

    /// A session that may send.
    fn install(
        &mut self,
        now: Instant,
        peer: PeerId,
        state: &mut Peer,
        held: Held,
        (path, received): (Path, usize),
    ) {
        let session = Arc::clone(&held.session);
        let mut dropped = Vec::new();
        let outcome = state.install(held, self.local.me, peer, &mut dropped);
        for (held, restarted) in dropped {
            let reason = if restarted {
                CloseReason::PeerRestarted
            } else {
                CloseReason::Replaced
            };
            self.retire(now, peer, &held, reason);
        }
        match outcome {
            Installed::Fresh => self.events.push_back(TunnelEvent::Usable {
                peer,
                session,
                path,
                received,
            }),
            Installed::Rekeyed => self
                .events
                .push_back(TunnelEvent::Rekeyed { peer, session }),
            Installed::Aside => {}
        }
    }
}

fn new_session(
    agreement: &Agreement,
    index: SessionIndex,
    role: Role,
    now: Instant,
) -> Result<Arc<Session>, DropReason> {
    let names = SessionNames {
        peer: agreement.peer,
        local_index: index,
        remote_index: agreement.remote_index,
        networks: agreement.networks.clone(),
    };
    Session::new(names, &agreement.split, agreement.suite, role, now).map(Arc::new)
}
