//! Attach and detach against a real kernel, each test in a network namespace of its own that
//! vanishes with its thread. Needs root; skipped loudly without.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::future::Future;
use std::path::{Path, PathBuf};

use overlay_node::attachments::{
    self, AttachSpec, AttachTarget, attach, detach, detach_vm, ensure, load,
};
use overlay_proto::ids::NetworkName;
use tap_bridge::tap::{self, TapKind};
use tap_bridge::{Error, Links, TapQueue};

/// A state directory that vanishes with the test.
struct StateDir(PathBuf);

impl StateDir {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn in_namespace<F: Future<Output = ()>>(
    name: &'static str,
    test: impl FnOnce(Links, PathBuf) -> F + Send + 'static,
) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare takes a flag word only; it changes the namespace of this thread.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        if !moved {
            let needed = std::env::var_os("FARLAN_LAB").is_some();
            assert!(!needed, "FARLAN_LAB needs root");
            eprintln!("SKIPPED: needs root (CAP_SYS_ADMIN) for a network namespace");
            return;
        }
        let dir = StateDir::new(name);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { test(Links::connect().unwrap(), dir.0.clone()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn spec(target: AttachTarget) -> AttachSpec {
    AttachSpec::new(lab(), target)
}

fn lab() -> NetworkName {
    "lab".parse().unwrap()
}

async fn names(links: &Links) -> Vec<String> {
    let mut names: Vec<String> = links
        .all()
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.name)
        .collect();
    names.retain(|name| name != "lo");
    names.sort();
    names
}

async fn error_of(dir: &Path, spec: &AttachSpec) -> String {
    let text = format!("{:#}", attach(dir, spec).await.unwrap_err());
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn default_bridge_twice_then_a_vm_then_nothing() {
    in_namespace("default", |links, dir| async move {
        for _ in 0..2 {
            let told = attach(&dir, &spec(AttachTarget::DefaultBridge))
                .await
                .unwrap();
            assert_eq!(told, "lab is attached: tap fl-lab on bridge br-lab");
            assert_eq!(names(&links).await, ["br-lab", "fl-lab"]);
        }
        let vm = spec(AttachTarget::Vm("vm0".to_owned()));
        attach(&dir, &vm).await.unwrap();
        attach(&dir, &vm).await.unwrap();
        let records = load(&dir).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].vms.len(), 1);
        let bridge = links.get("br-lab").await.unwrap();
        for name in ["fl-lab", "vm0"] {
            let link = links.get(name).await.unwrap();
            assert_eq!(link.master, Some(bridge.index));
            assert_eq!((link.mtu, link.up), (1500, true));
        }
        TapQueue::open("fl-lab", false).unwrap();
        let opened = TapQueue::open("vm0", false);
        assert!(matches!(opened, Err(Error::WrongKind { .. })));
        detach_vm(&dir, &lab(), "vm0", false).await.unwrap();
        assert_eq!(names(&links).await, ["br-lab", "fl-lab"]);
        detach(&dir, &lab(), true).await.unwrap();
        assert_eq!(names(&links).await, [""; 0]);
        let again = detach(&dir, &lab(), true).await.unwrap_err().to_string();
        assert!(again.contains("not attached"), "{again}");
    });
}

#[test]
fn a_given_bridge_is_joined_and_left_as_it_was() {
    in_namespace("given", |links, dir| async move {
        let target = AttachTarget::Bridge("virbr7".to_owned());
        let missing = error_of(&dir, &spec(target.clone())).await;
        assert!(
            missing.contains("ip link add virbr7 type bridge"),
            "{missing}"
        );
        let bridge = links.create_bridge("virbr7").await.unwrap();
        links.set_up(&bridge).await.unwrap();
        attach(&dir, &spec(target)).await.unwrap();
        assert_eq!(names(&links).await, ["fl-lab", "virbr7"]);
        let other = error_of(&dir, &spec(AttachTarget::DefaultBridge)).await;
        assert!(other.contains("farlan detach lab"), "{other}");
        let mut second = spec(AttachTarget::Bridge("virbr7".to_owned()));
        second.network = "second".parse().unwrap();
        let shared = error_of(&dir, &second).await;
        assert!(shared.contains("carries network lab"), "{shared}");
        let no_bridge = spec(AttachTarget::Bridge("lo".to_owned()));
        detach(&dir, &lab(), true).await.unwrap();
        let no_bridge = error_of(&dir, &no_bridge).await;
        assert!(no_bridge.contains("not a Linux bridge"), "{no_bridge}");
        assert_eq!(names(&links).await, ["virbr7"]);
    });
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    in_namespace("failure", |links, dir| async move {
        // Below the 68 bytes of IPv4 (RFC 791), which the kernel refuses once the tap exists.
        let mut impossible = spec(AttachTarget::Vm("vm0".to_owned()));
        impossible.mtu = 10;
        let why = error_of(&dir, &impossible).await;
        assert!(why.contains("MTU"), "{why}");
        assert_eq!(names(&links).await, [""; 0]);
        assert_eq!(load(&dir).unwrap(), []);
        // A VM tap that cannot be made leaves the network as it was.
        attach(&dir, &spec(AttachTarget::DefaultBridge))
            .await
            .unwrap();
        let before = load(&dir).unwrap();
        let bad_name = spec(AttachTarget::Vm("a/b".to_owned()));
        error_of(&dir, &bad_name).await;
        error_of(&dir, &spec(AttachTarget::Vm("fl-lab".to_owned()))).await;
        assert_eq!(load(&dir).unwrap(), before);
        assert_eq!(names(&links).await, ["br-lab", "fl-lab"]);
    });
}

#[test]
fn switches_are_thrown_by_another_attach_and_stay_thrown() {
    in_namespace("switches", |links, dir| async move {
        let plain = spec(AttachTarget::DefaultBridge);
        attach(&dir, &plain).await.unwrap();
        let tap = links.get("fl-lab").await.unwrap().index;
        let switches = || {
            let switches = load(&dir).unwrap()[0].switches;
            (switches.offload, switches.clamp)
        };
        assert_eq!(switches(), (true, true));
        let mut off = plain.clone();
        off.offload = Some(false);
        let told = attach(&dir, &off).await.unwrap();
        assert!(told.ends_with("bridge br-lab, offload off"), "{told}");
        assert_eq!(switches(), (false, true));
        // What says nothing of them changes nothing: another VM, the start of the node.
        attach(&dir, &spec(AttachTarget::Vm("vm0".to_owned())))
            .await
            .unwrap();
        ensure(&dir).await.unwrap();
        assert_eq!(switches(), (false, true));
        off.offload = Some(true);
        off.clamp = Some(false);
        let told = attach(&dir, &off).await.unwrap();
        assert!(told.ends_with("vm0, MSS not clamped"), "{told}");
        assert_eq!(switches(), (true, false));
        assert_eq!(links.get("fl-lab").await.unwrap().index, tap);
        // An attach that fails throws none.
        let mut bad = spec(AttachTarget::Vm("fl-lab".to_owned()));
        bad.offload = Some(false);
        error_of(&dir, &bad).await;
        assert_eq!(switches(), (true, false));
    });
}

#[test]
fn a_record_without_switches_has_both_on() {
    let dir = StateDir::new("old-record");
    let text = r#"{ "version": 1, "mark": "farlan:0", "attachments": [ { "network": "lab",
        "tap": "fl-lab", "bridge": "br-lab", "bridge_is_ours": true, "mtu": 1500, "vms": [] } ] }"#;
    std::fs::write(dir.0.join("attachments.json"), text).unwrap();
    let switches = load(&dir.0).unwrap()[0].switches;
    assert!(switches.offload && switches.clamp);
}

