//! Nobody reaches the swarm who has not proved membership or role (TRUST.md 7).
//!
//! A connection is upgraded by crypto and muxer as usual. Then, still inside the transport, the
//! dialer opens one substream for the hellos of [`control_proto::admission`], and the gate judges: no `NetworkBehaviour`
//! and no protocol negotiation ever meets a stranger.
//!
//! - `exchange`: the two messages on a muxer that nobody else drives yet.
//! - `gated`: the transport that wraps both around libp2p's; `pending` bounds those who wait.

mod exchange;
mod gated;
mod pending;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use control_proto::admission::Refusal;
use control_proto::admission::hello::MAX_HELLO;
use host_services::clocks;
use overlay_proto::time::UnixTime;

pub(crate) use gated::Gated;

/// A clock before 1970 reads as 1970; the floor of the root documents corrects it.
pub(crate) fn wall() -> UnixTime {
    UnixTime(clocks::wall().as_secs())
}

/// Why a connection did not get through admission.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error("too many connections from this source are being set up")]
    TooMany,
    #[error("it said nothing for so long that a newer connection took its place")]
    MadeRoom,
    #[error("not done in time")]
    TimedOut,
    #[error("not an ed25519 peer")]
    ForeignKey,
    #[error("hello of more than {MAX_HELLO} bytes")]
    TooLong,
    #[error("revocation lists past their bounds")]
    Lists,
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error(
        "it closed the connection without admitting this node: it does not serve this overlay; give \
         it --overlay and this overlay's id (with the package in /etc/default/farlan-bootstrap, then \
         `systemctl restart farlan-bootstrap`), or take the address of another"
    )]
    NotAdmitted,
    #[error("another connection was faster")]
    LostRace,
    #[error("{0}")]
    Transport(String),
}
