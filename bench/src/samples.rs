//! What is measured, and the raw samples on disk: one JSON object a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::stats::Summary;

/// A part of the run, `--part`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// TCP, CPU time, memory, offloads off, checksums.
    Tcp,
    /// Floods of small datagrams, and 1 Gbit/s of large ones.
    Udp,
    /// Round trip times, idle and under load.
    Ping,
    /// Long fat pipes with loss.
    Wan,
    /// All of them.
    All,
}

/// One kind of measurement.
#[derive(Debug)]
pub struct Measure {
    /// Its key in the samples.
    pub key: &'static str,
    /// Head of its column.
    pub title: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Digits after the point in tables.
    pub digits: usize,
    /// More is better.
    pub more_is_better: bool,
    /// Drawn in the plot.
    pub plotted: bool,
}

const fn measure(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    digits: usize,
    more_is_better: bool,
    plotted: bool,
) -> Measure {
    Measure {
        key,
        title,
        unit,
        digits,
        more_is_better,
        plotted,
    }
}

/// TCP between guests with their offloads on.
pub const TCP: &[Measure] = &[
    measure("tcp1", "TCP, 1 stream", "Gbit/s", 2, true, true),
    measure("tcp4", "TCP, 4 streams", "Gbit/s", 2, true, true),
    measure("tcp1r", "TCP, reverse", "Gbit/s", 2, true, true),
    measure("cpu", "CPU, both ends", "s/GB", 2, false, true),
    measure("cpu_machine", "CPU, whole machine", "s/GB", 2, false, false),
    measure("rss", "resident, larger end", "MiB", 1, false, false),
    measure("retransmits", "sent again", "segments/GB", 0, false, false),
];

/// TCP, 1 stream, with something switched off; and the checksums.
pub const VARIANTS: &[Measure] = &[
    measure("off.tcp1", "guests' offloads off", "Gbit/s", 2, true, true),
    measure("off.cpu", "CPU of that", "s/GB", 2, false, false),
    measure(
        "nouso.tcp1",
        "underlay without USO",
        "Gbit/s",
        2,
        true,
        false,
    ),
    measure("nouso.cpu", "CPU of that", "s/GB", 2, false, false),
    measure("csum", "wrong checksums", "in all", 0, false, false),
];

/// Datagrams.
pub const UDP: &[Measure] = &[
    measure("udp64", "64 B, 1 flow", "k/s", 0, true, true),
    measure("udp64x16", "64 B, 16 flows", "k/s", 0, true, true),
    measure(
        "udp1300",
        "1,300 B at 1 Gbit/s: arrives",
        "%",
        1,
        true,
        true,
    ),
];

/// Round trip times.
pub const PING: &[Measure] = &[
    measure("ping", "idle, mean", "us", 0, false, true),
    measure("ping_p99", "idle, p99", "us", 0, false, true),
    measure("load", "under TCP, mean", "ms", 2, false, true),
    measure("load_p99", "under TCP, p99", "ms", 2, false, false),
    measure(
        "load_unit",
        "the same, as the unit runs it",
        "ms",
        2,
        false,
        false,
    ),
];

/// The tables, with their headings.
pub const TABLES: &[(&str, &[Measure])] = &[
    ("TCP, guests with offload", TCP),
    ("TCP, one stream, with something switched off", VARIANTS),
    ("UDP", UDP),
    ("Ping", PING),
];

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Round, from 1.
    pub round: u32,
    /// Who; for long fat pipes also `direct`: without an overlay.
    pub who: String,
    /// Key of the measure.
    pub what: String,
    /// Value in the measure's unit.
    pub value: f64,
}

/// How the samples were taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// When, UTC.
    pub date: String,
    /// The commit of Farlan.
    pub commit: String,
    /// Processor and number of cores.
    pub machine: String,
    /// Kernel.
    pub kernel: String,
    /// Scheduler class and priority of all programs.
    pub scheduler: String,
    /// Load of the machine before it began: 1, 5 and 15 minutes.
    pub load_before: String,
    /// TCP congestion control.
    pub congestion: String,
    /// Seconds of a TCP or UDP run.
    pub seconds: u32,
    /// Rounds.
    pub rounds: u32,
    /// Who took part, with versions.
    pub versions: Vec<(String, String)>,
    /// Who did not, with the reason.
    pub absent: Vec<(String, String)>,
}

/// All samples of a run, or of several.
#[derive(Debug, Default)]
pub struct Samples {
    /// How they were taken; one for each run.
    pub settings: Vec<Setting>,
    all: Vec<Sample>,
    file: Option<File>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Sample(Sample),
    Setting(Box<Setting>),
}

