//! From a state directory to a running node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use control_plane::Gatekeeper;
use control_plane::admission::MemberGate;
use control_plane::records::SignedRecords;
use control_plane::{ControlConfig, ControlError, ControlEvent, ControlHandle, Multiaddr, addr};
use host_services::readiness::notify;
use nat_traversal::path::SocketId;
use node_core::control::{BootstrapAddr, GateState};
use node_core::questions::MAX_ASKED;
use node_core::sequences::Sequences;
use node_core::shown::{bootstraps_to_dial, own_chain};
use overlay_proto::Entropy;
use overlay_proto::membership::Revocations;
use overlay_proto::session::{Processor, Suite};
use overlay_proto::switching::Fib;
use overlay_proto::time::UnixTime;
use overlay_proto::tunnels::{Tunnels, TunnelsConfig};
use overlay_proto::wire::Lane;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::firewall_watch::FirewallWatch;
use super::gate::member_state;
use super::host_tasks::HostTasks;
use super::interface_looks::InterfaceLooks;
use super::kernel_sight::Kernel;
use super::storing::{self, Disk, Kept, NodeShelf, StoreThread};
use super::taps::Taps;
use super::watches;
use super::{Inputs, Outside, Shell, read_clocks};
use crate::cli::NodeSetup;
use crate::config::{Config, DEFAULT_PORT};
use crate::control_socket::server::{ControlCall, ControlServer};
use crate::state::{BoundPorts, OsEntropy, StateDir, clock_readings};
use crate::workers::{
    Punted, SlowSender, UdpSockets, WorkerConfig, WorkerPool, default_workers, handoff,
};
use node_core::node::files::{LOOPED_PORTS, PEERS};
use node_core::node::standing::identity::Identity;
use node_core::node::switchboard::begin::{Begin, above_all_before, revoked_already};
use node_core::node::switchboard::run::Node;
use node_core::node::tick::Tick;

/// Runs the node until SIGTERM or SIGINT.
///
/// # Errors
/// One line: what, why, what to do.
pub fn up(setup: NodeSetup) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(run(setup))
}

async fn run(setup: NodeSetup) -> Result<()> {
    let control_server = ControlServer::bind(&setup.state.socket(), &setup.config.control.users)?;
    let (call_sender, calls) = mpsc::channel(32);
    let tick = read_clocks();
    let (mut shell, mut inputs) = start(&setup, calls, storing::disk, tick).await?;
    attach_configured(&setup, &mut shell, tick).await?;
    tokio::spawn(control_server.serve(call_sender));
    let stop = stop_signal()?;
    notify("READY=1");
    tracing::info!(node = %shell.node.standing.identity.me, "the node is up");
    (inputs.fdb, inputs.host) = (watches::of_bridges(), watches::of_host());
    shell.run(inputs, stop).await;
    // Held until here: no second node on this state directory.
    drop(setup.lock);
    Ok(())
}

/// Makes what is attached by the configuration and by the record on disk, and opens its taps.
///
/// # Errors
/// The record of attachments cannot be read or written.
async fn attach_configured(setup: &NodeSetup, shell: &mut Shell, tick: Tick) -> Result<()> {
    let (told, waiting) = setup.attach_configured().await?;
    for line in told {
        tracing::info!("{line}");
    }
    shell.node.networks.interfaces.wait_for(waiting);
    shell.node.look_at_move();
    shell.open_recorded(tick)?;
    shell.look_at_host_first(tick).await;
    shell.act(tick);
    Ok(())
}

