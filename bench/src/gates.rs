//! What Farlan has to reach, and whether it did.

use crate::contestants::{CONTROL, FARLAN, FARLAN_2W};
use crate::fat_pipes;
use crate::samples::{Part, Samples};

/// The fastest layer-2 rival known, as a share of the control, for a run it is absent from.
pub const TINCR: (&str, f64) = ("tincr", 0.17);

const NOT_MEASURED: &str = "not measured";

/// One figure and its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// The part that measures it.
    pub part: Part,
    /// What has to hold.
    pub claim: String,
    /// What was found, or why it is not known.
    pub found: String,
    /// Whether it holds; `None` when it was not measured.
    pub holds: Option<bool>,
}

/// The best of the rivals in a measure: name and median.
#[must_use]
pub fn best_rival(samples: &Samples, what: &str, more_is_better: bool) -> Option<(String, f64)> {
    let rivals = samples.contestants();
    let none = [FARLAN, FARLAN_2W, CONTROL];
    let rivals = rivals.into_iter().filter(|w| !none.contains(&w.as_str()));
    let medians = rivals.filter_map(|who| Some((samples.median(&who, what)?, who)));
    let best = if more_is_better {
        medians.max_by(|a, b| a.0.total_cmp(&b.0))
    } else {
        medians.min_by(|a, b| a.0.total_cmp(&b.0))
    };
    best.map(|(value, who)| (who, value))
}

