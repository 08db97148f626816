//! `farlan join` beside a node that runs: what it has put on disk counts from then on.

use anyhow::Result;

use crate::node::effects::{CallId, response};
use crate::node::storing::Awaited;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::store::{Edit, Edited, Write};

impl Node {
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
