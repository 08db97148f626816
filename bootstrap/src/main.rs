//! The program `farlan-bootstrap`: first contact, reflector, relay, witness.
fn main() {}
