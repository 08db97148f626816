//! Sequences of operations on the state machines: the bytes say what happens next.

mod directory;
mod path_agent;
mod relay;
mod session;
mod tunnels;

use crate::Target;

/// All sequence targets.
#[must_use]
pub fn all() -> Vec<Target> {
    vec![
        Target {
            name: "session",
            run: session::run,
            seeds: session::seeds,
            speed: 20,
        },
        Target {
            name: "tunnels",
            run: tunnels::run,
            seeds: tunnels::seeds,
            speed: 1,
        },
        Target {
            name: "directory",
            run: directory::run,
            seeds: directory::seeds,
            speed: 1,
        },
        Target {
            name: "path_agent",
            run: path_agent::run,
            seeds: path_agent::seeds,
            speed: 20,
        },
        Target {
            name: "relay",
            run: relay::run,
            seeds: relay::seeds,
            speed: 50,
        },
    ]
}
