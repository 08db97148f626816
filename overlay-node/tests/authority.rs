//! The commands of the authority, with the built program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the helpers here are only called by tests"
)]

mod site;

use overlay_node::state::{StateDir, wall_clock};
use overlay_proto::membership::{NodeKey, Receipt};
use serde_json::Value;

use site::{BOOTSTRAP, Site, fails, farlan, ok, ok_with};

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
    let letters = &id[..6];
    let again: Value =
        serde_json::from_str(&ok(&authority, &["revoke", letters, "--json"])).unwrap();
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

    // Two invites of one name: the ids are needed, and told.
    site.invite(&["--network", "lab", "--name", "oak"]);
    site.invite(&["--network", "lab", "--name", "oak", "--again"]);
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
fn the_authority_remembers_its_bootstraps() {
    let site = Site::new();
    let authority = site.authority();
    let invite = ["invite", "--network", "lab"];
    let error = fails(&authority, &invite, "", 2);
    assert!(error.contains("farlan bootstrap add ADDR"), "{error}");
    let error = fails(&authority, &["bootstrap", "add", "192.0.2.1:22611"], "", 1);
    assert!(error.contains("ends in /p2p/"), "{error}");
    ok(&authority, &["bootstrap", "add", BOOTSTRAP]);
    ok(&authority, &["bootstrap", "add", BOOTSTRAP]);
    assert_eq!(ok(&authority, &["bootstrap", "list"]).trim(), BOOTSTRAP);
    let text = ok(&authority, &invite);
    ok_with(&site.node(), &["join", "-"], &text);

    let overlay: Value = serde_json::from_str(&ok(&authority, &["overlay", "--json"])).unwrap();
    assert_eq!(overlay["overlay"].as_str().unwrap().len(), 52);
    assert_eq!(overlay["networks"][1]["name"], "home");
    assert_eq!(overlay["bootstraps"], serde_json::json!([BOOTSTRAP]));
    assert_eq!(
        (&overlay["invites"], &overlay["open"]),
        (&1.into(), &1.into())
    );
    let shown = ok(&authority, &["overlay"]);
    assert!(
        shown.contains(BOOTSTRAP) && shown.contains("lab"),
        "{shown}"
    );

    let peer = BOOTSTRAP.rsplit('/').next().unwrap();
    ok(&authority, &["bootstrap", "remove", peer]);
    let error = fails(&authority, &["bootstrap", "remove", peer], "", 1);
    assert!(error.contains("farlan bootstrap list"), "{error}");
    fails(&authority, &invite, "", 2);
}

#[test]
fn one_host_at_a_time_has_a_name() {
    let site = Site::new();
    let authority = site.authority();
    site.invite(&["--network", "lab", "--name", "oak"]);
    let twice = [
        "invite",
        "--bootstrap",
        BOOTSTRAP,
        "--network",
        "lab",
        "--name",
        "oak",
    ];
    let error = fails(&authority, &twice, "", 1);
    assert!(
        error.contains("farlan revoke oak") && error.contains("--again"),
        "{error}"
    );
    ok(&authority, &["revoke", "oak"]);
    ok(&authority, &twice);
    fails(
        &authority,
        &["invite", "--network", "lab", "--name", "no name"],
        "",
        2,
    );
}

#[test]
fn an_invite_goes_into_a_file_of_its_owner() {
    use std::os::unix::fs::PermissionsExt;

    let site = Site::new();
    let file = site.dir.path().join("oak.invite");
    let path = file.to_str().unwrap();
    let said = site.invite(&["--network", "lab", "--output", path]);
    assert!(
        said.contains(path) && !said.contains("farlan-invite-"),
        "{said}"
    );
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    ok(&site.node(), &["join", &format!("@{path}")]);
    // A second one overwrites nothing, and is not in the books either.
    let args = [
        "invite",
        "--bootstrap",
        BOOTSTRAP,
        "--network",
        "lab",
        "--output",
        path,
    ];
    let error = fails(&site.authority(), &args, "", 1);
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let books: Value =
        serde_json::from_str(&ok(&site.authority(), &["invites", "--json"])).unwrap();
    assert_eq!(books.as_array().unwrap().len(), 1);
}

#[test]
fn a_network_is_removed_when_nobody_is_in_it() {
    let site = Site::new();
    let authority = site.authority();
    site.invite(&["--network", "lab", "--name", "oak"]);
    let error = fails(&authority, &["network", "remove", "lab"], "", 1);
    assert!(error.contains("--force"), "{error}");
    ok(&authority, &["network", "remove", "home"]);
    ok(&authority, &["network", "remove", "lab", "--force"]);
    let list = ok(&authority, &["network", "list", "--json"]);
    assert_eq!(list.trim(), "[]");
    // What leads to it can still be revoked.
    ok(&authority, &["revoke", "oak"]);
    fails(&authority, &["network", "remove", "lab"], "", 1);
}

#[test]
fn members_tell_the_authority_who_used_which_invite() {
    let site = Site::new();
    let authority = site.authority();
    // A bootstrap of our own, so that we can give its receipt.
    let witness = NodeKey::from_secret(&[9; 32]);
    let address = format!("/ip4/192.0.2.1/tcp/22611/p2p/{}", witness.peer_id());
    let invite = [
        "invite",
        "--network",
        "lab",
        "--name",
        "ash",
        "--bootstrap",
        &address,
    ];
    let text = ok(&authority, &invite);
    ok_with(&site.node(), &["join", "-"], &text);
    let books = ok(&authority, &["invites"]);
    assert!(books.contains("not known here"), "{books}");

    let state = StateDir::at(site.node());
    let membership = state.require_membership().unwrap();
    let chain = membership.chain().unwrap().clone();
    let receipt = Receipt {
        peer: chain.claimed_peer(),
        invite: chain.claimed_invite(),
        time: wall_clock(),
    };
    let chain = chain.with_receipt(receipt.sign(&witness, membership.overlay()));
    let shown = serde_json::json!([{ "node": "x", "certificate": chain.to_text() }]).to_string();
    let seen = ok_with(&authority, &["invites", "--seen", "-", "--json"], &shown);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let node = chain.claimed_peer().to_string();
    assert_eq!(seen[0]["used_by"][0]["node"], node);
    assert_eq!(seen[0]["used_by"][0]["at"], receipt.time.0);
    let books = ok(&authority, &["invites"]);
    assert!(
        books.contains(&node[..12]) && !books.contains("not known here"),
        "{books}"
    );

    // A forged one proves nothing; another overlay's is refused; a seen node is known by its id.
    let forged = chain
        .clone()
        .with_receipt(receipt.sign(&NodeKey::from_secret(&[8; 32]), membership.overlay()));
    let other = Site::new();
    let error = fails(&other.authority(), &["invites", "--seen", "-"], &shown, 1);
    assert!(error.contains("another overlay"), "{error}");
    let shown = serde_json::json!([{ "certificate": forged.to_text() }]).to_string();
    ok_with(&authority, &["invites", "--seen", "-"], &shown);
    let line = ok(&authority, &["revoke", &node[..14], "--json"]);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["networks"], serde_json::json!(["lab"]));
    assert!(line["revoked"].as_str().unwrap().contains(&node), "{line}");
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
