//! Datagrams that wait to be sent.

use std::collections::VecDeque;

use nat_traversal::path::Path;

use super::Transmit;

/// Above it new ones are lost, and counted; every one of them is repeated or answered for by a timer.
const MAX_TRANSMITS: usize = 4096;

/// The queue. Bound: [`MAX_TRANSMITS`].
#[derive(Debug, Default)]
pub(super) struct Transmits {
    waiting: VecDeque<Transmit>,
    lost: u64,
}

impl Transmits {
    pub(super) fn push(&mut self, path: Path, bytes: Vec<u8>) {
        if self.waiting.len() < MAX_TRANSMITS {
            self.waiting.push_back(Transmit { path, bytes });
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Transmit> {
        self.waiting.pop_front()
    }

    /// How many found no room since the last call.
    pub(super) const fn take_lost(&mut self) -> u64 {
        std::mem::replace(&mut self.lost, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut transmits = Transmits::default();
        let path = Path::direct("192.0.2.1:9".parse().unwrap());
        for n in 0..MAX_TRANSMITS + 3 {
            transmits.push(path, n.to_be_bytes().to_vec());
        }
        assert_eq!((transmits.take_lost(), transmits.take_lost()), (3, 0));
        // Those that came first are kept.
        assert_eq!(transmits.pop().unwrap().bytes, 0_usize.to_be_bytes());
        transmits.push(path, Vec::new());
        assert_eq!(transmits.take_lost(), 0);
    }
}
