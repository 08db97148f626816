//! Idle pings of all contestants, side by side.
//!
//! An idle ping takes as long as cold caches and sleeping cores make it, and how cold they are is up to
//! whoever else the machine serves: it changes within seconds, by more than contestants differ. So all
//! are there at once, each in a scene of its own, and take turns of half a second. Those whose turn it is not
//! carry nothing.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::contestants::{Contestant, Running};
use crate::measure::{self, Rtt};
use crate::runner::{self, Pen, Plan};
use crate::samples::Samples;
use crate::scene::Scene;

/// Pings of one turn that count.
const TURN: u32 = 100;

/// Pings before them, which find the way again after the others' turns.
const WARM_UP: u32 = 10;

/// Between pings, seconds.
const INTERVAL: f64 = 0.005;

/// Measures all rounds. Returns what failed.
///
/// # Errors
/// When samples cannot be written.
pub fn run(
    plan: &Plan,
    contestants: &[Contestant],
    samples: &mut Samples,
    start: Instant,
) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    let mut all = Vec::new();
    for contestant in contestants {
        match begin(plan, contestant) {
            Ok(running) => all.push((contestant, running)),
            Err(error) => pen(samples, &mut failures, (contestant, 0), start).miss("start", &error),
        }
    }
    for round in 1..=plan.rounds {
        let mut times = vec![Vec::new(); all.len()];
        for turn in 0..turns(plan.pings) {
            for index in order(all.len(), turn) {
                let (Some((contestant, running)), Some(times)) =
                    (all.get(index), times.get_mut(index))
                else {
                    continue;
                };
                let ends = runner::ends(plan, running, &[]);
                match measure::ping_times(ends, WARM_UP + TURN, INTERVAL) {
                    Ok(new) => times.extend(new.into_iter().skip(WARM_UP as usize)),
                    Err(error) => {
                        let to = (*contestant, round);
                        pen(samples, &mut failures, to, start).miss("ping", &error);
                    }
                }
            }
        }
        for ((contestant, _), times) in all.iter().zip(&times) {
            let mut pen = pen(samples, &mut failures, (contestant, round), start);
            // One that loses its pings has no figure: those that arrive are not the usual ones.
            let asked = turns(plan.pings) * TURN as usize;
            if times.len() < asked * 9 / 10 {
                let error = anyhow::anyhow!("of {asked} pings {} were answered", times.len());
                pen.miss("ping", &error);
                continue;
            }
            if let Some(rtt) = Rtt::of(times) {
                pen.put("ping", rtt.mean_us)?;
                if let Some(p99) = rtt.p99_us {
                    pen.put("ping_p99", p99)?;
                }
            }
        }
    }
    Ok(failures)
}

/// Brings one up, and warms it up.
fn begin(plan: &Plan, contestant: &Contestant) -> Result<Running> {
    let running = contestant.start(Scene::on_a_wire()?)?;
    runner::settle(plan, &running).context("set-up")?;
    Ok(running)
}

fn pen<'a>(
    samples: &'a mut Samples,
    failures: &'a mut Vec<String>,
    (who, round): (&'a Contestant, u32),
    start: Instant,
) -> Pen<'a> {
    Pen {
        samples,
        round,
        who: &who.name,
        start,
        failures,
    }
}

/// So many turns that a round has at least `pings` of each.
fn turns(pings: u32) -> usize {
    usize::try_from(pings.div_ceil(TURN)).unwrap_or(usize::MAX)
}

/// The order of one turn: each time another one begins.
fn order(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + turn) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_the_pings_that_are_asked_for() {
        assert_eq!(turns(1), 1);
        assert_eq!(turns(500), 5);
        assert_eq!(turns(501), 6);
    }

    #[test]
    fn everybody_has_a_turn_and_none_is_always_first() {
        let orders: Vec<Vec<usize>> = (0..4).map(|turn| order(3, turn).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(order(0, 7).count(), 0);
    }
}
