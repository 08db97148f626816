//! What the host tells of its bridges.

use std::time::Instant;

use overlay_proto::ethernet::bridge::FdbNews;

use super::run::Node;
use crate::node::tick::Tick;
use crate::node::views::Own;

impl Node {
    /// This node, as the others know it.
    pub(crate) const fn own(&self) -> Own {
        Own {
            me: self.standing.identity.me,
            probe_mac: self.standing.identity.probe_mac(),
            epoch: self.standing.identity.epoch,
        }
    }

    /// A bridge on this host learnt or forgot something.
    pub fn handle_fdb_news(&mut self, tick: Tick, news: FdbNews) {
        let own = self.own();
        let out = &mut self.outside;
        self.networks.handle_fdb_news(tick, out, own, news);
    }

    /// Looks at the ports of the bridges, with `whole` at all they have learnt, too.
    pub fn look_at_bridges(&mut self, now: Instant, whole: bool) {
        self.networks.look_at_bridges(now, &mut self.outside, whole);
    }
}
