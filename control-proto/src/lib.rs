//! What travels between control planes, and who may say it. Pure: no socket, file, clock or chance of its own.
//!
//! A control plane is libp2p around this crate (`control-plane`), or the virtual one of a simulation
//! (`overlay-sim/src/world/control/`): it carries bytes, and asks here what they mean and what is to be done.
//!
//! The rooms:
//! - [`messages`]: requests and responses between connected nodes; [`encoding`]: their bytes and bounds.
//! - [`admission`]: the hello of each side, and the gates that judge it: who is admitted, who is revoked, who counts
//!   the uses of an invite.
//! - [`serving`]: what a node does for those connected to it; the whole of a bootstrap, but for its relay.
//! - [`records`]: the records that a server of the DHT keeps, and for how long.
//! - [`dialer`]: when to dial which bootstrap.
//!
//! The arrows (`a <- b`: b uses a):
//!
//! ```text
//! messages <- encoding          messages, admission, records <- serving          dialer: alone
//! ```
//!
//! Who calls what, in the order of a connection:
//!
//! ```text
//! a hello came      -> Gatekeeper::wants_lists, admit, answer            -> Admitted, or a Refusal that stays here
//! a link is up      -> Server::handle_connected                          -> what is kept is known by its invite
//! a request came    -> encoding::decode -> Server::handle_request        -> Step: an answer, or an order to forward
//! an addressee said -> serving::answer_of_forward                        -> the answer to the sender
//! the book grew     -> Server::follow_revocations                        -> who is cut off, who is told
//! a second passed   -> Server::handle_timeout                            -> what lapsed is gone, who has ended is named
//! ```
//!
//! A call gets the time as an argument: monotonic (`Instant`) for what lapses, the wall clock ([`UnixTime`]) for what a
//! certificate says. The gate is shared by the tasks of many connections, so its books lock themselves; all else belongs to
//! one caller. What needs the disk ([`admission::Shelf`], [`admission::Witness`]) or the data plane ([`serving::Relay`]) is a
//! trait, which whoever runs the machine implements.
//!
//! [`UnixTime`]: overlay_proto::time::UnixTime

pub mod admission;
pub mod dialer;
pub mod encoding;
pub mod messages;
pub mod records;
pub mod serving;

/// Where the time of a test begins.
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an instant comes from nowhere else"
)]
fn some_instant() -> std::time::Instant {
    std::time::Instant::now()
}
