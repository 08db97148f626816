//! A list of histories, and some that nobody has run yet.

use anyhow::{Context, Result, ensure};
use overlay_sim::history::plan::{Plan, draw};

use super::args::{RunArgs, SeedsArgs};
use super::cost::fresh;
use super::{fail, plans, run_all, say};

/// One history of a list.
fn of_list(line: &str) -> Result<(u32, f64, u64)> {
    let mut words = line.split_whitespace();
    let nodes = words.next().context("nodes are missing")?.parse()?;
    let minutes = words.next().context("minutes are missing")?.parse()?;
    let seed = words.next().context("a seed is missing")?.parse()?;
    ensure!(words.next().is_none(), "more than nodes, minutes and seed");
    Ok((nodes, minutes, seed))
}

/// Those of a list; a line that begins with `#` is for people.
fn read(text: &str) -> Result<Vec<(u32, f64, u64)>> {
    let lines = text.lines().zip(1..);
    let lines = lines.filter(|(line, _)| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|(line, number)| of_list(line).with_context(|| format!("line {number}")))
        .collect()
}

/// Runs them. `false`: one failed.
pub(super) fn run(args: &SeedsArgs) -> Result<bool> {
    let file = args.list.display();
    let text = std::fs::read_to_string(&args.list);
    let text = text.with_context(|| format!("cannot read {file}"))?;
    let mut all = read(&text).with_context(|| format!("in {file}"))?;
    let start = fresh();
    // Six digits are easily typed.
    let fresh = (0..args.fresh).map(|turn| draw(start, "fresh", turn.into()) % 1_000_000);
    all.extend(fresh.map(|seed| (args.nodes, args.minutes, seed)));
    // The largest first, so that no core waits for one at the end.
    all.sort_by(|one, other| {
        let size = |(nodes, minutes, _): &(u32, f64, u64)| f64::from(*nodes).powi(2) * minutes;
        size(other).total_cmp(&size(one))
    });
    let mut wanted: Vec<(RunArgs, Plan)> = Vec::new();
    for (nodes, minutes, seed) in all {
        let run = RunArgs {
            nodes,
            minutes,
            seed,
            networks: 1,
            guests: 1,
            calm: false,
            events: false,
            json: false,
            no_shrink: args.no_shrink,
            jobs: 1,
        };
        let plan = plans(&run)?.pop().context("no history")?;
        wanted.push((run, plan));
    }
    let histories: Vec<Plan> = wanted.iter().map(|(_, plan)| plan.clone()).collect();
    let done = run_all(&histories, args.jobs, |turn, (outcome, cost)| {
        let Some((run, plan)) = wanted.get(turn) else {
            return Ok(());
        };
        let what = match (&outcome.failure, outcome.well_after) {
            (Some(_), _) => "FAILED".to_owned(),
            (None, after) => format!("well after {:>3} s", after.unwrap_or_default().as_secs()),
        };
        say(&format!(
            "seed {:>6}: {:>3} nodes, {:>4} min, {:>3} events: {what}; digest {:016x}; cost: {:.1} s",
            run.seed,
            run.nodes,
            run.minutes,
            plan.events.len(),
            outcome.digest,
            cost.cpu.as_secs_f64()
        ))
    })?;
    let failed = wanted.iter().zip(&done);
    let mut failed = failed.filter(|(_, (outcome, _))| outcome.failure.is_some());
    let Some(((run, plan), (outcome, _))) = failed.next() else {
        say(&format!("{} histories, all well", done.len()))?;
        return Ok(true);
    };
    let more = failed.count();
    fail(plan, outcome, &run.again(run.seed), !args.no_shrink)?;
    if more > 0 {
        say(&format!("{more} more failed; see above"))?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_its_mistakes_are_named() {
        let list = read("# nodes minutes seed\n30 2 7\n\n300 0.5 8\n").unwrap();
        assert_eq!(list, [(30, 2.0, 7), (300, 0.5, 8)]);
        for wrong in ["30", "30 2", "30 x 7", "30 2 7 1"] {
            let text = format!("30 2 7\n{wrong}");
            let error = format!("{:#}", read(&text).unwrap_err());
            assert!(error.starts_with("line 2: "), "{error}");
        }
    }
}
