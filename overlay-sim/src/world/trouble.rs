//! What else happens to hosts and to the bootstrap.

use node_core::control::ControlEvent;

use super::World;
use crate::net::topology::HostId;

impl World {
    /// The kernel of a host tells its node that its interfaces or addresses are others.
    pub fn tell_of_interfaces(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.enter(&mut self.around, |node, _| node.look_at_host());
        }
        self.note_due(id);
    }

    /// How many greetings the bootstrap was asked to carry.
    #[must_use]
    pub const fn greetings(&self) -> u64 {
        self.bootstrap.greetings
    }

    /// The bootstrap's process restarts.
    pub fn restart_bootstrap(&mut self) {
        let peer = self.bootstrap.peer();
        for id in self.bootstrap.restart() {
            if let Some(host) = self.hosts.get_mut(&id) {
                let event = ControlEvent::InfraDown { peer };
                host.enter(&mut self.around, |node, tick| {
                    node.handle_control_event(tick, event);
                });
            }
            self.note_due(id);
        }
    }
}
