//! How members that have never met come to know each other ([`cards`]), and what people call them ([`names`]).

pub mod cards;
pub mod names;

use overlay_proto::directory::SignalInbox;

/// What is known of greetings.
#[derive(Debug, Default)]
pub(crate) struct Introductions {
    pub(crate) signal_inbox: SignalInbox,
}
