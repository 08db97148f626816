//! QUIC, and TCP with Noise and yamux, behind the gate.

use std::sync::Arc;
use std::time::Duration;

use control_proto::admission::{AdmittedTable, Gatekeeper};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, quic, tcp, yamux};

use crate::admission::Gated;
use crate::config::ControlError;
use crate::few_streams::{FewStreams, MAX_STREAMS};

/// Keeps a NAT's UDP mapping (30 s and more, RFC 4787 REQ-5 asks for 2 min) without chatting: an
/// idle node may spend 1 KB/s on everything together.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Two keep-alives may be lost before a connection counts as dead.
const QUIC_IDLE_MS: u32 = 40_000;

/// Streams that the other side may have open: Kademlia, requests, identify, each short.
const QUIC_STREAMS: u32 = 128;

/// No message is larger than 64 KiB; a few may be under way on one connection.
const QUIC_STREAM_WINDOW: u32 = 128 * 1024;
const QUIC_CONNECTION_WINDOW: u32 = 1024 * 1024;

pub(crate) fn build(
    keys: &Keypair,
    gate: Arc<dyn Gatekeeper>,
    admitted: AdmittedTable,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, ControlError> {
    let noise = noise::Config::new(keys).map_err(|e| ControlError::Crypto(e.to_string()))?;
    let mut few = yamux::Config::default();
    few.set_max_num_streams(MAX_STREAMS);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(few)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(FewStreams::new(muxer))));

    let mut config = quic::Config::new(keys);
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_idle_timeout = QUIC_IDLE_MS;
    config.max_concurrent_stream_limit = QUIC_STREAMS;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));

    let both = quic
        .or_transport(tcp)
        .map(|either, _| either.into_inner())
        .boxed();
    Ok(Gated::new(both, gate, admitted).boxed())
}
