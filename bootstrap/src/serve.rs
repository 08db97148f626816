//! Starts everything, prints the addresses, waits for the signal to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use control_plane::{
    ControlConfig, ControlError, ControlEvent, ControlHandle, Multiaddr, addr, spawn,
};
use control_proto::admission::{Counter, InfraGate};
use control_proto::records::SignedRecords;
use host_services::readiness::notify;
use overlay_proto::ids::{OverlayId, PeerId};
use overlay_proto::membership::NodeKey;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::Args;
use crate::data_plane::{Counters, DataPlane};
use crate::listen::Addresses;
use crate::relay::RelayOffice;
use crate::shelf::OverlayShelf;
use crate::witness::DiskBooks;
use crate::{relay, state};

/// How far up free ports are looked for, for each overlay after the first.
const PORT_STEPS: u16 = 64;

/// How long wildcard listeners may take to list the host's addresses.
const ADDRS_TIMEOUT: Duration = Duration::from_secs(2);

const MINUTE: Duration = Duration::from_secs(60);

/// How often the number of tasks is said, in the debug log.
const TASKS_EVERY: Duration = Duration::from_secs(5);

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    node: PeerId,
    overlays: Vec<Served>,
    data: Vec<SocketAddr>,
}

#[derive(Serialize)]
struct Served {
    overlay: OverlayId,
    addresses: Vec<String>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let overlays = args.overlays()?;
    let mut listen = Addresses::parse(&args.listen).context("--listen")?;
    let external = Addresses::parse(&args.external).context("--external")?;
    let everywhere = Addresses::everywhere()?;
    if listen.control.is_empty() {
        listen.control.clone_from(&everywhere.control);
    }
    if listen.data.is_empty() {
        listen.data.clone_from(&everywhere.data);
    }
    let _lock = state::lock(&args.state)?;
    let key = state::identity(&args.state)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let (desk, office) = relay::open(args.relay_quota_mbit)?;
    let counters = DataPlane::bind(&listen.data, desk)?.start()?;

    let starter = Starter {
        key: &key,
        state: &args.state,
        listen: &listen,
        external: &external,
        relay: Arc::new(office),
        witness: Arc::new(Counter::new(key.clone(), DiskBooks::new(&args.state))),
    };
    let mut handles = Vec::new();
    let mut printed = Printed {
        node: key.peer_id(),
        overlays: Vec::new(),
        data: starter.data_addrs(),
    };
    let mut step = 0;
    for overlay in overlays {
        let (handle, used) = starter.start(overlay, step)?;
        let addresses = starter.full_addrs(&handle, used).await?;
        printed.overlays.push(Served { overlay, addresses });
        handles.push(handle);
        step = used + 2;
    }
    print(&printed, args.json)?;
    notify("READY=1");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = keep_house(&counters) => {}
    }
    tracing::info!("stopping");
    futures::future::join_all(handles.iter().map(ControlHandle::stop)).await;
    Ok(())
}

struct Starter<'a> {
    key: &'a NodeKey,
    state: &'a Path,
    listen: &'a Addresses,
    external: &'a Addresses,
    relay: Arc<RelayOffice>,
    witness: Arc<Counter<DiskBooks>>,
}

