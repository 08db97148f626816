//! What is around the hosts of a world: time, the network, what is due, the guests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use node_core::control::ControlEvent;
use node_core::node::host_orders::HostTask;
use node_core::node::switchboard::answers::Answer;
use node_core::node::tick::Tick;
use node_core::node::users::operations::Operation;
use node_core::questions::{Question, QuestionId};
use node_core::store::{Write, WriteId};
use overlay_proto::ethernet::bridge::FdbEntry;
use overlay_proto::time::UnixTime;

use super::control::Asked;
use super::guests::{GuestId, Guests};
use crate::net::clock::Clock;
use crate::net::queue::Queue;
use crate::net::topology::{HostId, Net};

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Config {
    /// The networks of the overlay.
    pub networks: Vec<&'static str>,
    /// How many bootstraps there are, at most 8. They do not know each other.
    pub bootstraps: u8,
    /// What the wall clocks say at the start.
    pub wall: UnixTime,
    /// From a node to the bootstrap over the control plane, and back.
    pub control_delay: Duration,
    /// What a write takes.
    pub disk_delay: Duration,
    /// What an attach, a detach, or the detaching before a leave takes.
    pub change_delay: Duration,
}

impl Default for Config {
    /// One network, one bootstrap, 20 ms to it, 5 ms for a write, 200 ms for a change of the host.
    fn default() -> Self {
        Self {
            networks: vec!["lab"],
            bootstraps: 1,
            wall: UnixTime(1_800_000_000),
            control_delay: Duration::from_millis(20),
            disk_delay: Duration::from_millis(5),
            change_delay: Duration::from_millis(200),
        }
    }
}

/// The addresses of a bootstrap on the internet, by its place.
pub(super) fn bootstrap_ips(place: u8) -> [IpAddr; 2] {
    let ip = |third| IpAddr::V4(Ipv4Addr::new(45, 0, third, 1));
    let first = place.saturating_mul(2);
    [ip(first), ip(first.saturating_add(1))]
}

/// Something that is due at a time. `run` is the run of the node that it belongs to.
pub(super) enum Event {
    Answer {
        host: HostId,
        run: u32,
        answer: Answer,
    },
    Task {
        host: HostId,
        run: u32,
        task: HostTask,
    },
    Operate {
        host: HostId,
        run: u32,
        operation: Operation,
    },
    Written {
        host: HostId,
        run: u32,
        id: WriteId,
        write: Arc<Write>,
    },
    Control {
        host: HostId,
        run: u32,
        event: ControlEvent,
    },
    Lists {
        host: HostId,
        run: u32,
        lists: Vec<Vec<u8>>,
    },
    Learned {
        host: HostId,
        run: u32,
        entry: FdbEntry,
    },
    Asked(Box<Asked>),
    /// The bootstrap on that host has something to do.
    Serves(HostId),
    Dial {
        host: HostId,
        run: u32,
        /// Every few seconds from now on?
        again: bool,
    },
    /// A bridge may have to forget a guest, whether the node runs or not.
    Ages {
        host: HostId,
        guest: GuestId,
    },
    /// A guest answers, whichever host it is plugged into by then.
    Says {
        guest: GuestId,
        frame: Vec<u8>,
    },
}

impl Event {
    /// Whose it is, and of which run of its node; `None` for what is no node's.
    pub(super) fn whose(&self) -> Option<(HostId, u32)> {
        match self {
            Self::Answer { host, run, .. }
            | Self::Task { host, run, .. }
            | Self::Operate { host, run, .. }
            | Self::Written { host, run, .. }
            | Self::Control { host, run, .. }
            | Self::Lists { host, run, .. }
            | Self::Learned { host, run, .. }
            | Self::Dial { host, run, .. } => Some((*host, *run)),
            Self::Asked(asked) => Some((asked.host, asked.run)),
            Self::Ages { .. } | Self::Says { .. } | Self::Serves(_) => None,
        }
    }
}

/// What is around the hosts.
pub(super) struct Surroundings {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) net: Net,
    pub(super) queue: Queue<Event>,
    pub(super) guests: Guests,
}

impl Surroundings {
    /// What the clocks of a host say whose wall clock is `ahead` by so many seconds, or behind.
    pub(super) fn tick(&self, ahead: i64) -> Tick {
        Tick {
            now: self.clock.instant(),
            wall: self.wall_of(ahead),
        }
    }

    /// What time it is.
    pub(super) fn wall(&self) -> UnixTime {
        self.wall_of(0)
    }

    /// What time it is for a host whose wall clock is `ahead` by so many seconds, or behind.
    pub(super) fn wall_of(&self, ahead: i64) -> UnixTime {
        let true_time = self.config.wall.plus(self.clock.now());
        UnixTime(true_time.0.saturating_add_signed(ahead))
    }

    /// The same in nanoseconds since 1970.
    pub(super) fn wall_nanos_of(&self, ahead: i64) -> u64 {
        let start = self.config.wall.0.saturating_add_signed(ahead);
        let time = Duration::from_secs(start).saturating_add(self.clock.now());
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A question leaves for the bootstraps.
    pub(super) fn ask(&mut self, host: HostId, run: u32, (id, question): (QuestionId, Question)) {
        let at = self.clock.now() + self.config.control_delay;
        let asked = Asked {
            host,
            run,
            id,
            question,
        };
        self.queue.push(at, Event::Asked(Box::new(asked)));
    }
}
