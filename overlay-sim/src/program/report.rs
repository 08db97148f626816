//! What is printed of a run.

use std::time::Duration;

use anyhow::Result;
use overlay_sim::history::Outcome;
use overlay_sim::history::plan::Plan;
use overlay_sim::net::trace::Digest;
use serde_json::json;

use super::args::RunArgs;
use super::cost::Cost;
use super::say;

/// Bytes and datagrams that nodes sent, and what guests said, in several worlds.
#[derive(Debug, Default)]
struct Sum {
    sent: u64,
    bytes: u64,
    delivered: u64,
    lost: u64,
    unicasts: (u64, u64),
    broadcasts: (u64, u64),
    lies: (u64, u64),
    /// Of all worlds together.
    time: Duration,
    /// The longest that it took until all was well.
    well_after: Option<Duration>,
    /// The longest that it took until all had met.
    met_after: Option<Duration>,
    digest: u64,
}

impl Sum {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let (mut sum, mut digest) = (Self::default(), Digest::default());
        for outcome in outcomes {
            let (tally, counts) = (&outcome.tally, &outcome.counts);
            sum.sent += tally.sent;
            sum.bytes += tally.bytes;
            sum.delivered += tally.delivered;
            sum.lost += tally.all_lost();
            let add = |sum: &mut (u64, u64), more: (u64, u64)| {
                *sum = (sum.0 + more.0, sum.1 + more.1);
            };
            add(&mut sum.unicasts, counts.unicasts);
            add(&mut sum.broadcasts, counts.broadcasts);
            add(&mut sum.lies, counts.lies);
            sum.time += outcome.time;
            sum.well_after = sum.well_after.max(outcome.well_after);
            sum.met_after = sum.met_after.max(outcome.met_after);
            digest.word(outcome.digest);
            sum.digest = if sum.digest == 0 {
                outcome.digest
            } else {
                digest.value()
            };
        }
        sum
    }
}

/// A whole run.
pub(super) fn print(args: &RunArgs, done: &[(Outcome, Cost)], cost: &Cost) -> Result<()> {
    let sum = Sum::of(done.iter().map(|(outcome, _)| outcome));
    if args.json {
        return print_json(args, &sum, cost);
    }
    if args.events {
        for (outcome, _) in done {
            say(&outcome.told.join("\n"))?;
        }
    }
    let overlays = match args.networks {
        1 => String::new(),
        many => format!(" in {many} overlays that share nothing"),
    };
    say(&format!(
        "{} nodes{overlays}, {} guests, {} minutes{}, seed {}",
        args.nodes,
        args.nodes * u32::from(args.guests),
        args.minutes,
        if args.calm { ", calm" } else { "" },
        args.seed
    ))?;
    print_sum(
        &sum,
        f64::from(args.nodes) / f64::from(args.networks.max(1)),
    )?;
    let node_seconds = sum.time.as_secs_f64() * f64::from(args.nodes / args.networks.max(1));
    print_costs(cost, f64::from(args.nodes), node_seconds)
}

/// One history.
pub(super) fn print_one(plan: &Plan, outcome: &Outcome) -> Result<()> {
    say(&format!(
        "{} nodes, {} guests, {} events, seed {}",
        plan.hosts.len(),
        plan.guests.len(),
        plan.events.len(),
        plan.seed
    ))?;
    let nodes = u32::try_from(plan.hosts.len()).unwrap_or(u32::MAX);
    print_sum(&Sum::of(std::iter::once(outcome)), f64::from(nodes))
}

fn print_sum(sum: &Sum, nodes: f64) -> Result<()> {
    if let Some(after) = sum.met_after {
        say(&format!(
            "all nodes had sessions with all others after {} s",
            after.as_secs()
        ))?;
    }
    if let Some(after) = sum.well_after {
        say(&format!(
            "everybody reached everybody {} s after all was healed",
            after.as_secs()
        ))?;
    }
    let node_seconds = (sum.time.as_secs_f64() * nodes).max(1e-9);
    say(&format!(
        "datagrams: {} sent, {} delivered, {} lost; {:.0} bytes of IP packets for each node and second",
        sum.sent,
        sum.delivered,
        sum.lost,
        precise(sum.bytes) / node_seconds
    ))?;
    say(&format!(
        "frames: {} of {} to one guest arrived; {} to all, {} copies arrived; under false MACs {} of {} counted",
        sum.unicasts.1, sum.unicasts.0, sum.broadcasts.0, sum.broadcasts.1, sum.lies.1, sum.lies.0
    ))?;
    say(&format!("digest {:016x}", sum.digest))
}

pub(super) fn print_cost(cost: &Cost, nodes: usize, time: Duration) -> Result<()> {
    let nodes = f64::from(u32::try_from(nodes).unwrap_or(u32::MAX));
    print_costs(cost, nodes, nodes * time.as_secs_f64())
}

fn print_costs(cost: &Cost, nodes: f64, node_seconds: f64) -> Result<()> {
    say(&format!(
        "cost: {:.1} s of real time, {:.1} s of cores, {:.0} MB of memory at most",
        cost.real.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        precise(cost.peak) / 1e6
    ))?;
    say(&format!(
        "cost: {:.0} µs of a core for each node and second, {:.2} MB of memory for each node",
        cost.cpu.as_secs_f64() * 1e6 / node_seconds.max(1e-9),
        precise(cost.peak) / 1e6 / nodes.max(1.0)
    ))
}

fn print_json(args: &RunArgs, sum: &Sum, cost: &Cost) -> Result<()> {
    let each = f64::from(args.nodes / args.networks.max(1));
    let node_seconds = (sum.time.as_secs_f64() * each).max(1e-9);
    let value = json!({
        "kind": "run",
        "seed": args.seed,
        "nodes": args.nodes,
        "networks": args.networks,
        "guests": args.guests,
        "minutes": args.minutes,
        "calm": args.calm,
        "jobs": args.jobs,
        "digest": format!("{:016x}", sum.digest),
        "met_after_s": sum.met_after.map(|after| after.as_secs()),
        "well_after_s": sum.well_after.map(|after| after.as_secs()),
        "datagrams": { "sent": sum.sent, "delivered": sum.delivered, "lost": sum.lost },
        "bytes_per_node_s": precise(sum.bytes) / node_seconds,
        "cost": {
            "real_s": cost.real.as_secs_f64(),
            "cpu_s": cost.cpu.as_secs_f64(),
            "cpu_us_per_node_s": cost.cpu.as_secs_f64() * 1e6 / node_seconds,
            "memory_mb": precise(cost.peak) / 1e6,
            "memory_mb_per_node": precise(cost.peak) / 1e6 / f64::from(args.nodes),
        },
    });
    say(&value.to_string())
}

/// Precise up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "counts of bytes for people")]
fn precise(count: u64) -> f64 {
    count as f64
}
