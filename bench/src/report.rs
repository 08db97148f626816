//! docs/PERFORMANCE.md: how it was measured, tables, ratios, verdicts.

use std::fmt::Write;

use crate::contestants::{CONTROL, FARLAN};
use crate::fat_pipes::{self, DIRECT, LOSSES, RTTS_MS};
use crate::gates::{self, Gate};
use crate::runner;
use crate::samples::{Measure, Samples, Setting, TABLES};

/// The whole page. `raw` names the files of the raw samples.
#[must_use]
pub fn page(samples: &Samples, gates: &[Gate], raw: &[String], plot: &str) -> String {
    let mut out = String::from(
        "# Performance\n\n<!-- Written by bench/run. To change it, change bench/src/report.rs. -->\n\n\
         Farlan and its rivals between two guests on two hosts, all measured in turn by `bench/run`.\n\n",
    );
    let _ = writeln!(out, "![Medians of all]({plot})\n");
    out.push_str(&verdicts(gates));
    out.push_str(&compared(samples));
    for (heading, measures) in TABLES {
        out.push_str(&table(samples, heading, measures));
    }
    out.push_str(&long_pipes(samples));
    out.push_str(&method(samples));
    let _ = writeln!(out, "## Raw samples\n");
    for file in raw {
        let _ = writeln!(out, "- [{file}]({file})");
    }
    out
}

fn verdicts(gates: &[Gate]) -> String {
    let mut out = String::from("## What Farlan is to reach\n\n| what | found | |\n|---|---|---|\n");
    for gate in gates {
        let verdict = match gate.holds {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "",
        };
        let _ = writeln!(out, "| {} | {} | {verdict} |", gate.claim, gate.found);
    }
    out.push('\n');
    out
}

