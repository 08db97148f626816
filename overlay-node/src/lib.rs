//! One node of the overlay: the parts of the program `farlan`.

pub mod attachments;
