//! What the control plane needs to start, and why it may not.

use std::fmt;
use std::sync::Arc;

use control_proto::admission::Gatekeeper;
use control_proto::records::RecordRules;
use control_proto::serving::Relay;
use libp2p::Multiaddr;
use zeroize::Zeroizing;

/// Everything the control plane is told at its start.
#[derive(Clone)]
pub struct ControlConfig {
    /// The node's ed25519 secret key, 32 bytes (RFC 8032 section 5.1.5).
    pub secret_key: Zeroizing<[u8; 32]>,
    /// Where to listen: `/ip4/../udp/PORT/quic-v1` or `/ip4/../tcp/PORT`. May be empty.
    pub listen: Vec<Multiaddr>,
    /// Addresses known to reach this node from outside; told to those who may ask.
    pub external: Vec<Multiaddr>,
    /// Bootstraps to stay connected to, each with `/p2p/PEER` at its end; several addresses of one
    /// peer are tried together.
    pub bootstraps: Vec<Multiaddr>,
    /// Who judges the other side of each connection.
    pub gate: Arc<dyn Gatekeeper>,
    /// Who judges what is stored in and found by the DHT.
    pub records: Arc<dyn RecordRules>,
    /// Serve the DHT. Only for bootstraps and nodes that a third party has reached: a server
    /// behind a NAT fills the others' routing tables with addresses that lead nowhere.
    pub kad_server: bool,
    /// The relay of a bootstrap; `None` on a member, which serves no member.
    pub relay: Option<Arc<dyn Relay + Send + Sync>>,
}

impl fmt::Debug for ControlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlConfig")
            .field("listen", &self.listen)
            .field("bootstraps", &self.bootstraps)
            .field("kad_server", &self.kad_server)
            .field("relay", &self.relay.is_some())
            .finish_non_exhaustive()
    }
}

/// Why the control plane cannot start. All but `Crypto` are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A listen address is taken by another program.
    #[error("{0} is in use; stop the program that holds it, or choose another port with --listen")]
    PortBusy(Multiaddr),
    /// A listen address cannot be bound for another reason.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// What the operating system or libp2p said.
        error: String,
    },
    /// An address is of no form that the control plane knows.
    #[error("`{0}` is no control address; one looks like /ip4/192.0.2.1/udp/22612/quic-v1")]
    Address(Multiaddr),
    /// A bootstrap address without `/p2p/PEER`.
    #[error("bootstrap address `{0}` lacks its /p2p/ part")]
    BootstrapWithoutPeer(Multiaddr),
    /// The crypto library refused the key or its own set-up.
    #[error("cannot set up the control plane's keys: {0}")]
    Crypto(String),
}
