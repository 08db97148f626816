//! The machine in a cluster: moves, contests, look-ups, loss.

mod cluster;
mod deserted;
mod epochs;
mod late;
mod lookups;
mod membership;
mod moves;
mod silent;
mod trunks;
