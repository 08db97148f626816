//! `farlan announce`, `pin` and `unpin`.

use anyhow::{Result, anyhow, bail};
use clap::Args;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::NetworkName;

use super::Globals;
use super::attach::change;
use super::show;
use crate::control_socket::api::Request;
use crate::pins::{self, Pin};
use crate::state::StateDir;

#[derive(Debug, Clone, Args)]
pub(super) struct PinArgs {
    /// The network
    network: NetworkName,
    /// The address
    mac: MacAddr,
    /// The VLAN, if it is tagged
    #[arg(long, value_name = "ID", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4094))]
    vlan: u16,
}

impl PinArgs {
    fn pin(&self) -> Result<Pin> {
        let vlan = VlanId::new(self.vlan);
        Ok(Pin {
            network: self.network.clone(),
            vlan: vlan.ok_or_else(|| anyhow!("there is no VLAN {}; use 1 to 4094", self.vlan))?,
            mac: self.mac,
        })
    }
}

/// `farlan announce`: by the running node; what is kept can be said without one, too.
pub(super) fn announce(globals: &Globals, args: &PinArgs, keep: bool) -> Result<()> {
    let request = Request::Announce {
        pin: args.pin()?,
        keep,
    };
    if keep {
        let pin = args.pin()?;
        return change(globals, request, async |state| pin_now(state, &pin));
    }
    show::done(globals, &request)
}

/// `farlan pin`.
pub(super) fn pin(globals: &Globals, args: &PinArgs) -> Result<()> {
    let pin = args.pin()?;
    change(globals, Request::Pin(pin.clone()), async |state| {
        pin_now(state, &pin)
    })
}

/// `farlan unpin`.
pub(super) fn unpin(globals: &Globals, args: &PinArgs) -> Result<()> {
    let pin = args.pin()?;
    change(globals, Request::Unpin(pin.clone()), async |state| {
        pins::remove(state, &pin)?;
        Ok(node_core::node::networks::pins::unpinned(&pin))
    })
}

/// Pins without a running node.
pub(super) fn pin_now(state: &StateDir, pin: &Pin) -> Result<String> {
    if state.require_membership()?.network(&pin.network).is_none() {
        bail!(
            "this node is not in network `{}`; `farlan networks` lists its networks",
            pin.network
        );
    }
    pins::add(state, std::slice::from_ref(pin))?;
    Ok(node_core::node::networks::pins::pinned_later(pin))
}
