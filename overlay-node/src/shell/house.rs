//! A node for tests, whose disk waits for the test's word.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use control_plane::ControlEvent;
use control_proto::admission::gates::MemberState;
use control_proto::admission::{Gatekeeper, MemberGate};
use node_core::store::{Refused, Write};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::test_authority::TestOverlay;
use overlay_proto::membership::{Chain, Membership, Revoked, RootStore, SignedRevocations};
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

/// The next list, which revokes a node that nobody is.
pub(crate) fn list(authority: &TestOverlay) -> SignedRevocations {
    authority.next_list(Revoked::Node(PeerId([9; 32])))
}

/// The line with that list, with new keys.
pub(crate) fn line(authority: &mut TestOverlay) -> Request {
    let (list, epoch) = (list(authority), authority.next_epoch(0));
    let line = authority.line(list, &[epoch]);
    Request::Apply {
        line: SecretLine(line.to_text().to_string()),
    }
}

/// A node that joined in `dir`, and has no receipt.
pub(crate) fn joined(dir: &Path) -> (TestOverlay, NodeSetup) {
    let mut authority = TestOverlay::born(wall_clock(), 8, &["lab"]);
    // Nobody answers there.
    let place = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", authority.witness.peer_id());
    authority.bootstraps = vec![place];
    let state = StateDir::at(dir);
    state.create().unwrap();
    let node = state.load_or_create_identity().unwrap();
    let membership = authority.join(&node, &["lab"]);
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
    pub(crate) async fn build() -> (TestOverlay, Self) {
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
