//! This build against another, in pairs: has a change made it slower?
//!
//! Both are there at once, each in a scene of its own, and carry frames in turns. What the machine's
//! neighbours do changes within seconds by more than a change of the program does, so turns are short, and
//! each pair is four of them, of pings sixteen: one, the other, the other, the one. A machine that slows down or speeds up
//! evenly meanwhile gives both the same. Both are started anew after some pairs: a process that has a bad
//! place in the caches keeps it for life. The differences of all pairs give the interval that holds their
//! median with 95 % confidence; it rests on their order alone, so one pair that went wrong does not move it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::contestants::{BEFORE, Contestant, FARLAN, Running};
use crate::measure::{self, Ends, TcpSpec, UdpSpec};
use crate::runner::{self, Pen, Plan};
use crate::samples::{Part, Samples};
use crate::scene::Scene;
use crate::stats;

/// More than this is not to be lost, as a share.
pub const TOLERATED: f64 = 0.03;

/// What is compared: key, whether more is better, its part.
const COMPARED: [(&str, bool, Part); 3] = [
    ("tcp1", true, Part::Tcp),
    ("udp64", true, Part::Udp),
    ("ping", false, Part::Ping),
];

/// Pings of one turn, and those before them that do not count.
const PINGS: (u32, u32) = (50, 5);

/// How often forth and back in one pair. A ping's time changes with the state of the machine from second to
/// second, by more than anything else that is measured; its turns take a quarter of one.
const PING_TURNS: usize = 4;

/// Of a turn that is not pings.
const TURN_SECONDS: u32 = 1;

/// Pairs between two starts of the programs: each goes first once.
const PAIRS_OF_A_START: u32 = 2;

/// What all pairs say about one measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Key of the measure.
    pub what: &'static str,
    /// Pairs.
    pub pairs: usize,
    /// By how much this build is better, as a share, in the median pair.
    pub gain: f64,
    /// The interval of that median; `None` with fewer than 6 pairs.
    pub interval: Option<(f64, f64)>,
}

impl Verdict {
    /// Whether the interval lies above what is tolerated.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.interval.is_some_and(|(low, _)| low > -TOLERATED)
    }
}

/// Measures `plan.rounds` pairs. Returns what failed.
///
/// # Errors
/// When one of the two does not start, or samples cannot be written.
pub fn run(
    plan: &Plan,
    contestants: &[Contestant; 2],
    samples: &mut Samples,
) -> Result<Vec<String>> {
    let (start, mut failures) = (Instant::now(), Vec::new());
    let mut both = Vec::new();
    for round in 1..=plan.rounds {
        if (round - 1) % PAIRS_OF_A_START == 0 {
            both.clear();
            for who in contestants {
                let running = who.start(Scene::on_a_wire()?)?;
                runner::settle(plan, &running).with_context(|| who.name.clone())?;
                both.push((who.name.as_str(), running));
            }
        }
        for (what, _, part) in COMPARED {
            if !plan.has(part) {
                continue;
            }
            let times = if part == Part::Ping { PING_TURNS } else { 1 };
            let turns = (0..times).flat_map(|_| both.iter().chain(both.iter().rev()));
            let turns = turns.map(|(who, running)| (*who, one(plan, what, running)));
            for (who, value) in means(turns.collect()) {
                let mut pen = Pen {
                    samples,
                    round,
                    who,
                    start,
                    failures: &mut failures,
                };
                match value {
                    Ok(value) => pen.put(what, value)?,
                    Err(error) => pen.miss(what, &error),
                }
            }
        }
        both.reverse();
    }
    Ok(failures)
}

/// The mean of each one's turns; one that failed fails the mean.
fn means(turns: Vec<(&str, Result<f64>)>) -> BTreeMap<&str, Result<f64>> {
    let mut all: BTreeMap<&str, Result<Vec<f64>>> = BTreeMap::new();
    for (who, value) in turns {
        let so_far = all.entry(who).or_insert_with(|| Ok(Vec::new()));
        match (so_far.as_mut(), value) {
            (Ok(values), Ok(value)) => values.push(value),
            (Ok(_), Err(error)) => *so_far = Err(error),
            (Err(_), _) => {}
        }
    }
    let mean = |values: Vec<f64>| stats::mean(&values).context("no turn");
    let means = all.into_iter();
    means
        .map(|(who, values)| (who, values.and_then(mean)))
        .collect()
}

