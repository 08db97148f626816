//! Copies of hosts, and what can be seen of the nodes of a world.

use std::net::IpAddr;

use anyhow::{Context, Result};
use node_core::node::switchboard::insight::Room;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::switching::MacKey;

use super::host::Host;
use super::{GuestId, PORT, Received, World};
use crate::net::topology::{AccessBehaviour, HostId, RealmId, Tally};

impl World {
    /// A copy of a host, with all that is on its disk, in another place; its node does not run yet. No guest is plugged in.
    ///
    /// # Errors
    /// The address is somebody's, or there is no such host.
    pub fn clone_host(
        &mut self,
        of: HostId,
        name: &str,
        (realm, ip): (RealmId, IpAddr),
        access: AccessBehaviour,
    ) -> Result<HostId> {
        let original = self.hosts.get(&of).context("no such host")?;
        // A name decides what chance is: two machines draw other numbers.
        let host = |id| Host {
            id,
            name: name.to_owned(),
            key: original.key.clone(),
            port: PORT,
            ahead: 0,
            is_deaf: false,
            bridges: original.bridges.copied_without_guests(),
            disk: original.disk.copied(),
            replies: Vec::new(),
            run: 0,
            running: None,
        };
        let net = &mut self.around.net;
        let id = net.add_host(name)?;
        net.attach(id, realm, access)?;
        net.add_address(id, realm, ip)?;
        self.hosts.insert(id, host(id));
        Ok(id)
    }

    /// How far the wall clock of a host is ahead of the true time, seconds.
    #[must_use]
    pub fn clock_ahead(&self, id: HostId) -> i64 {
        self.hosts.get(&id).map_or(0, |host| host.ahead)
    }

    /// Is the node of a host connected with each bootstrap, as far as these know?
    #[must_use]
    pub fn is_connected(&self, id: HostId) -> bool {
        let host = self.hosts.get(&id);
        let mut all = self.control.all.iter();
        host.is_some_and(|host| host.running.is_some() && all.all(|one| one.has(host)))
    }

    /// Do all bootstraps know that a node is revoked?
    #[must_use]
    pub fn is_known_revoked(&self, peer: PeerId) -> bool {
        self.control.all.iter().all(|one| one.names(peer))
    }

    /// Those with whom the node of a host has a session.
    #[must_use]
    pub fn sessions(&self, id: HostId) -> Vec<PeerId> {
        let host = self.hosts.get(&id).and_then(|host| host.running.as_ref());
        host.map(|running| running.node.sessions())
            .unwrap_or_default()
    }

    /// Whom the node of a host takes for the owner of an untagged MAC in a network.
    #[must_use]
    pub fn owner(&self, id: HostId, network: &NetworkName, mac: MacAddr) -> Option<PeerId> {
        let running = self.hosts.get(&id)?.running.as_ref()?;
        let key = MacKey {
            vlan: VlanId::UNTAGGED,
            mac,
        };
        running
            .node
            .owner_of(self.around.clock.instant(), network, key)
    }

    /// The number of the revocation list that the node of a host goes by.
    #[must_use]
    pub fn held_list(&self, id: HostId) -> Option<u64> {
        let running = self.hosts.get(&id)?.running.as_ref()?;
        Some(running.node.list_number())
    }

    /// The epoch of a network's keys at the node of a host.
    #[must_use]
    pub fn held_epoch(&self, id: HostId, network: &NetworkName) -> Option<u64> {
        let running = self.hosts.get(&id)?.running.as_ref()?;
        running.node.epoch_of(network)
    }

    /// Whom the node of a host takes for a member of a network, itself among them.
    #[must_use]
    pub fn members(&self, id: HostId, network: &NetworkName) -> Vec<PeerId> {
        let running = self.hosts.get(&id).and_then(|host| host.running.as_ref());
        running
            .map(|running| running.node.members_named(network))
            .unwrap_or_default()
    }

    /// What is full beyond its bound at the node of a host.
    #[must_use]
    pub fn overfull(&self, id: HostId) -> Option<Room> {
        let running = self.hosts.get(&id)?.running.as_ref()?;
        let mut rooms = running.node.rooms().into_iter();
        rooms.find(|room| room.holds > room.bound)
    }

    /// What a guest got since the last time, oldest first; at most the last 4,096.
    pub fn take_inbox(&mut self, id: GuestId) -> Vec<Received> {
        self.around.guests.take_inbox(id)
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        self.around.net.tally()
    }
}