/// What a figure of Farlan is held against.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// At least so many times the control.
    OfControl(f64),
    /// At least so many times the best rival.
    TimesRival(f64),
    /// At most so many times the best rival, where less is better.
    WithinRival(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// The part, the measure, its name in a sentence, the rule.
type Claim = (Part, &'static str, &'static str, Rule);

const CLAIMS: [Claim; 15] = {
    use Part::{Ping, Tcp, Udp};
    use Rule::{AtLeast, AtMost, OfControl, TimesRival, WithinRival};
    [
        (Tcp, "tcp1", "TCP, 1 stream", OfControl(0.55)),
        (Tcp, "tcp1", "TCP, 1 stream", TimesRival(3.0)),
        (Tcp, "tcp4", "TCP, 4 streams", TimesRival(3.0)),
        (Tcp, "tcp1r", "TCP, reverse", TimesRival(3.0)),
        (
            Tcp,
            "off.tcp1",
            "TCP, guests' offloads off",
            TimesRival(1.5),
        ),
        (Tcp, "cpu", "CPU, both ends, s/GB", AtMost(2.3)),
        (Tcp, "nouso.cpu", "CPU without USO, s/GB", AtMost(3.2)),
        (Tcp, "rss", "resident under load, MiB", AtMost(64.0)),
        (Tcp, "csum", "wrong checksums", AtMost(0.0)),
        (Udp, "udp64", "64 B UDP, 1 flow", TimesRival(1.9)),
        (
            Udp,
            "udp1300",
            "1,300 B UDP at 1 Gbit/s, % that arrive",
            AtLeast(99.0),
        ),
        (Ping, "ping", "idle ping, mean", WithinRival(1.1)),
        (Ping, "ping_p99", "idle ping, p99", WithinRival(1.1)),
        (Ping, "load", "ping under TCP, ms", AtMost(1.5)),
        (
            Ping,
            "load_unit",
            "the same as the unit runs it, ms",
            AtMost(1.0),
        ),
    ]
};

/// All of them.
#[must_use]
pub fn judge(samples: &Samples) -> Vec<Gate> {
    let gates = CLAIMS.iter().map(|claim| one(samples, claim));
    let others = [fat_pipe(samples)];
    gates.chain(others).chain(two_workers(samples)).collect()
}

fn one(samples: &Samples, claim: &Claim) -> Gate {
    let (_, what, _, rule) = *claim;
    match rule {
        Rule::OfControl(times) => {
            let control = samples.median(CONTROL, what);
            let control = control.map(|v| (CONTROL.to_owned(), v));
            against(samples, claim, (CONTROL, control), ">=", times)
        }
        Rule::TimesRival(times) => {
            let mut rival = best_rival(samples, what, true);
            if what == "tcp1" {
                rival = with_tincr(samples, rival);
            }
            against(samples, claim, ("the best rival", rival), ">=", times)
        }
        Rule::WithinRival(times) => {
            let rival = best_rival(samples, what, false);
            against(samples, claim, ("the best rival", rival), "<=", times)
        }
        Rule::AtMost(limit) => bound(samples, claim, "<=", limit),
        Rule::AtLeast(limit) => bound(samples, claim, ">=", limit),
    }
}

/// What a second worker must not cost.
fn two_workers(samples: &Samples) -> [Gate; 2] {
    let two = samples.median(FARLAN_2W, "tcp1");
    let both = two.zip(samples.median(FARLAN, "tcp1"));
    let both = both.filter(|(_, one)| *one > 0.0);
    let resident = samples.median(FARLAN_2W, "rss");
    [
        Gate {
            part: Part::Tcp,
            claim: "2 workers: TCP, 1 stream >= 0.95 x one worker".to_owned(),
            found: both.map_or(NOT_MEASURED.to_owned(), |(two, one)| {
                format!("{:.2} x ({two:.2} and {one:.2})", two / one)
            }),
            holds: both.map(|(two, one)| two / one >= 0.95),
        },
        Gate {
            part: Part::Tcp,
            claim: "2 workers: resident under load, MiB <= 64".to_owned(),
            found: resident.map_or(NOT_MEASURED.to_owned(), |v| format!("{v:.2}")),
            holds: resident.map(|v| v <= 64.0),
        },
    ]
}

fn holds(value: f64, sign: &str, limit: f64) -> bool {
    if sign == "<=" {
        value <= limit
    } else {
        value >= limit
    }
}

/// The rival that counts for one stream: tincr's recorded share of the control where it is absent.
fn with_tincr(samples: &Samples, best: Option<(String, f64)>) -> Option<(String, f64)> {
    let (name, share) = TINCR;
    if samples.contestants().iter().any(|c| c == name) {
        return best;
    }
    let recorded = samples.median(CONTROL, "tcp1")? * share;
    match best {
        Some(best) if best.1 >= recorded => Some(best),
        _ => Some((format!("{name} (absent; {share} of {CONTROL})"), recorded)),
    }
}

fn against(
    samples: &Samples,
    (part, what, title, _): &Claim,
    (unknown, other): (&str, Option<(String, f64)>),
    sign: &str,
    times: f64,
) -> Gate {
    let own = samples.median(FARLAN, what);
    let name = other.as_ref().map_or(unknown, |o| o.0.as_str());
    let claim = format!("{title} {sign} {times} x {name}");
    let both = own.zip(other.map(|o| o.1)).filter(|(_, o)| *o > 0.0);
    Gate {
        part: *part,
        claim,
        found: both.map_or(NOT_MEASURED.to_owned(), |(own, other)| {
            format!("{:.2} x ({own:.2} and {other:.2})", own / other)
        }),
        holds: both.map(|(own, other)| holds(own / other, sign, times)),
    }
}

fn bound(samples: &Samples, (part, what, title, _): &Claim, sign: &str, limit: f64) -> Gate {
    let summary = samples.summary(FARLAN, what);
    // A wrong checksum in one round is not mended by none in the others.
    let value = summary.map(|s| if *what == "csum" { s.max } else { s.median });
    Gate {
        part: *part,
        claim: format!("{title} {sign} {limit}"),
        found: value.map_or(NOT_MEASURED.to_owned(), |v| format!("{v:.2}")),
        holds: value.map(|v| holds(v, sign, limit)),
    }
}

fn fat_pipe(samples: &Samples) -> Gate {
    let (rtt, loss) = fat_pipes::JUDGED;
    let key = fat_pipes::key(rtt, loss);
    let (own, direct) = (
        samples.summary(FARLAN, &key),
        samples.summary(fat_pipes::DIRECT, &key),
    );
    let both = own.zip(direct).filter(|(_, d)| d.median > 0.0);
    Gate {
        part: Part::Wan,
        claim: format!(
            "TCP at {rtt} ms with {loss} % loss >= 0.95 x without the overlay, >= 10 runs"
        ),
        found: both.map_or(NOT_MEASURED.to_owned(), |(own, direct)| {
            format!(
                "{:.2} x ({:.2} and {:.2} Mbit/s, {} runs)",
                own.median / direct.median,
                own.median,
                direct.median,
                own.n.min(direct.n)
            )
        }),
        holds: both
            .map(|(own, direct)| own.median / direct.median >= 0.95 && own.n.min(direct.n) >= 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    fn samples(rows: &[(&str, &str, f64)]) -> Samples {
        let mut samples = Samples::default();
        for (who, what, value) in rows {
            let sample = Sample {
                round: 1,
                who: (*who).to_owned(),
                what: (*what).to_owned(),
                value: *value,
            };
            samples.push(sample).unwrap();
        }
        samples
    }

    fn verdict(samples: &Samples, claim: &str) -> Option<bool> {
        let gates = judge(samples);
        let gate = gates.iter().find(|g| g.claim.contains(claim)).unwrap();
        gate.holds
    }

    #[test]
    fn an_absent_tincr_still_counts() {
        let s = samples(&[
            ("vxlan", "tcp1", 10.0),
            ("fastd", "tcp1", 1.0),
            ("farlan", "tcp1", 5.0),
        ]);
        // 0.17 of 10 is more than fastd's 1.0; three times it is 5.1.
        assert_eq!(verdict(&s, "tincr (absent"), Some(false));
        assert_eq!(verdict(&s, ">= 0.55 x vxlan"), Some(false));
        let s = samples(&[
            ("vxlan", "tcp1", 10.0),
            ("tincr", "tcp1", 1.0),
            ("farlan", "tcp1", 6.0),
        ]);
        assert_eq!(verdict(&s, "TCP, 1 stream >= 3 x tincr"), Some(true));
        assert_eq!(verdict(&s, ">= 0.55 x vxlan"), Some(true));
    }

    #[test]
    fn the_quickest_ping_is_the_smallest() {
        let s = samples(&[
            ("vxlan", "ping", 15.0),
            ("fastd", "ping", 170.0),
            ("tinc", "ping", 220.0),
            ("farlan", "ping", 180.0),
        ]);
        assert_eq!(verdict(&s, "idle ping, mean <= 1.1 x fastd"), Some(true));
        assert_eq!(verdict(&s, "idle ping, p99"), None);
    }

    #[test]
    fn two_workers_are_held_against_one_and_are_no_rival() {
        let s = samples(&[
            ("vxlan", "tcp1", 10.0),
            ("tincr", "tcp1", 1.0),
            ("farlan", "tcp1", 6.0),
            ("farlan-2w", "tcp1", 5.6),
            ("farlan-2w", "rss", 64.5),
        ]);
        assert_eq!(verdict(&s, "TCP, 1 stream >= 3 x tincr"), Some(true));
        assert_eq!(verdict(&s, "2 workers: TCP, 1 stream"), Some(false));
        assert_eq!(verdict(&s, "2 workers: resident"), Some(false));
        assert_eq!(verdict(&samples(&[]), "2 workers: resident"), None);
    }

    #[test]
    fn one_wrong_checksum_is_too_many() {
        let s = samples(&[
            ("farlan", "csum", 0.0),
            ("farlan", "csum", 0.0),
            ("farlan", "csum", 1.0),
        ]);
        assert_eq!(verdict(&s, "wrong checksums"), Some(false));
    }

    #[test]
    fn ten_runs_are_needed_on_the_long_pipe() {
        let mut rows = vec![("farlan", "wan.50.1", 99.0), ("direct", "wan.50.1", 100.0)];
        assert_eq!(verdict(&samples(&rows), "50 ms with 1 %"), Some(false));
        rows = rows.repeat(10);
        assert_eq!(verdict(&samples(&rows), "50 ms with 1 %"), Some(true));
    }
}
