//! `farlan up`: everything the node needs, checked before it starts.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use overlay_proto::membership::{MemberVerifier, Membership, NodeKey, Revocations};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{Globals, attach_now};
use crate::attachments;
use crate::config::{Config, ListenAddr, check_listen};
use crate::control_socket::api::AttachRequest;
use crate::state::{StateDir, StateLock, StaticKey, wall_clock};
use crate::workers::MAX_WORKERS;

/// The log filter if nobody sets one.
const DEFAULT_LOG: &str = "info";

/// In front of every filter: the libraries' warnings about what is normal here stay out, unless the
/// filter names the library.
const QUIET: &str = "libp2p_kad=error,libp2p_swarm=warn,netlink_packet_route=error";

/// The environment variable that sets the log filter; it wins over the configuration.
const LOG_VARIABLE: &str = "FARLAN_LOG";

/// What `up` takes.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// An address for the data path, IP:PORT; one per address family [default: port 22611, or a free one]
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub listen: Vec<ListenAddr>,
    /// Threads of the data path, 1 to 7 [default: half of the processors, at least 1, at most 4]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_WORKERS as u64))]
    pub workers: Option<usize>,
}

/// What a node starts with.
#[derive(Debug)]
pub struct NodeSetup {
    /// The state directory.
    pub state: StateDir,
    /// Held while the node runs: no second node on this directory.
    pub lock: StateLock,
    /// The operator's file, with the flags of the command in it.
    pub config: Config,
    /// The node's identity.
    pub key: NodeKey,
    /// Its x25519 key, with a fresh sequence.
    pub static_key: StaticKey,
    /// Its membership, verified and in time.
    pub membership: Membership,
    /// Who is revoked, as far as this node knew when it stopped.
    pub revocations: Arc<Revocations>,
    /// Its name: the authority's, else the operator's, else the host's; empty if there is none.
    pub name: String,
}

impl NodeSetup {
    /// Reads and checks the configuration and the state.
    ///
    /// # Errors
    /// One line that says which file or flag is wrong and what to do.
    pub fn load(globals: &Globals, args: &UpArgs) -> Result<Self> {
        let mut config = Config::load(globals.config.as_deref())?;
        check_listen(&args.listen)?;
        if !args.listen.is_empty() {
            config.listen.clone_from(&args.listen);
        }
        config.workers = args.workers.or(config.workers);
        let state = globals.state();
        state.require_membership()?;
        let lock = state.lock()?;
        let edit = state.edit()?;
        let mut membership = state.require_membership()?;
        if membership.forget_ended(wall_clock()) {
            state.save_membership(&membership)?;
        }
        let member = membership
            .own_member(wall_clock())
            .context("this node's certificate is not valid")?;
        membership.roots_mut().raise_floor(member.issued);
        let key = state
            .load_identity()?
            .filter(|key| key.peer_id() == member.peer)
            .ok_or_else(|| {
                anyhow!(
                    "the identity in {} is not the one that joined; restore the file `identity`, \
                     or join again in an empty directory",
                    state.path().display()
                )
            })?;
        let static_key = state.next_static_key()?;
        let revocations = Arc::new(state.load_revocations(membership.roots())?);
        drop(edit);
        let name = state.node_name(&membership)?;
        Ok(Self {
            lock,
            config,
            key,
            static_key,
            membership,
            revocations,
            name,
            state,
        })
    }

    /// Checks the certificates of peers.
    #[must_use]
    pub fn verifier(&self) -> MemberVerifier {
        let networks = self.membership.networks().iter();
        let mut verifier = MemberVerifier::new(
            self.membership.roots().clone(),
            networks.map(|network| network.id).collect(),
        );
        verifier.set_revocations(Arc::clone(&self.revocations));
        verifier
    }

    /// Makes the attachments of the configuration, and those on disk whose interfaces are gone.
    /// What to tell the operator, failures too: a network that cannot be attached does not keep
    /// the others from working.
    ///
    /// Those of the configuration that failed are returned, too: they may be made later.
    ///
    /// # Errors
    /// The record of attachments cannot be read or written.
    pub async fn attach_configured(&self) -> Result<(Vec<String>, Vec<AttachRequest>)> {
        let (mut told, mut failed) = (Vec::new(), Vec::new());
        for attach in &self.config.attach {
            let request = AttachRequest {
                bridge: attach.bridge.clone(),
                vm: attach.vm.clone(),
                offload: attach.offload,
                clamp: attach.clamp,
                bpdu: attach.bpdu,
                ..AttachRequest::new(attach.network.clone())
            };
            match attach_now(&self.state, &self.membership, &request).await {
                Ok(lines) => told.extend(lines.lines().map(str::to_owned)),
                Err(error) => {
                    told.push(format!(
                        "the configured attachment of {} failed: {error:#}",
                        attach.network
                    ));
                    failed.push(request);
                }
            }
        }
        told.extend(attachments::ensure(self.state.path()).await?);
        Ok((told, failed))
    }
}

/// Logs to stderr, by `FARLAN_LOG`, the configuration, or `info`.
fn start_log(config: &Config) -> Result<()> {
    let variable = std::env::var(LOG_VARIABLE)
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = variable
        .or_else(|| config.log.clone())
        .unwrap_or_else(|| DEFAULT_LOG.to_owned());
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .with_context(|| format!("`{filter}` is no log filter; write for example info or debug"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish()
        .with(control_plane::OneASecond::default())
        .try_init()
        .map_err(|error| anyhow!("cannot start the log: {error}"))
}

/// `farlan up`.
pub(super) fn up(globals: &Globals, args: &UpArgs) -> Result<()> {
    let setup = NodeSetup::load(globals, args)?;
    start_log(&setup.config)?;
    crate::shell::up(setup)
}
