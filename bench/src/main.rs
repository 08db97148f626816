//! The command line of the benchmark. Started by `bench/run`, which brings the rivals.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use farlan_bench::against::{self, Verdict};
use farlan_bench::contestants::{self, Contestant, FARLAN};
use farlan_bench::gates::{self, Gate};
use farlan_bench::runner::{self, Plan};
use farlan_bench::samples::{Part, Samples, Setting};
use farlan_bench::{fat_pipes, measure, plot, report};

/// Measures Farlan and its rivals in the same topology and writes the page about it.
#[derive(Debug, Parser)]
#[command(name = "bench/run")]
struct Args {
    /// Rounds; each measures every contestant once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// 2 s instead of 5 s for each run, and fewer pings: to try things, not to publish.
    #[arg(long)]
    quick: bool,
    /// Only these contestants.
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    only: Vec<String>,
    /// What to measure.
    #[arg(
        long = "part",
        value_enum,
        value_delimiter = ',',
        default_value = "all"
    )]
    parts: Vec<Part>,
    /// A directory that goes in front of PATH, and whose NAME.sh take part (see bench/README.md).
    #[arg(long, value_name = "DIR")]
    rivals: Option<PathBuf>,
    /// TCP congestion control.
    #[arg(long, default_value = "cubic", value_name = "NAME")]
    congestion: String,
    /// Prints all medians as JSON instead of the page.
    #[arg(long)]
    json: bool,
    /// Exit code 1 when Farlan misses what it is to reach, in the parts measured.
    #[arg(long)]
    gate: bool,
    /// Where PERFORMANCE.md, performance.svg and results/ go. Default: docs for a whole run with
    /// all parts and contestants, else target/bench.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Measures nothing: writes the page from these raw samples.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Measures this build in pairs with the programs in DIR instead: one pair a round. bench/run takes a
    /// commit, too, and builds it. Exit code 1 when the 95 % interval of a difference does not lie above -3 %.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from", "only", "rivals", "gate"])]
    against: Option<PathBuf>,
    /// Lists who can take part and who cannot, and ends.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench/run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well: nothing failed, and with `--gate` nothing was missed.
fn run(args: &Args) -> Result<bool> {
    // The lab talks on standard output; that is for the result, so its talk goes with the progress.
    let mut out = standard_output_aside()?;
    let (found, absent) = contestants::find(args.rivals.as_deref());
    if args.list {
        for contestant in &found {
            writeln!(out, "{:<16} {}", contestant.name, contestant.version)?;
        }
        for (name, why) in &absent {
            writeln!(out, "{name:<16} absent: {why}")?;
        }
        return Ok(true);
    }
    let dir = args.out.clone().unwrap_or_else(|| default_dir(args));
    if let Some(programs) = &args.against {
        return compare(args, &dir, programs, &mut out);
    }
    let (samples, raw, failures) = if args.from.is_empty() {
        measure_all(args, &dir, found, absent)?
    } else {
        (Samples::load(&args.from)?, names(&args.from), Vec::new())
    };
    let gates = gates::judge(&samples);
    let page = report::page(&samples, &gates, &raw, "performance.svg");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("PERFORMANCE.md"), &page)?;
    std::fs::write(dir.join("performance.svg"), plot::svg(&samples))?;
    if args.json {
        writeln!(out, "{}", json(&samples, &gates)?)?;
    } else {
        write!(out, "{page}")?;
    }
    eprintln!("Written: {}", dir.join("PERFORMANCE.md").display());
    for failure in &failures {
        eprintln!("MISSED {failure}");
    }
    let missed = missed(&gates, &args.parts);
    for gate in &missed {
        eprintln!("Not reached: {}: {}", gate.claim, gate.found);
    }
    Ok(failures.is_empty() && (!args.gate || missed.is_empty()))
}

/// Gates of the parts measured that do not hold; one that gave no figure does not either.
fn missed<'a>(gates: &'a [Gate], parts: &[Part]) -> Vec<&'a Gate> {
    let asked = |g: &&Gate| parts.contains(&g.part) || parts.contains(&Part::All);
    let missed = |g: &&Gate| g.holds != Some(true);
    gates.iter().filter(asked).filter(missed).collect()
}

/// This build in pairs with the one whose programs are in `programs`; whether nothing was lost.
fn compare(args: &Args, dir: &Path, programs: &Path, out: &mut std::fs::File) -> Result<bool> {
    no_lab_is_an_error()?;
    let (found, _) = contestants::find(None);
    let now = found.into_iter().find(|c| c.name == FARLAN);
    let chosen = [now.context("no farlan")?, contestants::before(programs)];
    let plan = plan(args);
    let setting = setting(&plan, &chosen, Vec::new())?;
    let name = format!("results/against-{}.jsonl", stamp(&setting));
    let mut samples = Samples::create(&dir.join(&name), setting)?;
    let failures = against::run(&plan, &chosen, &mut samples)?;
    let verdicts = against::judge(&samples);
    write!(out, "{}", against::text(&verdicts))?;
    eprintln!("Written: {}", dir.join(&name).display());
    for failure in &failures {
        eprintln!("MISSED {failure}");
    }
    Ok(failures.is_empty() && !verdicts.is_empty() && verdicts.iter().all(Verdict::holds))
}

fn no_lab_is_an_error() -> Result<()> {
    if let Some(why) = farlan_tests::why_no_lab() {
        anyhow::bail!("cannot make a lab: {why}");
    }
    Ok(())
}