/// A slow path with its networks, nothing attached; and its inputs, but for those from the kernel. `disk` makes what
/// it writes by.
pub(super) async fn start(
    setup: &NodeSetup,
    calls: mpsc::Receiver<ControlCall>,
    disk: impl FnOnce(Arc<Kept>, Arc<MemberGate>) -> Disk,
    tick: Tick,
) -> Result<(Shell, Inputs)> {
    let mut ports = setup.state.load_ports()?;
    let sockets = bind_data_path(&setup.config, &mut ports)?;
    let kept = Arc::new(Kept::new(setup.state.clone()));
    let gate = Arc::new(member_gate(setup, &kept)?);
    // What the gate learns from here on is handed in as it comes.
    let held = gate.revocations();
    let (control, control_events) = start_control(setup, &mut ports, &gate).await?;
    setup.state.save_ports(&ports)?;

    let (answer_sender, answers) = mpsc::channel(MAX_ASKED);
    let store = StoreThread::start(disk(kept, Arc::clone(&gate)), answer_sender.clone())?;
    let mut node = slow_path(setup, &sockets, held, tick)?;
    let fib = Arc::new(ArcSwap::from_pointee(Fib::default()));
    let (workers, punted) = start_workers(&sockets, &setup.config, &fib, &node)?;
    node.publication.workers = workers.len();
    recall(&setup.state, &mut node, tick)?;
    node.tell_incarnation();
    let (interfaces, looked) = InterfaceLooks::start();
    let outside = Outside {
        host: HostTasks::start(answer_sender.clone(), setup.state.clone()),
        interfaces,
        control,
        gate,
        answers: answer_sender,
        sender: SlowSender::new(sockets),
        workers,
        fib,
        taps: Taps::new(),
        firewall: FirewallWatch::start(),
        store,
        state: setup.state.clone(),
    };
    let inputs = Inputs {
        punted,
        control: control_events,
        answers,
        calls,
        interfaces: looked,
        fdb: None,
        host: None,
    };
    Ok((Shell::new(node, outside, tick.now), inputs))
}

/// What the runs before have left on disk.
///
/// # Errors
/// The directory of a network is unreadable, or a network cannot be used.
fn recall(state: &StateDir, node: &mut Node, tick: Tick) -> Result<()> {
    for secret in node.standing.identity.membership.networks().to_vec() {
        let kept = storing::recall(state, &secret.id, &secret.name)?;
        node.add_network(tick, secret.id, &kept)?;
    }
    let peers = state.load_blob(PEERS).map_err(anyhow::Error::from);
    node.recall_peers(tick, peers);
    if let Ok(Some(ports)) = state.load_blob(LOOPED_PORTS) {
        node.recall_looped_ports(tick, &ports);
    }
    Ok(())
}

/// The slow path, without networks yet.
fn slow_path(
    setup: &NodeSetup,
    sockets: &UdpSockets,
    held: Arc<Revocations>,
    tick: Tick,
) -> Result<Node> {
    let mut entropy = OsEntropy;
    let identity = identity(setup, tick.now, &mut entropy)?;
    let mut sequences = sequences(setup, tick.wall)?;
    let first = sequences
        .next(tick.wall)
        .context("no number is left for this node's lists")?;
    let begin = Begin {
        tunnels: tunnels(setup, &identity)?,
        identity,
        entropy: Box::new(entropy),
        sight: Box::new(Kernel),
        replication: setup.config.directory.replication,
        claim_ttl: setup.config.directory.claim_ttl(),
        listen: sockets.local_addrs(),
        sequences: (sequences, first),
        held,
        last_refusal: revoked_already(&setup.membership, &setup.revocations, setup.key.peer_id()),
        state_dir: setup.state.path().display().to_string(),
    };
    Ok(Node::new(tick, begin))
}

/// The numbers of this node's lists, with a reserve on disk.
fn sequences(setup: &NodeSetup, wall: UnixTime) -> Result<Sequences> {
    let mut sequences = Sequences::restored(setup.state.load_sequences()?);
    if let Some(bound) = sequences.poll_refill(wall) {
        let saved = setup.state.save_sequences(bound);
        saved.context("the numbers of this node's lists cannot be kept")?;
        sequences.handle_written(true);
    }
    Ok(sequences)
}

