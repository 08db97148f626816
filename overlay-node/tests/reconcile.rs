//! What is done to interfaces by hand is undone where it may be, against a real kernel. Each test has
//! a network namespace of its own that vanishes with its thread. Needs root; skipped loudly without.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;

use overlay_node::attachments::{
    AttachSpec, AttachTarget, Kept, Memory, attach, detach, ensure, reconcile,
};
use overlay_proto::ids::NetworkName;
use tap_bridge::{FrameQueue, Links, TapQueue};

/// A host with a state directory that vanishes with the test.
struct Host {
    links: Links,
    dir: PathBuf,
    memory: Memory,
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn on_a_host<F: Future<Output = ()>>(
    name: &'static str,
    test: impl FnOnce(Host) -> F + Send + 'static,
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
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("keep-{name}"));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let links = Links::connect().unwrap();
            let memory = Memory::default();
            test(Host { links, dir, memory }).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn lab() -> NetworkName {
    "lab".parse().unwrap()
}

/// One `ip` command for each part.
fn ip(commands: &str) {
    for words in commands.split(';') {
        let out = Command::new("ip")
            .args(words.split_whitespace())
            .output()
            .unwrap();
        assert!(out.status.success(), "ip {words}: {out:?}");
    }
}

impl Host {
    fn dir(&self) -> &Path {
        &self.dir
    }

    async fn attach(&self, target: AttachTarget) -> String {
        attach(self.dir(), &AttachSpec::new(lab(), target))
            .await
            .unwrap()
    }

    async fn look(&mut self) -> Kept {
        reconcile(&self.links, &self.dir, &mut self.memory)
            .await
            .unwrap()
    }

    /// Nothing is wrong and nothing is done.
    async fn is_whole(&mut self) {
        let kept = self.look().await;
        assert_eq!(
            (kept.done.as_slice(), kept.findings.as_slice()),
            (&[][..], &[][..])
        );
    }

    /// What `commands` break is whole after one look.
    async fn heals(&mut self, commands: &str) {
        ip(commands);
        let kept = self.look().await;
        assert!(!kept.done.is_empty(), "{commands}: nothing was done");
        assert_eq!(kept.findings, [], "{commands}");
        self.is_whole().await;
    }

