//! What goes wrong in a world: power, snapshots, clocks, disks, bootstraps; and those that do harm.

use std::time::Duration;

use overlay_proto::tunnels::{CLOCK_TOLERANCE, ClockJump};
use overlay_proto::wire::ReliableChannel;
use overlay_proto::wire::peer_message::PeerMessage;

use super::World;
use super::control::{Bootstrap, Mood, StoreMood};
use crate::net::topology::{HostId, Station};

/// How a disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskManner {
    /// What a write takes; `None`: what it takes everywhere.
    pub delay: Option<Duration>,
    /// It is full: nothing is written.
    pub is_full: bool,
}

impl World {
    /// The host loses its power: what was not on its disk is gone.
    pub fn kill(&mut self, id: HostId) {
        self.around.net.set_running(id, false);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.running = None;
        }
        self.note_due(id);
    }

    /// The host was restored from a snapshot or slept: all sessions of its node end.
    pub fn restore(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.enter(&mut self.around, |node, tick| {
                node.end_all_sessions(tick, "this virtual machine was restored or cloned");
            });
        }
        self.note_due(id);
    }

    /// The wall clock of a host is set: it is ahead by so many seconds from now on, or behind. A node that runs and sees
    /// that as a jump ends its sessions, as the program does.
    pub fn set_clock(&mut self, id: HostId, ahead: i64) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut host.ahead, ahead);
        if before.abs_diff(ahead) > CLOCK_TOLERANCE.as_secs() {
            host.enter(&mut self.around, |node, tick| {
                node.end_all_sessions(tick, ClockJump::Wall.text());
            });
        }
        self.note_due(id);
    }

    /// How the disk of a host is from now on.
    pub fn set_disk(&mut self, id: HostId, manner: DiskManner) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.disk.set_manner(manner);
        }
    }

    /// From now on a host takes no revocation list, whoever brings it: it does not want to know.
    pub fn make_deaf(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.is_deaf = true;
        }
    }

    /// Says `message` in the session of a host with another, as its node never would. `false`: there is no session.
    pub fn lie(&mut self, from: HostId, to: HostId, message: &PeerMessage<'_>) -> bool {
        let Some(to) = self.peer(to) else {
            return false;
        };
        let now = self.around.clock.instant();
        // A channel that no other lie used.
        self.next_call += 1;
        let mut channel = ReliableChannel::new(u32::try_from(self.next_call).unwrap_or_default());
        let Some(host) = self.hosts.get_mut(&from) else {
            return false;
        };
        let packet = channel.send(now, message.encode());
        let packet = packet.ok().and_then(|()| channel.poll_transmit(now));
        let said = packet.is_some_and(|packet| host.say(&mut self.around, to, &packet));
        self.note_due(from);
        said
    }

    /// Plugs all bootstraps out, or in again.
    pub fn cut_bootstrap(&mut self, cut: bool) {
        for place in 0..self.control.all.len() {
            self.cut_off_bootstrap(place, cut);
        }
    }

    /// Plugs one bootstrap out, or in again.
    pub fn cut_off_bootstrap(&mut self, place: usize, cut: bool) {
        if let Some(one) = self.control.all.get(place) {
            let station = Station::Host(one.host());
            self.around.net.set_connected(station, !cut);
        }
    }

    /// A bootstrap restarts: its books stay, and cards, records, connections and allocations are gone.
    pub fn restart_bootstrap(&mut self, place: usize) {
        if let Some(one) = self.control.all.get_mut(place) {
            one.restart(&mut self.around);
        }
    }

    /// The kernel of a host tells its node that its interfaces or addresses are others.
    pub fn tell_of_interfaces(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.enter(&mut self.around, |node, _| node.look_at_host());
        }
        self.note_due(id);
    }

    /// How many greetings the bootstraps were asked to carry.
    #[must_use]
    pub fn greetings(&self) -> u64 {
        let all = self.control.all.iter();
        all.map(Bootstrap::greetings).sum()
    }

    /// How a bootstrap is from now on.
    pub fn set_mood(&mut self, place: usize, mood: Mood) {
        if let Some(one) = self.control.all.get_mut(place) {
            one.set_mood(mood);
        }
    }

    /// How the DHT at a bootstrap is from now on.
    pub fn set_store(&mut self, place: usize, mood: StoreMood) {
        if let Some(one) = self.control.all.get_mut(place) {
            one.set_store(mood);
        }
    }

    /// From now on a bootstrap shows the first card of each member in place of the newest.
    pub fn show_first_cards(&mut self, place: usize) {
        if let Some(one) = self.control.all.get_mut(place) {
            one.show_first_cards();
        }
    }

    /// A bootstrap brings the last 64 envelopes once more.
    pub fn replay_envelopes(&mut self, place: usize) {
        if let Some(one) = self.control.all.get(place) {
            one.replay(&mut self.around);
        }
    }
}
