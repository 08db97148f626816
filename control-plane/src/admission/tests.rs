//! Members come in; strangers get no byte, and the swarm never hears of them.

use std::sync::Arc;
use std::time::Duration;

use control_proto::admission::hello::Hello;
use control_proto::admission::{
    Admitted, AdmittedTable, Gatekeeper, InfraGate, MemberGate, Shelf, gates,
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::transport::{DialOpts, PortUse, Transport, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, noise, quic, tcp, yamux};
use overlay_proto::membership::{
    ListState, NodeKey, Revocations, Revoked, SignedRoot, WitnessRefusal,
};
use overlay_proto::time::UnixTime;
use tokio::time::timeout;

use super::fixture::TestOverlay;
use super::pending::Pending;
use super::*;
use crate::{addr, transport};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

const YEAR: i64 = 365 * 86_400;

fn keypair(node: &NodeKey) -> Keypair {
    Keypair::ed25519_from_bytes(*node.secret_bytes()).unwrap()
}

fn member_hello(roots: &overlay_proto::membership::RootStore, chain: Vec<u8>) -> Vec<u8> {
    Hello::Member {
        roots: roots.above(0).iter().map(SignedRoot::encode).collect(),
        chain,
        root_number: 1,
        lists: ListState::default(),
    }
    .encode()
}

#[test]
fn trust_7_the_infra_gate_admits_members_only() {
    let (mut ours, mut theirs) = (TestOverlay::new(1), TestOverlay::new(2));
    let (node, chain) = ours.join(YEAR);
    let hello = member_hello(&ours.roots, chain);
    let gate = ours.infra_gate();
    // Before and after the gate has learnt the root documents.
    for _ in 0..2 {
        assert!(matches!(
            gate.admit(node.peer_id(), &hello, false, wall()),
            Ok(Admitted::Member { .. })
        ));
        let (stranger, chain) = theirs.join(YEAR);
        let foreign = member_hello(&theirs.roots, chain.clone());
        assert!(
            gate.admit(stranger.peer_id(), &foreign, false, wall())
                .is_err()
        );
        let mixed = member_hello(&ours.roots, chain);
        assert!(matches!(
            gate.admit(stranger.peer_id(), &mixed, false, wall()),
            Err(Refusal::Membership(_))
        ));
        let (late, chain) = ours.join(-3600);
        assert!(matches!(
            gate.admit(
                late.peer_id(),
                &member_hello(&ours.roots, chain),
                false,
                wall()
            ),
            Err(Refusal::Membership(_))
        ));
        assert_eq!(
            gate.admit(stranger.peer_id(), &hello, false, wall()),
            Err(Refusal::WrongPeer(node.peer_id()))
        );
        let infra = ours.infra_gate().own_hello();
        let role = gate.admit(ours.infra.peer_id(), &infra, false, wall());
        assert_eq!(role, Err(Refusal::WrongRole));
        let junk = gate.admit(stranger.peer_id(), b"hello", false, wall());
        assert_eq!(junk, Err(Refusal::Malformed));
    }
}

#[test]
fn trust_6_the_member_gate_knows_its_bootstraps() {
    let mut overlay = TestOverlay::new(1);
    let (_, chain) = overlay.join(YEAR);
    let (other, other_chain) = overlay.join(YEAR);
    let gate = overlay.member_gate(chain);
    let infra = overlay.infra_gate().own_hello();
    assert!(matches!(
        gate.admit(overlay.infra.peer_id(), &infra, true, wall()),
        Ok(Admitted::Infra { data_addrs }) if data_addrs.len() == 2
    ));
    let impostor = gate.admit(other.peer_id(), &infra, true, wall());
    assert_eq!(impostor, Err(Refusal::NotPinned(other.peer_id())));
    let hello = member_hello(&overlay.roots, other_chain);
    assert!(gate.admit(other.peer_id(), &hello, true, wall()).is_ok());
    let elsewhere = TestOverlay::new(2);
    let foreign = elsewhere.infra_gate().own_hello();
    assert_eq!(
        gate.admit(overlay.infra.peer_id(), &foreign, true, wall()),
        Err(Refusal::OtherOverlay(elsewhere.id()))
    );
}

#[test]
fn trust_4_without_a_receipt_only_the_witness_is_met() {
    let mut overlay = TestOverlay::new(1);
    let (member, chain) = overlay.join(YEAR);
    let member_gate = overlay.member_gate(chain.clone());
    let now = overlay.now;
    let (node, bare) = overlay.apply(now, YEAR);
    let gate = overlay.member_gate(bare.encode());
    let hello = gate.own_hello();
    assert_eq!(
        member_gate.admit(node.peer_id(), &hello, false, wall()),
        Err(Refusal::Membership(
            overlay_proto::membership::MembershipError::ReceiptMissing
        ))
    );
    let theirs = member_hello(&overlay.roots, chain);
    let met = gate.admit(member.peer_id(), &theirs, false, wall());
    assert_eq!(met, Err(Refusal::NotYetMember));

    // The witness counts it and answers with the receipt; the node is a member from then on.
    let infra = overlay.infra_gate();
    let verdict = infra.admit(node.peer_id(), &hello, false, wall());
    let answer = infra.answer(&verdict).unwrap();
    gate.admit(overlay.infra.peer_id(), &answer, true, wall())
        .unwrap();
    assert!(
        member_gate
            .admit(node.peer_id(), &gate.own_hello(), false, wall())
            .is_ok()
    );
    // A bootstrap that gives none is not let in.
    let bare_gate = overlay.member_gate(bare.encode());
    let silent = bare_gate.admit(overlay.infra.peer_id(), &infra.own_hello(), true, wall());
    assert_eq!(silent, Err(Refusal::NotYetMember));

    // The time to join has passed: the reason arrives.
    let (late, bare) = overlay.apply(UnixTime(now.0 - 86_400), YEAR);
    let gate = overlay.member_gate(bare.encode());
    let verdict = infra.admit(late.peer_id(), &gate.own_hello(), false, wall());
    let answer = infra.answer(&verdict).unwrap();
    assert!(matches!(
        gate.admit(overlay.infra.peer_id(), &answer, true, wall()),
        Err(Refusal::NoReceipt(WitnessRefusal::TooLate(_)))
    ));
}

/// The whole exchange between two gates, over TCP; what each side finds.
async fn meet(
    listener: (&NodeKey, Arc<dyn Gatekeeper>),
    dialer: (&NodeKey, Arc<dyn Gatekeeper>),
) -> (Result<Admitted, String>, Result<Admitted, String>) {
    let upgrade = |keys: &Keypair| {
        tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(keys).unwrap())
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed()
    };
    let mut here = upgrade(&keypair(listener.0));
    here.listen_on(
        libp2p::core::transport::ListenerId::next(),
        TCP.parse().unwrap(),
    )
    .unwrap();
    let addr = loop {
        if let Some(TransportEvent::NewAddress { listen_addr, .. }) = here.next().await {
            break listen_addr;
        }
    };
    let (gate, peer) = (listener.1, dialer.0.peer_id());
    let slot = Pending::default().enter(None).unwrap();
    let listening = tokio::spawn(async move {
        loop {
            if let Some((upgrade, _)) = here.next().await.unwrap().into_incoming() {
                let (_, mut muxer) = upgrade.await.unwrap();
                let verdict =
                    exchange::run(&mut muxer, &gate, peer, Some(&slot.note_hello())).await;
                // Held open until the dialer has read all.
                let end = std::future::poll_fn(|cx| muxer.poll_unpin(cx));
                let _ = timeout(Duration::from_millis(500), end).await;
                return verdict.map_err(|error| error.to_string());
            }
        }
    });
    let mut there = upgrade(&keypair(dialer.0));
    let (_, mut muxer) = there.dial(addr, OPTIONS).unwrap().await.unwrap();
    let peer = listener.0.peer_id();
    let dialled = exchange::run(&mut muxer, &dialer.1, peer, None).await;
    drop(muxer);
    let listened = listening.await.unwrap();
    (listened, dialled.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn trust_8_a_list_learnt_in_an_admission_counts_in_it() {
    let mut overlay = TestOverlay::new(1);
    let (node, chain) = overlay.join(YEAR);
    let list = overlay.revoke(3, &[Revoked::Node(node.peer_id())]);
    let infra_key = overlay.infra.clone();
    // Who dials knows, against all reason, the list that names it: the listener pulls and refuses.
    let (gate, infra) = (overlay.member_gate(chain.clone()), overlay.infra_gate());
    gate.take_revocations(&list).unwrap();
    let (listened, dialled) = meet((&infra_key, infra.clone()), (&node, gate)).await;
    assert!(listened.unwrap_err().contains("has revoked node"));
    assert!(dialled.unwrap_err().contains("has revoked this node"));
    assert!(infra.revocations().names_node(node.peer_id()));

    // It does not know: the listener, which does, hands it the proof.
    let gate = overlay.member_gate(chain);
    let (listened, dialled) = meet((&infra_key, infra.clone()), (&node, gate.clone())).await;
    assert!(listened.unwrap_err().contains("has revoked node"));
    assert!(dialled.unwrap_err().contains("has revoked this node"));
    assert!(gate.revocations().names_node(node.peer_id()));

    // An invite is revoked; a member meets one of its nodes, and learns of it from that very node.
    let (out, out_chain) = overlay.join(YEAR);
    let invite = overlay_proto::membership::Chain::decode(&out_chain)
        .unwrap()
        .claimed_invite();
    let list = overlay.revoke(4, &[Revoked::Node(node.peer_id()), Revoked::Invite(invite)]);
    let (member, member_chain) = overlay.join(YEAR);
    let (here, there) = (
        overlay.member_gate(member_chain.clone()),
        overlay.member_gate(out_chain.clone()),
    );
    here.take_revocations(&list).unwrap();
    let (listened, dialled) = meet((&out, there.clone()), (&member, here)).await;
    assert!(listened.is_ok(), "{listened:?}");
    assert!(dialled.unwrap_err().contains("has revoked invite"));
    assert!(there.revocations().names_invite(invite));
}

#[tokio::test]
async fn trust_8_the_lower_side_pulls_and_two_lists_of_one_number_are_united() {
    let mut overlay = TestOverlay::new(1);
    let (node, chain) = overlay.join(YEAR);
    let infra_key = overlay.infra.clone();
    let out = |n: u8| Revoked::Node(overlay_proto::ids::PeerId([n; 32]));
    for (known_here, known_there) in [
        (vec![], vec![overlay.revoke(1, &[out(1)])]),
        (vec![overlay.revoke(2, &[out(1), out(2)])], vec![]),
        (
            vec![overlay.revoke(5, &[out(1)])],
            vec![overlay.revoke(5, &[out(2)])],
        ),
        (vec![], vec![]),
    ] {
        let (gate, infra) = (overlay.member_gate(chain.clone()), overlay.infra_gate());
        // A bootstrap knows no authority before the first member has come.
        infra
            .admit(node.peer_id(), &gate.own_hello(), false, wall())
            .unwrap();
        for list in &known_here {
            gate.take_revocations(list).unwrap();
        }
        for list in &known_there {
            infra.take_revocations(list).unwrap();
        }
        let (listened, dialled) = meet((&infra_key, infra.clone()), (&node, gate.clone())).await;
        assert!(
            listened.is_ok() && dialled.is_ok(),
            "{listened:?} {dialled:?}"
        );
        assert_eq!(gate.revocations(), infra.revocations());
        let all = known_here.len() + known_there.len();
        assert_eq!(gate.revocations().lists().len(), all);
    }
}

#[test]
fn trust_8_a_revoked_invite_gets_no_receipt() {
    let mut overlay = TestOverlay::new(1);
    let (member, chain) = overlay.join(YEAR);
    let infra = overlay.infra_gate();
    let hello = overlay.member_gate(chain).own_hello();
    infra
        .admit(member.peer_id(), &hello, false, wall())
        .unwrap();
    let now = overlay.now;
    let (node, bare) = overlay.apply(now, YEAR);
    let entry = Revoked::Invite(bare.claimed_invite());
    infra
        .take_revocations(&overlay.revoke(1, &[entry]))
        .unwrap();
    let gate = overlay.member_gate(bare.encode());
    let verdict = infra.admit(node.peer_id(), &gate.own_hello(), false, wall());
    assert_eq!(verdict, Err(Refusal::Revoked(entry)));
    let answer = infra.answer(&verdict).unwrap();
    let told = gate.admit(overlay.infra.peer_id(), &answer, true, wall());
    assert_eq!(told, Err(Refusal::WeAreRevoked));
    let asked = infra.receipt(node.peer_id(), &bare.encode(), wall());
    assert_eq!(asked, Err(WitnessRefusal::Revoked));
    // A stranger hears nothing of it, and teaches nothing.
    let mut theirs = TestOverlay::new(2);
    let (stranger, chain) = theirs.join(YEAR);
    let foreign = theirs.member_gate(chain);
    foreign
        .take_revocations(&theirs.revoke(9, &[entry]))
        .unwrap();
    let hello = foreign.own_hello();
    assert!(!infra.wants_lists(stranger.peer_id(), &hello, wall()));
    let verdict = infra.admit(stranger.peer_id(), &hello, false, wall());
    assert_eq!(infra.answer(&verdict), None);
    let forged = infra.take_revocations(&theirs.revoke(9, &[entry]));
    assert!(forged.is_err());
}

/// What a gate learns, in memory.
#[derive(Debug, Default)]
struct Kept(std::sync::Mutex<(Option<u32>, Vec<u64>)>);

impl Shelf for Kept {
    fn keep_revocations(&self, all: &Revocations) {
        self.0.lock().unwrap().1.push(all.number().0);
    }

    fn keep_roots(&self, roots: &overlay_proto::membership::RootStore) {
        self.0.lock().unwrap().0 = Some(roots.newest().version);
    }
}

#[test]
fn what_gates_learn_is_kept() {
    let mut overlay = TestOverlay::new(1);
    let (own_key, own) = overlay.join(YEAR);
    let (node, chain) = overlay.join(YEAR);
    let newer = overlay.next_root();
    let hello = member_hello(&newer, chain);
    let kept = Arc::new(Kept::default());
    let shelf: Arc<dyn Shelf> = kept.clone();
    let state = gates::MemberState {
        roots: overlay.roots.clone(),
        chain: own,
        bootstraps: vec![],
    };
    let member = MemberGate::new(state, Revocations::default(), Some(shelf.clone()));
    let infra = InfraGate::new(overlay.id(), vec![], None, None, Some(shelf));
    let gates: [&dyn Gatekeeper; 2] = [&member, &infra];
    for gate in gates {
        gate.admit(node.peer_id(), &hello, false, wall()).unwrap();
        assert_eq!(kept.0.lock().unwrap().0.take(), Some(2));
        gate.admit(node.peer_id(), &hello, false, wall()).unwrap();
        assert_eq!(kept.0.lock().unwrap().0, None, "once");
        let out = Revoked::Node(own_key.peer_id());
        for number in [2, 1, 2, 3] {
            gate.take_revocations(&overlay.revoke(number, &[out]))
                .unwrap();
        }
        assert_eq!(std::mem::take(&mut kept.0.lock().unwrap().1), [2, 3]);
    }
}

/// A gated listener on loopback; reports the first connection that passes, if any does.
struct Listener {
    addr: Multiaddr,
    passed: tokio::task::JoinHandle<bool>,
}

async fn listen(overlay: &TestOverlay, on: &str) -> Listener {
    let keys = keypair(&overlay.infra);
    let mut gated =
        transport::build(&keys, overlay.infra_gate(), AdmittedTable::default()).unwrap();
    let id = libp2p::core::transport::ListenerId::next();
    gated.listen_on(id, on.parse().unwrap()).unwrap();
    let addr = loop {
        if let Some(TransportEvent::NewAddress { listen_addr, .. }) = gated.next().await {
            break listen_addr;
        }
    };
    let passed = tokio::spawn(async move {
        while let Some(event) = gated.next().await {
            if let Some((upgrade, _)) = event.into_incoming() {
                return match upgrade.await {
                    // Held open a moment, so that the dialer can finish.
                    Ok((_, mut muxer)) => {
                        let end = std::future::poll_fn(|cx| muxer.poll_unpin(cx));
                        let _ = timeout(Duration::from_millis(500), end).await;
                        true
                    }
                    Err(_) => false,
                };
            }
        }
        false
    });
    Listener { addr, passed }
}

const OPTIONS: DialOpts = DialOpts {
    role: Endpoint::Dialer,
    port_use: PortUse::New,
};

/// Speaks libp2p well, says `message` on its first substream and counts what comes back.
async fn answer_to(keys: &Keypair, listener: &Listener, message: Vec<u8>) -> usize {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(keys).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut plain = quic::tokio::Transport::new(quic::Config::new(keys))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .or_transport(tcp)
        .map(|either, _| either.into_inner())
        .boxed();
    let (_, mut muxer) = plain
        .dial(listener.addr.clone(), OPTIONS)
        .unwrap()
        .await
        .unwrap();
    let mut stream = std::future::poll_fn(|cx| muxer.poll_outbound_unpin(cx))
        .await
        .unwrap();
    let pump = tokio::spawn(async move {
        loop {
            if std::future::poll_fn(|cx| muxer.poll_unpin(cx))
                .await
                .is_err()
            {
                break;
            }
        }
    });
    let talk = async {
        let mut received = Vec::new();
        if stream.write_all(&message).await.is_ok() && stream.flush().await.is_ok() {
            // The end may be a reset; what came before it counts.
            let _ = stream.read_to_end(&mut received).await;
        }
        received.len()
    };
    let count = timeout(Duration::from_secs(8), talk).await.unwrap();
    pump.abort();
    count
}

fn framed(hello: &[u8]) -> Vec<u8> {
    let length = u16::try_from(hello.len()).unwrap();
    [&length.to_be_bytes()[..], hello].concat()
}

#[tokio::test]
async fn a_member_passes_and_is_answered() {
    let mut overlay = TestOverlay::new(1);
    let (node, chain) = overlay.join(YEAR);
    let hello = framed(&member_hello(&overlay.roots, chain));
    for on in [TCP, QUIC] {
        let listener = listen(&overlay, on).await;
        let bytes = answer_to(&keypair(&node), &listener, hello.clone()).await;
        assert!(bytes > 2, "{on}");
        assert!(listener.passed.await.unwrap(), "{on}");
    }
}

#[tokio::test]
async fn trust_7_strangers_get_no_byte() {
    let (mut ours, mut theirs) = (TestOverlay::new(1), TestOverlay::new(2));
    let (member, member_chain) = ours.join(YEAR);
    let (late, late_chain) = ours.join(-3600);
    let (foreign, foreign_chain) = theirs.join(YEAR);
    let anybody = Keypair::generate_ed25519();
    let stolen = framed(&member_hello(&ours.roots, member_chain));
    let cases = [
        (
            "no chain",
            &anybody,
            framed(&member_hello(&ours.roots, vec![])),
        ),
        ("another's chain", &anybody, stolen.clone()),
        (
            "expired",
            &keypair(&late),
            framed(&member_hello(&ours.roots, late_chain)),
        ),
        (
            "foreign",
            &keypair(&foreign),
            framed(&member_hello(&theirs.roots, foreign_chain)),
        ),
        ("too long", &keypair(&member), vec![0xff; 70_000]),
        (
            "other protocol",
            &anybody,
            b"\x13/multistream/1.0.0\n".to_vec(),
        ),
    ];
    for (what, keys, message) in &cases {
        for on in [TCP, QUIC] {
            let listener = listen(&ours, on).await;
            let bytes = answer_to(keys, &listener, message.clone()).await;
            assert_eq!(bytes, 0, "{what} on {on}");
            assert!(!listener.passed.await.unwrap(), "{what} on {on}");
        }
    }
}

#[tokio::test]
async fn both_gates_meet() {
    let mut overlay = TestOverlay::new(1);
    let (node, chain) = overlay.join(YEAR);
    let listener = listen(&overlay, TCP).await;
    let admitted = AdmittedTable::default();
    let gate = overlay.member_gate(chain);
    let mut dialer = transport::build(&keypair(&node), gate, admitted.clone()).unwrap();
    let (peer, _muxer) = dialer
        .dial(listener.addr.clone(), OPTIONS)
        .unwrap()
        .await
        .unwrap();
    assert_eq!(addr::from_libp2p(&peer), Some(overlay.infra.peer_id()));
    assert!(admitted.is_infra(&overlay.infra.peer_id()));
}
