//! One target for each parser.

mod directory;
mod ethernet;
mod handshake;
mod membership;
mod nat;
mod offload;
mod segment;
mod wire;

use crate::Target;
pub(crate) use directory::{
    EPOCH_KEY, NETWORK, OVERLAY, a_claim, a_key, a_node, messages as directory_messages,
};
pub(crate) use nat::{address, candidate};

/// All parser targets.
#[must_use]
pub fn all() -> Vec<Target> {
    [
        ethernet::all(),
        wire::all(),
        handshake::all(),
        membership::all(),
        directory::all(),
        nat::all(),
        offload::all(),
        segment::all(),
    ]
    .concat()
}
