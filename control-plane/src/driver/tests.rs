//! Two members and a bootstrap on loopback.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control_proto::admission::Gatekeeper;
use control_proto::messages::{Allocation, RefusedReason};
use control_proto::records::RecordRules;
use control_proto::serving::Relay;
use nat_traversal::path::AllocationId;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{NodeKey, Revoked};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::admission::fixture::TestOverlay;
use crate::admission::wall;
use crate::handle::Command;
use crate::{
    ControlConfig, ControlError, ControlEvent, ControlHandle, Multiaddr, RequestError, addr, spawn,
};

/// The first byte of a record is its key's, the second its generation.
struct Toy;

impl RecordRules for Toy {
    fn check(&self, key: &[u8; 32], value: &[u8]) -> bool {
        matches!(value, [first, _] if *first == key[0])
    }

    fn supersedes(&self, _: &[u8; 32], new: &[u8], old: &[u8]) -> bool {
        new[1] > old[1]
    }
}

#[derive(Default)]
struct Desk(Mutex<Vec<(PeerId, Vec<PeerId>)>>);

impl Relay for Desk {
    fn allocate(&self, peer: PeerId) -> Result<Allocation, RefusedReason> {
        let mut all = self.0.lock().unwrap();
        all.push((peer, vec![]));
        Ok(Allocation {
            id: AllocationId(all.len() as u64 - 1),
            key: [5; 16],
            lifetime_s: 60,
        })
    }

    fn permit(
        &self,
        peer: PeerId,
        allocation: AllocationId,
        peers: &[PeerId],
    ) -> Result<(), RefusedReason> {
        let mut all = self.0.lock().unwrap();
        let own = all
            .get_mut(allocation.0 as usize)
            .filter(|(owner, _)| *owner == peer)
            .ok_or(RefusedReason::Invalid)?;
        own.1 = peers.to_vec();
        Ok(())
    }

    fn revoke(&self, peer: PeerId) {
        self.0.lock().unwrap().retain(|(owner, _)| *owner != peer);
    }
}

fn config(key: &NodeKey, gate: Arc<dyn Gatekeeper>) -> ControlConfig {
    ControlConfig {
        secret_key: key.secret_bytes(),
        listen: vec![],
        external: vec![],
        bootstraps: vec![],
        gate,
        records: Arc::new(Toy),
        kad_server: false,
        relay: None,
    }
}

