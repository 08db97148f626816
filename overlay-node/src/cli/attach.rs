//! `farlan attach` and `detach`: through the running node, or on the state directory alone.

use node_core::duration;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::IpNet;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::Membership;
use serde_json::json;

use super::Globals;
use super::output::{print, print_json};
use super::pin::pin_now;
use crate::attachments::{self, AttachSpec, AttachTarget, AttachmentRecord};
use crate::config::Config;
use crate::control_socket::api::{AttachRequest, Request, Response};
use crate::control_socket::client::{self, ClientError};
use crate::state::StateDir;

#[derive(Debug, Clone, Args)]
pub(super) struct AttachArgs {
    /// The network
    network: NetworkName,
    /// An existing bridge [default: the bridge br-NETWORK, made if it is missing]
    #[arg(long, value_name = "BR", conflicts_with = "vm", value_parser = parse_interface)]
    bridge: Option<String>,
    /// A persistent tap of this name, for QEMU or libvirt to open
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    vm: Option<String>,
    /// A NIC of this host, to put on the bridge br-NETWORK; if this host is reached by that NIC, add --move-addresses
    #[arg(long, value_name = "IF", conflicts_with_all = ["vm", "bridge"], value_parser = parse_interface)]
    nic: Option<String>,
}

/// What the kernel takes for an interface (`dev_valid_name`).
fn parse_interface(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if (1..=15).contains(&text.len()) && text.chars().all(legal) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err("no interface has such a name; use 1 to 15 letters, digits, - _ and .".to_owned())
    }
}

impl AttachArgs {
    fn request(&self) -> AttachRequest {
        AttachRequest {
            bridge: self.bridge.clone(),
            vm: self.vm.clone(),
            nic: self.nic.clone(),
            ..AttachRequest::new(self.network.clone())
        }
    }
}

/// What only `attach` takes.
#[derive(Debug, Clone, Args)]
pub(super) struct AttachExtras {
    /// Give this host an address on the network, on the bridge made for it
    #[arg(long, value_name = "CIDR", conflicts_with = "bridge")]
    address: Option<IpNet>,
    /// Move this host's addresses and routes from the NIC to the bridge, in one step: SSH over it goes
    /// on. They go back by themselves unless you type `farlan confirm`
    #[arg(long, requires = "nic")]
    move_addresses: bool,
    /// The time for `farlan confirm`: 5s to 1h
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "move_addresses", value_parser = parse_confirm_within)]
    confirm_within: Duration,
    /// Switch segmentation and checksum offload (GSO) off, for a NIC or a guest that cannot handle it; slower
    #[arg(long, overrides_with = "offload")]
    no_offload: bool,
    /// Undo --no-offload
    #[arg(long)]
    offload: bool,
    /// Do not lower the TCP MSS, for guests that must see it unchanged; slower. Give it at both ends
    #[arg(long, overrides_with = "clamp")]
    no_clamp: bool,
    /// Undo --no-clamp
    #[arg(long)]
    clamp: bool,
    /// Pin this MAC address to this host: it stays even if it does not answer. May be repeated
    #[arg(long, value_name = "MAC")]
    mac: Vec<MacAddr>,
    /// Carry the BPDUs of switches (01:80:c2:00:00:00) over the overlay, or drop them, as at first. Say
    /// pass at all ends where one spanning tree is to span the sites
    #[arg(long, value_name = "WHAT")]
    bpdu: Option<Bpdu>,
}

/// What happens to BPDUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bpdu {
    Pass,
    Drop,
}

/// What only `detach` takes.
#[derive(Debug, Clone, Args)]
pub(super) struct DetachExtras {
    /// Detach even if running guests are cut off: ports of the bridge that Farlan did not make, open VM taps
    #[arg(long)]
    force: bool,
}

/// What a pair of opposite flags says, if one of them is given.
fn switch(on: bool, off: bool) -> Option<bool> {
    (on || off).then_some(on)
}

/// Long enough to type, short enough to wait for when the connection is gone.
fn parse_confirm_within(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if (Duration::from_secs(5)..=Duration::from_secs(3600)).contains(&time) {
        Ok(time)
    } else {
        Err("use 5s to 1h".to_owned())
    }
}

/// Attaches as asked, with the MTU that the membership gives the network; one or more lines for
/// the user. The same with the node running (the driver calls it) and without.
///
/// # Errors
/// The node is not in that network, or the host refuses.
pub async fn attach_now(
    state: &StateDir,
    membership: &Membership,
    request: &AttachRequest,
) -> Result<String> {
    let Some(network) = membership.network(&request.network) else {
        bail!(
            "this node is not in network `{}`; `farlan networks` lists its networks",
            request.network
        );
    };
    let target = match (&request.bridge, &request.vm, &request.nic) {
        (Some(bridge), ..) => AttachTarget::Bridge(bridge.clone()),
        (None, Some(vm), _) => AttachTarget::Vm(vm.clone()),
        (None, None, Some(nic)) => AttachTarget::Nic(nic.clone()),
        (None, None, None) => AttachTarget::DefaultBridge,
    };
    let spec = AttachSpec {
        mtu: u32::from(network.mtu),
        address: request.address,
        offload: request.offload,
        clamp: request.clamp,
        bpdu: request.bpdu,
        move_addresses: request.move_addresses_s.map(Duration::from_secs),
        ..AttachSpec::new(request.network.clone(), target)
    };
    attachments::attach(state.path(), &spec).await
}

