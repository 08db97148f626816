//! Moving a NIC's addresses and routes to the bridge, against a real kernel, each test in a network
//! namespace of its own that vanishes with its thread. Needs root; skipped loudly without.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use overlay_node::attachments::{
    AttachSpec, AttachTarget, attach, confirm, detach, detach_nic, ensure, load, roll_back, waits,
};
use overlay_proto::ids::NetworkName;
use tap_bridge::{Link, Links, Mover, NicFacts, Place, Step, host, moving};

fn in_namespace<F: Future<Output = ()>>(
    name: &'static str,
    test: impl FnOnce(Links, PathBuf) -> F + Send + 'static,
) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare takes a flag word only; it changes the namespace of this thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let needed = std::env::var_os("FARLAN_LAB").is_some();
            assert!(!needed, "FARLAN_LAB needs root");
            eprintln!("SKIPPED: needs root (CAP_SYS_ADMIN) for a network namespace");
            return;
        }
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        make_nic();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { test(Links::connect().unwrap(), dir.clone()).await });
        drop(std::fs::remove_dir_all(&dir));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs in the namespace of this thread.
fn sh(line: &str) -> String {
    let out = Command::new("sh").args(["-c", line]).output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{line}: {errors}");
    String::from_utf8(out.stdout).unwrap()
}

/// `e0`, a NIC as administrators set them up, with a peer that makes it live.
fn make_nic() {
    sh("set -e; echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
        echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
        ip link set lo up
        ip link add e0 address 52:54:00:00:00:01 type veth peer name e1
        echo 1 > /proc/sys/net/ipv6/conf/e1/disable_ipv6; ip link set e1 up; ip link set e0 up
        ip addr add 192.0.2.10/24 brd + dev e0
        ip addr add 192.0.2.11/24 dev e0 label e0:1
        ip addr add 198.51.100.7/32 dev e0 noprefixroute valid_lft 900 preferred_lft 600
        ip addr add 10.1.1.1 peer 10.1.1.2 dev e0
        ip -6 addr add 2001:db8:1::10/64 dev e0 nodad
        ip -6 addr add 2001:db8:2::10/64 dev e0 noprefixroute valid_lft 900 preferred_lft 0
        ip route add default via 192.0.2.1 metric 100
        ip route add default via 192.0.2.2 metric 200
        ip route add 203.0.113.0/24 via 192.0.2.1 src 192.0.2.11 metric 7 mtu 1400
        ip route add 203.0.112.0/24 via 10.9.9.9 dev e0 onlink
        ip route add 10.7.0.0/16 dev e0 table 77
        ip -6 route add default via 2001:db8:1::1 metric 1024
        ip -6 route add 2001:db8:77::/48 via fe80::1 dev e0 metric 5");
}

/// All that `ip` knows of `dev`, without what runs down by itself.
fn view(dev: &str) -> String {
    let addresses = sh(&format!("ip addr show dev {dev} | grep -A1 inet"));
    let routes = sh(&format!(
        "ip route show table main; ip route show table 77; ip -6 route show; ip link show {dev}"
    ));
    let mut lines = Vec::new();
    for line in addresses.lines().chain(routes.lines()) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        // The interface's number, seconds, and what the kernel finds out about its own address.
        let runs_down = |word: &str| word.ends_with("sec") || word == "tentative";
        words.retain(|word| !word.ends_with(':') && !runs_down(word));
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

fn lab() -> NetworkName {
    "lab".parse().unwrap()
}

fn spec(within: u64) -> AttachSpec {
    AttachSpec {
        move_addresses: Some(Duration::from_secs(within)),
        program: PathBuf::from(env!("CARGO_BIN_EXE_farlan")),
        ..AttachSpec::new(lab(), AttachTarget::Nic("e0".to_owned()))
    }
}

/// What the bridge has is what the NIC had.
fn assert_moved(before: &str) {
    let only = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| {
            !["mtu 1500", "link/", "alias"]
                .iter()
                .any(|word| line.contains(word))
        });
        lines.map(str::to_owned).collect()
    };
    let now = view("br-lab").replace("br-lab", "e0");
    assert_eq!(only(&now), only(before));
    let left = sh("ip addr show dev e0 | grep inet || true");
    assert_eq!(left, "");
}

