//! What needs a kernel with VLAN filtering, VLAN devices or VRFs: run in a virtual machine
//! (`farlan_tests::rig`), all cases in one boot. `FARLAN_RIG=NAME,..` runs only those.

use std::time::Duration;

use farlan_tests::lab::Lab;
use farlan_tests::{require_lab, rig};

/// The machine is emulated: what takes a second elsewhere takes several.
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn all_cases_of_the_rig() {
    require_lab!();
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED rig: its kernel is for x86-64");
        return;
    }
    let lab = Lab::new().unwrap();
    let names = std::env::var("FARLAN_RIG").unwrap_or_default();
    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    let outcomes = rig::run(lab.dir(), &names, LIMIT).unwrap();
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.failure.is_some())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
