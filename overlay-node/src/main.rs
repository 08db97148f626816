//! The program `farlan`: one node of the overlay. Everything is in the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    overlay_node::cli::main()
}
