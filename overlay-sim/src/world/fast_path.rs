//! The fast path of a simulated host: what a worker decides with the `Fib`, one frame at a time.
//!
//! It mirrors `overlay-node/src/workers/`: what is punted there is punted here. It has no batches, no offloads, no
//! MSS clamp, no marks, and no watch for loops; frames are always as they are on a wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nat_traversal::path::Path;
use nat_traversal::relay;
use node_core::punt::Punt;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, VlanId, classify, ethertype};
use overlay_proto::ids::PeerId;
use overlay_proto::segment::is_for_nodes;
use overlay_proto::session::Session;
use overlay_proto::switching::{
    Accept, DropCounters, Fib, FibPeer, FibSession, Forward, MacKey, NetIndex, PeerCounters,
    PuntReason,
};
use overlay_proto::wire::{
    DataHeader, DatagramKind, InnerHeader, InnerKind, Lane, PieceBudget, Reassembler, Selector,
    SessionIndex, max_frame, sizes, split,
};

/// The lane of the one worker.
const LANE: Lane = Lane(1);

/// The largest sealed datagram.
const MAX_SEALED: usize = 9_000;

/// As the workers' bounds of the same names.
const MAX_SEEN: usize = 4_096;
const MAX_STRAYS: usize = 64;
const MAX_REASSEMBLERS: usize = 1_024;
const STRAY_EVERY: Duration = Duration::from_secs(1);
const TOLD_PER_SECOND: u32 = 100;

/// What comes of a frame or datagram.
#[derive(Debug)]
pub(super) enum Out {
    /// For the slow path.
    Punt(Punt),
    /// For the network.
    Send(SocketAddr, Vec<u8>),
    /// For the tap of a network.
    Write(NetIndex, Vec<u8>, Arc<PeerCounters>),
}

/// The worker of one run of a node.
#[derive(Debug, Default)]
pub(super) struct FastPath {
    pub(super) fib: Arc<Fib>,
    /// Drops by reason, the node's.
    drops: Arc<DropCounters>,
    budget: PieceBudget,
    /// Bounded by [`MAX_REASSEMBLERS`].
    reassembly: BTreeMap<PeerId, Reassembler>,
    /// Bounded by [`MAX_SEEN`].
    seen: BTreeMap<SessionIndex, Path>,
    /// Bounded by [`MAX_STRAYS`].
    strays: (Option<Instant>, BTreeSet<Path>),
    next_frame_id: u32,
    /// The second, and how many frames were shown for the addresses in them.
    told: (u64, u32),
    out: Vec<Out>,
}

impl FastPath {
    /// One that counts what it drops there.
    pub(super) fn with_drops(drops: Arc<DropCounters>) -> Self {
        Self {
            drops,
            ..Self::default()
        }
    }

    /// A datagram has come over `path`.
    pub(super) fn arrive(&mut self, now: Instant, path: Path, datagram: &mut [u8]) -> Vec<Out> {
        let fib = Arc::clone(&self.fib);
        if let Err(reason) = self.sort(&fib, now, path, datagram) {
            self.drops.count(reason);
        }
        std::mem::take(&mut self.out)
    }

