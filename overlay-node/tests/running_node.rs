//! The commands against a control socket that a test serves in place of a node.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the helpers here are only called by tests"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use nat_traversal::path::PathKind;
use overlay_node::control_socket::api::{
    BootstrapReport, BootstrapState, MacReport, NatReport, NetworkReport, PathReport, PeerReport,
    Request, Response, ShownName, StatusReport,
};
use overlay_node::control_socket::server::{ControlCall, ControlServer};
use overlay_node::state::StateDir;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::time::UnixTime;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

// Nothing listens there: `join` does not wait for it.
const BOOTSTRAP: &str = "/ip4/127.0.0.1/tcp/1/p2p/\
    12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// A served socket; it remembers what was asked.
struct FakeNode {
    dir: TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl FakeNode {
    fn start(answer: impl Fn(&Request) -> Response + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = StateDir::at(dir.path()).socket();
        let server = ControlServer::bind(&socket, &[]).unwrap();
        let (calls, mut requests) = mpsc::channel::<ControlCall>(4);
        tokio::spawn(server.serve(calls));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some((request, reply)) = requests.recv().await {
                let _ = reply.send(answer(&request));
                log.lock().unwrap().push(request);
            }
        });
        Self { dir, asked }
    }

    async fn run(&self, args: &[&str]) -> Output {
        run(self.dir.path(), args).await
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn last_asked(&self) -> Request {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

async fn run(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farlan"));
    command.args(args).env("FARLAN_STATE", state);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn peer() -> PeerReport {
    PeerReport {
        node: PeerId([7; 32]),
        name: ShownName::signed("oak"),
        path: PathReport {
            kind: PathKind::Relayed,
            remote: Some("192.0.2.1:22611".parse().unwrap()),
            via: Some(PeerId([8; 32])),
            why: Some("no-answer".to_owned()),
            why_text: Some("no address of the peer answered".to_owned()),
            rtt_ms: Some(50.25),
            mtu: Some(1_280),
        },
        suite: Some("chacha20-poly1305".to_owned()),
        heard_s: Some(4),
        tx_bytes: 10,
        rx_bytes: 20,
    }
}

fn status() -> StatusReport {
    StatusReport {
        node: PeerId([1; 32]),
        name: "ash".to_owned(),
        name_signed: true,
        overlay: OverlayId([2; 32]),
        version: "0.1.0".to_owned(),
        uptime_s: 61,
        workers: 1,
        tasks: 9,
        member_until: Some(UnixTime(2_000_000_000)),
        warnings: Vec::new(),
        refused: None,
        bootstraps: vec![BootstrapReport {
            node: PeerId([8; 32]),
            addresses: vec!["/ip4/192.0.2.1/tcp/22611".to_owned()],
            state: BootstrapState::Up,
            why: None,
            data: vec!["192.0.2.1:22611".parse().unwrap()],
            udp: Some(false),
            clock_ahead_s: None,
        }],
        listen: vec!["0.0.0.0:22611".parse().unwrap()],
        nat: NatReport::default(),
        networks: vec![NetworkReport {
            name: "lab".parse().unwrap(),
            tap: Some("fl-lab".to_owned()),
            bridge: Some("br-lab".to_owned()),
            nic: Some("eth1".to_owned()),
            vms: vec!["web1".to_owned(), "web2".to_owned()],
            mtu: 1_500,
            epoch: 1,
            offload: Some(false),
            clamp: Some(true),
            bpdu: Some(false),
            shared: Vec::new(),
        }],
        peers: vec![peer()],
        drops: BTreeMap::from([("unknown_mac".to_owned(), 3)]),
        unknown: Vec::new(),
    }
}

fn mac(network: &str) -> MacReport {
    MacReport {
        network: network.parse().unwrap(),
        vlan: 0,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        node: PeerId([7; 32]),
        name: ShownName::signed("oak"),
        local: false,
        generation: 3,
        contested: 0,
        kind: overlay_proto::directory::ClaimKind::Learned,
        ips: vec!["10.0.0.5".parse().unwrap()],
        age_s: 1.5,
    }
}

#[tokio::test]
async fn status_for_people_and_programs() {
    let node = FakeNode::start(|request| match request {
        Request::Status => Response::Status(Box::new(status())),
        _ => Response::Peers(vec![peer()]),
    });
    let shown = node.json(&["status", "--json"]).await;
    assert_eq!(shown, serde_json::to_value(status()).unwrap());
    assert_eq!(shown["peers"][0]["path"]["kind"], "relayed");
    assert_eq!(shown["drops"], json!({"unknown_mac": 3}));
    let peers = node.json(&["peers", "--json"]).await;
    assert_eq!(peers, json!([shown["peers"][0]]));

    let text = String::from_utf8(node.run(&["status"]).await.stdout).unwrap();
    for word in [
        "ash",
        "fl-lab",
        "eth1",
        "web1 web2",
        "0.0.0.0:22611",
        "relayed",
        "no-answer",
        "50.2ms",
        "unknown_mac",
        "1m 1s",
    ] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
}

/// Everything as long as it can be, and all that is alike.
fn long_status() -> StatusReport {
    let address = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535";
    let mut report = status();
    report.name = "h".repeat(63);
    report.listen = vec![address.parse().unwrap(); 4];
    report.nat.reflexive = vec![address.parse().unwrap(); 8];
    report.networks[0].name = "twelve-chars".parse().unwrap();
    let network = &mut report.networks[0];
    for name in [&mut network.tap, &mut network.bridge, &mut network.nic] {
        *name = Some("fifteen-letters".to_owned());
    }
    report.networks[0].vms = vec!["fifteen-letters".to_owned(); 9];
    report.networks[0].mtu = 9_000;
    report.peers = (0..9)
        .map(|n| {
            let mut peer = peer();
            let mut id = [7; 32];
            id[3] = n;
            peer.node = PeerId(id);
            peer.name = ShownName::unsigned(&format!("{n}{}", "p".repeat(62)));
            peer.path.remote = Some(address.parse().unwrap());
            peer.path.rtt_ms = Some(59_999.9);
            (peer.tx_bytes, peer.rx_bytes) = (u64::MAX, u64::MAX / 3);
            peer
        })
        .collect();
    report.drops = overlay_proto::drop_reason::DropReason::ALL
        .iter()
        .map(|reason| (reason.name().to_owned(), 4_000_000_000))
        .collect();
    report
}

fn long_mac(n: u8) -> MacReport {
    let mut mac = mac("twelve-chars");
    mac.vlan = 4_094;
    mac.node = PeerId([n; 32]);
    mac.name = ShownName::signed(&"n".repeat(63));
    mac.ips = vec!["2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap(); 16];
    mac
}

#[tokio::test]
async fn tables_fit_100_columns_and_lose_nothing() {
    let node = FakeNode::start(|request| match request {
        Request::Status => Response::Status(Box::new(long_status())),
        Request::Peers => Response::Peers(long_status().peers),
        Request::Networks => Response::Networks(long_status().networks),
        _ => Response::Macs((0..5).map(long_mac).collect()),
    });
    for args in [["status"], ["peers"], ["networks"], ["macs"]] {
        let text = String::from_utf8(node.run(&args).await.stdout).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{args:?}: {line}\n{text}");
        }
    }
    // Ids are as long as it takes to tell them apart, and such a piece is taken for the whole.
    let text = String::from_utf8(node.run(&["peers"]).await.stdout).unwrap();
    let ids: std::collections::BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.starts_with("12D3"))
        .collect();
    assert_eq!(ids.len(), 9, "{text}");
    let first = ids.first().unwrap();
    let found = node.json(&["peers", first, "--json"]).await;
    let id = found[0]["node"].as_str().unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert!(id.starts_with(first) && id.len() == 52, "{id}");
}

#[tokio::test]
async fn names_are_shown_and_accepted() {
    let node = FakeNode::start(|request| match request {
        Request::Status => Response::Status(Box::new(status())),
        Request::Peers => Response::Peers(vec![peer()]),
        Request::Macs { .. } => {
            let mut said = mac("lab");
            said.mac = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
            said.node = PeerId([8; 32]);
            said.name = ShownName::unsigned("elm");
            Response::Macs(vec![mac("lab"), said])
        }
        _ => Response::Done(String::new()),
    });
    let text = String::from_utf8(node.run(&["macs"]).await.stdout).unwrap();
    assert!(text.contains(" oak ") && text.contains(" ~elm "), "{text}");
    for (word, mac) in [("oak", 1), ("elm", 2), ("~elm", 2)] {
        for args in [
            ["where", word, "--json"].as_slice(),
            &["macs", "--node", word, "--json"],
        ] {
            let found = node.json(args).await;
            assert_eq!(found.as_array().unwrap().len(), 1, "{args:?}");
            assert_eq!(
                found[0]["mac"],
                format!("52:54:00:00:00:0{mac}"),
                "{args:?}"
            );
        }
    }
    let found = node.json(&["peers", "oak", "--json"]).await;
    assert_eq!(
        (&found[0]["name"], &found[0]["name_signed"]),
        (&json!("oak"), &json!(true))
    );
    let output = node.run(&["peers", "yew"]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("farlan peers"), "{error}");
    assert_eq!(node.run(&["where", "yew"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn an_ambiguous_address_is_an_error() {
    let node = FakeNode::start(|request| match request {
        Request::Where {
            network: Some(_), ..
        } => Response::Macs(vec![mac("lab")]),
        Request::Where { .. } => Response::Macs(vec![mac("lab"), mac("home")]),
        _ => Response::Macs(Vec::new()),
    });
    let output = node.run(&["where", "10.0.0.5"]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("home, lab") && error.contains("--network"),
        "{error}"
    );
    let found = node
        .json(&["where", "10.0.0.5", "--network", "lab", "--json"])
        .await;
    assert_eq!(found[0]["node"], PeerId([7; 32]).to_string());
    assert_eq!(found[0]["age_s"], 1.5);
    assert_eq!(node.json(&["macs", "--json"]).await, json!([]));
}

#[tokio::test]
async fn changes_go_through_the_node_and_its_refusal_is_ours() {
    let node = FakeNode::start(|request| match request {
        Request::Detach(_) => Response::Error("not attached; attach it first".to_owned()),
        _ => Response::Done("done".to_owned()),
    });
    assert!(
        node.run(&["attach", "lab", "--vm", "web1"])
            .await
            .status
            .success()
    );
    let Request::Attach(request) = node.last_asked() else {
        unreachable!("attach asks for an attachment");
    };
    assert_eq!(request.vm.as_deref(), Some("web1"));
    // What nothing is said of stays as it is; of two opposites the last counts.
    assert_eq!((request.offload, request.clamp), (None, None));
    let flags = ["--no-offload", "--no-clamp", "--clamp"];
    node.run(&[&["attach", "lab"][..], &flags].concat()).await;
    let Request::Attach(request) = node.last_asked() else {
        unreachable!("attach asks for an attachment");
    };
    assert_eq!((request.offload, request.clamp), (Some(false), Some(true)));
    let output = node.run(&["detach", "lab"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"farlan: not attached; attach it first\n");
    assert!(
        node.run(&["announce", "lab", "52:54:00:00:00:01"])
            .await
            .status
            .success()
    );
    assert!(matches!(node.last_asked(), Request::Announce { .. }));
}

#[tokio::test]
async fn join_tells_the_running_node() {
    let authority = tempfile::tempdir().unwrap();
    for args in [&["init"][..], &["network", "add", "lab"]] {
        assert!(run(authority.path(), args).await.status.success());
    }
    let args = ["invite", "--network", "lab", "--bootstrap", BOOTSTRAP];
    let invite = String::from_utf8(run(authority.path(), &args).await.stdout).unwrap();
    let node = FakeNode::start(|_| Response::Done(String::new()));
    let output = node.run(&["join", invite.trim()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("the running node uses it now"), "{text}");
    assert!(node.asked.lock().unwrap().contains(&Request::Reload));
}

#[tokio::test]
async fn a_second_node_on_the_directory_is_refused() {
    let node = FakeNode::start(|_| Response::Done(String::new()));
    let state = StateDir::at(node.dir.path());
    let lock = state.lock().unwrap();
    assert!(state.lock().is_err());
    drop(lock);
    let second = ControlServer::bind(&state.socket(), &[]);
    assert!(second.unwrap_err().to_string().contains("a node runs on"));
}
