//! Ports of the own bridge that are part of a loop: which to shut, and until when.
//!
//! A beacon of this very node that comes back by a port went out by another port and round: two NICs in
//! one LAN, or a tunnel beside the LAN. The kernel's bridge forwards in that loop by itself, so the port
//! is shut there. Several nodes may be part of the loop, and one shut port is enough: the one of highest
//! rank acts at once, the others only if the loop is still there a little later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A port stays shut for so long, then it is tried again.
pub const SHUT_FOR: Duration = Duration::from_secs(300);
/// It is tried sooner if another port of its bridge, which the loop may have led through, is gone: the shut
/// one may be the only way to the LAN then. Not before this, so that a port that comes and goes does not
/// make the loop again each time.
const AT_LEAST: Duration = Duration::from_secs(5);
/// How long a node that is not the first waits for the loop to end by itself.
const PATIENCE: Duration = Duration::from_millis(400);
/// A loop that was not seen for so long is another one when it is seen again.
const FORGOTTEN: Duration = Duration::from_secs(3);
/// Ports of all bridges that are shut or watched at once.
const MAX_PORTS: usize = 64;

#[derive(Debug, Clone, Copy)]
enum Port {
    /// The own beacon came by it.
    Watched { since: Instant, last: Instant },
    /// Shut until then.
    Shut { until: Instant },
}

/// The ports of this host, by the kernel's number. Bound: [`MAX_PORTS`]; removed by
/// [`ShutPorts::poll_reopen`] and [`ShutPorts::forget`].
#[derive(Debug, Default)]
pub struct ShutPorts(BTreeMap<u32, Port>);

impl ShutPorts {
    /// The own beacon came back by `port`. `first`: this node ranks highest among those heard. `true`:
    /// shut the port now.
    pub fn handle_return(&mut self, now: Instant, port: u32, first: bool) -> bool {
        if self.0.len() >= MAX_PORTS && !self.0.contains_key(&port) {
            return false;
        }
        let new = Port::Watched {
            since: now,
            last: now,
        };
        let known = self.0.entry(port).or_insert(new);
        let shut = match known {
            Port::Shut { .. } => false,
            Port::Watched { since, last } => {
                if now.saturating_duration_since(*last) >= FORGOTTEN {
                    *since = now;
                }
                *last = now;
                first || now.saturating_duration_since(*since) >= PATIENCE
            }
        };
        if shut {
            *known = Port::Shut {
                until: now + SHUT_FOR,
            };
        }
        shut
    }

    /// `port` was shut by an earlier run, and stays so for `left`.
    pub fn restore(&mut self, now: Instant, port: u32, left: Duration) {
        if self.0.len() < MAX_PORTS {
            let until = now + left.min(SHUT_FOR);
            self.0.insert(port, Port::Shut { until });
        }
    }

    /// Another port of the bridge that `port` is on is gone: it is tried again soon.
    pub fn hasten(&mut self, now: Instant, port: u32) {
        if let Some(Port::Shut { until }) = self.0.get_mut(&port) {
            let since = until.checked_sub(SHUT_FOR).unwrap_or(now);
            *until = (*until).min(now.max(since + AT_LEAST));
        }
    }

    /// A port whose time is over: open it again.
    pub fn poll_reopen(&mut self, now: Instant) -> Option<u32> {
        self.0.retain(|_, port| match port {
            Port::Watched { last, .. } => now.saturating_duration_since(*last) < FORGOTTEN,
            Port::Shut { .. } => true,
        });
        let over = |port: &Port| matches!(port, Port::Shut { until } if *until <= now);
        let port = self.0.iter().find(|(_, port)| over(port));
        let port = port.map(|(port, _)| *port)?;
        self.0.remove(&port);
        Some(port)
    }

    /// When the next port is tried again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shut().map(|(_, until)| until).min()
    }

    /// `port` is gone from the host.
    pub fn forget(&mut self, port: u32) {
        self.0.remove(&port);
    }

    /// The ports that are shut, and until when.
    pub fn shut(&self) -> impl Iterator<Item = (u32, Instant)> {
        self.0.iter().filter_map(|(port, state)| match state {
            Port::Shut { until } => Some((*port, *until)),
            Port::Watched { .. } => None,
        })
    }
}
