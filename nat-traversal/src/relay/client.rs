//! One allocation at one relay, from the owner's side: bind it, keep it bound, notice when it is
//! lost.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::codec::{Ack, BIND_LEN, Bind, Challenge, KIND_ACK, KIND_CHALLENGE};
use super::{RelayError, RelayKey};
use crate::path::AllocationId;
use crate::wire_bytes::canonical;

/// A bind so often keeps a NAT's mapping: many routers forget UDP after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Waiting for an answer while bound: the first try, then longer; three tries, 4.5 s in all.
const BOUND_TRIES_MS: [u64; 3] = [500, 1_500, 2_500];
/// Waiting between tries while not bound. The last one repeats.
const UNBOUND_TRIES_MS: [u64; 6] = [500, 500, 1_000, 2_000, 4_000, 8_000];
/// Challenges answered for one bind, so that replayed ones cannot make us chatter.
const MAX_ECHOES: u8 = 2;
/// Events that wait for the driver; older ones are dropped first.
const MAX_EVENTS: usize = 8;

/// What happened to the allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayClientEvent {
    /// It is bound; the relay sees us at `observed`. Told again when that changes.
    Bound {
        /// Our address as the relay sees it.
        observed: SocketAddr,
    },
    /// Three keep-alives in a row were not answered. Binding goes on; asking for the allocation
    /// again over the control plane is the cure when the relay forgot it.
    Lost,
}

/// Keeps one allocation bound. Order of calls: `new`, `handle_timeout` whenever `poll_timeout` is
/// due, `handle_datagram` for challenges and acks; after each `poll_transmit` and `poll_event`
/// until both are empty. A renewed allocation (new key) is a new client.
#[derive(Debug)]
pub struct RelayClient {
    relay: SocketAddr,
    allocation: AllocationId,
    key: RelayKey,
    counter: u64,
    bound: Option<SocketAddr>,
    /// Tries since the last ack.
    tries: usize,
    echoes: u8,
    due: Instant,
    transmits: VecDeque<[u8; BIND_LEN]>,
    events: VecDeque<RelayClientEvent>,
}

impl RelayClient {
    /// Will bind `allocation` at `relay` at once.
    #[must_use]
    pub fn new(now: Instant, relay: SocketAddr, allocation: AllocationId, key: RelayKey) -> Self {
        Self {
            relay: canonical(relay),
            allocation,
            key,
            counter: 0,
            bound: None,
            tries: 0,
            echoes: 0,
            due: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The relay's address.
    #[must_use]
    pub const fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// The allocation.
    #[must_use]
    pub const fn allocation(&self) -> AllocationId {
        self.allocation
    }

    /// Its key, for wrapping and unwrapping.
    #[must_use]
    pub const fn key(&self) -> RelayKey {
        self.key
    }

    /// Where the relay sees us, while bound.
    #[must_use]
    pub const fn bound(&self) -> Option<SocketAddr> {
        self.bound
    }

    /// A challenge or an ack from `from`.
    ///
    /// # Errors
    ///
    /// [`RelayError`]: drop and count.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), RelayError> {
        if canonical(from) != self.relay {
            return Err(RelayError::Unasked);
        }
        match datagram.first() {
            Some(&KIND_CHALLENGE) => {
                let challenge = Challenge::decode(datagram, &self.key)?;
                if challenge.allocation != self.allocation {
                    return Err(RelayError::UnknownAllocation);
                }
                if self.tries == 0 {
                    // The answer to a repetition; the one before was enough.
                    return Ok(());
                }
                if self.echoes >= MAX_ECHOES {
                    return Err(RelayError::Unasked);
                }
                self.echoes += 1;
                self.send(challenge.challenge);
                Ok(())
            }
            Some(&KIND_ACK) => {
                let ack = Ack::decode(datagram, &self.key)?;
                if ack.allocation != self.allocation {
                    return Err(RelayError::UnknownAllocation);
                }
                if ack.counter > self.counter {
                    return Err(RelayError::Unasked);
                }
                if self.tries == 0 {
                    return Ok(());
                }
                self.tries = 0;
                self.echoes = 0;
                self.due = now + KEEP_ALIVE;
                if self.bound != Some(ack.observed) {
                    self.bound = Some(ack.observed);
                    self.tell(RelayClientEvent::Bound {
                        observed: ack.observed,
                    });
                }
                Ok(())
            }
            _ => Err(RelayError::Malformed),
        }
    }

    /// The relay may have lost us (an interface changed, relayed peers fell silent): bind now.
    pub fn check_now(&mut self, now: Instant) {
        if self.tries == 0 {
            self.due = now;
        }
    }

    /// Binds, or retries, when due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due > now {
            return;
        }
        if self.bound.is_some() && self.tries >= BOUND_TRIES_MS.len() {
            self.bound = None;
            self.tries = 0;
            self.tell(RelayClientEvent::Lost);
        }
        let waits: &[u64] = match self.bound {
            Some(_) => &BOUND_TRIES_MS,
            None => &UNBOUND_TRIES_MS,
        };
        let wait = waits.get(self.tries).or(waits.last()).copied();
        self.due = now + Duration::from_millis(wait.unwrap_or(1_000));
        self.tries = self.tries.saturating_add(1);
        self.echoes = 0;
        self.send(0);
    }

    /// The next datagram to send, and where.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, [u8; BIND_LEN])> {
        Some((self.relay, self.transmits.pop_front()?))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<RelayClientEvent> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn send(&mut self, echo: u64) {
        self.counter += 1;
        let bind = Bind {
            allocation: self.allocation,
            counter: self.counter,
            echo,
        };
        if self.transmits.len() >= MAX_EVENTS {
            self.transmits.pop_front();
        }
        self.transmits.push_back(bind.encode(&self.key));
    }

    fn tell(&mut self, event: RelayClientEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
