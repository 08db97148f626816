//! A node for tests, whose disk waits for the test's word.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use control_plane::admission::MemberGate;
use control_plane::admission::gates::MemberState;
use control_plane::{ControlEvent, Gatekeeper};
use node_core::store::{Refused, Write};
use overlay_proto::SeededEntropy;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    AuthorityKey, Chain, InviteRequest, InviteUses, Membership, NetworkAuthority, NodeKey,
    OverlaySecret, RevocationLine, Revocations, Revoked, Rights, RootStore, SignedEpoch,
    SignedRevocations, SignedRoot, issue_invite,
};
use overlay_proto::time::UnixTime;
use tokio::sync::{mpsc, oneshot};

use super::startup;
use super::storing::{Disk, disk};
use super::{Inputs, Shell, read_clocks};
use crate::cli::NodeSetup;
use crate::config::Config;
use crate::state::{StateDir, wall_clock};
use node_core::api::{Request, Response, SecretLine};
use node_core::node::switchboard::answers::Answer;

pub(crate) const FULL: &str = "no space is left on the device";

/// Who rules the overlay that the node is in.
pub(crate) struct Authority {
    pub(crate) key: AuthorityKey,
    pub(crate) roots: RootStore,
    pub(crate) network: NetworkAuthority,
    pub(crate) witness: NodeKey,
}

impl Authority {
    pub(crate) fn list(&self, root: u32) -> SignedRevocations {
        self.revoke(root, PeerId([9; 32]))
    }

    /// The first list, signed by the key of that root document.
    pub(crate) fn revoke(&self, root: u32, node: PeerId) -> SignedRevocations {
        let list = Revocations::default();
        let list = list.successor(root, Revoked::Node(node)).unwrap();
        SignedRevocations::sign(&self.key, self.roots.overlay(), list)
    }

    pub(crate) fn next_root(&mut self) {
        let new = AuthorityKey::generate(&mut SeededEntropy::new(77));
        let next = self.roots.successor(&self.key, &new, wall_clock(), 1);
        self.roots.advance(next).unwrap();
        self.key = new;
    }

    pub(crate) fn epoch(&mut self) -> SignedEpoch {
        let list = Revocations::default().number();
        let network = &mut self.network;
        network
            .next_epoch(&self.key, &self.roots, list, wall_clock())
            .unwrap()
    }

    pub(crate) fn line(&mut self) -> Request {
        let version = self.roots.newest().version;
        let line = RevocationLine {
            roots: self.roots.above(0).to_vec(),
            list: self.list(version),
            epochs: vec![self.epoch().encode().into()],
        };
        Request::Apply {
            line: SecretLine(line.to_text().to_string()),
        }
    }

    pub(crate) fn receipt_of(&self, chain: &Chain) -> Chain {
        let application = chain.apply(&self.roots, wall_clock()).unwrap();
        let receipt = InviteUses::default()
            .count(&application, wall_clock())
            .unwrap();
        let receipt = receipt.sign(&self.witness, self.roots.overlay());
        chain.clone().with_receipt(receipt)
    }
}

/// A node that joined in `dir`, and has no receipt.
pub(crate) fn joined(dir: &Path) -> (Authority, NodeSetup) {
    let mut entropy = SeededEntropy::new(8);
    let now = wall_clock();
    let key = AuthorityKey::generate(&mut entropy);
    let roots = RootStore::from_roots([SignedRoot::first(&key, now)]).unwrap();
    let secret = OverlaySecret::generate(&mut entropy);
    let witness = NodeKey::generate(&mut entropy);
    let network = NetworkAuthority::create("lab".parse().unwrap(), 1_500, &mut entropy);
    let request = InviteRequest {
        networks: vec![network.secret()],
        rights: Rights::DEFAULT,
        name: None,
        join_until: UnixTime(now.0 + 3_600),
        member_until: UnixTime(now.0 + 86_400),
        max_nodes: 1,
        witness: None,
        // Nobody answers there.
        bootstraps: vec![format!("/ip4/127.0.0.1/tcp/1/p2p/{}", witness.peer_id())],
    };
    let invite = issue_invite(&key, &roots, &secret, request, now, &mut entropy).unwrap();
    let state = StateDir::at(dir);
    state.create().unwrap();
    let node = state.load_or_create_identity().unwrap();
    let membership = invite.accept(&node, now).unwrap();
    state.save_membership(&membership).unwrap();
    let setup = NodeSetup {
        lock: state.lock().unwrap(),
        config: Config {
            listen: vec!["127.0.0.1:0".to_owned().try_into().unwrap()],
            ..Config::default()
        },
        key: node,
        static_key: state.next_static_key().unwrap(),
        membership,
        revocations: Arc::default(),
        name: "before".to_owned(),
        state,
    };
    let authority = Authority {
        key,
        roots,
        network,
        witness,
    };
    (authority, setup)
}