async fn infra(overlay: &TestOverlay, listen: &[&str]) -> (ControlHandle, Vec<Multiaddr>) {
    let mut config = config(&overlay.infra, overlay.infra_gate());
    config.listen = listen.iter().map(|addr| addr.parse().unwrap()).collect();
    config.kad_server = true;
    config.relay = Some(Arc::new(Desk::default()));
    let (handle, _) = spawn(config).unwrap();
    loop {
        let addrs = handle.listen_addrs().await.unwrap();
        if addrs.len() == listen.len() {
            let peer = handle.local_peer();
            let full = addrs.iter().map(|addr| addr::with_peer(addr, peer));
            return (handle, full.collect());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn member(
    overlay: &mut TestOverlay,
    bootstraps: &[Multiaddr],
) -> (ControlHandle, mpsc::Receiver<ControlEvent>) {
    let (key, chain) = overlay.join(86_400);
    start(overlay, &key, chain, bootstraps).await
}

async fn start(
    overlay: &TestOverlay,
    key: &NodeKey,
    chain: Vec<u8>,
    bootstraps: &[Multiaddr],
) -> (ControlHandle, mpsc::Receiver<ControlEvent>) {
    let mut config = config(key, overlay.member_gate(chain));
    config.bootstraps = bootstraps.to_vec();
    let begin = Instant::now();
    let (handle, mut events) = spawn(config).unwrap();
    match next(&mut events).await {
        ControlEvent::InfraUp {
            peer, data_addrs, ..
        } => {
            println!("bootstrap up after {:?}", begin.elapsed());
            assert_eq!(peer, overlay.infra.peer_id());
            let addrs = ["127.0.0.1:7", "192.0.2.9:8"].map(|addr| addr.parse().unwrap());
            assert_eq!(data_addrs, addrs);
        }
        other => panic!("{other:?}"),
    }
    (handle, events)
}

async fn next(events: &mut mpsc::Receiver<ControlEvent>) -> ControlEvent {
    // Two that take turns at one identity wait 12 s before they dial again.
    timeout(Duration::from_secs(30), events.recv())
        .await
        .unwrap()
        .unwrap()
}

async fn everything(listen: &str) {
    let mut overlay = TestOverlay::new(1);
    let (infra, addrs) = infra(&overlay, &[listen]).await;
    let (a, _a_events) = member(&mut overlay, &addrs).await;
    let (b, mut b_events) = member(&mut overlay, &addrs).await;
    let bootstrap = infra.local_peer();

    assert_eq!(a.register([1; 32], vec![1]).await, Ok(vec![]));
    let cards = b.register([1; 32], vec![2]).await;
    assert_eq!(cards, Ok(vec![(a.local_peer(), vec![1])]));
    let large = a.register([1; 32], vec![0; 5000]).await;
    assert_eq!(large, Err(RequestError::Refused(RefusedReason::TooLarge)));

    let allocation = a.allocate(bootstrap).await.unwrap();
    let peers = vec![b.local_peer()];
    assert_eq!(a.permit(bootstrap, allocation.id, peers).await, Ok(()));
    let stolen = b.permit(bootstrap, allocation.id, vec![]).await;
    assert_eq!(stolen, Err(RequestError::Refused(RefusedReason::Invalid)));

    assert_eq!(a.forward(b.local_peer(), vec![7; 8000]).await, Ok(()));
    let signal = ControlEvent::Signal {
        from: a.local_peer(),
        envelope: vec![7; 8000],
    };
    assert_eq!(next(&mut b_events).await, signal);
    let nobody = a.forward(PeerId([9; 32]), vec![7]).await;
    assert_eq!(nobody, Err(RequestError::NotConnected));

    assert_eq!(a.put_record([3; 32], vec![3, 2]).await, Ok(()));
    assert_eq!(b.get_record([3; 32]).await, Some(vec![3, 2]));
    assert_eq!(b.get_record([4; 32]).await, None);
    let older = b.put_record([3; 32], vec![3, 1]).await;
    assert_eq!(older, Err(RequestError::Refused(RefusedReason::Invalid)));
    let invalid = a.put_record([3; 32], vec![4, 9]).await;
    assert_eq!(invalid, Err(RequestError::Refused(RefusedReason::Invalid)));

    infra.stop().await;
    loop {
        if next(&mut b_events).await == (ControlEvent::InfraDown { peer: bootstrap }) {
            break;
        }
    }
    let gone = a.register([1; 32], vec![1]).await;
    assert!(gone.is_err());
}

#[tokio::test]
async fn everything_over_quic() {
    everything("/ip4/127.0.0.1/udp/0/quic-v1").await;
}

#[tokio::test]
async fn everything_over_tcp() {
    everything("/ip4/127.0.0.1/tcp/0").await;
}

#[tokio::test]
async fn the_link_to_a_bootstrap_is_up_soon_and_one() {
    let mut overlay = TestOverlay::new(1);
    let listen = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];
    let (_infra, addrs) = infra(&overlay, &listen).await;
    let start = Instant::now();
    let (a, _events) = member(&mut overlay, &addrs).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    let connected = a.connected().await.unwrap();
    assert_eq!(connected.len(), 1);
    assert!(connected[0].infra);
}

#[tokio::test]
async fn envelopes_reach_a_node_that_restarted() {
    let mut overlay = TestOverlay::new(1);
    let (_infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/udp/0/quic-v1"]).await;
    let (a, _a_events) = member(&mut overlay, &addrs).await;
    let (key, chain) = overlay.join(86_400);
    // The first life stays silent and does not dial again, as after `kill -9`.
    let (first, _first_events) = start(&overlay, &key, chain.clone(), &addrs).await;
    first.set_bootstraps(vec![]).await.unwrap();
    let (second, mut events) = start(&overlay, &key, chain, &addrs).await;
    for n in 0..4 {
        let envelope = vec![n];
        assert_eq!(
            a.forward(second.local_peer(), envelope.clone()).await,
            Ok(())
        );
        let from = a.local_peer();
        assert_eq!(
            next(&mut events).await,
            ControlEvent::Signal { from, envelope }
        );
    }
}

/// Speaks to the DHT alone: a record that one client puts is found by another, and an older one does
/// not take its place.
#[tokio::test]
async fn the_dht_alone_resolves() {
    let mut overlay = TestOverlay::new(1);
    let (_infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/tcp/0"]).await;
    let (a, _a_events) = member(&mut overlay, &addrs).await;
    let (b, _b_events) = member(&mut overlay, &addrs).await;
    let (key, found) = ([3; 32], Some(vec![3, 2]));
    assert_eq!(b.record_in_kad(key).await, None);
    let put = |value: Vec<u8>| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let command = Command::KadPut { key, value, reply };
        let commands = a.commands.clone();
        async move {
            commands.send(command).await.unwrap();
            answer.await
        }
    };
    assert_eq!(put(vec![3, 2]).await, Ok(true));
    assert_eq!(b.record_in_kad(key).await, found);
    assert!(!put(vec![3, 1]).await.unwrap_or(false));
    assert_eq!(b.record_in_kad(key).await, found);
}

#[tokio::test]
async fn a_stranger_is_told_that_it_was_not_admitted() {
    let (overlay, mut theirs) = (TestOverlay::new(1), TestOverlay::new(2));
    let (_infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/tcp/0"]).await;
    let (key, chain) = theirs.join(86_400);
    let mut config = config(&key, theirs.member_gate(chain));
    config.bootstraps = addrs;
    let (_handle, mut events) = spawn(config).unwrap();
    let event = next(&mut events).await;
    assert!(
        matches!(&event, ControlEvent::Refused { reason, .. } if reason.contains("admitting")),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let overlay = TestOverlay::new(1);
    for busy in [
        addr::tcp(holder.local_addr().unwrap()),
        addr::quic(socket.local_addr().unwrap()),
    ] {
        let mut config = config(&overlay.infra, overlay.infra_gate());
        config.listen = vec![busy.clone()];
        assert!(matches!(
            spawn(config),
            Err(ControlError::PortBusy(addr)) if addr == busy
        ));
    }
}

#[tokio::test]
async fn trust_8_a_list_reaches_all_who_are_connected_and_cuts_the_revoked_off() {
    let mut overlay = TestOverlay::new(1);
    let (infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/udp/0/quic-v1"]).await;
    let bootstrap = infra.local_peer();
    let mut members = Vec::new();
    for _ in 0..3 {
        let (key, chain) = overlay.join(86_400);
        let gate = overlay.member_gate(chain);
        let mut config = config(&key, gate.clone());
        config.bootstraps.clone_from(&addrs);
        let (handle, mut events) = spawn(config).unwrap();
        assert!(matches!(
            next(&mut events).await,
            ControlEvent::InfraUp { .. }
        ));
        members.push((handle, events, gate));
    }
    let out = members[2].0.local_peer();
    let place = [1; 32];
    for (handle, _, _) in &members {
        handle.register(place, vec![7]).await.unwrap();
        handle.allocate(bootstrap).await.unwrap();
    }
    let key = [3; 32];
    members[2].0.put_record(key, vec![3, 1]).await.unwrap();

    let list = overlay.revoke(1, &[Revoked::Node(out)]);
    members[0].2.take_revocations(&list).unwrap();
    let begin = Instant::now();
    members[0].0.follow_revocations().await.unwrap();
    for (n, (_, events, gate)) in members.iter_mut().enumerate().take(2) {
        assert_eq!(next(events).await, ControlEvent::RevocationsGrew, "{n}");
        assert!(gate.revocations().names_node(out));
    }
    let down = ControlEvent::InfraDown { peer: bootstrap };
    while next(&mut members[2].1).await != down {}
    println!("all know after {:?}", begin.elapsed());
    // Its dials are refused, with the list.
    loop {
        if let ControlEvent::Refused { reason, .. } = next(&mut members[2].1).await {
            assert!(reason.contains("revoked"), "{reason}");
            break;
        }
    }
    assert!(members[2].2.revocations().names_node(out));
    // What it left is gone; what others left is not.
    let cards = members[0].0.register(place, vec![8]).await.unwrap();
    assert_eq!(cards, [(members[1].0.local_peer(), vec![7])]);
    assert_eq!(members[0].0.get_record(key).await, None);
}

/// A connection that holds few streams serves many questions all the same, one after the other.
#[tokio::test]
async fn many_questions_over_one_tcp_connection_take_turns() {
    let mut overlay = TestOverlay::new(31);
    let (infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/tcp/0"]).await;
    let (a, mut events) = member(&mut overlay, &addrs).await;
    let bootstrap = infra.local_peer();
    let all = futures::future::join_all((0..200).map(|_| a.allocate(bootstrap))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert!(events.try_recv().is_err(), "the connection was lost");
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let mut overlay = TestOverlay::new(32);
    let (_infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/tcp/0"]).await;
    let at = addr::socket_addr(&addrs[0]).unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(tokio::net::TcpStream::connect(at).await.unwrap());
    }
    let begin = Instant::now();
    member(&mut overlay, &addrs).await;
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

/// The clones dial by themselves; here two runs of one identity are only seen to take turns.
#[tokio::test]
async fn two_runs_of_one_identity_that_take_turns_are_told_of_each_other() {
    let mut overlay = TestOverlay::new(33);
    let (_infra, addrs) = infra(&overlay, &["/ip4/127.0.0.1/tcp/0"]).await;
    let (key, chain) = overlay.join(86_400);
    let (a, mut a_events) = start(&overlay, &key, chain.clone(), &addrs).await;
    a.set_incarnation(1).await.unwrap();
    let (b, mut b_events) = start(&overlay, &key, chain, &addrs).await;
    b.set_incarnation(2).await.unwrap();
    for events in [&mut a_events, &mut b_events] {
        loop {
            if let ControlEvent::Twins { peer, addrs } = next(events).await {
                assert_eq!(peer, key.peer_id());
                assert!(addrs.iter().all(|addr| addr.ip().is_loopback()));
                break;
            }
        }
    }
}

#[test]
fn memberships_end_with_the_tolerance_of_the_gate() {
    use overlay_proto::time::UnixTime;

    let overlay = TestOverlay::new(34);
    let gate = overlay.infra_gate();
    let ago = |seconds: u64| UnixTime(host_services::clocks::wall().as_secs() - seconds);
    assert!(!gate.has_ended(ago(0), wall()) && !gate.has_ended(ago(590), wall()));
    assert!(gate.has_ended(ago(610), wall()));
}