/// The sockets of each worker. A kernel that does not let several share a port has one worker.
fn share_sockets(sockets: &UdpSockets, wanted: Option<usize>) -> Result<Vec<UdpSockets>> {
    let wanted = wanted.unwrap_or_else(default_workers);
    let shared = sockets.share_among(wanted).or_else(|error| {
        tracing::warn!(%error, "several workers cannot share the port; one works");
        sockets.share_among(1)
    });
    shared.context("no file descriptor is left for the data path")
}

/// The fast path: as many workers as the configuration says, without taps yet.
fn start_workers(
    sockets: &UdpSockets,
    config: &Config,
    fib: &Arc<ArcSwap<Fib>>,
    node: &Node,
) -> Result<(WorkerPool, Punted)> {
    let sockets = share_sockets(sockets, config.workers)?;
    let (senders, punted) = handoff(sockets.len(), Arc::clone(&node.outside.drops));
    let one = |((sockets, punts), lane)| WorkerConfig {
        sockets,
        taps: Vec::new(),
        fib: Arc::clone(fib),
        drops: Arc::clone(&node.outside.drops),
        punts,
        epoch: node.standing.identity.epoch,
        lane: Lane(lane),
        me: node.standing.identity.me,
        marks: config.underlay.marks(),
    };
    let parts = sockets.into_iter().zip(senders).zip(1..);
    let configs = parts.map(one).collect();
    let pool = WorkerPool::start(configs).context("the data path cannot be started")?;
    Ok((pool, punted))
}

/// Completes with SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The data path's sockets: what was asked for, or the port of the last run, or the default one, or
/// a free one. The port is kept.
fn bind_data_path(config: &Config, ports: &mut BoundPorts) -> Result<UdpSockets> {
    let sockets = if config.listen.is_empty() {
        let first = ports.udp4.or(ports.udp6).unwrap_or(DEFAULT_PORT);
        UdpSockets::bind(first).or_else(|error| {
            tracing::warn!(%error, "taking a free port");
            UdpSockets::bind(0)
        })?
    } else {
        let asked: Vec<SocketAddr> = config.listen.iter().map(|listen| listen.0).collect();
        UdpSockets::bind_to(&asked)?
    };
    let bound = socket_ports(&sockets);
    ports.udp4 = bound.get(&SocketId::V4).copied();
    ports.udp6 = bound.get(&SocketId::V6).copied();
    Ok(sockets)
}

fn socket_ports(sockets: &UdpSockets) -> BTreeMap<SocketId, u16> {
    let addrs = sockets.local_addrs();
    addrs
        .iter()
        .map(|addr| (SocketId::for_addr(addr), addr.port()))
        .collect()
}

/// The control plane, on the ports of the last run, or those beside the data path's, or free ones.
async fn start_control(
    setup: &NodeSetup,
    ports: &mut BoundPorts,
    gate: &Arc<MemberGate>,
) -> Result<(ControlHandle, mpsc::Receiver<ControlEvent>)> {
    let data = ports.udp4.or(ports.udp6).unwrap_or(DEFAULT_PORT);
    let wanted = BoundPorts {
        quic: ports.quic.or(data.checked_add(1)),
        tcp: ports.tcp.or(Some(data)),
        ..*ports
    };
    let free = BoundPorts {
        quic: Some(0),
        tcp: Some(0),
        ..*ports
    };
    let started = match control_plane::spawn(control_config(setup, &wanted, gate)?) {
        Err(ControlError::PortBusy(addr)) => {
            tracing::warn!(%addr, "the control plane's port is in use, taking a free one");
            control_plane::spawn(control_config(setup, &free, gate)?)
        }
        started => started,
    };
    let (handle, events) = started.context("the control plane cannot be started")?;
    for listened in handle.listen_addrs().await.unwrap_or_default() {
        let Some(socket) = addr::socket_addr(&listened) else {
            continue;
        };
        let quic = listened.to_string().contains("/udp/");
        *(if quic {
            &mut ports.quic
        } else {
            &mut ports.tcp
        }) = Some(socket.port());
    }
    Ok((handle, events))
}

