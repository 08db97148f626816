//! Networks and their taps come and go: what this node's standing, its candidates and its users have to do with that.

use anyhow::Result;
use overlay_proto::ids::NetworkId;
use overlay_proto::switching::NetIndex;

use super::run::Node;
use crate::api::AttachRequest;
use crate::attachment::Attachment;
use crate::node::effects::Effect;
use crate::node::host_orders::Tap;
use crate::node::networks::attaching::{Recalled, is_lan};
use crate::node::networks::interfaces::Kept;
use crate::node::tick::Tick;
use crate::node::views::Credentials;

impl Node {
    /// Networks of the membership that are new here: what the disk knows of them is asked for first.
    pub(crate) fn add_networks(&mut self) {
        let membership = &self.standing.identity.membership;
        self.networks.ask_for_new(&mut self.outside, membership);
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
        let identity = &self.standing.identity;
        let own = Credentials {
            me: identity.me,
            key: &identity.key,
            chain: &identity.chain,
            membership: &identity.membership,
        };
        let out = &mut self.outside;
        let Some(net) = self.networks.add(tick, out, own, id, kept)? else {
            return Ok(());
        };
        self.show_own_chain(tick, usize::from(net.0))?;
        self.follow_epochs(tick);
        // Whatever else goes by the certificate is told with the others.
        self.outside.fib_stale = true;
        Ok(())
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
        self.networks.take_taps(tick, &mut self.outside, taps?);
        self.follow_attachment(tick.now);
        self.apply_attached(tick);
        self.outside.fib_stale = true;
        self.networks
            .look_at_bridges(tick.now, &mut self.outside, true);
        Ok(())
    }

    /// The kernel took a tap away: somebody deleted the interface.
    pub(crate) fn lose_tap(&mut self, tick: Tick, net: NetIndex) {
        if let Some(name) = self.networks.lose_tap(net)
            && !self.users.operations.takes_away(&name)
        {
            self.networks.miss_tap(tick, &mut self.outside, &name);
        }
    }

    /// The attachments as they are on disk.
    pub fn handle_records(&mut self, tick: Tick, records: &[Attachment]) {
        let out = &mut self.outside;
        self.networks.handle_records(tick, out, records);
    }

    /// Before `farlan attach` changes the host.
    pub(crate) fn prepare_attach(&mut self, tick: Tick, request: &AttachRequest) {
        if is_lan(request) {
            self.listen_first(tick.now, &request.network);
        }
        if let (Some(vm), Some(true)) = (&request.vm, request.shut) {
            let out = &mut self.outside;
            self.networks.shut_before(tick, out, &request.network, vm);
        }
    }

    /// `farlan attach` has changed the host.
    pub(crate) fn follow_attach(&mut self, tick: Tick, request: &AttachRequest) {
        self.prepare_attach(tick, request);
        self.look_at_move();
        self.open_taps();
    }

    /// The host was not changed: ports are as they are recorded.
    pub(crate) fn forgo_attach(&mut self, tick: Tick) {
        self.networks.follow_ports(tick, &mut self.outside);
    }

    /// `farlan detach` has changed the host.
    pub(crate) fn follow_detach(&mut self, tick: Tick, request: &AttachRequest) {
        self.networks.follow_detach(tick, request);
        self.open_taps();
    }

    /// What a look at taps and bridges brought.
    pub fn handle_kept(&mut self, tick: Tick, outcome: Result<Kept, String>) {
        let out = &mut self.outside;
        if let Some(kept) = self.networks.handle_kept(tick, out, outcome) {
            self.note_own_mtus(tick, &kept.mtus);
            self.networks.follow_kept(tick, &mut self.outside, &kept);
        }
    }
}
