//! What this node's standing makes of lists, documents and `farlan apply`, and what handshakes name of it.

use crate::store::Edited;
use anyhow::Result;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::RootStore;

use crate::node::standing::applying;
use crate::node::storing::Awaited;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// A list came from a peer; one that is new and signed goes on to the gate.
    pub fn learn_list(&mut self, from: PeerId, list: &[u8]) -> Result<()> {
        self.standing.learn_list(&mut self.outside, from, list)
    }

    /// Is this node out? It meets nobody then.
    pub fn is_out(&self) -> bool {
        self.standing.is_out()
    }

    /// The newest root documents of this overlay that the gate or the membership has.
    pub fn known_roots(&self) -> &RootStore {
        self.standing.known_roots()
    }

    /// Are `roots` newer than all documents that are known here?
    pub fn knows_older(&self, roots: &RootStore) -> bool {
        self.standing.knows_older(roots)
    }

    /// The gate has learnt newer root documents, and kept them.
    pub fn handle_roots(&mut self, roots: RootStore) {
        self.standing.handle_roots(&mut self.outside, roots);
    }

    /// Handshakes name what we hold.
    pub(crate) fn tell_numbers(&mut self) {
        let numbers = self.standing.list_numbers();
        self.peers.tunnels.set_lists(numbers);
    }

    pub(crate) fn handle_roots_applied(
        &mut self,
        tick: Tick,
        who: Option<Awaited>,
        edited: Result<Edited>,
    ) {
        let adopted = self.adopt_edited(tick, edited);
        self.tell_numbers();
        applying::handle_roots_applied(&mut self.outside, who, adopted);
    }

    pub(crate) fn handle_epochs_applied(
        &mut self,
        tick: Tick,
        who: Option<Awaited>,
        edited: Result<Edited>,
    ) {
        let begun = self.adopt_edited(tick, edited);
        self.standing
            .handle_epochs_applied(&mut self.outside, who, begun);
    }

    /// This run counts as another one from now on.
    pub(crate) fn begin_incarnation(&mut self) {
        let incarnation = self.standing.begin_incarnation(&mut self.outside);
        self.peers.tunnels.set_incarnation(incarnation);
    }

    /// Tells the bootstraps which run of the process this is.
    pub fn tell_incarnation(&mut self) {
        self.standing.tell_incarnation(&mut self.outside);
    }
}
