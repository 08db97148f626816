//! A frame in: socket -> session -> open -> parse -> `Fib::accept` -> tap -> guest.

use std::collections::HashMap;

use nat_traversal::path::Path;
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::EthernetFrame;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{Accept, FibSession, MacKey, NetIndex, PuntReason};
use overlay_proto::wire::{
    DataHeader, DatagramKind, InnerHeader, InnerKind, L4Checksum, PieceBudget, Reassembler,
    SessionIndex,
};
use tap_bridge::{FrameQueue, TxFrame};

use super::punt::{Context, Punt};

/// Peers whose split frames one worker rejoins at once; removed when nothing of theirs waits.
const MAX_REASSEMBLERS: usize = 1024;

/// Sessions whose last path a worker remembers. All are forgotten when it is full: that costs one
/// more [`Punt::Opened`] each.
const MAX_SEEN: usize = 4096;

/// The taps of a worker.
#[derive(Default)]
pub(super) struct Taps(pub(super) Vec<(NetIndex, Box<dyn FrameQueue>)>);

impl Taps {
    fn write(&mut self, context: &Context<'_>, net: NetIndex, frame: &[u8]) -> bool {
        let Some((_, queue)) = self.0.iter_mut().find(|(of, _)| *of == net) else {
            context.drops.count(DropReason::TapError);
            return false;
        };
        let report = queue.write_batch(&[TxFrame::plain(frame)]);
        context.drops.add(DropReason::TapFull, report.full as u64);
        context
            .drops
            .add(DropReason::TapError, report.failed as u64);
        report.written == 1
    }
}

/// The receiving half of a worker.
pub(super) struct Incoming {
    budget: PieceBudget,
    /// Bounded by [`MAX_REASSEMBLERS`], emptied by [`Incoming::handle_timeout`].
    reassembly: HashMap<PeerId, Reassembler>,
    /// Bounded by [`MAX_SEEN`].
    seen: HashMap<SessionIndex, Path>,
}

