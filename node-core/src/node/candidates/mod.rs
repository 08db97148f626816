//! Where this node can be reached.
//!
//! - [`host`]: interfaces and routes. [`bootstraps`]: which are up, and what their relays give. [`permits`]: whom our relay allocations are to hear. Reflectors and allocations are
//!   in [`crate::underlay`].

pub mod bootstraps;
pub mod host;
pub mod permits;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use overlay_proto::ids::PeerId;

use crate::control::BootstrapAddr;
use crate::node::candidates::host::HostLooks;
use crate::node::candidates::permits::Permits;
use crate::underlay::Underlay;

/// Own addresses, the bootstraps that are up, and the relays there.
#[derive(Debug)]
pub struct Candidates {
    pub(crate) underlay: Underlay,
    /// Bootstraps that are connected now.
    pub(crate) infra: BTreeSet<PeerId>,
    /// The addresses of bootstraps that did not answer since that bootstrap was up, with the reason.
    pub unreachable: BTreeMap<BootstrapAddr, String>,
    host: HostLooks,
    permits: Permits,
    /// Where the data path's sockets are bound.
    pub(crate) listen: Vec<SocketAddr>,
}

impl Candidates {
    /// Nothing is known of the host, and no bootstrap is up.
    pub(crate) fn new(underlay: Underlay, listen: Vec<SocketAddr>) -> Self {
        Self {
            underlay,
            infra: BTreeSet::new(),
            unreachable: BTreeMap::new(),
            host: HostLooks::default(),
            permits: Permits::default(),
            listen,
        }
    }
}
