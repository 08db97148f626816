//! The lab: hosts, NAT routers, VMs and a wide-area network on one Linux machine.
//!
//! Every host is a network namespace. A site is a LAN behind a router namespace whose kernel does
//! the NAT (nftables). The internet is one thread, [`wan::Wan`], that owns a TUN device in each
//! router and carries IP packets between them with a seeded model of delay, loss and MTU. Nothing
//! is made in the root namespace; everything made bears a prefix with the pid of its maker, so
//! that what a killed run left behind is found and removed.
//!
//! Read in this order: [`lab`] (namespaces and clean-up), [`site`] (the topology), [`wan`],
//! [`vm`] (guests), [`overlay`] (the programs under test), [`world`] (all of it put together).

pub mod clean;
pub mod frames;
pub mod lab;
pub mod machine;
pub mod nat;
pub mod office;
pub mod overlay;
pub mod probe;
pub mod proc;
pub mod rig;
pub mod site;
pub mod ssh;
pub mod sums;
pub mod tagging;
pub mod traffic;
pub mod tun;
pub mod vm;
pub mod wan;
pub mod world;

/// Why lab tests cannot run here, or `None` when they can: they need root and `/dev/net/tun`.
#[must_use]
pub fn why_no_lab() -> Option<&'static str> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("not root");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("no /dev/net/tun");
    }
    None
}

/// Returns from the calling test, loudly, where the lab cannot run. Under `CI=true` it panics.
///
/// `./test` counts the line `SKIPPED ..` as a skipped test.
#[macro_export]
macro_rules! require_lab {
    () => {
        if let Some(why) = $crate::why_no_lab() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "lab test cannot run: {why}"
            );
            println!("SKIPPED {}: {why}", module_path!());
            return;
        }
    };
}
