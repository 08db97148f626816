//! Noise IKpsk2 with the certificate chain bound in (TRUST.md 10 to 13).
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
//! A responder under load answers message 1 with a **cookie** instead, and goes on only when the
//! message comes again with mac2 keyed by it.
//!
//! This room has no memory and no clock: [`crate::tunnels`] decides when to begin, what a
//! timestamp means and when a session may be used.

mod cookie;
mod exchange;
mod message;
mod noise;

pub use cookie::{
    COOKIE_LIFETIME, COOKIE_REPLY_LEN, Cookie, CookieSecret, cookie_receiver, has_mac2, put_mac2,
    without_mac2,
};
pub use exchange::{
    Agreement, FinishError, Initiation, LocalIdentity, LocalParty, PeerVerifier, Request,
    VerifiedPeer, ask_for_cookie, check_request, finish, initiate, read_cookie, read_request,
    respond, response_receiver,
};
pub use message::{
    ListNumbers, MAX_CHAIN, MAX_NETWORKS, MAX_SIGNED_STATIC, MESSAGE1_LEN, WIRE_VERSION,
};
pub use noise::static_public;
