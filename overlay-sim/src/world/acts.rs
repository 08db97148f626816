//! What users and the authority do to a world: invites, commands, guests that are plugged in and out.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use node_core::api::{Request, Response};
use node_core::node::effects::CallId;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::FdbNews;
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::{Chain, Invite, Revoked};

use super::World;
use super::authority::{Along, Terms};
use super::guests::GuestId;
use super::invariants::Broken;
use super::look::Port;
use crate::net::topology::HostId;

impl World {
    /// `farlan invite` at the authority.
    ///
    /// # Errors
    /// There is no such network or bootstrap.
    pub fn invite(&mut self, terms: &Terms) -> Result<String> {
        let wall = self.around.wall();
        Ok(self.authority.invite(terms, wall)?.to_string())
    }

    /// `farlan join` on a host whose node has joined before, or has left. A node that runs is told, and its answer comes
    /// later. What the invite has in new networks is attached to nothing yet.
    ///
    /// # Errors
    /// There is no such host, or the invite cannot be used any more.
    pub fn join(&mut self, id: HostId, invite: &str) -> Result<Option<Response>> {
        let host = self.hosts.get_mut(&id).context("no such host")?;
        let wall = self.around.wall_of(host.ahead);
        let newer = Invite::parse(invite)?.accept(&host.key, wall)?;
        for network in newer.networks() {
            host.bridges.add(network.name.clone(), false);
        }
        match &mut host.disk.membership {
            Some(membership) => drop(membership.merge(newer, wall)?),
            None => host.disk.membership = Some(newer),
        }
        Ok(self.ask(id, Request::Reload))
    }

    /// A user of a host asks its node. What is answered at once is returned; else see [`Self::take_replies`].
    pub fn ask(&mut self, id: HostId, request: Request) -> Option<Response> {
        let call = self.begin(id, request);
        self.take_reply(id, call)
    }

    /// As [`Self::ask`], and waits for the answer, for 15 s at most.
    ///
    /// # Errors
    /// What must hold does not.
    pub fn ask_and_wait(
        &mut self,
        id: HostId,
        request: Request,
    ) -> Result<Option<Response>, Broken> {
        const STEP: Duration = Duration::from_millis(10);
        let call = self.begin(id, request);
        let until = self.now() + Duration::from_secs(15);
        let mut answer = self.take_reply(id, call);
        while answer.is_none() && self.now() < until {
            let at = self.now() + STEP;
            self.run_until(at)?;
            answer = self.take_reply(id, call);
        }
        Ok(answer)
    }

    fn begin(&mut self, id: HostId, request: Request) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        if let Some(host) = self.hosts.get_mut(&id) {
            host.call(&mut self.around, call, request);
        }
        self.note_due(id);
        call
    }

    fn take_reply(&mut self, id: HostId, call: CallId) -> Option<Response> {
        let replies = &mut self.hosts.get_mut(&id)?.replies;
        let place = replies.iter().position(|(known, _)| *known == call)?;
        Some(replies.remove(place).1)
    }

    /// Answers that came later.
    pub fn take_replies(&mut self, id: HostId) -> Vec<(CallId, Response)> {
        let host = self.hosts.get_mut(&id);
        host.map(|host| std::mem::take(&mut host.replies))
            .unwrap_or_default()
    }

    /// The line for `farlan apply` by which the authority revokes a node, and nothing else.
    ///
    /// # Errors
    /// There is no such host, or the list is full.
    pub fn revocation_of(&mut self, id: HostId) -> Result<Request> {
        self.revocation_with(id, Along::default())
    }

    /// As [`Self::revocation_of`], with more in the line.
    ///
    /// # Errors
    /// There is no such host or network, or the list is full.
    pub fn revocation_with(&mut self, id: HostId, along: Along<'_>) -> Result<Request> {
        let peer = self.peer(id).context("no such host")?;
        let wall = self.around.wall();
        self.authority.revoke(Revoked::Node(peer), along, wall)
    }

    /// As [`Self::revocation_with`], by the invite of the certificate that the host joined with last.
    ///
    /// # Errors
    /// There is no such host, it has left, or the list is full.
    pub fn revocation_of_invite(&mut self, id: HostId, along: Along<'_>) -> Result<Request> {
        let host = self.hosts.get(&id).context("no such host")?;
        let membership = host.disk.membership.as_ref().context("it has left")?;
        let chain = membership.chains().first().map(Chain::claimed_invite);
        let invite = Revoked::Invite(chain.context("no certificate")?);
        let wall = self.around.wall();
        self.authority.revoke(invite, along, wall)
    }

    /// The number of the newest revocation list, and the epoch of each network, as the authority has them.
    #[must_use]
    pub fn newest(&self) -> (u64, Vec<u64>) {
        self.authority.newest()
    }

    /// A guest of a network, plugged into a host.
    ///
    /// # Errors
    /// The host is not in that network.
    pub fn add_guest(&mut self, host: HostId, network: &str, mac: MacAddr) -> Result<GuestId> {
        let network: NetworkName = network.parse().ok().context("no name for a network")?;
        let guest = self.around.guests.add(mac, network);
        self.plug(guest, host)?;
        Ok(guest)
    }

    /// Plugs a guest in at another host; the one where it was sees its port go.
    ///
    /// # Errors
    /// There is no such guest, or the host is not in its network.
    pub fn plug(&mut self, id: GuestId, to: HostId) -> Result<()> {
        let guest = self.around.guests.get_mut(id).context("no such guest")?;
        let (network, mac) = (guest.network.clone(), guest.mac);
        self.unplug(id);
        if let Some(guest) = self.around.guests.get_mut(id) {
            guest.host = Some(to);
        }
        let host = self.hosts.get_mut(&to).context("no such host")?;
        let plugged = host.bridges.with(|bridges| {
            let bridge = bridges.iter_mut().find(|one| one.network == network)?;
            bridge.guests.insert(id.0, Port { mac, heard: None });
            Some(())
        });
        plugged.context("the host is not in that network")?;
        self.note_due(to);
        Ok(())
    }

    /// Plugs a guest out; its host sees the port go.
    pub fn unplug(&mut self, id: GuestId) {
        let Some(guest) = self.around.guests.get_mut(id) else {
            return;
        };
        let (network, mac) = (guest.network.clone(), guest.mac);
        let from = guest.host.take();
        let Some(host) = from.and_then(|from| self.hosts.get_mut(&from)) else {
            return;
        };
        let entry = host.bridges.with(|bridges| {
            let bridge = bridges.iter_mut().find(|one| one.network == network)?;
            bridge.guests.remove(&id.0);
            Some(bridge.entry(id.0, mac))
        });
        if let Some(entry) = entry {
            host.enter(&mut self.around, |node, tick| {
                node.handle_fdb_news(tick, FdbNews::Gone(entry));
            });
        }
        if let Some(from) = from {
            self.note_due(from);
        }
    }

    /// From now on a guest has an address and answers ARP requests for it so late; `None`: it answers nothing, as at
    /// first.
    pub fn let_answer(&mut self, id: GuestId, answers: Option<(Ipv4Addr, Duration)>) {
        if let Some(guest) = self.around.guests.get_mut(id) {
            guest.answers = answers;
        }
    }
}
