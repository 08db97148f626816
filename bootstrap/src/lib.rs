//! The command line of `farlan-bootstrap`, apart from the program: the man page and the shell
//! completions are made from it.

pub mod args;