#[test]
fn all_moves_and_comes_back_as_it_was() {
    in_namespace("moves", |_, dir| async move {
        let before = view("e0");
        let told = attach(&dir, &spec(60)).await.unwrap();
        assert_moved(&before);
        assert!(
            told.contains("192.0.2.10/24") && told.contains("default via 192.0.2.1"),
            "{told}"
        );
        assert!(told.contains("warning: some of it came by DHCP"), "{told}");
        assert!(waits(&dir).unwrap().unwrap() <= Duration::from_secs(60));
        // Too early, and then confirmed: nobody brings it back.
        assert_eq!(roll_back(&dir, false).await.unwrap(), [""; 0]);
        confirm(&dir).unwrap();
        assert!(
            confirm(&dir)
                .unwrap_err()
                .to_string()
                .contains("no move waits")
        );
        assert_eq!(roll_back(&dir, true).await.unwrap(), [""; 0]);
        assert_eq!(ensure(&dir).await.unwrap(), [""; 0]);
        assert_moved(&before);
        detach(&dir, &lab(), true).await.unwrap();
        assert_eq!(view("e0"), before);
    });
}

#[test]
fn what_was_changed_on_the_bridge_goes_to_the_nic_and_the_own_address_does_not() {
    in_namespace("changed", |_, dir| async move {
        let mut with_address = AttachSpec::new(lab(), AttachTarget::DefaultBridge);
        with_address.address = Some("10.9.0.1/24".parse().unwrap());
        attach(&dir, &with_address).await.unwrap();
        attach(&dir, &spec(60)).await.unwrap();
        confirm(&dir).unwrap();
        sh(
            "ip addr del 192.0.2.11/24 dev br-lab; ip addr add 192.0.2.12/24 dev br-lab
            ip route add 10.8.0.0/16 via 192.0.2.1",
        );
        detach_nic(&dir, &lab(), "e0").await.unwrap();
        let nic = sh("ip addr show dev e0; ip route");
        assert!(
            nic.contains("192.0.2.12/24") && !nic.contains("192.0.2.11"),
            "{nic}"
        );
        assert!(nic.contains("10.8.0.0/16 via 192.0.2.1 dev e0"), "{nic}");
        let bridge = sh("ip -o addr show dev br-lab");
        assert_eq!(bridge.lines().count(), 1, "{bridge}");
        assert!(bridge.contains("10.9.0.1/24"), "{bridge}");
        assert_eq!(
            sh("cat /proc/sys/net/ipv4/conf/br-lab/arp_ignore").trim(),
            "1"
        );
        detach(&dir, &lab(), true).await.unwrap();
    });
}

/// The steps of the move of `e0`.
async fn steps(links: &Links, bridge: &Link) -> (Link, Vec<Step>) {
    let nic = links.get("e0").await.unwrap();
    let facts = NicFacts {
        bridge_mac: bridge.mac,
        nic_mac: nic.mac,
        nic_ipv6: true,
    };
    let what = links.host_network(&nic).await.unwrap();
    (nic, moving::plan(Place::Bridge, &what, facts))
}

#[test]
fn a_step_that_fails_undoes_those_before_it_wherever_it_is() {
    in_namespace("undone", |links, _| async move {
        let (bridge, _) = host::make_bridge(&links, "br-lab", 1500, "mark")
            .await
            .unwrap();
        let before = view("e0");
        let (nic, all) = steps(&links, &bridge).await;
        let Some(Step::AddRoute(_, route)) = all.last() else {
            panic!("{all:?}")
        };
        // No address of this host: the kernel refuses it.
        let mut bad = route.clone();
        bad.source = Some("2001:db8:99::1".parse().unwrap());
        bad.metric = 3;
        for cut in 0..=all.len() {
            let mover = Mover {
                links: &links,
                nic: &nic,
                bridge: &bridge,
                keep_open: false,
            };
            let mut some = all[..cut].to_vec();
            some.push(Step::AddRoute(Place::Bridge, bad.clone()));
            mover.all_or_nothing(&some).await.unwrap_err();
            assert_eq!(view("e0"), before, "after {cut} steps");
            let closed = sh("cat /proc/sys/net/ipv6/conf/br-lab/disable_ipv6");
            assert_eq!(closed.trim(), "1", "after {cut} steps");
        }
    });
}

