//! Networks and their taps, at the start and while the node runs.

use std::time::{Duration, Instant};

use crate::store::{Edit, Edited, Write};
use anyhow::{Context, Result, bail};
use overlay_proto::directory::{Directory, DirectoryConfig};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::switching::{MacKey, NetIndex};

use crate::api::AttachRequest;
use crate::attachment::Attachment;
use crate::node::effects::{CallId, Effect, response};
use crate::node::host_orders::HostTask;
use crate::node::host_orders::Tap;
use crate::node::networks::Networks;
use crate::node::networks::network::{NEVER_SAVED, Network};
use crate::node::networks::segments::new_segment;
use crate::node::storing::Awaited;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

/// How long after its deadline a move is left to its watcher.
const WATCHER_GRACE: Duration = Duration::from_secs(2);

/// What the disk knows of one network.
#[derive(Debug, Default)]
pub struct Recalled {
    /// Own generations and the roster.
    pub directory: Option<Vec<u8>>,
    /// What the operator says is here.
    pub pins: Vec<MacKey>,
}

impl Networks {
    /// After an attachment its tap is open.
    ///
    /// # Errors
    /// For the user: it cannot be opened.
    pub(crate) fn check_open(&self, name: &NetworkName) -> Result<()> {
        let attached = |n: &Network| n.secret.name == *name && n.attached.is_some();
        if !self.all.iter().any(attached) {
            bail!("the tap of {name} cannot be opened; the node's log says why");
        }
        Ok(())
    }
}

impl Node {
    /// Networks of the membership that are new here: what the disk knows of them is asked for first.
    pub(crate) fn add_networks(&mut self) {
        for secret in self.standing.identity.membership.networks() {
            let mut known = self.networks.all.iter();
            if !known.any(|network| network.secret.id == secret.id) {
                let recall = HostTask::Recall(secret.id, secret.name.clone());
                self.outside.effects.push(Effect::Host(recall));
            }
        }
    }

    /// What the disk knows of a network.
    pub(crate) fn handle_recalled(&mut self, tick: Tick, id: NetworkId, kept: Result<Recalled>) {
        let added = kept.and_then(|kept| self.add_network(tick, id, &kept));
        if let Err(error) = added {
            tracing::error!("a network is not used: {error:#}");
        }
    }

    /// Makes the directory of a network of the membership, unless there is one.
    ///
    /// # Errors
    /// There are too many, or none of the own certificates is for it.
    pub fn add_network(&mut self, tick: Tick, id: NetworkId, kept: &Recalled) -> Result<()> {
        let is_known = self
            .networks
            .all
            .iter()
            .any(|network| network.secret.id == id);
        let mut secrets = self.standing.identity.membership.networks().iter();
        let Some(secret) = secrets.find(|secret| secret.id == id && !is_known).cloned() else {
            return Ok(());
        };
        let index = u16::try_from(self.networks.all.len()).context("too many networks")?;
        let config = DirectoryConfig {
            overlay: self.standing.identity.membership.overlay(),
            network: secret.id,
            epoch_key: secret.epoch_key,
            old_epoch_key: None,
            birth: self.standing.identity.membership.roots().born(),
            may_send: false,
            chain: self.standing.identity.chain.clone(),
            replication: self.networks.replication,
            claim_ttl: self.networks.claim_ttl,
        };
        let (key, entropy) = (
            self.standing.identity.key.clone(),
            &mut self.outside.entropy,
        );
        let mut directory = Directory::new(tick.now, tick.wall, config, key, entropy);
        if let Some(blob) = &kept.directory
            && let Err(reason) = directory.restore(tick.now, blob)
        {
            tracing::warn!(network = %secret.name, reason = reason.name(), "the saved directory is unreadable; starting without it");
        }
        for pin in &kept.pins {
            if let Err(reason) = directory.restore_pin(*pin) {
                tracing::error!(mac = %pin.mac, "is not pinned: {}", reason.meaning());
            }
        }
        let lan = new_segment(
            tick.now,
            &secret,
            self.standing.identity.me,
            &mut self.outside.entropy,
        );
        self.networks
            .all
            .push(Network::new(NetIndex(index), secret, directory, lan));
        self.show_own_chain(tick, usize::from(index))?;
        self.follow_epochs(tick);
        // Whatever else goes by the certificate is told with the others.
        self.outside.fib_stale = true;
        Ok(())
    }