impl Incoming {
    pub(super) fn new(budget: PieceBudget) -> Self {
        Self {
            budget,
            reassembly: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    /// One datagram that came over `path`. Everything that is wrong with it ends here, counted.
    pub(super) fn handle_datagram(
        &mut self,
        context: &Context<'_>,
        path: Path,
        datagram: &mut [u8],
        taps: &mut Taps,
    ) {
        if let Err(reason) = self.sort(context, path, datagram, taps) {
            context.drops.count(reason);
        }
    }

    /// Forgets split frames whose pieces did not come.
    pub(super) fn handle_timeout(&mut self, context: &Context<'_>) {
        self.reassembly.retain(|_, reassembler| {
            let late = reassembler.expire(context.now) as u64;
            let evicted = reassembler.take_evicted() as u64;
            context.drops.add(DropReason::PieceTimeout, late);
            context.drops.add(DropReason::PieceOverflow, evicted);
            reassembler.bytes() > 0
        });
    }

    /// Is there anything for [`Self::handle_timeout`]?
    pub(super) fn waits_for_pieces(&self) -> bool {
        !self.reassembly.is_empty()
    }

    fn sort(
        &mut self,
        context: &Context<'_>,
        path: Path,
        datagram: &mut [u8],
        taps: &mut Taps,
    ) -> Result<(), DropReason> {
        match DatagramKind::parse(datagram)? {
            DatagramKind::Data => self.open(context, path, datagram, taps),
            DatagramKind::Relayed if path.relay.is_none() => {
                let (path, inside) = unwrap_relayed(context, &path, datagram)?;
                self.sort(context, path, inside, taps)
            }
            // No relay over a relay (trust.md 18).
            DatagramKind::Relayed => Err(DropReason::RelayInvalid),
            _ => {
                let bytes = (&*datagram).into();
                context.punt(Punt::Datagram { path, bytes });
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        context: &Context<'_>,
        path: Path,
        datagram: &mut [u8],
        taps: &mut Taps,
    ) -> Result<(), DropReason> {
        let header = DataHeader::parse(datagram)?;
        let from = context
            .fib
            .sessions
            .get(&header.receiver)
            .ok_or(DropReason::UnknownSession)?;
        let plaintext = from.session.open_in_place(&header, datagram)?;
        self.notice(context, from, path);
        let (inner, body) = InnerHeader::parse(plaintext)?;
        match inner.kind {
            InnerKind::Frame => deliver(context, from, &inner, body, taps),
            InnerKind::Piece(_) => {
                let whole = self.reassembler(from.session.peer)?.handle_piece(
                    context.now,
                    header.receiver,
                    &inner,
                    body,
                )?;
                match whole {
                    Some(whole) => deliver(context, from, &inner, &whole.frame, taps),
                    None => Ok(()),
                }
            }
            InnerKind::Control | InnerKind::Probe | InnerKind::KeepAlive => {
                context.punt(Punt::Inner {
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

    /// Tells the slow path once that the session works, and whence its packets come.
    fn notice(&mut self, context: &Context<'_>, from: &FibSession, path: Path) {
        let session = from.session.local_index;
        if self.seen.get(&session) == Some(&path) {
            return;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        let peer = from.session.peer;
        if context.punt(Punt::Opened {
            session,
            peer,
            path,
        }) {
            self.seen.insert(session, path);
        }
    }

    fn reassembler(&mut self, peer: PeerId) -> Result<&mut Reassembler, DropReason> {
        if self.reassembly.len() >= MAX_REASSEMBLERS && !self.reassembly.contains_key(&peer) {
            return Err(DropReason::PieceOverflow);
        }
        let budget = &self.budget;
        let new = || Reassembler::new(budget.clone());
        Ok(self.reassembly.entry(peer).or_insert_with(new))
    }
}

/// Takes the relay header off, if the datagram is for an allocation of ours, and says which path
/// that was.
fn unwrap_relayed<'a>(
    context: &Context<'_>,
    from: &Path,
    datagram: &'a mut [u8],
) -> Result<(Path, &'a mut [u8]), DropReason> {
    let invalid = |_| DropReason::RelayInvalid;
    let route = relay::route_of(datagram).map_err(invalid)?;
    let key = context.fib.relay_keys.get(&route.own);
    let key = key.ok_or(DropReason::RelayInvalid)?;
    let (route, range) = relay::unwrap(datagram, key).map_err(invalid)?;
    let inside = datagram.get_mut(range).ok_or(DropReason::RelayInvalid)?;
    Ok((Path::relayed(from.remote, route), inside))
}

/// Judges a whole frame and writes it to the tap of its network.
fn deliver(
    context: &Context<'_>,
    from: &FibSession,
    inner: &InnerHeader,
    bytes: &[u8],
    taps: &mut Taps,
) -> Result<(), DropReason> {
    // Nobody negotiated offloads, so nobody here completes a checksum.
    if inner.checksum == L4Checksum::Partial {
        return Err(DropReason::UnknownFlags);
    }
    let frame = EthernetFrame::parse(bytes)?;
    let src = MacKey {
        vlan: frame.vlan(),
        mac: frame.src(),
    };
    if inner.forwarded.is_some() {
        // Its source is another node's: only the slow path knows when that is right.
        let net = context.fib.network_of(&from.session, inner.selector);
        let net = net.ok_or(DropReason::UnknownNetwork)?;
        punt_frame(
            context,
            from,
            inner,
            net,
            PuntReason::SourceNotClaimed,
            bytes,
        );
        return Ok(());
    }
    match context.fib.accept(from, inner.selector, src, frame.dst()) {
        Accept::Deliver(net, peer) => {
            if taps.write(context, net, bytes) {
                peer.counters.received(bytes.len());
            }
            Ok(())
        }
        Accept::Punt(net, reason) => {
            punt_frame(context, from, inner, net, reason, bytes);
            Ok(())
        }
        Accept::Drop(reason) => Err(reason),
    }
}

fn punt_frame(
    context: &Context<'_>,
    from: &FibSession,
    inner: &InnerHeader,
    net: NetIndex,
    reason: PuntReason,
    bytes: &[u8],
) {
    context.punt(Punt::PeerFrame {
        net,
        peer: from.session.peer,
        reason,
        hops: inner.hops,
        forwarded: inner.forwarded,
        frame: bytes.into(),
    });
}
