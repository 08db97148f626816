//! The cases of the rig.

mod kernel;
mod vlans;

use anyhow::Result;

use super::scene::Scene;

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, one word.
    pub name: &'static str,
    /// The network that is its own.
    pub network: &'static str,
    /// What it does.
    pub run: fn(&mut Scene) -> Result<()>,
}

/// All cases, in the order in which they run.
pub const ALL: &[Case] = &[
    Case {
        name: "kernel",
        network: "kernel",
        run: kernel::has_what_the_cases_need,
    },
    Case {
        name: "vlans",
        network: "vlans",
        run: vlans::all_vlans_cross,
    },
    // On the bridges of the case before.
    Case {
        name: "one-mac-in-two-vlans",
        network: "vlans",
        run: vlans::one_mac_in_two_vlans,
    },
];

/// Those of `names`, or all if there are none.
pub fn chosen(names: &[&str]) -> impl Iterator<Item = &'static Case> {
    let all = names.is_empty();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    ALL.iter()
        .filter(move |case| all || names.iter().any(|name| name == case.name))
}
