//! The way of a frame in: socket -> find session -> decrypt ("open") -> parse -> [`Delivery`] ->
//! `Fib::accept` -> tap -> guest.
//!
//! [`Incoming::handle_datagram`] begins where a datagram has been received. Frames go on to
//! [`Delivery`], fragments (`Piece` in the code) to reassembly, and everything that is not a frame to
//! the slow path.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use nat_traversal::path::Path;
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::FibSession;
use overlay_proto::wire::{
    DataHeader, DatagramKind, InnerHeader, InnerKind, PieceBudget, Reassembler, SessionIndex, sizes,
};

use super::delivery::Delivery;
use super::punt::{Context, Punt};

/// Peers whose fragmented frames one worker reassembles at the same time. A peer is removed when none of
/// its fragments wait.
const MAX_REASSEMBLERS: usize = 1024;

/// Sessions whose latest path a worker remembers. A full table is emptied; that costs one more
/// [`Punt::Opened`] for each session.
const MAX_SEEN: usize = 4096;

/// A stray is a datagram with an unknown session index. Each path is reported once in this time, and at
/// most [`MAX_STRAYS`] paths.
const STRAY_EVERY: Duration = Duration::from_secs(1);
const MAX_STRAYS: usize = 64;

/// The receiving half of a worker.
pub(super) struct Incoming {
    budget: PieceBudget,
    /// The number of workers. What one peer may have waiting for reassembly is divided among them.
    workers: usize,
    /// Bounded by [`MAX_REASSEMBLERS`], emptied by [`Incoming::handle_timeout`].
    reassembly: HashMap<PeerId, Reassembler>,
    /// Bounded by [`MAX_SEEN`].
    seen: HashMap<SessionIndex, Path>,
    /// The session and path of the previous datagram. The next one mostly has the same.
    latest: Option<(SessionIndex, Path)>,
    /// The paths that strays came by since the instant. Bounded by [`MAX_STRAYS`], emptied every
    /// [`STRAY_EVERY`].
    strays: (Option<Instant>, HashSet<Path>),
}

impl Incoming {
    pub(super) fn new(budget: PieceBudget, workers: usize) -> Self {
        Self {
            budget,
            workers,
            reassembly: HashMap::new(),
            seen: HashMap::new(),
            latest: None,
            strays: (None, HashSet::new()),
        }
    }

