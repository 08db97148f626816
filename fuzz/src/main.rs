//! `farlan-fuzz`: replays the corpora, fuzzes a target, repeats a finding.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use farlan_fuzz::Target;
use farlan_fuzz::engine::{self, Finding, Limits};

const USAGE: &str = "usage: farlan-fuzz list
       farlan-fuzz replay [--seconds N] [--seed S]   every corpus entry of every target, then mutations; 20 s
       farlan-fuzz run TARGET|all [--seconds N] [--seed S]
       farlan-fuzz repeat TARGET FILE                one input, as a finding prints it
       farlan-fuzz corpus                            write corpus/TARGET/seed-* anew from the encoders";

/// Mutations of a target in `replay` for each unit of its speed.
const REPLAY_UNIT: u64 = 150;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // A finding is printed once, with what to do, not by the hook for each attempt to shrink it.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = match args[..] {
        ["list"] => {
            for target in farlan_fuzz::all() {
                println!("{}", target.name);
            }
            Ok(true)
        }
        ["corpus"] => write_corpora(),
        ["replay", ref options @ ..] => {
            options_of(options, 20).map(|(time, seed)| replay(time, seed))
        }
        ["run", name, ref options @ ..] => {
            options_of(options, 60).and_then(|(time, seed)| run(name, time, seed))
        }
        ["repeat", name, file] => repeat(name, file),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// `--seconds N` and `--seed S`, in any order.
fn options_of(mut options: &[&str], seconds: u64) -> Result<(Duration, u64), String> {
    let (mut seconds, mut seed) = (seconds, 1);
    while let [name, value, rest @ ..] = options {
        let value = value.parse().map_err(|_| USAGE.to_owned())?;
        match *name {
            "--seconds" => seconds = value,
            "--seed" => seed = value,
            _ => return Err(USAGE.to_owned()),
        }
        options = rest;
    }
    if options.is_empty() {
        Ok((Duration::from_secs(seconds), seed))
    } else {
        Err(USAGE.to_owned())
    }
}

fn targets(name: &str) -> Result<Vec<Target>, String> {
    let mut targets = farlan_fuzz::all();
    targets.retain(|target| name == "all" || target.name == name);
    if targets.is_empty() {
        return Err(format!("no target {name}; see `farlan-fuzz list`"));
    }
    Ok(targets)
}

/// The same inputs in every run, unless the machine is so slow that the time ends first.
fn replay(time: Duration, seed: u64) -> bool {
    let start = Instant::now();
    let targets = farlan_fuzz::all();
    let mut good = true;
    for (n, target) in targets.iter().enumerate() {
        let share = time * u32::try_from(n + 1).unwrap() / u32::try_from(targets.len()).unwrap();
        let limits = Limits {
            mutations: u64::from(target.speed) * REPLAY_UNIT,
            until: start + share,
        };
        good &= one(target, seed, limits);
    }
    println!(
        "{} targets in {:.1} s",
        targets.len(),
        start.elapsed().as_secs_f64()
    );
    good
}

fn run(name: &str, time: Duration, seed: u64) -> Result<bool, String> {
    let targets = targets(name)?;
    let each = time / u32::try_from(targets.len()).unwrap();
    let mut good = true;
    for target in &targets {
        let limits = Limits {
            mutations: u64::MAX,
            until: Instant::now() + each,
        };
        good &= one(target, seed, limits);
    }
    Ok(good)
}

fn one(target: &Target, seed: u64, limits: Limits) -> bool {
    let start = Instant::now();
    let corpus = match engine::corpus(target) {
        Ok(corpus) => corpus,
        Err(error) => {
            println!("{}: no corpus: {error}", target.name);
            return false;
        }
    };
    match engine::fuzz(target, &corpus, seed, limits) {
        Ok(done) => {
            println!(
                "{:22} {:3} of the corpus, {:8} mutations, {:5} outcomes, {:5.2} s, seed {seed}",
                target.name,
                done.corpus,
                done.mutations,
                done.outcomes,
                start.elapsed().as_secs_f64()
            );
            true
        }
        Err(finding) => {
            report(target, &finding, seed);
            false
        }
    }
}

fn report(target: &Target, finding: &Finding, seed: u64) {
    println!("FAILED {} (seed {seed}): {}", target.name, finding.what);
    match keep(target, &finding.input) {
        Ok(path) => println!(
            "repeat with: cargo run -p farlan-fuzz -- repeat {} {}\n\
             then keep the input: cp {} fuzz/corpus/{}/found-NAME",
            target.name,
            path.display(),
            path.display(),
            target.name
        ),
        Err(error) => println!("cannot keep the input ({error}): {:02x?}", finding.input),
    }
}

fn keep(target: &Target, input: &[u8]) -> std::io::Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let dir = Path::new("target").join("fuzz-findings");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}-{:016x}", target.name, hash.finish()));
    fs::write(&path, input)?;
    Ok(path)
}

fn repeat(name: &str, file: &str) -> Result<bool, String> {
    let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let _ = std::panic::take_hook();
    for target in targets(name)? {
        println!("{}: outcome {:016x}", target.name, (target.run)(&input));
    }
    Ok(true)
}

fn write_corpora() -> Result<bool, String> {
    for target in farlan_fuzz::all() {
        engine::write_seeds(&target).map_err(|error| format!("{}: {error}", target.name))?;
    }
    Ok(true)
}
