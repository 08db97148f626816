//! The protocols that admitted nodes speak.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::kad::{self, BucketInserts, Caching, Mode, StoreInserts};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, identify};

use crate::codec::Codec;
use crate::kad_store::VerifyingStore;
use crate::links::Links;
use control_proto::admission::AdmittedTable;
use control_proto::messages::MAX_RECORD;
use control_proto::records::{MAX_TTL, Records};

/// Kademlia's protocol: overlays never meet (one swarm serves one overlay), so the name is fixed.
pub(crate) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/farlan/kad/1");
const CONTROL_PROTOCOL: StreamProtocol = StreamProtocol::new("/farlan/control/1");
const IDENTIFY_PROTOCOL: &str = "/farlan/1";

/// Two lost packets and their retransmissions; a peer that takes longer is taken for dead.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests of one connection that are served at once.
const CONCURRENT_REQUESTS: usize = 64;

/// A query outlives no asker: `get_record` gives up after two seconds.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// "Up to 32 nodes every server stores all" (DIRECTORY.md); also the fan-out of a put.
const REPLICATION: NonZeroUsize = match NonZeroUsize::new(32) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// Only for what changes after the start, which nobody here waits for.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(3600);

/// Links of a bootstrap, and of a member (a few bootstraps, and talkers).
const MAX_PEERS_INFRA: usize = 4096;
const MAX_PEERS_MEMBER: usize = 512;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First, so that its limits are judged before anybody else sees a connection.
    pub(crate) links: Links,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: kad::Behaviour<VerifyingStore>,
    pub(crate) control: request_response::Behaviour<Codec>,
}

impl Behaviour {
    pub(crate) fn new(
        keys: &Keypair,
        admitted: AdmittedTable,
        records: Records,
        kad_server: bool,
        infra: bool,
    ) -> Self {
        let local = keys.public().to_peer_id();
        let max_peers = if infra {
            MAX_PEERS_INFRA
        } else {
            MAX_PEERS_MEMBER
        };
        let store = VerifyingStore::new(local, records, kad_server);
        let mut kad = kad::Behaviour::with_config(local, store, kad_config());
        kad.set_mode(Some(if kad_server {
            Mode::Server
        } else {
            Mode::Client
        }));
        Self {
            links: Links::new(admitted, infra, max_peers),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keys.public())
                    .with_agent_version(format!("farlan/{}", env!("CARGO_PKG_VERSION")))
                    .with_interval(IDENTIFY_INTERVAL)
                    .with_push_listen_addr_updates(false)
                    .with_cache_size(0)
                    // Interface addresses stay private; the external ones are told.
                    .with_hide_listen_addrs(true),
            ),
            kad,
            control: request_response::Behaviour::new(
                [(CONTROL_PROTOCOL, ProtocolSupport::Full)],
                request_response::Config::default()
                    .with_request_timeout(REQUEST_TIMEOUT)
                    .with_max_concurrent_streams(CONCURRENT_REQUESTS),
            ),
        }
    }
}

fn kad_config() -> kad::Config {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(QUERY_TIMEOUT)
        .set_replication_factor(REPLICATION)
        .set_kbucket_size(REPLICATION)
        .set_record_ttl(Some(MAX_TTL))
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        // Our store refuses what does not verify, before the answer; the filtering that kad offers
        // acknowledges first.
        .set_record_filtering(StoreInserts::Unfiltered)
        .set_kbucket_inserts(BucketInserts::OnConnected)
        .set_caching(Caching::Disabled)
        .set_periodic_bootstrap_interval(None)
        .set_max_packet_size(MAX_PACKET);
    config
}

/// A record, or the 32 closest peers with a few addresses each.
const MAX_PACKET: usize = 4 * MAX_RECORD;
