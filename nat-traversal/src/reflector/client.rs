//! The one who asks: every reflector, from every socket, at start and every 25 s.
//!
//! 25 s keep the mapping alive (RFC 4787 REQ-5 wants two minutes, many routers give thirty
//! seconds) and show within that time that it changed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{MESSAGE_LEN, ReflectorError, TransactionId, decode_response, encode_request};
use crate::entropy::Entropy;
use crate::path::SocketId;
use crate::wire_bytes::canonical;

/// Reflector addresses that are asked; more are ignored.
pub const MAX_REFLECTORS: usize = 8;
/// Time between two rounds at one reflector, less up to a tenth.
pub const REFLECTOR_INTERVAL: Duration = Duration::from_secs(25);
/// A reflector that was silent for a whole round is asked again after this: the way to it may have been
/// opened, and somebody waits.
const SILENT_INTERVAL: Duration = Duration::from_secs(5);
/// Waiting for an answer: three tries, 3.5 s in all. RFC 8489 section 6.2.1 starts at 500 ms too.
const TRIES_MS: [u64; 3] = [500, 1_000, 2_000];
/// Events that wait for the driver; older ones are dropped first.
const MAX_EVENTS: usize = 64;

/// A request to send from `socket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReflectorTransmit {
    /// The local socket.
    pub socket: SocketId,
    /// The reflector.
    pub to: SocketAddr,
    /// The request.
    pub bytes: [u8; MESSAGE_LEN],
}

/// What the client learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReflectorEvent {
    /// `reflector` sees `socket` at `addr`. Told after every round, changed or not.
    Observed {
        /// Our socket.
        socket: SocketId,
        /// Who says it.
        reflector: SocketAddr,
        /// What it sees.
        addr: SocketAddr,
    },
    /// `reflector` did not answer a round. If none answers, UDP is blocked.
    Unanswered {
        /// Our socket.
        socket: SocketId,
        /// Who is silent.
        reflector: SocketAddr,
    },
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The open question; none between rounds.
    open: Option<TransactionId>,
    /// Tries made in this round.
    tries: usize,
    /// Next try, or the next round.
    due: Instant,
}

/// Asks reflectors. Order of calls: `set_reflectors`, then whenever `poll_timeout` is due
/// `handle_timeout`, after each input `poll_transmit` and `poll_event` until both are empty.
#[derive(Debug, Default)]
pub struct ReflectorClient {
    /// At most [`MAX_REFLECTORS`]; `set_reflectors` removes.
    asked: BTreeMap<SocketAddr, Asked>,
    transmits: VecDeque<ReflectorTransmit>,
    events: VecDeque<ReflectorEvent>,
}

impl ReflectorClient {
    /// A client that knows no reflector.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks exactly these from now on; new ones at once.
    pub fn set_reflectors(&mut self, now: Instant, reflectors: &[SocketAddr]) {
        let wanted: Vec<SocketAddr> = reflectors
            .iter()
            .take(MAX_REFLECTORS)
            .map(|addr| canonical(*addr))
            .collect();
        self.asked.retain(|addr, _| wanted.contains(addr));
        for addr in wanted {
            self.asked.entry(addr).or_insert(Asked {
                open: None,
                tries: 0,
                due: now,
            });
        }
    }

    /// Asks all again now: an interface came or went.
    pub fn ask_now(&mut self, now: Instant) {
        for asked in self.asked.values_mut() {
            asked.open = None;
            asked.tries = 0;
            asked.due = now;
        }
    }

