//! Networks and their taps, at the start and while the node runs.

use crate::store::Write;
use anyhow::{Context, Result, bail};
use overlay_proto::directory::{Directory, DirectoryConfig};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::membership::{Membership, NetworkSecret};
use overlay_proto::switching::{MacKey, NetIndex};

use crate::api::AttachRequest;
use crate::attachment::Attachment;
use crate::node::effects::Effect;
use crate::node::host_orders::HostTask;
use crate::node::host_orders::Tap;
use crate::node::networks::Networks;
use crate::node::networks::network::{NEVER_SAVED, Network};
use crate::node::networks::segments::new_segment;
use crate::node::outside::Outside;
use crate::node::sight::HostSight;
use crate::node::tick::Tick;
use crate::node::views::Credentials;
use crate::node::warnings::Topic;

/// What the disk knows of one network.
#[derive(Debug, Default)]
pub struct Recalled {
    /// Own generations and the roster.
    pub directory: Option<Vec<u8>>,
    /// What the operator says is here.
    pub pins: Vec<MacKey>,
}

impl Networks {
    /// Networks of the membership that are new here: what the disk knows of them is asked for first.
    pub(crate) fn ask_for_new(&self, out: &mut Outside, membership: &Membership) {
        for secret in membership.networks() {
            if !self.knows(&secret.id) {
                let recall = HostTask::Recall(secret.id, secret.name.clone());
                out.effects.push(Effect::Host(recall));
            }
        }
    }

    fn knows(&self, id: &NetworkId) -> bool {
        self.all.iter().any(|network| network.secret.id == *id)
    }

