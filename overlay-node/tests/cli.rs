//! The commands that need no running node, with the built program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the helpers here are only called by tests"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use overlay_node::state::{OsEntropy, StateDir, wall_clock};
use overlay_proto::membership::{InviteRequest, NetworkAuthority, Rights, issue_invite};
use overlay_proto::time::UnixTime;
use serde_json::Value;
use tempfile::TempDir;

const BOOTSTRAP: &str = "/ip4/192.0.2.1/udp/22611/quic-v1/p2p/\
    12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn farlan(state: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_farlan"))
        .args(args)
        .env("FARLAN_STATE", state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read all of it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Its stdout, after success.
fn ok(state: &Path, args: &[&str]) -> String {
    ok_with(state, args, "")
}

fn ok_with(state: &Path, args: &[&str], stdin: &str) -> String {
    let output = farlan(state, args, stdin);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its one line on stderr, after failure with `code`.
fn fails(state: &Path, args: &[&str], stdin: &str, code: i32) -> String {
    let output = farlan(state, args, stdin);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(output.stdout.is_empty(), "{args:?}");
    if code == 1 {
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    error
}

/// An authority with the networks `lab` and `home`, and a place for nodes.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        ok(&site.authority(), &["init"]);
        ok(&site.authority(), &["network", "add", "lab"]);
        ok(
            &site.authority(),
            &["network", "add", "home", "--mtu", "9000"],
        );
        site
    }

    fn authority(&self) -> PathBuf {
        self.dir.path().join("authority")
    }

    fn node(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    fn invite(&self, args: &[&str]) -> String {
        let base = ["invite", "--bootstrap", BOOTSTRAP];
        ok(&self.authority(), &[&base[..], args].concat())
    }
}

#[test]
fn init_prints_the_overlay_id_on_the_last_line_and_refuses_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let out = ok(dir.path(), &["init"]);
    let id = out.lines().last().unwrap();
    assert_eq!(id.len(), 52);
    assert!(id.parse::<overlay_proto::ids::OverlayId>().is_ok());
    let error = fails(dir.path(), &["init"], "", 1);
    assert!(
        error.contains("holds the authority of an overlay already"),
        "{error}"
    );
}

#[test]
fn from_init_to_join() {
    let site = Site::new();
    let list = ok(&site.authority(), &["network", "list", "--json"]);
    assert!(
        list.contains(r#""name":"home""#) && list.contains("9000"),
        "{list}"
    );
    let invite = site.invite(&["--network", "lab", "--name", "ash"]);
    assert!(invite.starts_with("farlan-invite-"));
    assert_eq!(invite.lines().count(), 1);
    let books = ok(&site.authority(), &["invites"]);
    assert!(books.contains("ash") && books.contains("lab"), "{books}");

    let joined = ok_with(&site.node(), &["join", "--json", "-"], &invite);
    let joined: serde_json::Value = serde_json::from_str(&joined).unwrap();
    assert_eq!(joined["name"], "ash");
    assert_eq!(joined["networks"], serde_json::json!(["lab"]));
    let networks = ok(&site.node(), &["networks", "--json"]);
    let networks: serde_json::Value = serde_json::from_str(&networks).unwrap();
    assert_eq!(networks[0]["name"], "lab");
    assert_eq!(networks[0]["mtu"], 1_500);
    for nothing in ["tap", "bridge", "nic"] {
        assert!(networks[0][nothing].is_null(), "{networks}");
    }

    // A second join adds a network and keeps the key.
    let file = site.dir.path().join("invite");
    std::fs::write(&file, site.invite(&["--network", "home", "lab"])).unwrap();
    let from_file = format!("@{}", file.display());
    let again = ok(&site.node(), &["join", &from_file, "--json"]);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["node"], joined["node"]);
    assert_eq!(again["added"], serde_json::json!(["home"]));
}

#[test]
fn a_foreign_invite_changes_nothing() {
    let (site, other) = (Site::new(), Site::new());
    ok_with(
        &site.node(),
        &["join", "-"],
        &site.invite(&["--network", "lab"]),
    );
    let before = std::fs::read(site.node().join("membership")).unwrap();
    let foreign = other.invite(&["--network", "lab"]);
    let error = fails(&site.node(), &["join", "-"], &foreign, 1);
    assert!(error.contains("is a member of overlay"), "{error}");
    assert_eq!(
        std::fs::read(site.node().join("membership")).unwrap(),
        before
    );
}

#[test]
fn bad_invites_get_clear_errors_and_leave_no_trace() {
    let site = Site::new();
    let invite = site.invite(&["--network", "lab"]);
    let cut = &invite[..200];
    let mut changed = invite.trim().to_owned();
    let last = if changed.ends_with('A') { "B" } else { "A" };
    changed.replace_range(
        300..301,
        if &changed[300..301] == last {
            "C"
        } else {
            last
        },
    );
    let state = StateDir::at(site.authority());
    let authority = state.load_authority().unwrap().unwrap();
    let now = wall_clock();
    let past = |seconds| UnixTime(now.0 - seconds);
    let request = InviteRequest {
        networks: authority
            .networks
            .iter()
            .map(NetworkAuthority::secret)
            .collect(),
        rights: Rights::DEFAULT,
        name: None,
        join_until: past(3_600),
        member_until: past(3_600),
        max_nodes: 1,
        witness: None,
        bootstraps: vec![BOOTSTRAP.to_owned()],
    };
    let (key, roots, secret) = (&authority.key, &authority.roots, &authority.overlay_secret);
    let expired = issue_invite(key, roots, secret, request, past(7_200), &mut OsEntropy).unwrap();
    for (text, words) in [
        ("hello", "this is no invite"),
        ("", "this is no invite"),
        (cut, "damaged"),
        (changed.as_str(), "damaged"),
        (expired.to_text().as_str(), "the invite expired on"),
    ] {
        let error = fails(&site.node(), &["join", "-"], text, 1);
        assert!(error.contains(words), "{error}");
        assert!(!site.node().exists(), "{words}");
    }
    let error = fails(&site.node(), &["join", "@/nonexistent"], "", 1);
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn the_authority_refuses_with_one_line() {
    let site = Site::new();
    let state = site.authority();
    let no_peer = [
        "invite",
        "--network",
        "lab",
        "--bootstrap",
        "/ip4/192.0.2.1/tcp/22611",
    ];
    let error = fails(&state, &no_peer, "", 1);
    assert!(error.contains("ends in /p2p/"), "{error}");
    let unknown = ["invite", "--network", "attic", "--bootstrap", BOOTSTRAP];
    let error = fails(&state, &unknown, "", 1);
    assert!(error.contains("farlan network add attic"), "{error}");
    let error = fails(&state, &["network", "add", "lab"], "", 1);
    assert!(error.contains("exists already"), "{error}");
    let error = fails(&site.node(), &["network", "add", "lab"], "", 1);
    assert!(error.contains("farlan init"), "{error}");
    assert!(!site.node().exists());
}

#[test]
fn from_revoke_to_apply() {
    let site = Site::new();
    let authority = site.authority();
    let invite = site.invite(&["--network", "lab", "--name", "ash"]);
    ok_with(&site.node(), &["join", "-"], &invite);
    let epochs = || {
        let list: Value =
            serde_json::from_str(&ok(&authority, &["network", "list", "--json"])).unwrap();
        [list[0]["epoch"].clone(), list[1]["epoch"].clone()]
    };
    assert_eq!(epochs(), [1, 1]);
    // By name: the invite, and a new epoch where it leads to.
    let line = ok(&authority, &["revoke", "ash"]);
    assert_eq!(line.lines().count(), 1);
    assert_eq!(epochs(), [2, 1]);
    let invites: Value = serde_json::from_str(&ok(&authority, &["invites", "--json"])).unwrap();
    assert_eq!(invites[0]["revoked"], true);
    let id = invites[0]["id"].as_str().unwrap();
    // The same once more, by name or id: the same list, and no further epoch.
    let again: Value = serde_json::from_str(&ok(&authority, &["revoke", id, "--json"])).unwrap();
    assert_eq!((&again["list"], &again["entries"]), (&1.into(), &1.into()));
    let public = |line: &str| line.trim().split_once('.').unwrap().0.to_owned();
    assert_eq!(public(again["revocation"].as_str().unwrap()), public(&line));
    assert_eq!(epochs(), [2, 1]);

    let said = ok_with(&site.node(), &["apply", "-"], &line);
    assert!(said.contains("in force") && said.contains("lab"), "{said}");
    assert!(site.node().join("revocations").exists());
    let said = ok_with(&site.node(), &["apply", "-"], &line);
    assert!(said.contains("known already"), "{said}");

    // A node's id: its networks are not in the books, so all of them, or those named.
    let peer = BOOTSTRAP.rsplit('/').next().unwrap();
    let line = ok(&authority, &["revoke", peer, "--network", "home"]);
    assert_eq!(epochs(), [2, 2]);
    let file = site.dir.path().join("line");
    std::fs::write(&file, public(&line)).unwrap();
    let said = ok(&site.node(), &["apply", &format!("@{}", file.display())]);
    assert!(said.contains("entries on the list: 2"), "{said}");
    assert!(ok(&authority, &["invites"]).contains(peer));

    // Two hosts of one name: the ids are needed, and told.
    site.invite(&["--network", "lab", "--name", "oak"]);
    site.invite(&["--network", "lab", "--name", "oak"]);
    let error = fails(&authority, &["revoke", "oak"], "", 1);
    assert!(error.contains("2 invites"), "{error}");
    for (args, why) in [
        (["revoke", "elm"], "farlan invites"),
        (["apply", "farlan-revocation-x"], "stdin"),
    ] {
        let error = fails(&authority, &args, "", 1);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn two_authorities_from_one_copy_are_united() {
    let site = Site::new();
    let (one, other) = (site.authority(), site.dir.path().join("copy"));
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(one.join("authority"), other.join("authority")).unwrap();
    ok_with(
        &site.node(),
        &["join", "-"],
        &site.invite(&["--network", "lab"]),
    );
    let peers = [
        BOOTSTRAP.rsplit('/').next().unwrap(),
        "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
    ];
    let lines = [
        ok(&one, &["revoke", peers[0]]),
        ok(&other, &["revoke", peers[1]]),
    ];
    ok_with(&site.node(), &["apply", "-"], &lines[0]);
    let output = farlan(
        &site.node(),
        &["apply", "-"],
        lines[1].split('.').next().unwrap(),
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("copied") && said.contains("list: 2"),
        "{said}"
    );
    // One authority learns of the other; its next list heals the fork.
    ok_with(&one, &["apply", "-"], &lines[1]);
    let healed = ok(&one, &["revoke", peers[0], "--json"]);
    let healed: Value = serde_json::from_str(&healed).unwrap();
    assert_eq!(
        (&healed["list"], &healed["entries"]),
        (&2.into(), &2.into())
    );
}

#[test]
fn wrong_usage_is_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["join"],
        &["join", "--bogus"],
        &["network", "add", "Not A Name"],
        &["network", "add", "lab", "--mtu", "100"],
        &["invite", "--network", "lab"],
        &[
            "invite",
            "--network",
            "lab",
            "--bootstrap",
            BOOTSTRAP,
            "--expires",
            "soon",
        ],
        &[
            "invite",
            "--network",
            "lab",
            "--bootstrap",
            BOOTSTRAP,
            "--right",
            "fly",
        ],
        &["attach", "lab", "--bridge", "br0", "--vm", "web"],
        &["attach", "lab", "--vm", "name-that-is-too-long"],
        &["attach", "lab", "--move-addresses"],
        &["attach", "lab", "--nic", "e0", "--confirm-within", "9s"],
        &[
            "attach",
            "lab",
            "--nic",
            "e0",
            "--move-addresses",
            "--confirm-within",
            "2s",
        ],
        &["where", "nowhere"],
        &["announce", "lab", "not-a-mac"],
    ] {
        fails(dir.path(), args, "", 2);
    }
}

#[test]
fn a_node_that_is_not_there() {
    let site = Site::new();
    ok_with(
        &site.node(),
        &["join", "-"],
        &site.invite(&["--network", "lab"]),
    );
    for command in ["status", "peers", "macs"] {
        let error = fails(&site.node(), &[command], "", 1);
        assert!(error.contains("no node runs on"), "{error}");
    }
    let error = fails(&site.node(), &["confirm"], "", 1);
    assert!(error.contains("no move waits"), "{error}");
    // Where nothing has joined, or it has left, starting a node is no advice.
    let dir = tempfile::tempdir().unwrap();
    for command in [
        &["status"][..],
        &["networks"],
        &["attach", "lab"],
        &["up"],
        &["confirm"],
        &["leave", "--yes"],
    ] {
        let error = fails(dir.path(), command, "", 1);
        assert!(error.contains("holds no membership"), "{error}");
    }
    let config = dir.path().join("farlan.toml");
    std::fs::write(&config, "lisen = []").unwrap();
    let error = fails(
        dir.path(),
        &["up", "--config", config.to_str().unwrap()],
        "",
        1,
    );
    assert!(error.contains("unknown field `lisen`"), "{error}");
    assert!(ok(dir.path(), &["version"]).starts_with("farlan 0."));
}

#[test]
fn a_damaged_file_is_reported_and_left() {
    let site = Site::new();
    let invite = site.invite(&["--network", "lab"]);
    ok_with(&site.node(), &["join", "-"], &invite);
    let file = site.node().join("membership");
    std::fs::write(&file, "nonsense").unwrap();
    let error = fails(&site.node(), &["join", "-"], &invite, 1);
    assert!(error.contains("membership is damaged"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"nonsense");
}
