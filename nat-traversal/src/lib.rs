//! From candidates to the chosen path of one peer. Pure: no socket, no clock, no OS randomness.
//!
//! The rooms:
//! - [`path`]: what a path is; the words every other crate uses for it.
//! - [`candidate`]: addresses at which a node may be reachable, and the one filter for them.
//! - [`host`]: the host's links, addresses and routes: what of it is underlay.
//! - [`reflector`]: the codec of the address reflector, and the limits of the one who answers.
//! - [`nat_kind`]: what the reflexive addresses say about the NAT (RFC 4787 terms).
//! - [`relay`]: the codec of the UDP relay, the state machine of its server and of its client.
//! - [`agent`]: per peer: candidates -> sealed probes -> the chosen path.
//! - [`sizes`]: from the underlay's MTU to a guest's segment.
//! - [`entropy`]: randomness as an argument.

pub mod agent;
mod bucket;
pub mod candidate;
pub mod entropy;
pub mod host;
pub mod nat_kind;
pub mod path;
pub mod reflector;
pub mod relay;
pub mod sizes;
mod wire_bytes;