    /// Handles one datagram that came over `path`. If anything is wrong with it, it is dropped here and
    /// the reason is counted.
    pub(super) fn handle_datagram<'a>(
        &mut self,
        delivery: &mut Delivery<'a>,
        path: Path,
        datagram: &'a mut [u8],
    ) {
        if let Err(reason) = self.sort(delivery, path, datagram) {
            delivery.context.drops.count(reason);
        }
    }

    /// Forgets fragmented frames whose missing fragments have not come in time.
    pub(super) fn handle_timeout(&mut self, context: &Context<'_>) {
        self.reassembly.retain(|_, reassembler| {
            let late = reassembler.expire(context.now) as u64;
            let evicted = reassembler.take_evicted() as u64;
            context.drops.add(DropReason::PieceTimeout, late);
            context.drops.add(DropReason::PieceOverflow, evicted);
            reassembler.bytes() > 0
        });
    }

    /// Is there anything that can time out?
    pub(super) fn waits_for_pieces(&self) -> bool {
        !self.reassembly.is_empty()
    }

    fn sort<'a>(
        &mut self,
        delivery: &mut Delivery<'a>,
        path: Path,
        datagram: &'a mut [u8],
    ) -> Result<(), DropReason> {
        match DatagramKind::parse(datagram)? {
            DatagramKind::Data => self.open(delivery, path, datagram),
            DatagramKind::Relayed if path.relay.is_none() => {
                let (path, inside) = unwrap_relayed(&delivery.context, &path, datagram)?;
                self.sort(delivery, path, inside)
            }
            // A relayed datagram inside a relayed one is refused (TRUST.md 18).
            DatagramKind::Relayed => Err(DropReason::RelayInvalid),
            // No node sends larger ones. The limit matters because copies wait in the punt queue.
            _ if datagram.len() > sizes::MAX_UDP_PAYLOAD => Err(DropReason::MalformedDatagram),
            _ => {
                let bytes = (&*datagram).into();
                delivery.context.punt(Punt::Datagram { path, bytes });
                Ok(())
            }
        }
    }

    fn open<'a>(
        &mut self,
        delivery: &mut Delivery<'a>,
        path: Path,
        datagram: &'a mut [u8],
    ) -> Result<(), DropReason> {
        let context = delivery.context;
        let header = DataHeader::parse(datagram)?;
        let Some(from) = delivery.session(header.receiver) else {
            self.note_stray(&context, path);
            return Err(DropReason::UnknownSession);
        };
        let received = datagram.len();
        let plaintext = from.session.open_in_place(&header, datagram)?;
        self.notice(&context, from, path, received);
        let (inner, _) = InnerHeader::parse(plaintext)?;
        let body = plaintext.get_mut(inner.encoded_len()..).unwrap_or_default();
        match inner.kind {
            InnerKind::Frame => delivery.take(from, &inner, body),
            InnerKind::Piece(_) => {
                let whole = self.reassembler(from.session.peer)?.handle_piece(
                    context.now,
                    header.receiver,
                    &inner,
                    body,
                )?;
                match whole {
                    Some(mut whole) => delivery.write_now(from, &inner, &mut whole.frame),
                    None => Ok(()),
                }
            }
            _ if body.len() > sizes::MAX_UDP_PAYLOAD => Err(DropReason::MalformedDatagram),
            InnerKind::Control | InnerKind::Probe | InnerKind::KeepAlive => {
                context.punt(Punt::Inner {
                    session: header.receiver,
                    peer: from.session.peer,
                    path,
                    header: inner,
                    body: (&*body).into(),
                });
                Ok(())
            }
        }
    }

    /// Tells the slow path that a node seems to have a session with us that we do not have (any more).
    fn note_stray(&mut self, context: &Context<'_>, path: Path) {
        let (since, paths) = &mut self.strays;
        let over = |since: Instant| context.now.saturating_duration_since(since) >= STRAY_EVERY;
        if since.is_none_or(over) {
            *since = Some(context.now);
            paths.clear();
        }
        if paths.len() < MAX_STRAYS && paths.insert(path) {
            context.punt(Punt::Stray { path });
        }
    }

    /// Tells the slow path, once for each session and path, that a packet was decrypted and by which
    /// path it came.
    fn notice(&mut self, context: &Context<'_>, from: &FibSession, path: Path, received: usize) {
        let session = from.session.local_index;
        if self.latest == Some((session, path)) {
            return;
        }
        if self.seen.get(&session) == Some(&path) {
            self.latest = Some((session, path));
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
            received,
        }) {
            self.seen.insert(session, path);
            self.latest = Some((session, path));
        }
    }

    fn reassembler(&mut self, peer: PeerId) -> Result<&mut Reassembler, DropReason> {
        if self.reassembly.len() >= MAX_REASSEMBLERS && !self.reassembly.contains_key(&peer) {
            return Err(DropReason::PieceOverflow);
        }
        let (workers, budget) = (self.workers, &self.budget);
        let new = || Reassembler::one_of(workers, budget.clone());
        Ok(self.reassembly.entry(peer).or_insert_with(new))
    }
}

