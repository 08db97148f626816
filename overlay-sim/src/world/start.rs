//! From what a host keeps to a running node, as `overlay-node/src/shell/startup.rs` does it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use control_proto::admission::{Gatekeeper, MemberGate};
use node_core::control::GateState;
use node_core::node::candidates::host::ANYWHERE;
use node_core::node::standing::identity::Identity;
use node_core::node::switchboard::begin::{Begin, above_all_before, revoked_already};
use node_core::node::switchboard::run::Node;
use node_core::node::tick::Tick;
use node_core::sequences::Sequences;
use node_core::shown::own_chain;
use overlay_proto::Entropy;
use overlay_proto::directory::CLAIM_TTL;
use overlay_proto::handshake::static_public;
use overlay_proto::membership::{MemberVerifier, Membership, Revocations};
use overlay_proto::session::Suite;
use overlay_proto::time::UnixTime;
use overlay_proto::tunnels::{Tunnels, TunnelsConfig};
use zeroize::Zeroizing;

use super::Surroundings;
use super::fast_path::FastPath;
use super::host::{Host, Running, member_state};
use crate::net::random::stream;

impl Host {
    /// Starts the node. `seed` is the world's.
    ///
    /// # Errors
    /// It has left, or what is on its disk does not fit together.
    pub(super) fn start(&mut self, around: &mut Surroundings, seed: u64) -> Result<()> {
        self.run += 1;
        let tick = around.tick(self.ahead);
        let membership = self.membership(tick.wall)?;
        let mut entropy = stream(seed, &format!("node {} run {}", self.name, self.run));
        let identity = self.identity(tick, membership, &mut entropy)?;
        let mut sequences = self.sequences(tick.wall);
        let first = sequences.next(tick.wall).context("no number is left")?;
        let book = Arc::clone(&self.disk.book);
        let gate_held = Revocations::clone(&self.disk.revocations());
        let state = GateState::of(&identity.membership, &gate_held, identity.me)?;
        let dials = state.bootstraps.clone();
        let gate = MemberGate::new(member_state(state), gate_held, Some(book));
        let held = gate.revocations();
        let clock = around.wall_nanos_of(self.ahead);
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let last_refusal = revoked_already(&identity.membership, &held, identity.me);
        let begin = Begin {
            tunnels: self.tunnels(&identity, clock),
            identity,
            entropy: Box::new(entropy),
            sight: Box::new(self.bridges.clone()),
            replication: true,
            claim_ttl: CLAIM_TTL,
            listen: any.map(|ip| SocketAddr::new(ip, self.port)).to_vec(),
            sequences: (sequences, first),
            held,
            last_refusal,
            state_dir: self.name.clone(),
        };
        let mut node = Node::new(tick, begin);
        node.publication.workers = 1;
        self.recall(&mut node, tick)?;
        node.tell_incarnation();
        let fast = FastPath::with_drops(Arc::clone(&node.outside.drops));
        self.running = Some(Running {
            node,
            fast,
            gate,
            dials,
            incarnation: None,
            began: around.clock.now(),
            idle_turns: (0, 0),
        });
        self.attach(around, tick);
        Ok(())
    }

    /// What the program's `up` does first: what has ended is given up, and something has to count.
    fn membership(&mut self, wall: UnixTime) -> Result<Membership> {
        let membership = self.disk.membership.as_mut();
        let membership = membership.context("this node has left")?;
        membership.forget_ended(wall);
        let member = membership.own_member(wall);
        let member = member.context("this node's certificate does not count")?;
        membership.roots_mut().raise_floor(member.issued);
        Ok(membership.clone())
    }

    fn attach(&mut self, around: &mut Surroundings, tick: Tick) {
        self.open_taps(tick);
        let view = self.view(around, &ANYWHERE);
        if let Some(running) = &mut self.running {
            running.node.look_at_move();
            running.node.take_view(tick, view, Duration::from_millis(1));
        }
        self.look_at_interfaces(tick);
        self.enter(around, |_, _| {});
    }

    fn recall(&self, node: &mut Node, tick: Tick) -> Result<()> {
        for secret in node.standing.identity.membership.networks().to_vec() {
            let kept = self.disk.recall(&secret.id, &secret.name);
            node.add_network(tick, secret.id, &kept)?;
        }
        node.recall_peers(tick, Ok(self.disk.peers()));
        if let Some(ports) = self.disk.looped_ports() {
            node.recall_looped_ports(tick, ports);
        }
        Ok(())
    }

    fn identity(
        &mut self,
        tick: Tick,
        membership: Membership,
        entropy: &mut dyn Entropy,
    ) -> Result<Identity> {
        let me = self.peer();
        let held = &self.disk.revocations();
        let chain = own_chain(&membership, held, me)?.encode();
        let networks = membership.networks().iter().map(|network| network.id);
        let mut verifier = MemberVerifier::new(membership.roots().clone(), networks.collect());
        verifier.set_revocations(Arc::clone(held));
        let name = self.disk.name().unwrap_or(&self.name).to_owned();
        let mut identity = Identity {
            me,
            key: self.key.clone(),
            membership,
            verifier,
            chain,
            name,
            signed_static: Vec::new(),
            static_public: static_public(&self.disk.static_key.0),
            static_until: UnixTime(0),
            incarnation: entropy.next_u32(),
            epoch: tick.now,
        };
        identity.sign_static(self.disk.next_static(), tick.wall);
        Ok(identity)
    }

    fn tunnels(&self, identity: &Identity, clock: u64) -> Tunnels {
        let membership = &identity.membership;
        let config = TunnelsConfig {
            me: identity.me,
            overlay: membership.overlay(),
            overlay_secret: membership.overlay_secret().clone(),
            psk_root_version: membership.roots().newest().version,
            revocation_number: self.disk.revocations().number().0,
            static_secret: Zeroizing::new(self.disk.static_key.0),
            chain: identity.chain.clone(),
            signed_static: identity.signed_static.clone(),
            networks: membership.networks().iter().map(|one| one.id).collect(),
            // The same whatever this processor is fastest with.
            suites: [Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
            incarnation: identity.incarnation,
        };
        Tunnels::new(config, above_all_before(self.disk.handshake_time, clock))
    }

    fn sequences(&mut self, wall: UnixTime) -> Sequences {
        let mut sequences = Sequences::restored(self.disk.sequences);
        if let Some(bound) = sequences.poll_refill(wall) {
            self.disk.sequences = bound;
            sequences.handle_written(true);
        }
        sequences
    }
}
