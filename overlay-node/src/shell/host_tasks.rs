//! Carries out what the slow path wants of the host and waits for: looks at its links, changes of its bridges and
//! attachments. Each in a task of its own, but for the orders to the bridges, which are done in one line.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nat_traversal::host::HostView;
use overlay_proto::switching::MacKey;
use tap_bridge::Links;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::bridge_looks::look_at_bridges;
use super::bridge_orders::BridgeOrders;
use super::storing::recall;
use crate::attachments;
use crate::state::StateDir;
use node_core::node::host_orders::{BridgeOrder, HostTask};
use node_core::node::networks::looped_ports::PortSet;
use node_core::node::networks::remote_macs::Changes;
use node_core::node::switchboard::answers::Answer;

/// Time for the kernel to finish what it began when it told of a change of a bridge, and the shortest time between two
/// looks.
const SETTLE: Duration = Duration::from_millis(50);

/// How long the kernel may take for a look at the host.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the kernel.
#[derive(Debug)]
pub(crate) struct HostTasks {
    /// `None` where the kernel gives no netlink socket.
    links: Option<Links>,
    orders: BridgeOrders,
    answers: mpsc::Sender<Answer>,
    state: StateDir,
}

impl HostTasks {
    /// Must be called within a tokio runtime.
    pub(crate) fn start(answers: mpsc::Sender<Answer>, state: StateDir) -> Self {
        let links = Links::connect()
            .inspect_err(|error| {
                tracing::warn!(%error, "the host's addresses and bridges cannot be watched");
            })
            .ok();
        Self {
            orders: BridgeOrders::start(links.clone()),
            links,
            answers,
            state,
        }
    }

    /// Gives an order to the bridges; `false`: too many wait.
    #[must_use]
    pub(crate) fn order(&self, order: BridgeOrder) -> bool {
        self.orders.give(order)
    }

    /// Begins `task`. Without a way to the kernel, what needs one is answered with nothing seen.
    pub(crate) fn begin(&self, task: HostTask) {
        let (links, state, answers) =
            (self.links.clone(), self.state.clone(), self.answers.clone());
        tokio::spawn(async move {
            if let Some(answer) = carry_out(links, state, task).await {
                // The slow path may have ended.
                let _ = answers.send(answer).await;
            }
        });
    }

    /// A look at the host before the node starts.
    pub(crate) async fn look_at_host(&self, toward: &[IpAddr]) -> Option<(HostView, Duration)> {
        look_at_host(self.links.as_ref()?, toward).await
    }
}

async fn carry_out(links: Option<Links>, state: StateDir, task: HostTask) -> Option<Answer> {
    let answer = match task {
        HostTask::LookAtBridges { wanted, whole } => {
            sleep(SETTLE).await;
            let seen = match links {
                Some(links) => look_at_bridges(&links, &wanted, whole).await,
                None => Ok(Vec::new()),
            };
            if let Err(error) = &seen {
                tracing::warn!(%error, "the bridges could not be looked at");
            }
            Answer::Bridges(seen.ok())
        }
        HostTask::LookAtHost { toward, pause } => {
            sleep(pause).await;
            let seen = match links {
                Some(links) => look_at_host(&links, &toward).await,
                None => None,
            };
            Answer::Host(seen.map(Box::new))
        }
        HostTask::SetForwarding {
            index,
            name,
            forwards,
        } => Answer::PortSet(PortSet {
            refused: !set_forwarding(links, index, &name, forwards).await,
            name,
            forwards,
        }),
        HostTask::Remote { net, port, changes } => {
            let refused = match links {
                Some(links) => write_remote(&links, port, changes).await,
                None => changes.write,
            };
            Answer::RemoteMacs(net, refused)
        }
        HostTask::RollBack => {
            match attachments::roll_back(state.path(), false).await {
                Ok(lines) => lines.iter().for_each(|line| tracing::warn!("{line}")),
                Err(error) => tracing::error!("moved addresses were not brought back: {error:#}"),
            }
            Answer::MoveEnded
        }
        HostTask::Ensure => {
            match attachments::ensure(state.path()).await {
                Ok(lines) => lines.iter().for_each(|line| tracing::info!("{line}")),
                Err(error) => tracing::error!("the NIC is not on its network: {error:#}"),
            }
            return None;
        }
        HostTask::Recall(id, name) => {
            let looked = move || recall(&state, &id, &name);
            Answer::Recalled(id, in_thread(looked).await)
        }
        HostTask::Confirm(call) => {
            // Waits for whoever else changes attachments.
            let confirm = move || attachments::confirm(state.path());
            Answer::Confirmed(call, in_thread(confirm).await)
        }
    };
    Some(answer)
}

async fn look_at_host(links: &Links, toward: &[IpAddr]) -> Option<(HostView, Duration)> {
    let start = Instant::now();
    match timeout(LOOK_TIMEOUT, links.host_view(toward)).await {
        Ok(Ok(view)) => return Some((view, start.elapsed())),
        Ok(Err(error)) => tracing::warn!(%error, "the host's addresses could not be listed"),
        Err(_) => tracing::warn!("listing the host's addresses took too long"),
    }
    None
}

async fn set_forwarding(links: Option<Links>, index: u32, port: &str, forwards: bool) -> bool {
    let Some(links) = links else {
        return false;
    };
    let set = links.set_forwarding(index, forwards).await;
    if let Err(error) = &set {
        tracing::error!(%error, port, forwards, "the port stays as it is");
    }
    set.is_ok()
}

/// Makes the changes; returns what the kernel refused to write.
async fn write_remote(links: &Links, port: u32, changes: Changes) -> Vec<MacKey> {
    for key in changes.remove {
        if let Err(error) = links.fdb_delete(port, key.mac, key.vlan).await {
            tracing::debug!(%error, "a forwarding entry stays");
        }
    }
    let mut refused = Vec::new();
    for key in changes.write {
        if let Err(error) = links.fdb_keep(port, key.mac, key.vlan).await {
            tracing::debug!(%error, "a forwarding entry is missing");
            refused.push(key);
        }
    }
    refused
}

/// Beside the runtime, since it waits for the disk.
async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(anyhow::anyhow!("it broke off: {error}")))
}