    /// Split frames whose pieces did not come are forgotten.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let drops = &self.drops;
        self.reassembly.retain(|_, reassembler| {
            for _ in 0..reassembler.expire(now) {
                drops.count(DropReason::PieceTimeout);
            }
            reassembler.bytes() > 0
        });
    }

    fn sort(
        &mut self,
        fib: &Fib,
        now: Instant,
        path: Path,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        match DatagramKind::parse(datagram)? {
            DatagramKind::Data => self.open(fib, now, path, datagram),
            DatagramKind::Relayed if path.relay.is_none() => {
                let (path, inside) = unwrap_relayed(fib, &path, datagram)?;
                self.sort(fib, now, path, inside)
            }
            DatagramKind::Relayed => Err(DropReason::RelayInvalid),
            _ if datagram.len() > sizes::MAX_UDP_PAYLOAD => Err(DropReason::MalformedDatagram),
            _ => {
                let bytes = (&*datagram).into();
                self.punt(Punt::Datagram { path, bytes });
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        fib: &Fib,
        now: Instant,
        path: Path,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let header = DataHeader::parse(datagram)?;
        let Some(from) = fib.sessions.get(&header.receiver) else {
            self.note_stray(now, path);
            return Err(DropReason::UnknownSession);
        };
        let received = datagram.len();
        let plaintext = from.session.open_in_place(&header, datagram)?;
        self.notice(from, path, received);
        let (inner, _) = InnerHeader::parse(plaintext)?;
        let body = plaintext.get(inner.encoded_len()..).unwrap_or_default();
        match inner.kind {
            InnerKind::Frame => self.judge(fib, from, &inner, body),
            InnerKind::Piece(_) => {
                let peer = from.session.peer;
                let reassembler = self.reassembler(peer)?;
                let whole = reassembler.handle_piece(now, header.receiver, &inner, body)?;
                whole.map_or(Ok(()), |whole| self.judge(fib, from, &inner, &whole.frame))
            }
            _ if body.len() > sizes::MAX_UDP_PAYLOAD => Err(DropReason::MalformedDatagram),
            InnerKind::Control | InnerKind::Probe | InnerKind::KeepAlive => {
                self.punt(Punt::Inner {
                    session: header.receiver,
                    peer: from.session.peer,
                    path,
                    header: inner,
                    body: body.into(),
                });
                Ok(())
            }
        }
    }

    /// Where a frame of a peer goes.
    fn judge(
        &mut self,
        fib: &Fib,
        from: &FibSession,
        inner: &InnerHeader,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let parsed = EthernetFrame::parse(frame)?;
        if fib.is_for_own_socket(&parsed) {
            return Err(DropReason::OverlayOnItself);
        }
        let src = MacKey {
            vlan: parsed.vlan(),
            mac: parsed.src(),
        };
        let (net, reason) = if inner.forwarded.is_some() {
            let net = fib.network_of(&from.session, inner.selector);
            let net = net.ok_or(DropReason::UnknownNetwork)?;
            (net, PuntReason::SourceNotClaimed)
        } else {
            match fib.accept(from, inner.selector, src, parsed.dst()) {
                Accept::Deliver(net, peer) => {
                    let counters = Arc::clone(&peer.counters);
                    self.out.push(Out::Write(net, frame.to_vec(), counters));
                    return Ok(());
                }
                Accept::Punt(net, reason) => (net, reason),
                Accept::Drop(reason) => return Err(reason),
            }
        };
        self.punt(Punt::PeerFrame {
            net,
            peer: from.session.peer,
            reason,
            hops: inner.hops,
            forwarded: inner.forwarded,
            frame: frame.into(),
        });
        Ok(())
    }

    /// Seals a message of the channel to `to`; nothing comes of it without a session and a path.
    pub(super) fn say(&mut self, to: PeerId, body: &[u8]) -> Vec<Out> {
        let fib = Arc::clone(&self.fib);
        let peer = fib.peers.iter().find(|peer| peer.peer == to);
        let ways = peer.and_then(|peer| Some((peer.session.as_ref()?, peer.path.as_ref()?)));
        if let Some((session, path)) = ways {
            let header = InnerHeader::plain(InnerKind::Control);
            let sent = seal(session, &header, body).and_then(|out| self.push(&fib, path, &out));
            if let Err(reason) = sent {
                self.drops.count(reason);
            }
        }
        std::mem::take(&mut self.out)
    }

    fn note_stray(&mut self, now: Instant, path: Path) {
        let (since, paths) = &mut self.strays;
        let over = |since: Instant| now.saturating_duration_since(since) >= STRAY_EVERY;
        if since.is_none_or(over) {
            *since = Some(now);
            paths.clear();
        }
        if paths.len() < MAX_STRAYS && paths.insert(path) {
            self.punt(Punt::Stray { path });
        }
    }

    fn notice(&mut self, from: &FibSession, path: Path, received: usize) {
        let session = from.session.local_index;
        if self.seen.get(&session) == Some(&path) {
            return;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        self.seen.insert(session, path);
        self.punt(Punt::Opened {
            session,
            peer: from.session.peer,
            path,
            received,
        });
    }

    fn reassembler(&mut self, peer: PeerId) -> Result<&mut Reassembler, DropReason> {
        if self.reassembly.len() >= MAX_REASSEMBLERS && !self.reassembly.contains_key(&peer) {
            return Err(DropReason::PieceOverflow);
        }
        let budget = self.budget.clone();
        let new = || Reassembler::new(budget);
        Ok(self.reassembly.entry(peer).or_insert_with(new))
    }

    /// A frame has come out of the tap of `net`; `now_ms` is milliseconds since the node began.
    pub(super) fn leave(&mut self, now_ms: u64, net: NetIndex, bytes: &[u8]) -> Vec<Out> {
        let fib = Arc::clone(&self.fib);
        if let Err(reason) = self.forward(&fib, now_ms, net, bytes) {
            self.drops.count(reason);
        }
        std::mem::take(&mut self.out)
    }

    fn forward(
        &mut self,
        fib: &Fib,
        now_ms: u64,
        net: NetIndex,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let frame = EthernetFrame::parse(bytes)?;
        if fib.left_own_socket(&frame) {
            return Err(DropReason::OverlayOnItself);
        }
        let copy = || bytes.into();
        if is_for_nodes(&frame) {
            self.punt(Punt::Beacon { net, frame: copy() });
            return Ok(());
        }
        let src = MacKey {
            vlan: frame.vlan(),
            mac: frame.src(),
        };
        match fib.forward(net, src, frame.dst(), now_ms) {
            Forward::Unicast {
                peer,
                session,
                path,
                selector,
            } => {
                self.tell(now_ms, net, &frame);
                self.send(fib, (peer, session, path, selector), bytes)?;
            }
            Forward::Flood { network, punt } => {
                self.tell(now_ms, net, &frame);
                for &slot in &network.flood {
                    let done = match fib.sendable(slot, network.id) {
                        Some(to) => self.send(fib, to, bytes),
                        None if network.punt_broadcast.is_some() => Ok(()),
                        None => Err(DropReason::NoSession),
                    };
                    if let Err(reason) = done {
                        self.drops.count(reason);
                    }
                }
                if let Some(had) = punt {
                    let had = Arc::clone(had);
                    let frame = copy();
                    self.punt(Punt::LocalBroadcast { net, had, frame });
                }
            }
            Forward::Local => self.tell(now_ms, net, &frame),
            Forward::Punt(reason) => self.punt(Punt::LocalFrame {
                net,
                reason,
                frame: copy(),
            }),
            Forward::Drop(reason) => {
                if reason == DropReason::StandingBy {
                    self.stand_by(net, src.vlan);
                }
                return Err(reason);
            }
        }
        Ok(())
    }

    fn stand_by(&mut self, net: NetIndex, vlan: VlanId) {
        self.punt(Punt::StandingBy { net, vlan });
    }

    /// Shows the slow path a frame that tells an address of its source.
    fn tell(&mut self, now_ms: u64, net: NetIndex, frame: &EthernetFrame<'_>) {
        let kinds = [ethertype::ARP, ethertype::RARP, ethertype::IPV6];
        let second = now_ms / 1_000;
        if second != self.told.0 {
            self.told = (second, 0);
        }
        if !kinds.contains(&frame.ethertype()) || self.told.1 >= TOLD_PER_SECOND {
            return;
        }
        let evidence = classify(frame);
        if evidence.whole_machine || !evidence.ips.is_empty() {
            self.told.1 += 1;
            let frame = frame.bytes().into();
            self.punt(Punt::LocalEvidence { net, frame });
        }
    }

    /// Seals a frame for one peer: in one datagram if it fits, else in pieces.
    fn send(
        &mut self,
        fib: &Fib,
        (peer, session, path, selector): (&FibPeer, &Arc<Session>, &Path, Selector),
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let limit = peer.datagram_limit.min(MAX_SEALED);
        if frame.len() <= max_frame(limit) {
            let sealed = seal(session, &InnerHeader::frame(selector), frame)?;
            self.push(fib, path, &sealed)?;
        } else {
            let plan = split(frame.len(), limit).ok_or(DropReason::FrameTooLarge)?;
            let frame_id = (u32::from(LANE.0) << 24) | (self.next_frame_id & 0x00ff_ffff);
            self.next_frame_id = self.next_frame_id.wrapping_add(1);
            for (piece, range) in plan.pieces(frame_id) {
                let body = frame.get(range).ok_or(DropReason::FrameTooLarge)?;
                let sealed = seal(session, &InnerHeader::piece(selector, piece), body)?;
                self.push(fib, path, &sealed)?;
            }
        }
        peer.counters.sent(frame.len());
        Ok(())
    }

    fn push(&mut self, fib: &Fib, path: &Path, sealed: &[u8]) -> Result<(), DropReason> {
        let bytes = match path.relay {
            None => sealed.to_vec(),
            Some(route) => {
                let key = fib.relay_keys.get(&route.own).ok_or(DropReason::NoPath)?;
                let mut out = vec![0; relay::HEADER_LEN + sealed.len()];
                let wrapped = relay::wrap(route, key, sealed, &mut out);
                let len = wrapped.map_err(|_| DropReason::RelayInvalid)?;
                out.truncate(len);
                out
            }
        };
        self.out.push(Out::Send(path.remote, bytes));
        Ok(())
    }

    fn punt(&mut self, punt: Punt) {
        self.out.push(Out::Punt(punt));
    }
}

fn seal(session: &Session, header: &InnerHeader, body: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut inner = [0; InnerHeader::MAX_LEN];
    let len = header.write(&mut inner);
    let inner = inner.get(..len).unwrap_or_default();
    let mut out = vec![0; MAX_SEALED + relay::HEADER_LEN];
    let len = session.seal_into(LANE, inner, body, &mut out)?;
    out.truncate(len);
    Ok(out)
}

fn unwrap_relayed<'a>(
    fib: &Fib,
    from: &Path,
    datagram: &'a mut [u8],
) -> Result<(Path, &'a mut [u8]), DropReason> {
    let invalid = |_| DropReason::RelayInvalid;
    let route = relay::route_of(datagram).map_err(invalid)?;
    let key = fib.relay_keys.get(&route.own);
    let key = key.ok_or(DropReason::RelayInvalid)?;
    let (route, range) = relay::unwrap(datagram, key).map_err(invalid)?;
    let inside = datagram.get_mut(range).ok_or(DropReason::RelayInvalid)?;
    Ok((Path::relayed(from.remote, route), inside))
}