#[test]
fn foreign_names_are_never_touched() {
    in_namespace("foreign", |links, dir| async move {
        links.create_bridge("br-lab").await.unwrap();
        tap::create("fl-lab", TapKind::Overlay, None).unwrap();
        tap::create("vm0", TapKind::Vm, None).unwrap();
        let taken = error_of(&dir, &spec(AttachTarget::Vm("vm0".to_owned()))).await;
        assert!(taken.contains("vm0 exists already"), "{taken}");
        assert_eq!(load(&dir).unwrap(), []);
        let told = attach(&dir, &spec(AttachTarget::DefaultBridge))
            .await
            .unwrap();
        assert_eq!(told, "lab is attached: tap fl-1 on bridge br-1");
        detach(&dir, &lab(), true).await.unwrap();
        assert_eq!(names(&links).await, ["br-lab", "fl-lab", "vm0"]);
    });
}

#[test]
fn ensure_makes_what_a_reboot_took() {
    in_namespace("reboot", |links, dir| async move {
        let mut vm = spec(AttachTarget::Vm("vm0".to_owned()));
        vm.address = Some("10.9.0.1/24".parse().unwrap());
        attach(&dir, &vm).await.unwrap();
        let before = load(&dir).unwrap();
        for name in names(&links).await {
            links
                .delete(&links.get(&name).await.unwrap())
                .await
                .unwrap();
        }
        assert_eq!(ensure(&dir).await.unwrap(), [""; 0]);
        assert_eq!(names(&links).await, ["br-lab", "fl-lab", "vm0"]);
        assert_eq!(load(&dir).unwrap(), before);
        // Somebody else takes the tap's name after the next reboot: kept away from, and recorded.
        for name in names(&links).await {
            links
                .delete(&links.get(&name).await.unwrap())
                .await
                .unwrap();
        }
        tap::create("fl-lab", TapKind::Overlay, None).unwrap();
        let told = ensure(&dir).await.unwrap();
        assert_eq!(told, ["network lab now uses the tap fl-1"]);
        assert_eq!(attachments::load(&dir).unwrap()[0].tap, "fl-1");
        assert!(links.get("fl-lab").await.unwrap().master.is_none());
    });
}
