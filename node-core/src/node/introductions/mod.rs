//! How members of one network that have never met come to know each other.
//!
//! A node lays its *card* down at the rendezvous that each bootstrap keeps per (blinded) network and
//! gets the cards of others in return. It greets each of them with its own card through the
//! bootstrap, permits them at its relay, and begins a handshake over every path that may work. Who
//! is greeted does the same: the NATs of both open at about the same time.
//!
//! [`cards`]: ours, and when it is laid down. [`greetings`]: what goes through a bootstrap. [`names`]: what people call the nodes.

pub mod cards;
pub mod greetings;
pub mod names;

use overlay_proto::directory::SignalInbox;

use cards::Schedule;

/// What is known of cards and greetings.
#[derive(Debug, Default)]
pub struct Introductions {
    /// When our cards are laid down.
    pub schedule: Schedule,
    inbox: SignalInbox,
}

#[cfg(test)]
mod tests;
