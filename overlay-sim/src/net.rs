//! A virtual network in virtual time.
//!
//! - [`clock`]: virtual time, and what machines take for it.
//! - [`queue`]: events in the order of their times.
//! - [`random`]: one stream of random numbers for each consumer.
//! - [`link`]: delay, jitter, loss, reordering, duplication, MTU, rate and queue of one direction.
//! - [`nat`]: NATs and firewalls as data.
//! - [`topology`]: hosts in sites behind them, and the datagrams between: [`topology::Net`].
//! - [`trace`]: a digest of everything that happened, and the last of it as text.
//!
//! A simulation has a [`clock::Clock`], a [`topology::Net`], a [`queue::Queue`] of its own for the deadlines of its machines and for what it
//! does to them, and goes round: to the earlier of [`topology::Net::next_at`] and [`queue::Queue::next_at`], deliver, let
//! the machines speak, send.
//!
//! # What a datagram costs
//!
//! Measured in a release build (`topology/bench.rs`), each host behind a NAT of its own, 100 bytes, a delivery with its
//! sending and both NATs, in the time of one core; two runs on a virtual machine whose cores and caches others used too:
//!
//! | hosts | peers of each | in flight | links | deliveries a second |
//! |---|---|---|---|---|
//! | 1,000 | 8 | 8,000 | delay | 860,000; 1,660,000 |
//! | 1,000 | 8 | 8,000 | delay, jitter, 100 Mbit/s | 770,000; 1,160,000 |
//! | 10,000 | 32 | 320,000 | delay | 240,000; 270,000 |
//! | 10,000 | 32 | 320,000 | delay, jitter, 100 Mbit/s | 190,000; 200,000 |
//!
//! What makes the larger one slower is memory: its NATs and what is in flight do not fit into the caches.

mod aging;
pub mod clock;
pub mod link;
pub mod nat;
pub mod queue;
pub mod random;
pub mod topology;
pub mod trace;