impl Starter<'_> {
    /// Starts the control plane of `overlay`: the first (`step` 0) on the given ports, others on
    /// the next free ones. Returns the step that was free.
    fn start(&self, overlay: OverlayId, step: u16) -> Result<(ControlHandle, u16)> {
        for tried in step..step.saturating_add(PORT_STEPS) {
            match spawn(self.config(overlay, tried)?) {
                Ok((handle, events)) => {
                    tokio::spawn(log_events(overlay, events));
                    return Ok((handle, tried));
                }
                Err(ControlError::PortBusy(_)) if step > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no free ports for overlay {overlay}; use --listen with a larger gap above");
    }

    fn config(&self, overlay: OverlayId, step: u16) -> Result<ControlConfig> {
        let shelf = OverlayShelf::new(self.state, overlay);
        Ok(ControlConfig {
            secret_key: self.key.secret_bytes(),
            listen: self.listen.control_above(step)?,
            external: self.external.control_above(step)?,
            bootstraps: Vec::new(),
            gate: Arc::new(InfraGate::new(
                overlay,
                self.data_addrs(),
                shelf.load()?,
                Some(self.witness.clone()),
                Some(Arc::new(shelf)),
            )),
            records: Arc::new(SignedRecords { overlay }),
            kad_server: true,
            relay: Some(self.relay.clone()),
        })
    }

    /// What members are told; an unspecified address stands for the one they are connected to.
    fn data_addrs(&self) -> Vec<SocketAddr> {
        if self.external.data.is_empty() {
            self.listen.data.clone()
        } else {
            self.external.data.clone()
        }
    }

    /// The addresses with `/p2p/`, for invites.
    async fn full_addrs(&self, handle: &ControlHandle, step: u16) -> Result<Vec<String>> {
        let mut addrs = self.external.control_above(step)?;
        if addrs.is_empty() {
            addrs = settled_addrs(handle, self.listen.control.len()).await?;
        }
        let full = |addr: &Multiaddr| addr::with_peer(addr, handle.local_peer()).to_string();
        Ok(addrs.iter().map(full).collect())
    }
}

/// The listen addresses, once no more come; without those that nobody outside can use, unless there
/// are no others.
async fn settled_addrs(handle: &ControlHandle, listeners: usize) -> Result<Vec<Multiaddr>> {
    let start = Instant::now();
    let mut addrs = handle.listen_addrs().await?;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = handle.listen_addrs().await?;
        let settled = now.len() == addrs.len() && now.len() >= listeners;
        addrs = now;
        if settled || start.elapsed() > ADDRS_TIMEOUT {
            break;
        }
    }
    addrs.sort_by_key(ToString::to_string);
    let outside: Vec<_> = addrs
        .iter()
        .filter(|addr| addr::socket_addr(addr).is_some_and(|socket| !is_local(&socket)))
        .cloned()
        .collect();
    Ok(if outside.is_empty() { addrs } else { outside })
}

fn is_local(addr: &SocketAddr) -> bool {
    match addr {
        SocketAddr::V4(v4) => v4.ip().is_loopback(),
        SocketAddr::V6(v6) => v6.ip().is_loopback() || v6.ip().is_unicast_link_local(),
    }
}

fn print(printed: &Printed, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(printed)?)?;
    } else {
        for served in &printed.overlays {
            writeln!(out, "overlay {}", served.overlay)?;
            for address in &served.addresses {
                writeln!(out, "{address}")?;
            }
        }
    }
    Ok(out.flush()?)
}

/// Each minute: says what changed. More often, for whoever listens, how many tasks there are.
async fn keep_house(counters: &Counters) {
    let mut said = counters.snapshot();
    loop {
        for _ in 0..MINUTE.as_secs() / TASKS_EVERY.as_secs() {
            tokio::time::sleep(TASKS_EVERY).await;
            let tasks = tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks();
            tracing::debug!(tasks, "alive");
        }
        let now = counters.snapshot();
        if now != said {
            tracing::info!(
                reflected = now.reflected,
                relayed = now.relayed,
                relayed_bytes = now.relayed_bytes,
                relay_delayed = now.relay_delayed,
                relay_over_quota = now.relay_over_quota,
                relay_refused = now.relay_refused,
                unknown = now.unknown,
                send_failed = now.send_failed,
                allocations = now.allocations,
                "served so far"
            );
            said = now;
        }
    }
}

async fn log_events(overlay: OverlayId, mut events: mpsc::Receiver<ControlEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            ControlEvent::RevocationsGrew => {
                tracing::info!(%overlay, "revocations: whoever they name is cut off");
            }
            ControlEvent::Twins {
                peer,
                addrs: [one, other],
            } => {
                tracing::warn!(
                    %overlay,
                    node = %peer,
                    "two machines have the identity of this node, one at {one}, the other at {other}: they \
                     throw each other off. One is a copy (a cloned host, a restored snapshot, a copied state \
                     directory); it needs an empty state directory and an invite of its own"
                );
            }
            ControlEvent::ListenFailed { addrs, reason } => {
                tracing::error!(%overlay, ?addrs, reason, "a listener is gone");
            }
            // Nobody signals to a bootstrap.
            other => tracing::debug!(%overlay, event = ?other, "control event"),
        }
    }
}
