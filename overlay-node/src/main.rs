//! The program `farlan`: one node of the overlay.
fn main() {}