#[test]
fn a_move_whose_middle_was_killed_is_brought_back() {
    in_namespace("killed", |links, dir| async move {
        let before = view("e0");
        // What is on disk then: the record, with what the NIC had.
        attach(&dir, &spec(3600)).await.unwrap();
        let record = load(&dir).unwrap().remove(0);
        let moved = record.nic.unwrap().moved.unwrap();
        let (bridge, nic) = (
            links.get("br-lab").await.unwrap(),
            links.get("e0").await.unwrap(),
        );
        let facts = NicFacts {
            bridge_mac: moved.bridge_mac,
            nic_mac: nic.mac,
            nic_ipv6: true,
        };
        let all = moving::plan(Place::Bridge, &moved.network, facts);
        let text = std::fs::read(dir.join("attachments.json")).unwrap();
        for cut in 0..=all.len() {
            // As if the mover had come so far and no further.
            let mover = Mover {
                links: &links,
                nic: &nic,
                bridge: &bridge,
                keep_open: false,
            };
            if cut > 0 {
                mover.all_or_nothing(&all[..cut]).await.unwrap();
            }
            std::fs::write(dir.join("attachments.json"), &text).unwrap();
            let told = roll_back(&dir, true).await.unwrap();
            assert!(told[0].contains("are back on e0"), "{told:?}");
            assert_eq!(view("e0"), before, "after {cut} of {} steps", all.len());
            assert_eq!(load(&dir).unwrap()[0].nic, None);
        }
    });
}

/// A NIC that is up is not renamed by every kernel.
fn rename(from: &str, to: &str) {
    sh(&format!(
        "ip link set {from} down; ip link set {from} name {to}; ip link set {to} up"
    ));
}

