//! Messages that must arrive, over sealed datagrams that may not.
//!
//! Claims, roster entries and candidates are small, and each stands for itself: so the channel
//! delivers every message once, in *any* order, and a lost one holds up no other. The sender numbers
//! messages and repeats them until they are acknowledged; the receiver remembers the numbers it has
//! seen. Each side's numbers belong to its *channel*, a random number that changes with each session, so
//! a restart at one end needs no word with the other, and nobody's channel is given up for ever: a peer
//! that heard another run of our process meanwhile takes a new channel from us.

mod packet;
mod receive;
mod rtt;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::packet::Packet;
use self::receive::{Receiver, WINDOW};
use self::rtt::Rtt;
use super::{SAFE_DATAGRAM, max_frame};
use crate::drop_reason::DropReason;

/// The largest message, in bytes: with the control packet's header it fits any sealed datagram.
pub const MAX_MESSAGE: usize = 1100 + super::peer_message::PEER_MESSAGE_HEADER;

/// The largest control packet, in bytes.
const PACKET_LIMIT: usize = max_frame(SAFE_DATAGRAM);

/// Messages in flight that a new channel starts with (as RFC 6928 does), and that a retransmission
/// never goes below.
const INITIAL_WINDOW: usize = 10;
const MIN_WINDOW: usize = 2;

/// The limits of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Messages queued and in flight together; the same number of failed ones is kept.
    pub max_pending: usize,
    /// Messages in flight.
    pub max_in_flight: usize,
    /// The least time before a message is sent again.
    pub min_timeout: Duration,
    /// The most time before a message is sent again, however often it was.
    pub max_timeout: Duration,
    /// How often a message is sent before it counts as failed.
    pub max_tries: u32,
}

impl Default for ChannelConfig {
    /// 256 messages of at most 1,109 bytes: 280 KB a peer at worst. Ten tries at 0.2, 0.4, 0.8,
    /// 1.6, 3, 3, .. s give up after 21 s: a path has changed or the session has died by then.
    fn default() -> Self {
        Self {
            max_pending: 256,
            max_in_flight: 32,
            min_timeout: Duration::from_millis(200),
            max_timeout: Duration::from_secs(3),
            max_tries: 10,
        }
    }
}

/// Both directions of the reliable channel with one peer.
///
/// Inputs: [`send`](Self::send), [`handle_packet`](Self::handle_packet). After each input, and when
/// [`poll_timeout`](Self::poll_timeout) has passed, call [`poll_transmit`](Self::poll_transmit)
/// until `None` and seal what it returns as kind Control, then [`poll_failed`](Self::poll_failed)
/// until `None`. Without a session do not poll: messages wait.
#[derive(Debug)]
pub struct ReliableChannel {
    config: ChannelConfig,
    id: u32,
    next_sequence: u32,
    /// Removed when acknowledged or failed.
    in_flight: BTreeMap<u32, InFlight>,
    queue: VecDeque<Vec<u8>>,
    failed: VecDeque<Vec<u8>>,
    failed_total: u64,
    /// How many may be in flight now: halved when one must be repeated, one more with each
    /// acknowledgement.
    window: usize,
    rtt: Rtt,
    receiver: Receiver,
}

#[derive(Debug)]
struct InFlight {
    message: Vec<u8>,
    tries: u32,
    first_sent: Instant,
    due: Instant,
}

impl ReliableChannel {
    /// A channel with the default limits; `channel_id` is random.
    #[must_use]
    pub fn new(channel_id: u32) -> Self {
        Self::with_config(channel_id, ChannelConfig::default())
    }

    /// A channel with limits of its own; `channel_id` is random.
    #[must_use]
    pub fn with_config(channel_id: u32, config: ChannelConfig) -> Self {
        Self {
            config,
            id: channel_id,
            next_sequence: 1,
            in_flight: BTreeMap::new(),
            queue: VecDeque::new(),
            failed: VecDeque::new(),
            failed_total: 0,
            window: INITIAL_WINDOW.min(config.max_in_flight),
            rtt: Rtt::new(config.min_timeout, config.max_timeout),
            receiver: Receiver::default(),
        }
    }

    /// A new session: the messages that wait for their acknowledgement begin anew under the channel
    /// `channel_id`, which is random, and may so arrive twice.
    pub fn renew(&mut self, channel_id: u32) {
        self.id = channel_id;
        self.next_sequence = 1;
        for entry in std::mem::take(&mut self.in_flight).into_values().rev() {
            self.queue.push_front(entry.message);
        }
    }

