//! How long a newcomer takes.

use anyhow::{Context, Result, ensure};
use overlay_sim::history::joining::{self, Joined};
use serde_json::json;

use super::args::JoinArgs;
use super::cost::{Cost, Meter, now};
use super::say;

/// Measures and prints. `false`: somebody reached nobody.
pub(super) fn run(args: &JoinArgs) -> Result<bool> {
    let nodes = u16::try_from(args.nodes).context("too many nodes")?;
    let fits = nodes > 0 && nodes < 9_000 && args.newcomers > 0 && args.newcomers < 1_000;
    ensure!(fits, "1 to 9,000 nodes and 1 to 1,000 newcomers");
    let meter = Meter::begin();
    let joined = joining::measure(args.seed, nodes, args.newcomers, now());
    let cost = meter.end_of_thread();
    match joined {
        Ok(joined) => print(args, &joined, &cost).map(|()| true),
        Err(found) => say(&format!("FAILED {found}")).map(|()| false),
    }
}

fn print(args: &JoinArgs, joined: &Joined, cost: &Cost) -> Result<()> {
    let ms = |time: std::time::Duration| time.as_millis();
    let middle = joined.times.get(joined.times.len() / 2);
    let (Some(middle), Some(worst)) = (middle, joined.times.last()) else {
        return Ok(());
    };
    if args.json {
        let value = json!({
            "kind": "join",
            "seed": args.seed,
            "nodes": args.nodes,
            "newcomers": args.newcomers,
            "median_ms": ms(*middle),
            "worst_ms": ms(*worst),
            "digest": format!("{:016x}", joined.digest),
            "cost": { "real_s": cost.real.as_secs_f64(), "cpu_s": cost.cpu.as_secs_f64() },
        });
        return say(&value.to_string());
    }
    say(&format!(
        "{} newcomers to {} members, one after the other: {} ms from the start of the node until its guest has an answer \
         from that of a given member (median), {} ms at worst\ndigest {:016x}",
        args.newcomers,
        args.nodes,
        ms(*middle),
        ms(*worst),
        joined.digest
    ))?;
    say(&format!(
        "cost: {:.1} s of real time, {:.1} s of cores",
        cost.real.as_secs_f64(),
        cost.cpu.as_secs_f64()
    ))
}
