//! A network namespace for a test.
#![allow(unreachable_pub)]

use std::future::Future;

use tap_bridge::Links;
use tap_bridge::host::NewTap;
use tap_bridge::tap::TapKind;

/// Runs `test` in a fresh network namespace; not at all without root.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Links) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare takes a flag word only; it changes the namespace of this thread.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        if !moved {
            assert!(
                std::env::var_os("FARLAN_LAB").is_none(),
                "FARLAN_LAB needs root"
            );
            eprintln!("SKIPPED: needs root (CAP_SYS_ADMIN) for a network namespace");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { test(Links::connect().unwrap()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What marks the interfaces of these tests.
pub const MARK: &str = "farlan:test";

/// A tap of the overlay's kind.
pub fn overlay_tap(name: &str) -> NewTap<'_> {
    NewTap {
        name,
        kind: TapKind::Overlay,
        owner: None,
        mtu: 1500,
        mark: MARK,
    }
}