    /// Saves what the directories must not lose.
    pub(crate) fn save_directories(&mut self) {
        for network in &mut self.networks.all {
            let version = network.directory.version();
            if network.saved_version == version {
                continue;
            }
            network.saved_version = version;
            self.outside.store.put(Write::Directory {
                network: network.secret.id,
                snapshot: network.directory.snapshot(),
            });
        }
    }

    /// What a directory must not lose is on disk; or it is tried again with the next saving.
    pub(crate) fn handle_directory_kept(&mut self, id: &NetworkId, is_kept: bool) {
        let mut networks = self.networks.all.iter_mut();
        if let Some(network) = networks.find(|network| network.secret.id == *id)
            && !is_kept
        {
            network.saved_version = NEVER_SAVED;
        }
    }

    /// The taps are to be opened as the record on disk says; [`Node::handle_taps`] follows.
    pub(crate) fn open_taps(&mut self) {
        self.outside.effects.push(Effect::OpenTaps);
    }

    /// What became of the taps of all networks.
    ///
    /// # Errors
    /// Without the right to open taps no network works, now or later.
    pub fn handle_taps(&mut self, tick: Tick, taps: Result<Vec<(NetIndex, Tap)>>) -> Result<()> {
        let mut failed = Vec::new();
        for (net, tap) in taps? {
            let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
                continue;
            };
            network.attached = match tap {
                Tap::Open(record) => {
                    network.directory.handle_port_up(tick.now);
                    self.networks.touched.insert(net);
                    Some(*record)
                }
                Tap::None => None,
                Tap::Refused(why) => {
                    let name = &network.secret.name;
                    let text = format!(
                        "network {name} is cut off: its tap cannot be opened: {why}; it is tried again \
                         every few seconds"
                    );
                    failed.push((name.to_string(), text));
                    None
                }
            };
        }
        self.outside.warnings.retain(Topic::Tap, |about| {
            failed.iter().any(|(name, _)| name == about)
        });
        for (name, text) in failed {
            self.outside
                .warnings
                .raise(tick.now, Topic::Tap, &name, text);
        }
        self.follow_attachment(tick.now);
        self.apply_attached(tick);
        self.outside.fib_stale = true;
        self.networks
            .look_at_bridges(tick.now, &mut self.outside, true);
        Ok(())
    }

    /// A move of addresses may wait for a confirmation: the watcher undoes it, and this node looks
    /// after the watcher.
    pub fn look_at_move(&mut self) {
        self.outside.effects.push(Effect::LookAtMove);
    }

    /// How long a move still waits; `None`: there is none.
    pub fn handle_move(&mut self, now: Instant, left: Result<Option<Duration>>) {
        self.users.move_due = match left {
            Ok(left) => left.map(|left| now + left + WATCHER_GRACE),
            Err(error) => {
                tracing::error!("whether a move waits for a confirmation is unknown: {error:#}");
                None
            }
        };
    }

    /// Moves the addresses of a NIC, beside the slow path, that had none yet when the node started.
    pub(crate) fn retry_moves(&mut self) {
        // While a move waits for its confirmation nothing is made whole. The watcher may have undone the move; only
        // the disk tells.
        if self.users.move_due.is_none() && self.some_nic_waits() {
            self.outside.effects.push(Effect::LookAtRecords);
        }
    }

    /// The attachments as they are on disk.
    pub fn handle_records(&mut self, records: &[Attachment]) {
        for attached in self
            .networks
            .all
            .iter_mut()
            .filter_map(|n| n.attached.as_mut())
        {
            let now = records.iter().find(|one| one.network == attached.network);
            if let Some(now) = now.filter(|now| now.tap == attached.tap) {
                attached.clone_from(now);
            }
        }
        self.outside.fib_stale = true;
        if self.some_nic_waits() {
            self.outside.effects.push(Effect::Host(HostTask::Ensure));
        }
    }

    fn some_nic_waits(&self) -> bool {
        let mut records = self.networks.all.iter().filter_map(|n| n.attached.as_ref());
        records.any(|record| self.outside.sight.nic_waits(record))
    }

    /// Brings moved addresses back, beside the slow path, if the watcher has not.
    pub(crate) fn watch_move(&mut self, now: Instant) {
        if self.users.move_due.take_if(|due| *due <= now).is_some() {
            self.outside.effects.push(Effect::Host(HostTask::RollBack));
        }
    }

    /// `farlan confirm` while the node runs.
    pub(crate) fn confirm(&mut self, call: CallId) {
        self.outside
            .effects
            .push(Effect::Host(HostTask::Confirm(call)));
    }

    /// What came of it.
    pub(crate) fn handle_confirmed(&mut self, call: CallId, done: Result<String>) {
        if done.is_ok() {
            self.users.move_due = None;
        }
        self.outside.effects.reply(call, response(done));
    }

    /// Before `farlan attach` changes the host.
    pub(crate) fn prepare_attach(&mut self, tick: Tick, request: &AttachRequest) {
        if is_lan(request) {
            self.listen_first(tick.now, &request.network);
        }
    }

    /// `farlan attach` has changed the host.
    pub(crate) fn follow_attach(&mut self, tick: Tick, request: &AttachRequest) {
        if is_lan(request) {
            self.listen_first(tick.now, &request.network);
        }
        self.look_at_move();
        self.open_taps();
    }

    /// `farlan detach` has changed the host.
    pub(crate) fn follow_detach(&mut self, tick: Tick, request: &AttachRequest) {
        if request.vm.is_none() && request.nic.is_none() {
            self.withdraw_all(tick, &request.network);
        }
        self.open_taps();
    }

    /// The kernel took a tap away: somebody deleted the interface.
    pub(crate) fn lose_tap(&mut self, tick: Tick, net: NetIndex) {
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if network.attached.is_none() {
            // It was detached, and the worker met the end of the tap before our word.
            return;
        }
        let name = network.secret.name.clone();
        network.attached = None;
        if self.users.operations.takes_away(&name) {
            return;
        }
        tracing::warn!(network = %name, "the tap is gone; it is made again");
        self.withdraw_all(tick, &name);
        self.outside.effects.push(Effect::LookAtInterfaces);
    }

    /// Nothing of this network is attached here any more.
    fn withdraw_all(&mut self, tick: Tick, name: &NetworkName) {
        let Some(network) = self
            .networks
            .all
            .iter_mut()
            .find(|n| n.secret.name == *name)
        else {
            return;
        };
        let keys: Vec<_> = network.local.keys().copied().collect();
        network.directory.handle_port_lost(tick.now, &keys);
        let index = network.index;
        self.touch_network(index);
    }

    /// A second `farlan join` added networks.
    pub(crate) fn reload(&mut self, call: CallId) {
        let look = Write::Edit(Edit::Look);
        let before = self.standing.identity.membership.networks().len();
        self.outside
            .store
            .put_for(look, Awaited::Reloaded(call, before));
    }

    /// What is on disk now.
    pub(crate) fn handle_reloaded(
        &mut self,
        tick: Tick,
        who: Option<Awaited>,
        edited: Result<Edited>,
    ) {
        let Some(Awaited::Reloaded(call, before)) = who else {
            return;
        };
        let done = self.take_reloaded(tick, before, edited);
        // The user may have gone; there is nobody to tell then.
        self.outside.effects.reply(call, response(done));
    }

    fn take_reloaded(
        &mut self,
        tick: Tick,
        before: usize,
        edited: Result<Edited>,
    ) -> Result<String> {
        self.adopt_edited(tick, edited)?;
        self.take_signed_name();
        for infra in self.candidates.up().collect::<Vec<_>>() {
            self.ask_for_receipts(infra);
        }
        let added = self.standing.identity.membership.networks().len() - before;
        Ok(format!("{added} networks added"))
    }
}

/// Does a whole LAN come with it?
const fn is_lan(request: &AttachRequest) -> bool {
    request.nic.is_some() || request.bridge.is_some()
}