    /// Takes a message of 1 to [`MAX_MESSAGE`] bytes to be delivered.
    ///
    /// # Errors
    /// [`DropReason::ControlMalformed`] for another length, [`DropReason::ControlOverflow`] when too
    /// many wait.
    pub fn send(&mut self, _now: Instant, message: Vec<u8>) -> Result<(), DropReason> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return Err(DropReason::ControlMalformed);
        }
        if self.pending() >= self.config.max_pending {
            return Err(DropReason::ControlOverflow);
        }
        self.queue.push_back(message);
        Ok(())
    }

    /// The opened body of a datagram of kind Control; `Some` for a message not seen before.
    ///
    /// # Errors
    /// [`DropReason::ControlMalformed`] when it does not parse.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let packet = Packet::parse(body)?;
        if !self.receiver.enter(packet.channel) {
            return Ok(None);
        }
        if packet.acked_channel == self.id {
            for sequence in packet.acks() {
                self.acknowledged(now, sequence);
            }
        }
        Ok(packet
            .message
            .filter(|&(sequence, _)| self.receiver.note(sequence))
            .map(|(_, message)| message.to_vec()))
    }

    /// The next packet to seal and send: a message to repeat, else a new message, each with
    /// acknowledgements, else acknowledgements alone.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(sequence) = self.repeat_due(now).or_else(|| self.begin_next(now)) {
            let entry = self.in_flight.get(&sequence)?;
            let acks = self
                .receiver
                .take_acks(packet::ack_room(Some(entry.message.len())));
            return Some(self.packet(acks, Some((sequence, &entry.message))));
        }
        if !self.receiver.has_acks() {
            return None;
        }
        let acks = self.receiver.take_acks(packet::ack_room(None));
        Some(self.packet(acks, None))
    }

    /// When [`Self::poll_transmit`] has something to repeat or give up.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.values().map(|entry| entry.due).min()
    }

    /// The next message that was given up. It may have arrived all the same: only its
    /// acknowledgement is missing.
    pub fn poll_failed(&mut self) -> Option<Vec<u8>> {
        self.failed.pop_front()
    }

    /// How many messages were given up since the channel began.
    #[must_use]
    pub const fn failed_total(&self) -> u64 {
        self.failed_total
    }

    /// Messages that are neither acknowledged nor given up.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// The peer's channel, once it was heard; another number than before means that the peer has
    /// started anew and forgotten what it was told.
    #[must_use]
    pub const fn peer_channel(&self) -> Option<u32> {
        self.receiver.channel()
    }

    fn packet(&self, acks: Vec<u32>, message: Option<(u32, &[u8])>) -> Vec<u8> {
        let acked_channel = self.receiver.channel().unwrap_or(0);
        packet::write(self.id, acked_channel, acks.into_iter(), message)
    }

    fn acknowledged(&mut self, now: Instant, sequence: u32) {
        let Some(entry) = self.in_flight.remove(&sequence) else {
            return;
        };
        // Counted from the first copy: exact on a path slower than the timeout, which Karn's rule
        // would never measure, and only too long, never too short, after a loss.
        self.rtt
            .sample(now.saturating_duration_since(entry.first_sent));
        self.window = (self.window + 1).min(self.config.max_in_flight);
    }

    /// Gives up what was tried too often and marks the first message that is due as sent again.
    fn repeat_due(&mut self, now: Instant) -> Option<u32> {
        loop {
            let (&sequence, entry) = self
                .in_flight
                .iter_mut()
                .find(|(_, entry)| entry.due <= now)?;
            if entry.tries < self.config.max_tries {
                entry.due = now + self.rtt.timeout(entry.tries);
                entry.tries += 1;
                self.window = (self.window / 2).max(MIN_WINDOW);
                return Some(sequence);
            }
            let failed = self.in_flight.remove(&sequence)?;
            self.failed_total += 1;
            self.failed.push_back(failed.message);
            if self.failed.len() > self.config.max_pending {
                self.failed.pop_front();
            }
        }
    }

    /// Puts the next queued message in flight, if the window allows and the peer can still tell
    /// its number from that of the oldest one in flight.
    fn begin_next(&mut self, now: Instant) -> Option<u32> {
        let sequence = self.next_sequence;
        let oldest = self.in_flight.keys().next().copied().unwrap_or(sequence);
        if self.in_flight.len() >= self.window || sequence - oldest >= WINDOW {
            return None;
        }
        // Numbers do not come round: 2^32 messages outlast any process.
        let next = sequence.checked_add(1)?;
        let message = self.queue.pop_front()?;
        self.next_sequence = next;
        let entry = InFlight {
            message,
            tries: 1,
            first_sent: now,
            due: now + self.rtt.timeout(0),
        };
        self.in_flight.insert(sequence, entry);
        Some(sequence)
    }
}

#[cfg(test)]
mod tests;
