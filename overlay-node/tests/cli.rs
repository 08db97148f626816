//! The commands that need no running node, with the built program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the helpers here are only called by tests"
)]

mod site;

use std::io::Write;
use std::process::{Command, Stdio};

use overlay_node::state::{OsEntropy, StateDir, wall_clock};
use overlay_proto::membership::{InviteRequest, NetworkAuthority, Rights, issue_invite};
use overlay_proto::time::UnixTime;
use serde_json::Value;

use site::{BOOTSTRAP, Site, fails, ok, ok_with};

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
fn a_node_without_a_name_is_called_as_its_host_until_it_is_renamed() {
    let site = Site::new();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let invite = site.invite(&["--network", "lab"]);
    let joined = ok_with(&site.node(), &["join", "--json", "-"], &invite);
    let joined: Value = serde_json::from_str(&joined).unwrap();
    assert_eq!(joined["name"], host.trim());
    assert_eq!(joined["name_signed"], false);
    let text = ok(&site.node(), &["rename", "oak"]);
    assert!(
        text.contains("oak") && text.contains("did not sign"),
        "{text}"
    );
    let again = ok_with(&site.node(), &["join", "--json", "-"], &invite);
    assert_eq!(
        serde_json::from_str::<Value>(&again).unwrap()["name"],
        "oak"
    );
    let back: Value = serde_json::from_str(&ok(&site.node(), &["rename", "--json"])).unwrap();
    assert_eq!(back["name"], host.trim());
    fails(&site.node(), &["rename", "not a name"], "", 2);

    // The authority's name stays, and the message says how to get another.
    let named = site.invite(&["--network", "lab", "--name", "ash"]);
    ok_with(&site.node(), &["join", "-"], &named);
    let error = fails(&site.node(), &["rename", "oak"], "", 1);
    assert!(
        error.contains("farlan invite --network NETWORK --name NAME"),
        "{error}"
    );
}

#[test]
fn join_says_that_it_is_not_a_member_before_the_receipt() {
    let site = Site::new();
    // Nobody answers at this address of this host.
    let peer = BOOTSTRAP.rsplit('/').next().unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}");
    let authority = site.authority();
    let args = ["invite", "--network", "lab", "--bootstrap", &address];
    let invite = ok(&authority, &args);
    let begun = std::time::Instant::now();
    let text = ok_with(&site.node(), &["join", "-"], &invite);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    assert!(
        text.contains("member    not yet: /ip4/127.0.0.1/tcp/1"),
        "{text}"
    );
    assert!(text.contains("asked again by `farlan up`"), "{text}");
    let again = ok_with(&site.node(), &["join", "--offline", "--json", "-"], &invite);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert!(again["member_until"].is_null());
    assert!(
        again["not_yet_member"]
            .as_str()
            .unwrap()
            .contains("--offline")
    );
}

