//! What both programs ask of the operating system, once.
//!
//! Nothing here decides anything: a room that does is pure, and gets time, randomness and the results of
//! writes as arguments. The rooms:
//! - [`entropy`]: the kernel's randomness, for the pure crates' `Entropy`.
//! - [`clocks`]: the clocks that the standard library does not have, and the wall clock as a number.
//! - [`files`]: a file that is replaced whole or not at all, and what killed writers leave.
//! - [`lock`]: a lock that the kernel drops with the process.
//! - [`readiness`]: telling systemd.
//! - [`poll`]: waiting for descriptors. [`socket`]: options that `socket2` lacks.
//! - [`netlink`]: what the kernel tells whoever listens.
//! - [`udp`]: batches of datagrams in trains, with their marks and own addresses.
//!
//! Whatever a well-kept crate or the standard library has is theirs: `getrandom` is the randomness, `std`
//! locks files (`flock`), `socket2` makes sockets. `DEPENDENCIES.md` says why no more is.
//!
//! `unsafe` is in `clocks`, `netlink`, `poll`, `socket` and `udp`, a system call or a structure of the C library each.

pub mod clocks;
pub mod entropy;
pub mod files;
pub mod lock;
pub mod netlink;
pub mod poll;
pub mod readiness;
pub mod socket;
pub mod udp;

pub use entropy::OsEntropy;