/// What the disk is told to do with the write that it has in hand.
pub(crate) enum Word {
    Take,
    Refuse,
}

pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) setup: NodeSetup,
    pub(crate) shell: Shell,
    pub(crate) inputs: Inputs,
    pub(crate) gate: Arc<MemberGate>,
    /// What the disk has in hand, and what it is to do.
    pub(crate) asked: Receiver<Write>,
    pub(crate) word: Sender<Word>,
}

impl House {
    pub(crate) async fn build() -> (Authority, Self) {
        let dir = tempfile::tempdir().unwrap();
        let (authority, setup) = joined(dir.path());
        let ((asks, asked), (word, words)) = (channel(), channel());
        let mut known = None;
        let held = |kept, gate: Arc<MemberGate>| -> Disk {
            known = Some(Arc::clone(&gate));
            let mut disk = disk(kept, gate);
            Box::new(move |write| {
                let _ = asks.send(write.clone());
                match words.recv() {
                    Ok(Word::Take) => disk(write),
                    _ => Err(Refused::Disk(FULL.to_owned())),
                }
            })
        };
        let (_, calls) = mpsc::channel(1);
        let (shell, inputs) = startup::start(&setup, calls, held, read_clocks())
            .await
            .unwrap();
        let house = Self {
            dir,
            setup,
            shell,
            inputs,
            gate: known.unwrap(),
            asked,
            word,
        };
        (authority, house)
    }

    pub(crate) fn call(&mut self, request: Request) -> oneshot::Receiver<Response> {
        let (reply, answer) = oneshot::channel();
        self.shell.handle_call(request, reply);
        self.turn();
        answer
    }

    pub(crate) fn turn(&mut self) {
        let tick = read_clocks();
        self.shell.node.take_written(tick);
        self.shell.node.send_writes();
        self.shell.act(tick);
    }

    /// The write that the disk has in hand.
    pub(crate) fn in_hand(&self) -> Write {
        self.asked.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// The disk does as it is told, and the node hears of it.
    pub(crate) async fn tell(&mut self, word: Word) -> Write {
        let write = self.in_hand();
        self.word.send(word).unwrap();
        self.hear().await;
        write
    }

    /// The node hears what the disk did.
    pub(crate) async fn hear(&mut self) {
        loop {
            if let Answer::Written(id, outcome) = self.inputs.answers.recv().await.unwrap() {
                self.shell.handle_answer(Answer::Written(id, outcome));
                return self.turn();
            }
        }
    }

    pub(crate) fn lose_disk(&self) {
        std::fs::remove_dir_all(self.dir.path()).unwrap();
    }

    /// An admission teaches the gate a list, and the node has not heard of it.
    pub(crate) fn admit(&self, list: &[u8]) {
        self.gate.take_revocations(list).unwrap();
    }

    /// An admission teaches the gate root documents.
    pub(crate) fn admit_roots(&self, roots: &RootStore) {
        self.set_gate(roots.clone(), self.gate.chain());
    }

    /// A bootstrap lets the node in, with the receipt in `chain`.
    pub(crate) fn admit_us(&self, chain: &Chain) {
        self.set_gate(self.gate.roots(), chain.encode());
    }

    fn set_gate(&self, roots: RootStore, chain: Vec<u8>) {
        self.gate.set(MemberState {
            roots,
            chain,
            bootstraps: Vec::new(),
        });
    }

    /// The control plane tells of an admitted bootstrap.
    pub(crate) fn infra_up(&mut self, peer: PeerId) {
        let remote = "192.0.2.1:22612".parse().unwrap();
        self.shell.handle_control_event(ControlEvent::InfraUp {
            peer,
            remote,
            data_addrs: vec![remote],
        });
        self.turn();
    }

    pub(crate) fn is_remembered(&self) -> bool {
        let told = self.shell.node.outside.warnings.lines();
        !told.into_iter().any(|line| line.contains(FULL))
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.shell.node.standing.identity.membership.networks()[0].epoch
    }

    pub(crate) fn on_disk(&self) -> Membership {
        self.setup.state.require_membership().unwrap()
    }
}

pub(crate) fn said(answer: &mut oneshot::Receiver<Response>) -> Result<String, String> {
    match answer.try_recv().unwrap() {
        Response::Done(line) => Ok(line),
        Response::Error(line) => Err(line),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn rename(name: &str) -> Request {
    Request::Rename {
        name: Some(name.to_owned()),
    }
}
