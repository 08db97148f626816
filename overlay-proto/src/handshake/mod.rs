//! Noise IKpsk2 with the certificate chain bound in (trust.md 10 to 13).
//!
//! Two messages make a session. The initiator knows the responder's x25519 static key from the
//! control plane, so message 1 already carries its sealed identity:
//!
//! ```text
//! initiator                                                        responder
//!   message 1: e, es, s, ss | chain, signed static, timestamp,
//!              suites, list numbers, networks, incarnation    ──────> mac1? opens? chain good?
//!                                                                     static = signed static?
//!   chain good? PeerId = the one dialed?                              timestamp above the last?
//!   static = signed static?   <────── message 2: e, ee, se, psk | chain, signed static, suite,
//!                                                list numbers, shared networks, incarnation
//!   first data packet                                         ──────> confirmed
//! ```
//!
//! Three things prove three different facts, and none stands in for another:
//! - **mac1**, one hash, shows that the sender knows the overlay secret; strangers cost nothing
//!   more than that. The **psk** says the same again inside Noise.
//! - **Noise** shows that the sender holds the secret of a static key.
//! - The **chain** shows that this static key belongs to a PeerId that the authority admitted.
//!   Both ends refuse unless it is the very key that Noise proved.
//!
//! A network is offered under a tag that only its members can compute, with the selector under
//! which the sender wants to receive its frames; the answer names only the shared ones.
//!
//! This room has no memory and no clock: [`crate::tunnels`] decides when to begin, what a
//! timestamp means and when a session may be used.

mod exchange;
mod message;
mod noise;

pub use exchange::{
    Agreement, FinishError, Initiation, LocalIdentity, LocalParty, PeerVerifier, Request,
    VerifiedPeer, check_request, finish, initiate, read_request, respond, response_receiver,
};
pub use message::{
    ListNumbers, MAX_CHAIN, MAX_NETWORKS, MAX_SIGNED_STATIC, MESSAGE1_LEN, WIRE_VERSION,
};
pub use noise::static_public;
