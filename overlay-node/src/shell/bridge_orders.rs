//! Orders about the bridges' forwarding databases, carried out one after the other.
//!
//! A MAC that goes and comes back makes two orders within a moment; the later one must win. So one task carries
//! out all, in the order they were given, and the slow path waits for none.

use tap_bridge::{Error, Links};
use tokio::sync::mpsc;

use node_core::node::host_orders::BridgeOrder;

/// Orders that wait: those of a burst of moves. Beyond it they are refused, and the whole database is looked at.
const MAX_WAITING: usize = 1024;

/// The way to the task.
#[derive(Debug, Default)]
pub(crate) struct BridgeOrders {
    /// `None` where the kernel gives no netlink socket.
    sender: Option<mpsc::Sender<BridgeOrder>>,
}

impl BridgeOrders {
    /// Starts the task, which ends with the last sender. Must be called within a tokio runtime.
    pub(crate) fn start(links: Option<Links>) -> Self {
        let sender = links.map(|links| {
            let (sender, mut orders) = mpsc::channel(MAX_WAITING);
            tokio::spawn(async move {
                while let Some(order) = orders.recv().await {
                    if let Err(error) = carry_out(&links, order).await {
                        tracing::debug!(%error, ?order, "a bridge keeps what it has");
                    }
                }
            });
            sender
        });
        Self { sender }
    }

    /// `false`: too many wait. Without a way to the kernel there is nothing to be done.
    #[must_use]
    pub(crate) fn give(&self, order: BridgeOrder) -> bool {
        let sender = self.sender.as_ref();
        sender.is_none_or(|sender| sender.try_send(order).is_ok())
    }
}

async fn carry_out(links: &Links, order: BridgeOrder) -> Result<(), Error> {
    match order {
        BridgeOrder::Replace { port, key } => links.fdb_replace(port, key.mac, key.vlan).await,
        BridgeOrder::Delete { port, key } => links.fdb_delete(port, key.mac, key.vlan).await,
        BridgeOrder::Flush { port } => links.flush_port(port).await,
    }
}