fn one(plan: &Plan, what: &str, running: &Running) -> Result<f64> {
    let ends: Ends<'_> = runner::ends(plan, running, &[]);
    match what {
        "tcp1" => {
            let spec = TcpSpec {
                streams: 1,
                reverse: false,
                seconds: TURN_SECONDS,
            };
            Ok(measure::tcp(ends, spec)?.gbit)
        }
        "udp64" => {
            let spec = UdpSpec {
                flows: 1,
                size: 64,
                rate: "0",
                seconds: TURN_SECONDS,
            };
            Ok(measure::udp(ends, spec)?.received_k)
        }
        _ => {
            let (count, warm_up) = PINGS;
            let times = measure::ping_times(ends, warm_up + count, 0.005)?;
            let counted: Vec<f64> = times.into_iter().skip(warm_up as usize).collect();
            stats::mean(&counted).context("no ping was answered")
        }
    }
}

/// What the samples of [`run`] say.
#[must_use]
pub fn judge(samples: &Samples) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (what, more_is_better, _) in COMPARED {
        let before = samples.by_round(BEFORE, what);
        let gains: Vec<f64> = samples
            .by_round(FARLAN, what)
            .into_iter()
            .filter_map(|(round, now)| Some((now, *before.get(&round)?)))
            .map(|(now, before)| match more_is_better {
                true => now / before - 1.0,
                false => before / now - 1.0,
            })
            .collect();
        if let Some(all) = stats::Summary::of(&gains) {
            verdicts.push(Verdict {
                what,
                pairs: gains.len(),
                gain: all.median,
                interval: stats::median_interval(&gains),
            });
        }
    }
    verdicts
}

/// One line for each measure.
#[must_use]
pub fn text(verdicts: &[Verdict]) -> String {
    let mut out =
        String::from("Better than before, in percent: the median pair, and its 95 % interval\n");
    for v in verdicts {
        let interval = v.interval.map_or_else(
            || "too few pairs for an interval".to_owned(),
            |(low, high)| format!("{:+.1} to {:+.1}", low * 100.0, high * 100.0),
        );
        let (gain, verdict) = (v.gain * 100.0, if v.holds() { "holds" } else { "MISSED" });
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:<6} {:3} pairs  {gain:+.1}  ({interval})  {verdict}",
            v.what, v.pairs
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    fn pairs(what: &str, all: &[(f64, f64)]) -> Samples {
        let mut samples = Samples::default();
        for (round, (now, before)) in (1..).zip(all) {
            for (who, value) in [(FARLAN, *now), (BEFORE, *before)] {
                let (who, what) = (who.to_owned(), what.to_owned());
                let sample = Sample {
                    round,
                    who,
                    what,
                    value,
                };
                samples.push(sample).unwrap();
            }
        }
        samples
    }

    #[test]
    fn a_loss_of_five_percent_is_seen_through_a_machine_that_halves_its_speed() {
        let all: Vec<(f64, f64)> = (0..24)
            .map(|n| if n % 3 == 0 { 4.0 } else { 8.0 })
            .map(|speed| (speed * 0.95, speed))
            .collect();
        let verdicts = judge(&pairs("tcp1", &all));
        assert_eq!(verdicts.len(), 1);
        assert!((verdicts[0].gain + 0.05).abs() < 1e-9);
        assert!(!verdicts[0].holds());
    }

    #[test]
    fn of_pings_less_is_better_and_one_wild_pair_does_not_matter() {
        let mut all = vec![(100.0, 101.0); 23];
        all.push((900.0, 100.0));
        let verdict = judge(&pairs("ping", &all)).remove(0);
        assert!(verdict.holds() && verdict.gain > 0.0, "{verdict:?}");
        assert!(text(&[verdict]).contains("holds"));
    }

    #[test]
    fn a_pair_is_the_mean_of_both_turns_and_a_turn_that_failed_fails_it() {
        let failed = Err(anyhow::anyhow!("no answer"));
        let turns = vec![
            ("a", Ok(2.0)),
            ("b", Ok(3.0)),
            ("b", failed),
            ("a", Ok(4.0)),
        ];
        let mut means = means(turns);
        assert_eq!(means.remove("a").unwrap().unwrap(), 3.0);
        assert!(means.remove("b").unwrap().is_err());
    }

    #[test]
    fn a_round_without_its_other_half_and_few_pairs_prove_nothing() {
        let mut samples = pairs("udp64", &[(1.0, 1.0); 4]);
        let (who, what) = (FARLAN.to_owned(), "udp64".to_owned());
        let alone = Sample {
            round: 5,
            who,
            what,
            value: 0.1,
        };
        samples.push(alone).unwrap();
        let verdict = judge(&samples).remove(0);
        assert_eq!(
            (verdict.pairs, verdict.interval, verdict.holds()),
            (4, None, false)
        );
    }
}