    /// Makes the directory of a network of the membership; `None`: there is one, or this node is not in it.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Credentials<'_>,
        id: NetworkId,
        kept: &Recalled,
    ) -> Result<Option<NetIndex>> {
        let mut secrets = own.membership.networks().iter();
        let Some(secret) = secrets.find(|secret| secret.id == id && !self.knows(&id)) else {
            return Ok(None);
        };
        let index = u16::try_from(self.all.len()).context("too many networks")?;
        let mut directory = self.new_directory(tick, out, own, secret);
        restore(tick, &mut directory, secret, kept);
        let lan = new_segment(tick.now, secret, own.me, &mut out.entropy);
        let index = NetIndex(index);
        self.all
            .push(Network::new(index, secret.clone(), directory, lan));
        Ok(Some(index))
    }

    fn new_directory(
        &self,
        tick: Tick,
        out: &mut Outside,
        own: Credentials<'_>,
        secret: &NetworkSecret,
    ) -> Directory {
        let config = DirectoryConfig {
            overlay: own.membership.overlay(),
            network: secret.id,
            epoch_key: secret.epoch_key,
            old_epoch_key: None,
            birth: own.membership.roots().born(),
            may_send: false,
            chain: own.chain.to_vec(),
            replication: self.replication,
            claim_ttl: self.claim_ttl,
        };
        Directory::new(
            tick.now,
            tick.wall,
            config,
            own.key.clone(),
            &mut out.entropy,
        )
    }

    /// Saves what the directories must not lose.
    pub(crate) fn save(&mut self, out: &mut Outside) {
        for network in &mut self.all {
            let version = network.directory.version();
            if network.saved_version == version {
                continue;
            }
            network.saved_version = version;
            out.store.put(Write::Directory {
                network: network.secret.id,
                snapshot: network.directory.snapshot(),
            });
        }
    }

    /// What a directory must not lose is on disk; or it is tried again with the next saving.
    pub(crate) fn handle_directory_kept(&mut self, id: &NetworkId, is_kept: bool) {
        let mut networks = self.all.iter_mut();
        if let Some(network) = networks.find(|network| network.secret.id == *id)
            && !is_kept
        {
            network.saved_version = NEVER_SAVED;
        }
    }

    /// What became of the taps of all networks.
    pub(crate) fn take_taps(&mut self, tick: Tick, out: &mut Outside, taps: Vec<(NetIndex, Tap)>) {
        let mut failed = Vec::new();
        for (net, tap) in taps {
            let Some(network) = self.all.get_mut(usize::from(net.0)) else {
                continue;
            };
            network.attached = match tap {
                Tap::Open(record) => {
                    let bridge = &network.bridge;
                    let rests = |key: &MacKey| bridge.is_held(key);
                    network.directory.handle_port_up_but(tick.now, rests);
                    self.touched.insert(net);
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
        self.follow_ports(tick, out);
        out.warnings.retain(Topic::Tap, |about| {
            failed.iter().any(|(name, _)| name == about)
        });
        for (name, text) in failed {
            out.warnings.raise(tick.now, Topic::Tap, &name, text);
        }
    }

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

    /// The attachments as they are on disk.
    pub(crate) fn handle_records(&mut self, tick: Tick, out: &mut Outside, records: &[Attachment]) {
        for attached in self.all.iter_mut().filter_map(|n| n.attached.as_mut()) {
            let now = records.iter().find(|one| one.network == attached.network);
            if let Some(now) = now.filter(|now| now.tap == attached.tap) {
                attached.clone_from(now);
            }
        }
        self.follow_ports(tick, out);
        if self.some_nic_waits(&*out.sight) {
            out.effects.push(Effect::Host(HostTask::Ensure));
        }
    }

    /// Does a NIC wait for its addresses, so that they can move to its bridge?
    pub(crate) fn some_nic_waits(&self, sight: &dyn HostSight) -> bool {
        let mut records = self.all.iter().filter_map(|n| n.attached.as_ref());
        records.any(|record| sight.nic_waits(record))
    }

    /// `farlan detach` has changed the host.
    pub(crate) fn follow_detach(&mut self, tick: Tick, request: &AttachRequest) {
        if request.vm.is_none() && request.nic.is_none() {
            self.withdraw_all(tick, &request.network);
            let mut networks = self.all.iter_mut();
            if let Some(network) = networks.find(|n| n.secret.name == request.network) {
                network.bridge.leave();
                network.ports.clear();
            }
        }
    }

    /// The kernel took a tap away: somebody deleted the interface. The network's name; `None`: it had been detached,
    /// and the worker met the end of the tap before our word.
    pub(crate) fn lose_tap(&mut self, net: NetIndex) -> Option<NetworkName> {
        let network = self.all.get_mut(usize::from(net.0))?;
        network.attached.take()?;
        Some(network.secret.name.clone())
    }

    /// A tap was lost that nobody wants to do without.
    pub(crate) fn miss_tap(&mut self, tick: Tick, out: &mut Outside, name: &NetworkName) {
        tracing::warn!(network = %name, "the tap is gone; it is made again");
        self.withdraw_all(tick, name);
        out.effects.push(Effect::LookAtInterfaces);
    }

    /// Nothing of this network is attached here any more.
    fn withdraw_all(&mut self, tick: Tick, name: &NetworkName) {
        let Some(network) = self.all.iter_mut().find(|n| n.secret.name == *name) else {
            return;
        };
        let keys: Vec<_> = network.local.keys().copied().collect();
        network.directory.handle_port_lost(tick.now, &keys);
        let index = network.index;
        self.touch(index);
    }
}

/// What the disk knows of a network is known to its directory again.
fn restore(tick: Tick, directory: &mut Directory, secret: &NetworkSecret, kept: &Recalled) {
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
}

/// Does a whole LAN come with it? It is listened to then, before anything is carried.
pub(crate) const fn is_lan(request: &AttachRequest) -> bool {
    request.nic.is_some() || request.bridge.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lan_comes_with_a_nic_or_a_bridge_and_not_with_a_vm() {
        let request = || AttachRequest::new("lab".parse().unwrap());
        assert!(!is_lan(&request()));
        let vm = AttachRequest {
            vm: Some("vm1".to_owned()),
            ..request()
        };
        assert!(!is_lan(&vm));
        let bridge = AttachRequest {
            bridge: Some("br0".to_owned()),
            ..request()
        };
        assert!(is_lan(&bridge));
    }
}
