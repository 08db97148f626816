//! The command line of `farlan-bootstrap`, apart from the program: the man page and the shell
//! completions are made from it.

#![forbid(unsafe_code)]

pub mod args;