fn compared(samples: &Samples) -> String {
    let mut rows = String::new();
    for measure in TABLES.iter().flat_map(|t| t.1) {
        let Some(own) = samples.median(FARLAN, measure.key) else {
            continue;
        };
        let ratio = |other: f64| -> String {
            if other > 0.0 {
                format!("{:.2}", own / other)
            } else {
                "-".to_owned()
            }
        };
        let control = samples.median(CONTROL, measure.key);
        let best = gates::best_rival(samples, measure.key, measure.more_is_better);
        let (best, to_best) = best.map_or(("-".to_owned(), "-".to_owned()), |(name, value)| {
            (format!("{} ({name})", number(value, measure)), ratio(value))
        });
        let _ = writeln!(
            rows,
            "| {} ({}) | {} | {} | {best} | {to_best} |",
            title(measure),
            measure.unit,
            number(own, measure),
            control.map_or("-".to_owned(), ratio),
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "## Farlan against the others\n\nMedians. *x VXLAN* and *x best* are Farlan's figure divided by the other's.\n\n\
         | measure | Farlan | x VXLAN | best rival | x best |\n|---|---|---|---|---|\n{rows}\n"
    )
}

/// The heading of a measure that cannot be understood outside its table.
fn title(measure: &Measure) -> String {
    match measure.key {
        "off.cpu" => "CPU, guests' offloads off".to_owned(),
        "nouso.cpu" => "CPU, underlay without USO".to_owned(),
        "off.tcp1" | "nouso.tcp1" => format!("TCP, 1 stream, {}", measure.title),
        key if key.starts_with("udp") => format!("UDP, {}", measure.title),
        key if key.starts_with("ping") || key.starts_with("load") => {
            format!("ping {}", measure.title)
        }
        _ => measure.title.to_owned(),
    }
}

fn table(samples: &Samples, heading: &str, measures: &[Measure]) -> String {
    let mut rows = String::new();
    for who in samples.contestants() {
        let cells: Vec<String> = measures.iter().map(|m| cell(samples, &who, m)).collect();
        if cells.iter().any(|c| c != "-") {
            let _ = writeln!(rows, "| {who} | {} |", cells.join(" | "));
        }
    }
    if rows.is_empty() {
        return rows;
    }
    let heads: Vec<String> = measures
        .iter()
        .map(|m| format!("{} ({})", m.title, m.unit))
        .collect();
    let line = "|---".repeat(measures.len() + 1);
    format!(
        "## {heading}\n\nMedian, and in brackets the smallest and the largest.\n\n| | {} |\n{line}|\n{rows}\n",
        heads.join(" | ")
    )
}

fn cell(samples: &Samples, who: &str, measure: &Measure) -> String {
    let Some(s) = samples.summary(who, measure.key) else {
        return "-".to_owned();
    };
    let (median, min, max) = (
        number(s.median, measure),
        number(s.min, measure),
        number(s.max, measure),
    );
    if s.n > 1 && (min != median || max != median) {
        format!("{median} ({min} - {max})")
    } else {
        median
    }
}

fn number(value: f64, measure: &Measure) -> String {
    format!("{value:.*}", measure.digits)
}

fn long_pipes(samples: &Samples) -> String {
    let mut rows = String::new();
    for rtt in RTTS_MS {
        for (loss, _) in LOSSES {
            let key = fat_pipes::key(rtt, loss);
            let own = samples.summary(FARLAN, &key);
            let Some((own, direct)) = own.zip(samples.summary(DIRECT, &key)) else {
                continue;
            };
            let _ = writeln!(
                rows,
                "| {rtt} | {loss} | {:.1} ({:.1} - {:.1}) | {:.1} ({:.1} - {:.1}) | {:.2} | {} |",
                own.median,
                own.min,
                own.max,
                direct.median,
                direct.min,
                direct.max,
                own.median / direct.median,
                own.n.min(direct.n)
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "## Long fat pipes\n\nOne TCP stream over links of 200 Mbit/s, in Mbit/s: through Farlan, and between the hosts \
         without it, with the same payload in a segment. Each datagram is lost by itself, in both directions. The link \
         carries Farlan's headers too (about 5 %), which shows where nothing is lost.\n\n\
         | RTT (ms) | loss (%) | Farlan | without | ratio of medians | runs |\n|---|---|---|---|---|---|\n{rows}\n"
    )
}

fn method(samples: &Samples) -> String {
    let nice = runner::unit_nice().unwrap_or_default();
    let mut out = format!(
        "## Method\n\n\
         ```text\n\
         guest 1 --veth-- [bridge] host a ===== veth, MTU 1500 ===== host b [bridge] --veth-- guest 2\n\
         ```\n\n\
         - Hosts and guests are network namespaces of one machine; all share its cores, iperf3 included.\n\
         - Rounds: in each, every contestant gets a fresh topology, is started, carries pings, is measured and removed, so no\n  \
           two are there at once. The order rotates from round to round. Idle pings are the exception: for them all are there\n  \
           at once and take turns of half a second, because what else the machine serves changes them more than contestants\n  \
           differ.\n\
         - Rivals are set up as their documentation says, encrypted, with the fastest method they recommend. Guests of `{CONTROL}`\n  \
           have an MTU of 1,450, of other rivals 1,400 (of `wireguard-vxlan` 1,370), so that none fragments: their best case.\n  \
           Farlan's guests have 1,500. `{CONTROL}` is the kernel's tunnel without encryption: the control.\n\
         - `n2n` finds hosts by the MAC of its own device and carries no others; here that is the guest's MAC. Its supernode is on\n  \
           host a.\n\
         - Farlan: an authority, a bootstrap in a third namespace on links that carry nothing else, two nodes joined by invites;\n  \
           measured only once the path is direct. Built as for the packages (profile `dist`).\n\
         - TCP: iperf3, guest 1 sends (in *reverse* guest 2); what arrived counts. CPU: user and system time of the contestant's\n  \
           processes at both ends while one stream runs, per 10^9 bytes that arrived; of the whole machine from /proc/stat.\n  \
           Memory: resident after the TCP runs, the larger end. The congestion control is on the routes (`congctl`), because\n  \
           `iperf3 -C` sets it only once BBR, where that is the host's default, has begun to pace.\n\
         - *Guests' offloads off*: `ethtool -K eth0 tso off gso off gro off tx off sg off` in both guests. *Underlay without USO*:\n  \
           `tx-udp-segmentation off` on the wire.\n\
         - *Wrong checksums*: TcpInCsumErrors, UdpInCsumErrors and IcmpInCsumErrors in both guests under TCP both ways and UDP, with\n  \
           tso, gso, tx and sg off on the bridge's ports: otherwise no veth end would look.\n\
         - UDP: iperf3 with a socket buffer of 2 MiB; 64 and 1,300 bytes are payload. What arrived is what the receiving\n  \
           kernel counted as read.\n\
         - Ping: every 5 ms when idle; every 10 ms while one TCP stream runs from the same guest. Of fewer\n  \
           than 100 answers there is no p99. *As the unit runs it*: all threads at nice {nice}; everything else at default priority.\n\n"
    );
    for setting in &samples.settings {
        out.push_str(&setting_text(setting));
    }
    out
}

fn setting_text(s: &Setting) -> String {
    let mut out = format!(
        "| | |\n|---|---|\n| date | {} |\n| commit | {} |\n| machine | {} |\n| kernel | {} |\n| scheduler | {} |\n\
         | load before | {} |\n| TCP | {} |\n| rounds, seconds each | {}, {} |\n",
        s.date,
        s.commit,
        s.machine,
        s.kernel,
        s.scheduler,
        s.load_before,
        s.congestion,
        s.rounds,
        s.seconds
    );
    for (who, version) in &s.versions {
        let _ = writeln!(out, "| {who} | {version} |");
    }
    for (who, why) in &s.absent {
        let _ = writeln!(out, "| {who} | absent: {why} |");
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    fn samples() -> Samples {
        let mut samples = Samples::default();
        for (round, who, what, value) in [
            (1, "vxlan", "tcp1", 8.0),
            (1, "fastd", "tcp1", 0.5),
            (1, "farlan", "tcp1", 3.0),
            (2, "farlan", "tcp1", 5.0),
            (1, "farlan", "wan.50.1", 4.75),
            (1, "direct", "wan.50.1", 5.0),
        ] {
            let sample = Sample {
                round,
                who: who.to_owned(),
                what: what.to_owned(),
                value,
            };
            samples.push(sample).unwrap();
        }
        samples
    }

    #[test]
    fn a_cell_shows_median_and_spread() {
        let page = page(&samples(), &[], &[], "p.svg");
        assert!(
            page.contains("| farlan | 4.00 (3.00 - 5.00) | - |"),
            "{page}"
        );
        assert!(page.contains("| fastd | 0.50 | - |"), "{page}");
    }

    #[test]
    fn ratios_are_to_the_control_and_to_the_best_rival() {
        let text = compared(&samples());
        let row = "| TCP, 1 stream (Gbit/s) | 4.00 | 0.50 | 0.50 (fastd) | 8.00 |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn a_long_pipe_is_compared_with_the_flow_without_an_overlay() {
        let text = long_pipes(&samples());
        assert!(
            text.contains("| 50 | 1 | 4.8 (4.8 - 4.8) | 5.0 (5.0 - 5.0) | 0.95 | 1 |"),
            "{text}"
        );
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let page = page(&samples(), &[], &[], "p.svg");
        assert!(!page.contains("## UDP"));
    }
}