#[test]
fn what_cannot_be_brought_back_keeps_its_record_and_is_tried_again() {
    in_namespace("again", |_, dir| async move {
        let before = view("e0");
        attach(&dir, &spec(1)).await.unwrap();
        rename("e0", "x0");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(load(&dir).unwrap()[0].nic.is_some());
        let left = waits(&dir).unwrap().unwrap();
        assert!(
            !left.is_zero() && left <= Duration::from_secs(10),
            "{left:?}"
        );
        let told = roll_back(&dir, true).await.unwrap();
        assert!(told[0].contains("the NIC e0 is not there"), "{told:?}");
        // The bridge has the host's addresses, so it stays, by force too.
        let refused = detach(&dir, &lab(), true).await.unwrap_err();
        let refused = format!("{refused:#}");
        assert!(refused.contains("192.0.2.10/24"), "{refused}");
        assert!(sh("ip addr show dev br-lab").contains("192.0.2.10/24"));
        rename("x0", "e0");
        for _ in 0..60 {
            if waits(&dir).unwrap().is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        assert_eq!(view("e0"), before);
        assert_eq!(load(&dir).unwrap()[0].nic, None);
    });
}

#[test]
fn a_bridge_with_addresses_that_farlan_did_not_give_it_is_not_removed() {
    in_namespace("foreign", |_, dir| async move {
        let spec = AttachSpec {
            address: Some("10.9.0.1/24".parse().unwrap()),
            ..AttachSpec::new(lab(), AttachTarget::DefaultBridge)
        };
        attach(&dir, &spec).await.unwrap();
        sh("ip addr add 10.10.0.1/24 dev br-lab");
        for force in [false, true] {
            let refused = detach(&dir, &lab(), force).await.unwrap_err().to_string();
            let line = "`ip address delete 10.10.0.1/24 dev br-lab`";
            assert!(
                refused.contains(line) && !refused.contains("10.9.0.1"),
                "{refused}"
            );
        }
        // Nothing was removed before it was seen.
        let tap = load(&dir).unwrap()[0].tap.clone();
        sh(&format!("ip link show {tap}"));
        sh("ip address delete 10.10.0.1/24 dev br-lab");
        detach(&dir, &lab(), false).await.unwrap();
        let left = sh("ip link show br-lab 2>/dev/null || true");
        assert_eq!(left, "");
    });
}

#[test]
fn what_cannot_be_moved_is_refused_before_anything_is_changed() {
    in_namespace("refused", |links, dir| async move {
        let error = |spec: AttachSpec| {
            let dir = dir.clone();
            async move { format!("{:#}", attach(&dir, &spec).await.unwrap_err()) }
        };
        sh("ip nexthop add id 5 via 192.0.2.3 dev e0; ip route add 10.5.0.0/16 nhid 5");
        let before = view("e0");
        let several = error(spec(60)).await;
        assert!(several.contains("10.5.0.0/16"), "{several}");
        sh("ip route del 10.5.0.0/16");
        let no_watcher = error(AttachSpec {
            program: PathBuf::from("/bin/true"),
            ..spec(60)
        })
        .await;
        assert!(no_watcher.contains("nothing was moved"), "{no_watcher}");
        assert_eq!(load(&dir).unwrap(), []);
        assert!(links.find("br-lab").await.unwrap().is_none());
        sh("ip route add 10.5.0.0/16 nhid 5");
        assert_eq!(view("e0"), before);
        // A second move has to wait for the word about the first.
        sh("ip route del 10.5.0.0/16; ip link add f0 type veth peer name f1");
        attach(&dir, &spec(60)).await.unwrap();
        let mut second = spec(60);
        second.network = "other".parse().unwrap();
        second.target = AttachTarget::Nic("f0".to_owned());
        let waits = error(second).await;
        assert!(waits.contains("farlan confirm"), "{waits}");
        detach(&dir, &lab(), true).await.unwrap();
    });
}

#[test]
fn after_a_reboot_an_unconfirmed_move_is_forgotten_and_a_confirmed_one_made_again() {
    in_namespace("rebooted", |links, dir| async move {
        attach(&dir, &spec(60)).await.unwrap();
        let file = dir.join("attachments.json");
        let reboot = |links: Links, file: PathBuf| async move {
            let text = std::fs::read_to_string(&file).unwrap();
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            std::fs::write(&file, text.replace(boot.trim(), "another")).unwrap();
            for name in ["e0", "br-lab", "fl-lab"] {
                if let Some(link) = links.find(name).await.unwrap() {
                    links.delete(&link).await.unwrap();
                }
            }
            make_nic();
        };
        reboot(links.clone(), file.clone()).await;
        let told = ensure(&dir).await.unwrap();
        assert!(
            told[0].contains("before the restart of this host"),
            "{told:?}"
        );
        assert_eq!(load(&dir).unwrap()[0].nic, None);
        let before = view("e0");
        assert!(links.get("e0").await.unwrap().master.is_none());

        attach(&dir, &spec(60)).await.unwrap();
        confirm(&dir).unwrap();
        reboot(links.clone(), file).await;
        // Before the host's network is configured nothing is taken from it.
        sh("ip addr flush dev e0; ip link set e0 down; ip link set e0 up");
        assert_eq!(ensure(&dir).await.unwrap(), [""; 0]);
        assert!(links.get("e0").await.unwrap().master.is_none());
        sh("ip link del e0");
        make_nic();
        assert_eq!(ensure(&dir).await.unwrap(), [""; 0]);
        assert_moved(&before);
        detach(&dir, &lab(), true).await.unwrap();
        assert_eq!(view("e0"), before);
    });
}
