//! The UDP relay between two allocations (trust.md 18). To be written.

/// The secret of one allocation: authenticates relayed datagrams (SipHash-2-4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelayKey(pub [u8; 16]);

impl std::fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayKey(..)")
    }
}
