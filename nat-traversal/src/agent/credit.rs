//! What may be sent to an address that only a handshake came from.
//!
//! Whoever writes the source of a datagram may write anybody's. So until a challenge was answered there, an
//! address gets at most three times what came from it (RFC 9000 section 8.1): enough for the answer to a
//! first ping, of no use to flood somebody with. The challenge leaves at once, so this is over after one
//! round trip. A relay is no such address: it passes on only what both sides permit.

/// How many times what was received may be sent.
const TIMES: usize = 3;

/// The account of one address, in bytes of UDP payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Credit {
    received: usize,
    sent: usize,
}

impl Credit {
    pub(super) const fn receive(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes);
    }

    pub(super) const fn send(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// May so many more be sent?
    pub(super) const fn covers(&self, bytes: usize) -> bool {
        self.sent.saturating_add(bytes) <= self.received.saturating_mul(TIMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_and_no_more() {
        let mut credit = Credit::default();
        assert!(credit.covers(0) && !credit.covers(1));
        credit.receive(700);
        credit.send(1_200);
        assert!(credit.covers(900) && !credit.covers(901));
        credit.receive(usize::MAX);
        assert!(credit.covers(1 << 40));
    }
}