impl Samples {
    /// New samples that are appended to `file` as they come.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(file: &Path, setting: Setting) -> Result<Self> {
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut out =
            File::create(file).with_context(|| format!("cannot make {}", file.display()))?;
        writeln!(out, "{}", serde_json::to_string(&setting)?)?;
        Ok(Self {
            settings: vec![setting],
            all: Vec::new(),
            file: Some(out),
        })
    }

    /// Samples of earlier runs.
    ///
    /// # Errors
    /// When a file cannot be read or a line is neither a setting nor a sample.
    pub fn load(files: &[std::path::PathBuf]) -> Result<Self> {
        let mut samples = Self::default();
        for file in files {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            samples
                .read(&text)
                .with_context(|| format!("in {}", file.display()))?;
        }
        Ok(samples)
    }

    fn read(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            match serde_json::from_str(line).with_context(|| format!("bad line {line:?}"))? {
                Line::Sample(sample) => self.all.push(sample),
                Line::Setting(setting) => self.settings.push(*setting),
            }
        }
        Ok(())
    }

    /// Keeps a sample.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, sample: Sample) -> Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&sample)?)?;
        }
        self.all.push(sample);
        Ok(())
    }

    /// The values of one measure of one contestant.
    #[must_use]
    pub fn values(&self, who: &str, what: &str) -> Vec<f64> {
        let of = |s: &&Sample| s.who == who && s.what == what;
        self.all.iter().filter(of).map(|s| s.value).collect()
    }

    /// The same by round; of several in one round the last.
    #[must_use]
    pub fn by_round(&self, who: &str, what: &str) -> BTreeMap<u32, f64> {
        let of = |s: &&Sample| s.who == who && s.what == what;
        let all = self.all.iter().filter(of);
        all.map(|s| (s.round, s.value)).collect()
    }

    /// Median and spread of one measure of one contestant.
    #[must_use]
    pub fn summary(&self, who: &str, what: &str) -> Option<Summary> {
        Summary::of(&self.values(who, what))
    }

    /// The median.
    #[must_use]
    pub fn median(&self, who: &str, what: &str) -> Option<f64> {
        self.summary(who, what).map(|s| s.median)
    }

    /// Who has samples, in the order of their first one.
    #[must_use]
    pub fn contestants(&self) -> Vec<String> {
        let mut order = Vec::new();
        for sample in &self.all {
            if !order.contains(&sample.who) && !sample.what.starts_with("wan.") {
                order.push(sample.who.clone());
            }
        }
        order
    }

    /// All medians, by contestant and measure.
    #[must_use]
    pub fn medians(&self) -> BTreeMap<String, BTreeMap<String, Summary>> {
        let mut out: BTreeMap<String, BTreeMap<String, Summary>> = BTreeMap::new();
        for sample in &self.all {
            let row = out.entry(sample.who.clone()).or_default();
            if let Some(summary) = self.summary(&sample.who, &sample.what) {
                row.insert(sample.what.clone(), summary);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, who: &str, what: &str, value: f64) -> Sample {
        Sample {
            round,
            who: who.to_owned(),
            what: what.to_owned(),
            value,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let setting = Setting {
            seconds: 5,
            ..Setting::default()
        };
        let text = format!(
            "{}\n{}\n{}\n",
            serde_json::to_string(&setting).unwrap(),
            serde_json::to_string(&sample(1, "farlan", "tcp1", 4.0)).unwrap(),
            serde_json::to_string(&sample(2, "farlan", "tcp1", 5.0)).unwrap(),
        );
        let mut samples = Samples::default();
        samples.read(&text).unwrap();
        assert_eq!(samples.settings, [setting]);
        assert_eq!(samples.median("farlan", "tcp1"), Some(4.5));
        assert_eq!(samples.median("farlan", "tcp4"), None);
        assert!(samples.read("{\"x\":1}").is_err());
    }

    #[test]
    fn contestants_come_in_order_and_without_the_long_pipes() {
        let mut samples = Samples::default();
        for (who, what) in [
            ("vxlan", "tcp1"),
            ("farlan", "tcp1"),
            ("vxlan", "tcp4"),
            ("direct", "wan.50.1"),
        ] {
            samples.push(sample(1, who, what, 1.0)).unwrap();
        }
        assert_eq!(samples.contestants(), ["vxlan", "farlan"]);
    }

    #[test]
    fn keys_are_unique() {
        let mut keys: Vec<&str> = TABLES.iter().flat_map(|t| t.1).map(|m| m.key).collect();
        let n = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), n);
    }
}
