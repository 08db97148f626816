//! The reflector: "at which address do you see me?"
//!
//! A small cousin of STUN (RFC 8489): a request of 36 bytes, an answer of 36 bytes that carries the
//! source address the request came from. Nobody needs a membership to ask, so an answer is never
//! larger than its request, is never answered itself, and is limited per prefix (TRUST.md 20).

mod client;
mod codec;
mod limiter;

pub use client::{
    MAX_REFLECTORS, REFLECTOR_INTERVAL, ReflectorClient, ReflectorEvent, ReflectorTransmit,
};
pub use codec::{
    KIND_REQUEST, KIND_RESPONSE, MESSAGE_LEN, TransactionId, decode_request, decode_response,
    encode_request, encode_response,
};
pub use limiter::ReflectorLimiter;

/// Why a reflector message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReflectorError {
    /// Wrong length, kind, reserved byte or address.
    #[error("the reflector message does not parse")]
    Malformed,
    /// An answer that was not asked, or not from the one who was asked.
    #[error("nobody asked for this reflector answer")]
    Unasked,
    /// The prefix of the sender, or all together, ask too often.
    #[error("too many reflector requests")]
    Limited,
}