fn plan(args: &Args) -> Plan {
    Plan {
        rounds: args.rounds,
        seconds: if args.quick { 2 } else { 5 },
        // Of so many, thirty are beyond the 99th percentile.
        pings: if args.quick { 200 } else { 3_000 },
        parts: args.parts.clone(),
        congestion: args.congestion.clone(),
    }
}

fn stamp(setting: &Setting) -> String {
    setting.date.replace([':', '-'], "")
}

type Measured = (Samples, Vec<String>, Vec<String>);

fn measure_all(
    args: &Args,
    dir: &Path,
    found: Vec<Contestant>,
    absent: Vec<(String, String)>,
) -> Result<Measured> {
    no_lab_is_an_error()?;
    for name in &args.only {
        let known = found.iter().any(|c| c.name == *name);
        ensure!(known, "{name} is not here; bench/run --list tells who is");
    }
    let chosen: Vec<Contestant> = found
        .into_iter()
        .filter(|c| args.only.is_empty() || args.only.contains(&c.name))
        .collect();
    let plan = plan(args);
    let farlan = chosen.iter().find(|c| c.name == FARLAN);
    let farlan = farlan.filter(|_| plan.has(Part::Wan));
    ensure!(
        farlan.is_some() || args.parts != [Part::Wan],
        "the long fat pipes are measured with farlan: add it to --only"
    );
    let setting = setting(&plan, &chosen, absent)?;
    let name = format!("results/bench-{}.jsonl", stamp(&setting));
    let mut samples = Samples::create(&dir.join(&name), setting)?;
    let mut failures = Vec::new();
    if [Part::Tcp, Part::Udp, Part::Ping]
        .iter()
        .any(|p| plan.has(*p))
    {
        failures = runner::run(&plan, &chosen, &mut samples)?;
    }
    if let Some(farlan) = farlan {
        failures.extend(fat_pipes::run(&plan, farlan, &mut samples)?);
    }
    Ok((samples, vec![name], failures))
}

fn default_dir(args: &Args) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let whole = !args.quick && args.only.is_empty() && args.parts.contains(&Part::All);
    root.join(if whole { "docs" } else { "target/bench" })
}

fn names(files: &[PathBuf]) -> Vec<String> {
    let name = |f: &PathBuf| Some(format!("results/{}", f.file_name()?.to_str()?));
    files.iter().filter_map(name).collect()
}

fn setting(plan: &Plan, who: &[Contestant], absent: Vec<(String, String)>) -> Result<Setting> {
    let said = |line: &str| measure::version(line).unwrap_or_else(|| "unknown".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let git = format!("git -c safe.directory='*' -C {}", root.display());
    let changed = farlan_tests::proc::finish(std::process::Command::new("sh").args([
        "-c",
        &format!("{git} status --porcelain --untracked-files=no"),
    ]))?;
    let changes = if changed.stdout.trim().is_empty() {
        ""
    } else {
        " with changes"
    };
    Ok(Setting {
        date: said("date -u +%Y-%m-%dT%H:%M:%SZ"),
        commit: format!("{}{changes}", said(&format!("{git} rev-parse HEAD"))),
        machine: format!(
            "{}, {} cores",
            said("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1"),
            std::thread::available_parallelism()?
        ),
        kernel: said("uname -sr"),
        scheduler: format!(
            "{}, nice {}",
            said("chrt -p $$ | sed -n 's/.*policy: //p'"),
            said("nice")
        ),
        load_before: said("cut -d' ' -f1-3 /proc/loadavg"),
        congestion: plan.congestion.clone(),
        seconds: plan.seconds,
        rounds: plan.rounds,
        versions: who
            .iter()
            .map(|c| (c.name.clone(), c.version.clone()))
            .collect(),
        absent,
    })
}

fn json(samples: &Samples, gates: &[Gate]) -> Result<String> {
    let medians: serde_json::Map<String, serde_json::Value> = samples
        .medians()
        .into_iter()
        .map(|(who, row)| {
            let row: serde_json::Map<String, serde_json::Value> = row
                .into_iter()
                .map(|(what, s)| {
                    let value = serde_json::json!({
                        "median": s.median, "min": s.min, "max": s.max, "n": s.n, "spread": s.spread()
                    });
                    (what, value)
                })
                .collect();
            (who, row.into())
        })
        .collect();
    let gates: Vec<serde_json::Value> = gates
        .iter()
        .map(|g| serde_json::json!({"claim": g.claim, "found": g.found, "holds": g.holds}))
        .collect();
    let all = serde_json::json!({
        "settings": samples.settings, "figures": medians, "gates": gates
    });
    Ok(serde_json::to_string_pretty(&all)?)
}

/// Standard output as it was given; what is printed from now on goes to standard error.
fn standard_output_aside() -> Result<std::fs::File> {
    use std::os::fd::AsFd;
    let own = std::io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: both are open descriptors of this process; 1 is replaced in one step.
    if unsafe { libc::dup2(2, 1) } < 0 {
        return Err(std::io::Error::last_os_error()).context("dup2");
    }
    Ok(own.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn only_a_whole_run_writes_the_published_page() {
        let dir = |line: &str| default_dir(&Args::parse_from(line.split_whitespace()));
        assert!(dir("run").ends_with("docs"));
        assert!(dir("run --rounds 10").ends_with("docs"));
        for part in ["run --quick", "run --only farlan", "run --part tcp,udp"] {
            assert!(dir(part).ends_with("target/bench"), "{part}");
        }
    }

    #[test]
    fn a_gate_without_a_figure_is_missed_when_its_part_was_measured() {
        let gates = gates::judge(&Samples::default());
        assert_eq!(missed(&gates, &[Part::Wan]).len(), 1);
        assert_eq!(missed(&gates, &[Part::All]).len(), gates.len());
    }
}