fn control_config(
    setup: &NodeSetup,
    ports: &BoundPorts,
    gate: &Arc<MemberGate>,
) -> Result<ControlConfig> {
    let (membership, me) = (&setup.membership, setup.key.peer_id());
    let mut listen = Vec::new();
    for ip in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        // A host without IPv6 has no such socket to offer.
        if matches!(ip, std::net::IpAddr::V6(_)) && ports.udp6.is_none() {
            continue;
        }
        listen.extend(ports.quic.map(|port| addr::quic(SocketAddr::new(ip, port))));
        listen.extend(ports.tcp.map(|port| addr::tcp(SocketAddr::new(ip, port))));
    }
    let bootstraps = bootstraps_to_dial(membership, &setup.revocations, me);
    let bootstraps: Result<_> = bootstraps.iter().map(multiaddr).collect();
    Ok(ControlConfig {
        secret_key: setup.key.secret_bytes(),
        listen,
        external: Vec::new(),
        bootstraps: bootstraps?,
        gate: Arc::<MemberGate>::clone(gate),
        records: Arc::new(SignedRecords {
            overlay: membership.overlay(),
        }),
        kad_server: false,
        infra: None,
    })
}

fn member_gate(setup: &NodeSetup, kept: &Arc<Kept>) -> Result<MemberGate> {
    let me = setup.key.peer_id();
    let state = GateState::of(&setup.membership, &setup.revocations, me)?;
    let shelf = NodeShelf(Arc::clone(kept));
    let revocations = Revocations::clone(&setup.revocations);
    Ok(MemberGate::new(
        member_state(state),
        revocations,
        Some(Arc::new(shelf)),
    ))
}

fn multiaddr(addr: &BootstrapAddr) -> Result<Multiaddr> {
    let text = addr.text();
    text.parse()
        .with_context(|| format!("the bootstrap address `{text}`"))
}

fn identity(setup: &NodeSetup, epoch: Instant, entropy: &mut OsEntropy) -> Result<Identity> {
    let me = setup.key.peer_id();
    let chain = own_chain(&setup.membership, &setup.revocations, me)?;
    let mut identity = Identity {
        me,
        signed_static: Vec::new(),
        static_until: UnixTime(0),
        static_public: setup.static_key.public,
        chain: chain.encode(),
        verifier: setup.verifier(),
        key: setup.key.clone(),
        membership: setup.membership.clone(),
        name: setup.name.clone(),
        incarnation: entropy.next_u32(),
        epoch,
    };
    // Anew at each start.
    identity.sign_static(setup.static_key.sequence, read_clocks().wall);
    Ok(identity)
}

/// What this processor is fastest with, in front; and a line in the log about it.
fn suites() -> [Suite; 2] {
    let processor = Processor::detect();
    let suites = processor.suites();
    let by = suites.map(|suite| {
        let library = processor.cipher(suite).library.name();
        format!("{} by {library}", suite.name())
    });
    tracing::info!("ciphers, the preferred one first: {}", by.join(", "));
    suites
}

fn tunnels(setup: &NodeSetup, identity: &Identity) -> Result<Tunnels> {
    let config = TunnelsConfig {
        me: identity.me,
        overlay: setup.membership.overlay(),
        overlay_secret: setup.membership.overlay_secret().clone(),
        psk_root_version: setup.membership.roots().newest().version,
        revocation_number: setup.revocations.number().0,
        static_secret: setup.static_key.secret.clone(),
        chain: identity.chain.clone(),
        signed_static: identity.signed_static.clone(),
        networks: setup
            .membership
            .networks()
            .iter()
            .map(|network| network.id)
            .collect(),
        suites: suites(),
        incarnation: identity.incarnation,
    };
    let clock = u64::try_from(clock_readings().wall.as_nanos()).unwrap_or(0);
    let saved = setup.state.load_handshake_time()?;
    Ok(Tunnels::new(config, above_all_before(saved, clock)))
}
