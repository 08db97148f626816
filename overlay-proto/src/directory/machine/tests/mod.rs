//! The machine in a cluster: moves, contests, look-ups, loss.

mod cluster;
mod epochs;
mod lookups;
mod membership;
mod moves;