/// Detaches a VM's tap, or the whole network; one or more lines for the user. The same with the
/// node running (the driver calls it) and without.
///
/// # Errors
/// Not attached so, or the host refuses.
pub async fn detach_now(state: &StateDir, request: &AttachRequest) -> Result<String> {
    if let Some(vm) = &request.vm {
        return attachments::detach_vm(state.path(), &request.network, vm, request.force).await;
    }
    if let Some(nic) = &request.nic {
        return attachments::detach_nic(state.path(), &request.network, nic).await;
    }
    if let Some(bridge) = &request.bridge {
        let records = attachments::load(state.path())?;
        let same = |record: &AttachmentRecord| {
            record.network == request.network && record.bridge == *bridge
        };
        if !records.iter().any(same) {
            bail!(
                "network `{}` is not attached to {bridge}; `farlan networks` shows its bridge",
                request.network
            );
        }
    }
    attachments::detach(state.path(), &request.network, request.force).await
}

/// `farlan attach`.
pub(super) fn attach(globals: &Globals, args: &AttachArgs, extras: &AttachExtras) -> Result<()> {
    let within = extras.confirm_within.as_secs();
    let request = AttachRequest {
        address: extras.address,
        move_addresses_s: extras.move_addresses.then_some(within),
        offload: switch(extras.offload, extras.no_offload),
        clamp: switch(extras.clamp, extras.no_clamp),
        macs: extras.mac.clone(),
        bpdu: extras.bpdu.map(|bpdu| bpdu == Bpdu::Pass),
        ..args.request()
    };
    change(globals, Request::Attach(request.clone()), async |state| {
        let mut lines = vec![attach_now(state, &state.require_membership()?, &request).await?];
        for pin in request.pins() {
            lines.push(pin_now(state, &pin)?);
        }
        Ok(lines.join("\n"))
    })?;
    note_configured(globals, &request)
}

/// The operator's file wins at the next start; say so where it names another bridge.
fn note_configured(globals: &Globals, request: &AttachRequest) -> Result<()> {
    // A default file that cannot be read is for `up` to complain about.
    let config = match Config::load(globals.config.as_deref()) {
        Ok(config) => config,
        Err(error) if globals.config.is_some() => return Err(error),
        Err(_) => return Ok(()),
    };
    let other = config.attach.iter().find(|configured| {
        configured.network == request.network
            && request.vm.is_none()
            && configured.vm.is_none()
            && configured.bridge != request.bridge
    });
    if let Some(other) = other {
        let bridge = other.bridge.as_deref().unwrap_or("its own bridge");
        let note = format!(
            "the configuration attaches {} to {bridge} at each start",
            other.network
        );
        if globals.json {
            eprintln!("{}", json!({ "note": note }));
        } else {
            eprintln!("farlan: note: {note}");
        }
    }
    Ok(())
}

/// `farlan detach`.
pub(super) fn detach(globals: &Globals, args: &AttachArgs, extras: &DetachExtras) -> Result<()> {
    let request = AttachRequest {
        force: extras.force,
        ..args.request()
    };
    change(globals, Request::Detach(request.clone()), async |state| {
        detach_now(state, &request).await
    })
}

/// `farlan confirm`.
pub(super) fn confirm(globals: &Globals) -> Result<()> {
    change(globals, Request::Confirm, async |state| {
        attachments::confirm(state.path())
    })
}

/// The watcher of a move: until it is confirmed or undone.
pub(super) fn watch_move(globals: &Globals) -> Result<()> {
    let lines = runtime()?.block_on(attachments::watcher::watch(&globals.state))?;
    attachments::watcher::say(&lines);
    Ok(())
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

pub(super) fn change(
    globals: &Globals,
    online: Request,
    offline: impl AsyncFnOnce(&StateDir) -> Result<String>,
) -> Result<()> {
    let state = globals.state();
    let lines = match client::call(&state.socket(), &online) {
        Ok(Response::Done(lines)) => lines,
        Ok(_) => return Err(ClientError::Unexpected.into()),
        Err(ClientError::NotRunning(_)) => {
            state.require_membership()?;
            // No node may start in the middle of it.
            let _lock = state.lock()?;
            runtime()?.block_on(offline(&state))?
        }
        Err(error) => return Err(error.into()),
    };
    if globals.json {
        print_json(&json!({ "done": lines }))
    } else {
        print(&lines)
    }
}
