//! Handshake messages, from a member that plays foul: mac1 is always right.

use std::time::Instant;

use nat_traversal::entropy::SeededEntropy;
use nat_traversal::path::Path;
use overlay_proto::handshake::static_public;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{MemberVerifier, hmac_sha256, mac1_key};
use overlay_proto::session::Suite;
use overlay_proto::tunnels::{Tunnels, TunnelsConfig};
use overlay_proto::wire::DatagramKind;
use zeroize::Zeroizing;

use super::membership::{BORN, OVERLAY};
use crate::input::{Input, chunk};
use crate::{Seen, Target};

/// mac1 and mac2 behind a message, in bytes.
const MACS_LEN: usize = 32;
const RESPONDER_STATIC: [u8; 32] = [0x52; 32];
const RESPONDER: PeerId = PeerId([0x42; 32]);

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "handshake_message1",
            run: |bytes| message(bytes, 0),
            seeds: || vec![without_macs(&conversation().0)],
            speed: 2,
        },
        Target {
            name: "handshake_message2",
            run: |bytes| message(bytes, 1),
            seeds: || vec![without_macs(&conversation().1)],
            speed: 2,
        },
        Target {
            name: "handshake_identity",
            run: identity,
            seeds: || {
                let static_key = OVERLAY.signed_static.encode();
                vec![
                    [chunk(&OVERLAY.chain()), chunk(&static_key)].concat(),
                    [chunk(&[]), chunk(&static_key)].concat(),
                ]
            },
            speed: 2,
        },
    ]
}

fn tunnels(me: PeerId, secret: [u8; 32], chain: Vec<u8>, signed_static: Vec<u8>) -> Tunnels {
    let networks = OVERLAY.member.networks();
    let config = TunnelsConfig {
        me,
        overlay: OVERLAY.roots.overlay(),
        overlay_secret: OVERLAY.secret.clone(),
        psk_root_version: 1,
        revocation_number: 0,
        static_secret: Zeroizing::new(secret),
        chain,
        signed_static,
        networks: networks.iter().map(|network| network.id).collect(),
        suites: Suite::ALL,
        incarnation: 1,
    };
    Tunnels::new(config, 0)
}

/// A member, with the chain and static key given.
fn initiator(chain: Vec<u8>, signed_static: Vec<u8>) -> Tunnels {
    let me = OVERLAY.node.peer_id();
    tunnels(me, OVERLAY.static_secret, chain, signed_static)
}

/// The other end. It has no chain of its own: the initiator's is what is looked at.
fn responder() -> Tunnels {
    let chain = OVERLAY.chain();
    tunnels(
        RESPONDER,
        RESPONDER_STATIC,
        chain,
        OVERLAY.signed_static.encode(),
    )
}

fn verifier() -> MemberVerifier {
    let networks = OVERLAY.member.networks();
    let ids = networks.iter().map(|network| network.id).collect();
    MemberVerifier::new(OVERLAY.roots.clone(), ids)
}

fn path() -> Path {
    Path::direct("192.0.2.1:4000".parse().unwrap())
}

struct Pair {
    ends: [Tunnels; 2],
    now: Instant,
    chance: SeededEntropy,
    verifier: MemberVerifier,
}

impl Pair {
    fn new(first: Tunnels) -> Self {
        Self {
            ends: [first, responder()],
            now: Instant::now(),
            chance: SeededEntropy::new(3),
            verifier: verifier(),
        }
    }

    fn connect(&mut self) -> Vec<u8> {
        let key = static_public(&RESPONDER_STATIC);
        self.ends[0].connect(self.now, BORN, &mut self.chance, RESPONDER, key, &[path()]);
        self.ends[0]
            .poll_transmit()
            .map(|transmit| transmit.bytes)
            .unwrap_or_default()
    }

    fn deliver(&mut self, to: usize, bytes: &[u8], seen: &mut Seen) -> Option<Vec<u8>> {
        let result = self.ends[to].handle_datagram(
            self.now,
            BORN,
            &mut self.chance,
            &self.verifier,
            bytes,
            path(),
        );
        seen.result(&result);
        while let Some(event) = self.ends[to].poll_event() {
            seen.note(&std::mem::discriminant(&event));
        }
        let answer = self.ends[to].poll_transmit();
        answer.map(|transmit| transmit.bytes)
    }
}

/// Both messages of an undisturbed handshake.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let chain = OVERLAY.chain();
    let mut pair = Pair::new(initiator(chain, OVERLAY.signed_static.encode()));
    let first = pair.connect();
    let second = pair.deliver(1, &first, &mut Seen::default()).unwrap();
    (first, second)
}

fn without_macs(message: &[u8]) -> Vec<u8> {
    message[..message.len() - MACS_LEN].to_vec()
}

/// Delivers a message to its receiver under a right mac1, after what must come before it.
fn message(bytes: &[u8], to: usize) -> u64 {
    let mut seen = Seen::default();
    let secret = [RESPONDER_STATIC, OVERLAY.static_secret][to];
    let key = mac1_key(&OVERLAY.secret, &static_public(&secret));
    let mac = hmac_sha256(&key, &[bytes]);
    let whole = [bytes, &mac[..16], &[0; 16]].concat();
    let chain = OVERLAY.chain();
    let mut pair = Pair::new(initiator(chain, OVERLAY.signed_static.encode()));
    let to = 1 - to;
    if to == 0 {
        pair.connect();
    }
    let answer = pair.deliver(to, &whole, &mut seen);
    if let Some(answer) = answer {
        assert!(answer.len() <= whole.len(), "never more than was asked for");
        seen.note(&DatagramKind::parse(&answer));
    }
    assert!(pair.ends[to].sessions().count() <= 1);
    seen.number()
}

/// A handshake of a member that shows what it likes as its chain and static key.
fn identity(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let (chain, signed_static) = (input.chunk().to_vec(), input.chunk().to_vec());
    let honest = chain == OVERLAY.chain() && signed_static == OVERLAY.signed_static.encode();
    let mut pair = Pair::new(initiator(chain, signed_static));
    let first = pair.connect();
    if first.is_empty() {
        seen.note(&"not sent");
        return seen.number();
    }
    let answer = pair.deliver(1, &first, &mut seen);
    assert_eq!(
        answer.is_some(),
        honest,
        "only the one true chain and key are let in"
    );
    seen.number()
}