    /// A datagram of kind [`super::KIND_RESPONSE`] from `from`.
    ///
    /// # Errors
    ///
    /// [`ReflectorError::Malformed`], or [`ReflectorError::Unasked`] when id or sender do not fit
    /// an open question.
    pub fn handle_response(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(), ReflectorError> {
        let (id, addr) = decode_response(bytes)?;
        let reflector = canonical(from);
        let asked = self.asked.get_mut(&reflector);
        let asked = asked
            .filter(|asked| asked.open == Some(id))
            .ok_or(ReflectorError::Unasked)?;
        *asked = Asked {
            open: None,
            tries: 0,
            due: now + jittered(entropy),
        };
        let socket = SocketId::for_addr(&reflector);
        self.tell(ReflectorEvent::Observed {
            socket,
            reflector,
            addr,
        });
        Ok(())
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let mut silent = Vec::new();
        for (reflector, asked) in &mut self.asked {
            if asked.due > now {
                continue;
            }
            let socket = SocketId::for_addr(reflector);
            let Some(wait) = TRIES_MS.get(asked.tries) else {
                silent.push(ReflectorEvent::Unanswered {
                    socket,
                    reflector: *reflector,
                });
                *asked = Asked {
                    open: None,
                    tries: 0,
                    due: now + SILENT_INTERVAL,
                };
                continue;
            };
            let id = asked.open.unwrap_or_else(|| {
                let mut id = [0; 12];
                entropy.fill(&mut id);
                TransactionId(id)
            });
            asked.open = Some(id);
            asked.tries += 1;
            asked.due = now + Duration::from_millis(*wait);
            if self.transmits.len() < MAX_REFLECTORS {
                self.transmits.push_back(ReflectorTransmit {
                    socket,
                    to: *reflector,
                    bytes: encode_request(id),
                });
            }
        }
        for event in silent {
            self.tell(event);
        }
    }

    /// The next request to send.
    pub fn poll_transmit(&mut self) -> Option<ReflectorTransmit> {
        self.transmits.pop_front()
    }

    /// The next thing learned.
    pub fn poll_event(&mut self) -> Option<ReflectorEvent> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.due).min()
    }

    fn tell(&mut self, event: ReflectorEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Up to a tenth less than the interval, so that nodes that start together drift apart.
fn jittered(entropy: &mut dyn Entropy) -> Duration {
    REFLECTOR_INTERVAL - Duration::from_millis(u64::from(entropy.next_u32() % 2_500))
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::reflector::{decode_request, encode_response};

    #[test]
    fn asks_learns_and_asks_again() {
        let (start, mut entropy) = (Instant::now(), SeededEntropy::new(1));
        let reflector: SocketAddr = "192.0.2.1:22611".parse().unwrap();
        let seen: SocketAddr = "198.51.100.4:1024".parse().unwrap();
        let mut client = ReflectorClient::new();
        client.set_reflectors(start, &[reflector]);
        client.handle_timeout(start, &mut entropy);
        let ask = client.poll_transmit().unwrap();
        let answer = encode_response(decode_request(&ask.bytes).unwrap(), seen);

        let stranger = "192.0.2.66:22611".parse().unwrap();
        let refused = client.handle_response(start, stranger, &answer, &mut entropy);
        assert_eq!(refused, Err(ReflectorError::Unasked));
        client
            .handle_response(start, reflector, &answer, &mut entropy)
            .unwrap();
        let expected = ReflectorEvent::Observed {
            socket: SocketId::V4,
            reflector,
            addr: seen,
        };
        assert_eq!(client.poll_event(), Some(expected));
        let again = client.handle_response(start, reflector, &answer, &mut entropy);
        assert_eq!(again, Err(ReflectorError::Unasked));

        let next = client.poll_timeout().unwrap() - start;
        assert!(next <= REFLECTOR_INTERVAL && next > Duration::from_secs(22));
    }

    #[test]
    fn silence_is_told_after_three_tries() {
        let (start, mut entropy) = (Instant::now(), SeededEntropy::new(2));
        let mut client = ReflectorClient::new();
        client.set_reflectors(start, &["[2001:db8::1]:9".parse().unwrap()]);
        let mut ids = Vec::new();
        let end = loop {
            let due = client.poll_timeout().unwrap();
            client.handle_timeout(due, &mut entropy);
            ids.extend(client.poll_transmit().map(|ask| ask.bytes));
            if let Some(event) = client.poll_event() {
                assert!(matches!(event, ReflectorEvent::Unanswered { .. }));
                break due;
            }
        };
        assert_eq!(end - start, Duration::from_millis(3_500));
        assert_eq!(ids.len(), 3);
        assert!(
            ids.iter().all(|id| *id == ids[0]),
            "a retry asks the same question"
        );
    }
}