    /// Name of the bridge it is on, MTU, up.
    async fn port(&self, name: &str) -> (String, u32, bool) {
        let all = self.links.all().await.unwrap();
        let link = all.iter().find(|link| link.name == name).unwrap();
        let master = all.iter().find(|one| Some(one.index) == link.master);
        let master = master.map_or("none", |one| one.name.as_str()).to_owned();
        (master, link.mtu, link.up)
    }
}

#[test]
fn what_was_made_here_is_put_back() {
    on_a_host("own", |mut host| async move {
        host.attach(AttachTarget::Vm("web1".to_owned())).await;
        ip("link add guest type veth peer name inside; link set guest master br-lab up");
        // The guest's port is remembered.
        host.look().await;
        host.is_whole().await;
        for commands in [
            "link set fl-lab nomaster",
            "link set fl-lab down",
            "link set fl-lab mtu 1400",
            "link delete fl-lab",
            "link set fl-lab down; link set fl-lab name other",
            "link set web1 nomaster",
            "link delete web1",
            "link delete web1; link delete fl-lab",
            "link set br-lab down",
            "link set br-lab mtu 9000",
            "link set br-lab down; link set br-lab name br-x",
            "link delete br-lab",
            "link delete br-lab; link delete fl-lab; link delete web1",
            "link add br-y type bridge; link set fl-lab master br-y; link delete br-lab",
        ] {
            host.heals(commands).await;
            for port in ["fl-lab", "web1", "guest"] {
                let is = host.port(port).await;
                assert_eq!(is, ("br-lab".to_owned(), 1500, true), "{commands}: {port}");
            }
            assert!(host.port("br-lab").await.2, "{commands}");
        }
        // Whoever unplugs a guest means it, also when the bridge vanishes later.
        ip("link set guest nomaster");
        host.look().await;
        host.heals("link delete br-lab").await;
        assert_eq!(host.port("guest").await.0, "none");
    });
}

#[test]
fn what_is_damaged_while_the_node_is_stopped_is_whole_once_it_runs() {
    on_a_host("stopped", |mut host| async move {
        host.attach(AttachTarget::DefaultBridge).await;
        ip("link add guest type veth peer name inside; link set guest master br-lab up");
        host.look().await;
        for commands in [
            "link delete br-lab; link delete fl-lab",
            "link set fl-lab nomaster; link set fl-lab down; link set br-lab down",
            "link set br-lab mtu 1400; link set fl-lab mtu 1300",
        ] {
            ip(commands);
            ensure(host.dir()).await.unwrap();
            let kept = host.look().await;
            assert_eq!(kept.findings, [], "{commands}");
            for port in ["fl-lab", "guest"] {
                let is = host.port(port).await;
                assert_eq!(is, ("br-lab".to_owned(), 1500, true), "{commands}: {port}");
            }
            host.is_whole().await;
        }
    });
}

#[test]
fn a_users_bridge_that_comes_late_or_anew_is_joined() {
    on_a_host("late", |mut host| async move {
        ip("link add br0 up type bridge");
        host.attach(AttachTarget::Bridge("br0".to_owned())).await;
        host.is_whole().await;
        for commands in ["link delete br0", "link delete br0; link delete fl-lab"] {
            ip(commands);
            // As at a boot.
            ensure(host.dir()).await.unwrap();
            let kept = host.look().await;
            assert_eq!(kept.done, [""; 0]);
            assert!(
                kept.findings[0].1.text.contains("no bridge br0"),
                "{kept:?}"
            );
            host.heals("link add br0 up type bridge").await;
            assert_eq!(host.port("fl-lab").await, ("br0".to_owned(), 1500, true));
        }
        ip("link set br0 down");
        let kept = host.look().await;
        assert!(
            kept.findings[0].1.text.contains("ip link set br0 up"),
            "{kept:?}"
        );
        assert!(!host.port("br0").await.2, "a user's bridge is left alone");
        ip("link set br0 up");
        host.is_whole().await;
    });
}

#[test]
fn the_tap_has_the_mtu_of_a_users_bridge_and_never_shrinks_it() {
    on_a_host("mtu", |mut host| async move {
        ip("link add br0 up type bridge; link add nic type veth peer name wire");
        ip("link set nic master br0 up");
        host.attach(AttachTarget::Bridge("br0".to_owned())).await;
        // Nobody set the MTU of the bridge: it follows its ports, if ours lets it.
        for mtu in [9000, 4000, 1500, 9000] {
            ip(&format!("link set nic mtu {mtu}"));
            host.look().await;
            assert_eq!(host.port("br0").await.1, mtu);
            assert_eq!(host.port("fl-lab").await.1, mtu);
            host.is_whole().await;
        }
        ip("link set fl-lab mtu 1400");
        assert_eq!(host.port("br0").await.1, 1400, "the kernel shrinks it");
        host.look().await;
        assert_eq!(host.port("br0").await.1, 9000);
        // From here on it is set by hand: no port changes it.
        for mtu in [1500, 8000] {
            ip(&format!("link set br0 mtu {mtu}"));
            host.look().await;
            assert_eq!(host.port("br0").await.1, mtu);
            assert_eq!(host.port("fl-lab").await.1, mtu);
            host.is_whole().await;
        }
        ip("link set nic mtu 1500");
        host.is_whole().await;
        assert_eq!(host.port("fl-lab").await.1, 8000);
    });
}

#[test]
fn a_nic_comes_back_to_its_network() {
    on_a_host("nic", |mut host| async move {
        ip("link add nic type veth peer name wire; link set wire up");
        host.attach(AttachTarget::Nic("nic".to_owned())).await;
        host.is_whole().await;
        host.heals("link set nic nomaster").await;
        host.heals("link set nic down").await;
        ip("link delete nic");
        let kept = host.look().await;
        assert!(
            kept.findings[0]
                .1
                .text
                .contains("nic of network lab is not there"),
            "{kept:?}"
        );
        host.heals("link add nic type veth peer name wire; link set wire up")
            .await;
        assert_eq!(host.port("nic").await, ("br-lab".to_owned(), 1500, true));
        // It is needed for something else: told, and left alone.
        ip("link set nic nomaster; address add 192.0.2.1/24 dev nic");
        let kept = host.look().await;
        assert!(kept.findings[0].1.text.contains("192.0.2.1/24"), "{kept:?}");
        assert_eq!(host.port("nic").await.0, "none");
        host.heals("address delete 192.0.2.1/24 dev nic").await;
        host.heals("link delete br-lab").await;
    });
}

#[test]
fn what_has_one_of_our_names_is_not_touched() {
    on_a_host("foreign", |mut host| async move {
        host.attach(AttachTarget::DefaultBridge).await;
        for (name, kind) in [("fl-lab", "bridge"), ("br-lab", "bridge")] {
            ip(&format!("link delete {name}; link add {name} type {kind}"));
            let kept = host.look().await;
            assert_eq!(kept.done, [""; 0]);
            assert!(kept.findings[0].1.text.contains("did not make"), "{kept:?}");
            assert!(!host.port(name).await.2, "it is as it was made");
            host.heals(&format!("link delete {name}")).await;
        }
    });
}

#[test]
fn detach_asks_first_and_attach_puts_ports_back() {
    on_a_host("detach", |mut host| async move {
        host.attach(AttachTarget::Vm("web1".to_owned())).await;
        let vm = TapQueue::open("fl-lab", false).unwrap();
        assert!(vm.as_raw_fd() > 0, "our own tap is open, which is no guest");
        detach(host.dir(), &lab(), false).await.unwrap();
        host.attach(AttachTarget::DefaultBridge).await;
        ip("link add guest type veth peer name inside; link set guest master br-lab up");
        ip("link add other type veth peer name inside2; link set other master br-lab up");
        let refused = detach(host.dir(), &lab(), false).await.unwrap_err();
        let refused = refused.to_string();
        for word in ["guest", "other", "br-lab", "`farlan detach lab --force`"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert_eq!(host.port("guest").await.0, "br-lab", "nothing was changed");
        let told = detach(host.dir(), &lab(), true).await.unwrap();
        assert!(
            told.contains("guest") && told.contains("farlan attach lab"),
            "{told}"
        );
        // One of them went elsewhere meanwhile.
        ip("link add br0 type bridge; link set other master br0");
        let told = host.attach(AttachTarget::DefaultBridge).await;
        assert!(told.contains("back on br-lab, as before: guest"), "{told}");
        assert_eq!(host.port("guest").await, ("br-lab".to_owned(), 1500, true));
        assert_eq!(host.port("other").await.0, "br0");
        host.look().await;
        host.is_whole().await;
    });
}