/// Removes the relay header if the datagram is for one of our allocations at the relay. Returns the path
/// and the inner datagram.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use nat_traversal::path::{AllocationId, RelayRoute};
    use nat_traversal::relay::RelayKey;
    use overlay_proto::ids::NetworkId;
    use overlay_proto::session::{RawSplit, Role, Session, SessionNames, SharedNetwork, Suite};
    use overlay_proto::switching::{DropCounters, Fib, FibMap, FibNetwork, PeerSlot};
    use overlay_proto::wire::{INNER_LEN, Lane, Selector};
    use proptest::prelude::*;
    use tap_bridge::offload::Marks;
    use tokio::sync::mpsc;

    use super::super::delivery::Taps;
    use super::*;

    fn session(role: Role) -> Session {
        let names = SessionNames {
            peer: PeerId([2; 32]),
            local_index: SessionIndex(7),
            remote_index: SessionIndex(7),
            networks: vec![SharedNetwork {
                network: NetworkId([1; 32]),
                send: Selector(3),
                receive: Selector(3),
            }],
        };
        let split = RawSplit {
            to_responder: [1; 32],
            to_initiator: [2; 32],
        };
        Session::new(names, &split, Suite::Aes256Gcm, role, Instant::now()).unwrap()
    }

    fn fib() -> Fib {
        let from = FibSession {
            session: Arc::new(session(Role::Responder)),
            peer: PeerSlot(0),
        };
        Fib {
            networks: vec![FibNetwork {
                id: NetworkId([1; 32]),
                macs: FibMap::default(),
                flood: Vec::new(),
                punt_broadcast: None,
                clamp: true,
                twins: FibMap::default(),
                standby: None,
                bpdu: false,
                ports: Arc::default(),
            }],
            sessions: FibMap::from_iter([(SessionIndex(7), from)]),
            relay_keys: [(AllocationId(9), RelayKey([5; 16]))].into(),
            ..Fib::default()
        }
    }

    /// Feeds datagrams to a worker's receiving half; returns how many drops and punts they caused.
    fn feed(datagrams: &mut [Vec<u8>]) -> (u64, usize) {
        let (fib, drops) = (fib(), DropCounters::default());
        let (punts, mut punted) = mpsc::channel(1_000);
        let context = Context {
            fib: &fib,
            drops: &drops,
            punts: &punts,
            beacons: &punts,
            me: PeerId([1; 32]),
            now: Instant::now(),
            now_ms: 0,
        };
        let mut incoming = Incoming::new(PieceBudget::default(), 1);
        let path = Path::direct("192.0.2.1:22611".parse().unwrap());
        let mut taps = Taps::default();
        let mut delivery = Delivery::new(context, &mut taps, Marks::default());
        for datagram in datagrams {
            incoming.handle_datagram(&mut delivery, path, datagram);
        }
        delivery.flush();
        incoming.handle_timeout(&context);
        let dropped = drops.occurred().map(|(_, count)| count).sum();
        (
            dropped,
            // A stray is a drop that is reported.
            std::iter::from_fn(|| punted.try_recv().ok())
                .filter(|punt| !matches!(punt, Punt::Stray { .. }))
                .count(),
        )
    }

    /// What a peer that went mad can seal.
    fn sealed(plaintexts: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let peer = session(Role::Initiator);
        let seal = |text: &Vec<u8>| {
            let mut out = vec![0; 2_000];
            let len = peer.seal_into(Lane(1), text, &[], &mut out).unwrap();
            out.truncate(len);
            out
        };
        plaintexts.iter().map(seal).collect()
    }

    proptest! {
        #[test]
        fn every_datagram_is_dropped_or_punted(
            mut datagrams in prop::collection::vec(
                (0_u8..12, prop::collection::vec(any::<u8>(), 0..120))
                    .prop_map(|(kind, mut bytes)| { bytes.insert(0, kind); bytes }),
                1..20,
            ),
        ) {
            let count = datagrams.len();
            let (dropped, punted) = feed(&mut datagrams);
            prop_assert_eq!(usize::try_from(dropped).unwrap() + punted, count);
        }

        #[test]
        fn whatever_a_peer_seals_is_judged(
            plaintexts in prop::collection::vec(
                (0_u8..6, 0_u8..4, prop::collection::vec(any::<u8>(), 0..100))
                    .prop_map(|(kind, flags, body)| {
                        let mut text = vec![kind, flags, 0, 0, 0, 0, 0, 3];
                        text.extend(body);
                        text
                    }),
                1..20,
            ),
        ) {
            let mut datagrams = sealed(&plaintexts);
            let pieces = plaintexts.iter().filter(|text| text[0] == 1).count();
            let (dropped, punted) = feed(&mut datagrams);
            // One punt says that the session works. A piece may wait for others.
            let judged = usize::try_from(dropped).unwrap() + punted - 1;
            prop_assert!(judged <= plaintexts.len() && judged + pieces >= plaintexts.len());
        }

        #[test]
        fn a_relay_cannot_make_more_of_a_datagram_than_it_is(
            inside in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            let route = RelayRoute { own: AllocationId(8), peer: AllocationId(9) };
            let mut out = vec![0; 200];
            if let Ok(len) = relay::wrap(route, &RelayKey([5; 16]), &inside, &mut out) {
                out.truncate(len);
                let (dropped, punted) = feed(&mut [out]);
                prop_assert_eq!(usize::try_from(dropped).unwrap() + punted, 1);
            }
        }
    }

    #[test]
    fn a_stray_is_reported_once_a_second_for_each_of_64_paths() {
        let (fib, drops) = (fib(), DropCounters::default());
        let (punts, mut punted) = mpsc::channel(1_000);
        let mut context = Context {
            fib: &fib,
            drops: &drops,
            punts: &punts,
            beacons: &punts,
            me: PeerId([1; 32]),
            now: Instant::now(),
            now_ms: 0,
        };
        let mut incoming = Incoming::new(PieceBudget::default(), 1);
        let mut reported = |context: &Context<'_>| {
            for port in 1..=200 {
                let path = Path::direct(std::net::SocketAddr::from(([192, 0, 2, 1], port % 100)));
                let mut stray = sealed(&[vec![0; 40]]).remove(0);
                stray[4] ^= 1;
                let mut taps = Taps::default();
                let mut delivery = Delivery::new(*context, &mut taps, Marks::default());
                incoming.handle_datagram(&mut delivery, path, &mut stray);
            }
            std::iter::from_fn(|| punted.try_recv().ok())
                .filter(|punt| matches!(punt, Punt::Stray { .. }))
                .count()
        };
        assert_eq!(reported(&context), MAX_STRAYS);
        assert_eq!(reported(&context), 0);
        context.now += STRAY_EVERY;
        assert_eq!(reported(&context), MAX_STRAYS);
        assert_eq!(drops.get(DropReason::UnknownSession), 600);
    }

    #[test]
    fn what_waits_for_pieces_is_forgotten() {
        let mut piece = vec![1, 0, 0, 0, 0, 0, 0, 3];
        piece.extend([0, 0, 0, 1, 0, 2, 0, 200]);
        piece.extend([0; 100]);
        assert!(piece.len() > INNER_LEN);
        let (fib, drops) = (fib(), DropCounters::default());
        let (punts, _punted) = mpsc::channel(10);
        let mut context = Context {
            fib: &fib,
            drops: &drops,
            punts: &punts,
            beacons: &punts,
            me: PeerId([1; 32]),
            now: Instant::now(),
            now_ms: 0,
        };
        let mut incoming = Incoming::new(PieceBudget::default(), 1);
        let path = Path::direct("192.0.2.1:22611".parse().unwrap());
        let mut datagram = sealed(&[piece]).remove(0);
        let mut taps = Taps::default();
        let mut delivery = Delivery::new(context, &mut taps, Marks::default());
        incoming.handle_datagram(&mut delivery, path, &mut datagram);
        assert!(incoming.waits_for_pieces());
        context.now += Reassembler::LIFETIME;
        incoming.handle_timeout(&context);
        assert!(!incoming.waits_for_pieces());
        assert_eq!(drops.get(DropReason::PieceTimeout), 1);
    }
}
