//! The program: what a user may ask for, and what is printed.
//!
//! Histories run in worlds that share nothing, each on one thread; several of them use several cores. What a history prints is the
//! same each time; what differs from run to run, the cost, is on lines that begin with `cost:`.

pub(crate) mod args;
mod cost;
mod joined;
mod plot;
mod report;
mod seeds;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use overlay_sim::history::generate::{Shape, generate, networks_for};
use overlay_sim::history::plan::{Plan, draw};
use overlay_sim::history::{Outcome, run as run_plan, shrink};

use self::args::{Args, Command, RunArgs};
use self::cost::{Cost, Meter};

/// Runs of a history that shrinking may take.
const SHRINKING: usize = 300;

/// Does what was asked for. `false`: something failed that should not, and it was said what.
pub(crate) fn run(args: Args) -> Result<bool> {
    match args.command {
        None => run_histories(&args.run),
        Some(Command::Replay { file, events }) => replay(&file, events),
        Some(Command::Seeds(args)) => seeds::run(&args),
        Some(Command::Join(args)) => joined::run(&args),
        Some(Command::Plot { files }) => plot::run(&files),
    }
}

/// Writes to the standard output.
pub(crate) fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("nobody reads what is said")
}

/// The plans of a run: one for each network.
fn plans(args: &RunArgs) -> Result<Vec<Plan>> {
    let networks = args.networks;
    ensure!(networks > 0, "--networks is at least 1");
    ensure!(args.nodes >= networks, "a network has at least one node");
    ensure!(
        args.nodes.is_multiple_of(networks),
        "--nodes is a multiple of --networks: each has as many"
    );
    let nodes = u16::try_from(args.nodes / networks).context("too many nodes in a network")?;
    let guests = nodes.checked_mul(args.guests);
    ensure!(
        nodes < 10_000 && guests.is_some(),
        "too many nodes or guests"
    );
    ensure!(
        args.minutes > 0.0 && args.minutes <= 1e6,
        "--minutes is above 0"
    );
    let shape = Shape {
        networks: if args.calm { 1 } else { networks_for(nodes) },
        guests: args.guests,
        calm: args.calm,
        time_ms: std::time::Duration::from_secs_f64(args.minutes * 60.0).as_millis() as u64,
        ..Shape::new(nodes, 0)
    };
    let seed = |turn| match networks {
        1 => args.seed,
        _ => draw(args.seed, "network", turn),
    };
    Ok((0..u64::from(networks))
        .map(|turn| generate(seed(turn), &shape))
        .collect())
}

fn run_histories(args: &RunArgs) -> Result<bool> {
    let plans = plans(args)?;
    let meter = Meter::begin();
    let done = run_all(&plans, args.jobs, |_, _| Ok(()))?;
    let cost = meter.end(&done);
    report::print(args, &done, &cost)?;
    for (plan, (outcome, _)) in plans.iter().zip(&done) {
        if outcome.failure.is_some() {
            fail(plan, outcome, &args.again(plan.seed), !args.no_shrink)?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn replay(file: &std::path::Path, events: bool) -> Result<bool> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let plan = Plan::from_text(&text)?;
    let meter = Meter::begin();
    let done = run_all(std::slice::from_ref(&plan), 1, |_, _| Ok(()))?;
    let cost = meter.end(&done);
    let (outcome, _) = done.first().context("nothing was run")?;
    if events {
        say(&outcome.told.join("\n"))?;
    }
    report::print_one(&plan, outcome)?;
    report::print_cost(&cost, plan.hosts.len(), outcome.time)?;
    if let Some(found) = &outcome.failure {
        say(&format!("FAILED {found}"))?;
    }
    Ok(outcome.failure.is_none())
}

/// Runs all plans on so many threads; `each` is told of each that is done, in their order.
pub(crate) fn run_all(
    plans: &[Plan],
    jobs: usize,
    mut each: impl FnMut(usize, &(Outcome, Cost)) -> Result<()>,
) -> Result<Vec<(Outcome, Cost)>> {
    let next = AtomicUsize::new(0);
    let (send, done) = std::sync::mpsc::channel();
    let mut all: Vec<Option<(Outcome, Cost)>> = plans.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, plans.len().max(1)) {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                while let Some((turn, plan)) = {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    plans.get(turn).map(|plan| (turn, plan))
                } {
                    let meter = Meter::begin();
                    let outcome = run_plan(plan, cost::now());
                    let cost = meter.end_of_thread();
                    if send.send((turn, (outcome, cost))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut told = 0;
        for _ in plans {
            let (turn, one) = done.recv().context("a thread has died")?;
            if let Some(place) = all.get_mut(turn) {
                *place = Some(one);
            }
            while let Some(Some(one)) = all.get(told) {
                each(told, one)?;
                told += 1;
            }
        }
        anyhow::Ok(())
    })?;
    all.into_iter()
        .collect::<Option<_>>()
        .context("a thread has died")
}

/// Says what failed, how to see it again, and the smallest history in which it does.
pub(crate) fn fail(plan: &Plan, outcome: &Outcome, again: &str, shrinks: bool) -> Result<()> {
    let Some(found) = &outcome.failure else {
        return Ok(());
    };
    say(&format!("FAILED {found}"))?;
    let from = outcome.told.len().saturating_sub(20);
    say("What happened before:")?;
    say(&outcome.told.get(from..).unwrap_or_default().join("\n"))?;
    say(&format!("To see it again:\n  {again}"))?;
    if !shrinks {
        return Ok(());
    }
    say("Looking for the smallest history that fails like this ..")?;
    let kind = found.what.kind();
    let (small, runs) = shrink::shrink(plan, SHRINKING, |plan| {
        let failure = run_plan(plan, cost::now()).failure;
        failure.is_some_and(|found| found.what.kind() == kind)
    });
    let outcome = run_plan(&small, cost::now());
    say(&format!(
        "The smallest found in {runs} runs: {} hosts, {} events, {} s. Put what follows into a file and type\n  \
         cargo run --release -p overlay-sim -- replay --events FILE",
        small.hosts.len(),
        small.events.len(),
        small.heals_ms / 1_000
    ))?;
    say(&small.to_text())?;
    say(&format!("In it:\n{}", outcome.told.join("\n")))?;
    match outcome.failure {
        Some(found) => say(&format!("{found}")),
        None => {
            say("It does not fail any more: a history that is not the same each time is a bug.")
        }
    }
}
