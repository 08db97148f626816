//! Members come in; strangers get no byte, and the swarm never hears of them.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::transport::{DialOpts, PortUse, Transport, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, noise, quic, tcp, yamux};
use overlay_proto::membership::{NodeKey, SignedRoot, WitnessRefusal};
use overlay_proto::time::UnixTime;
use tokio::time::timeout;

use super::fixture::TestOverlay;
use super::hello::Hello;
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
        revocation_number: 0,
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
            gate.admit(node.peer_id(), &hello, false),
            Ok(Admitted::Member { .. })
        ));
        let (stranger, chain) = theirs.join(YEAR);
        let foreign = member_hello(&theirs.roots, chain.clone());
        assert!(gate.admit(stranger.peer_id(), &foreign, false).is_err());
        let mixed = member_hello(&ours.roots, chain);
        assert!(matches!(
            gate.admit(stranger.peer_id(), &mixed, false),
            Err(Refusal::Membership(_))
        ));
        let (late, chain) = ours.join(-3600);
        assert!(matches!(
            gate.admit(late.peer_id(), &member_hello(&ours.roots, chain), false),
            Err(Refusal::Membership(_))
        ));
        assert_eq!(
            gate.admit(stranger.peer_id(), &hello, false),
            Err(Refusal::WrongPeer(node.peer_id()))
        );
        let infra = ours.infra_gate().own_hello();
        let role = gate.admit(ours.infra.peer_id(), &infra, false);
        assert_eq!(role, Err(Refusal::WrongRole));
        let junk = gate.admit(stranger.peer_id(), b"hello", false);
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
        gate.admit(overlay.infra.peer_id(), &infra, true),
        Ok(Admitted::Infra { data_addrs }) if data_addrs.len() == 2
    ));
    let impostor = gate.admit(other.peer_id(), &infra, true);
    assert_eq!(impostor, Err(Refusal::NotPinned));
    let hello = member_hello(&overlay.roots, other_chain);
    assert!(gate.admit(other.peer_id(), &hello, true).is_ok());
    let elsewhere = TestOverlay::new(2);
    let foreign = elsewhere.infra_gate().own_hello();
    assert_eq!(
        gate.admit(overlay.infra.peer_id(), &foreign, true),
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
        member_gate.admit(node.peer_id(), &hello, false),
        Err(Refusal::Membership(
            overlay_proto::membership::MembershipError::ReceiptMissing
        ))
    );
    let theirs = member_hello(&overlay.roots, chain);
    let met = gate.admit(member.peer_id(), &theirs, false);
    assert_eq!(met, Err(Refusal::NotYetMember));

    // The witness counts it and answers with the receipt; the node is a member from then on.
    let infra = overlay.infra_gate();
    let verdict = infra.admit(node.peer_id(), &hello, false);
    let answer = infra.answer(&verdict).unwrap();
    gate.admit(overlay.infra.peer_id(), &answer, true).unwrap();
    assert!(
        member_gate
            .admit(node.peer_id(), &gate.own_hello(), false)
            .is_ok()
    );
    // A bootstrap that gives none is not let in.
    let bare_gate = overlay.member_gate(bare.encode());
    let silent = bare_gate.admit(overlay.infra.peer_id(), &infra.own_hello(), true);
    assert_eq!(silent, Err(Refusal::NotYetMember));

    // The time to join has passed: the reason arrives.
    let (late, bare) = overlay.apply(UnixTime(now.0 - 86_400), YEAR);
    let gate = overlay.member_gate(bare.encode());
    let verdict = infra.admit(late.peer_id(), &gate.own_hello(), false);
    let answer = infra.answer(&verdict).unwrap();
    assert!(matches!(
        gate.admit(overlay.infra.peer_id(), &answer, true),
        Err(Refusal::NoReceipt(WitnessRefusal::TooLate(_)))
    ));
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