/// Reads until `words` have come.
fn read_until(from: &mut impl std::io::Read, words: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 512];
    while !seen.contains(words) {
        let count = from.read(&mut chunk).unwrap();
        assert!(count > 0, "no {words:?} in {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    seen
}

#[test]
fn at_a_terminal_join_asks_shows_nothing_and_ends_when_the_invite_is_whole() {
    let site = Site::new();
    let invite = site.invite(&["--network", "lab", "--network", "home", "--name", "ash"]);
    let invite = invite.trim();
    let terminal = || {
        // From util-linux: a terminal for the command, whose keys are our pipe.
        let mut command = Command::new("script");
        let typed = format!("{} join", env!("CARGO_BIN_EXE_farlan"));
        command
            .args(["-qfec", &typed, "/dev/null"])
            .env("FARLAN_STATE", site.node());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    // Ctrl-C: nothing happens, and the terminal is as it was.
    let mut child = terminal();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    read_until(&mut screen, "Paste the invite");
    keys.write_all(&[3]).unwrap();
    let shown = read_until(&mut screen, "nothing was changed");
    assert_eq!(child.wait().unwrap().code(), Some(1), "{shown}");
    assert!(!site.node().join("membership").exists());

    // In pieces, with a line break in it, without Enter at the end, and the pipe stays open.
    let mut child = terminal();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    read_until(&mut screen, "Paste the invite");
    let (one, other) = invite.split_at(300);
    for piece in [one, "\n", other] {
        keys.write_all(piece.as_bytes()).unwrap();
        keys.flush().unwrap();
    }
    let shown = read_until(&mut screen, "next: farlan attach");
    assert!(
        shown.contains("ash") && shown.contains("not yet"),
        "{shown}"
    );
    assert!(
        !shown.contains(&invite[..40]),
        "the invite is a secret: {shown}"
    );
    assert!(child.wait().unwrap().success());

    // What can never become an invite is told at once.
    let mut child = terminal();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    read_until(&mut screen, "Paste the invite");
    keys.write_all(b"hello\n").unwrap();
    read_until(&mut screen, "this is no invite");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn every_action_and_error_is_json_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("authority");
    let object = |args: &[&str]| -> Value {
        let text = ok(&state, &[args, &["--json"]].concat());
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value.is_object(), "{args:?}: {text}");
        value
    };
    assert_eq!(object(&["init"])["overlay"].as_str().unwrap().len(), 52);
    assert_eq!(object(&["network", "add", "lab"])["name"], "lab");
    assert_eq!(
        object(&["bootstrap", "add", BOOTSTRAP])["bootstraps"][0],
        BOOTSTRAP
    );
    let made = object(&["invite", "--network", "lab", "--name", "ash"]);
    let node = dir.path().join("node");
    let joined = ok_with(
        &node,
        &["join", "-", "--json"],
        made["invite"].as_str().unwrap(),
    );
    assert_eq!(
        serde_json::from_str::<Value>(&joined).unwrap()["added"][0],
        "lab"
    );
    let line = object(&["revoke", "ash"]);
    let applied = ok_with(
        &node,
        &["apply", "-", "--json"],
        line["revocation"].as_str().unwrap(),
    );
    assert!(serde_json::from_str::<Value>(&applied).unwrap()["done"].is_string());
    assert_eq!(object(&["network", "remove", "lab"])["removed"], true);
    object(&["overlay"]);
    object(&["version"]);
    let left = ok(&node, &["leave", "--yes", "--json"]);
    assert!(serde_json::from_str::<Value>(&left).unwrap()["done"].is_string());

    for (args, code) in [
        (&["status"][..], 1),
        (&["detach", "lab"], 1),
        (
            &["invite", "--network", "attic", "--bootstrap", BOOTSTRAP],
            1,
        ),
        (&["join", "--bogus"], 2),
        (&["where", "nowhere"], 2),
    ] {
        let error = fails(&node, &[args, &["--json"]].concat(), "", code);
        let error: Value = serde_json::from_str(&error).unwrap();
        assert!(
            error["error"].as_str().unwrap().len() > 10,
            "{args:?}: {error}"
        );
        assert_eq!(error["code"], code);
    }
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
        (expired.to_text().as_str(), "this host's clock says"),
    ] {
        let error = fails(&site.node(), &["join", "-"], text, 1);
        assert!(error.contains(words), "{error}");
        assert!(!site.node().exists(), "{words}");
    }
    let error = fails(&site.node(), &["join", "@/nonexistent"], "", 1);
    assert!(error.contains("/nonexistent"), "{error}");
    let error = fails(&site.node(), &["join"], "", 2);
    assert!(error.contains("farlan join -"), "{error}");
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

/// A right that nothing enforces would only seem to allow or forbid something.
#[test]
fn trust_5_a_right_that_decides_nothing_is_in_no_invite() {
    let site = Site::new();
    let invite = |right: &str| {
        let args = [
            "invite",
            "--network",
            "lab",
            "--bootstrap",
            BOOTSTRAP,
            "--right",
            "send",
            right,
        ];
        fails(&site.authority(), &args, "", 1)
    };
    for right in ["migrate-in", "migrate-out", "dhcp-server", "router"] {
        let error = invite(right);
        for words in [right, "decides nothing yet", "without it"] {
            assert!(error.contains(words), "{error}");
        }
    }
    let error = invite("witness");
    assert!(error.contains("each invite names its witness"), "{error}");
    let books = ok(&site.authority(), &["invites", "--json"]);
    assert_eq!(books.trim(), "[]");
    let all = ["--network", "lab", "--right", "send", "bridge-nic", "relay"];
    assert!(site.invite(&all).starts_with("farlan-invite-"));
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
