//! Running targets: all inputs of a corpus, then mutations of them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::Mutator;

/// An input that takes longer is a finding, too: a peer could keep a node busy with it. Far above
/// what any target needs, since a debug build on a loaded machine must not trip over it.
const TOO_SLOW: Duration = Duration::from_secs(10);
/// Inputs kept for their new outcome; a bound on memory of 16 MiB a target.
const POOL: usize = 4096;
/// Runs spent on making a finding smaller.
const SHRINK_RUNS: usize = 4000;

/// What a run of a target did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Inputs that the corpus gave.
    pub corpus: usize,
    /// Mutations tried.
    pub mutations: u64,
    /// Different outcomes seen.
    pub outcomes: usize,
}

/// An input that made a target fail.
#[derive(Debug)]
pub struct Finding {
    /// What it said.
    pub what: String,
    /// The input, made as small as was cheap.
    pub input: Vec<u8>,
}

/// When to stop mutating: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Mutations.
    pub mutations: u64,
    /// Until when.
    pub until: Instant,
}

/// The corpus directory of a target.
#[must_use]
pub fn corpus_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// The committed inputs of a target, by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(corpus_dir(target))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Writes the seeds of a target into its corpus directory in place of those that are there.
///
/// # Errors
/// When a file cannot be written.
pub fn write_seeds(target: &Target) -> io::Result<()> {
    let dir = corpus_dir(target);
    fs::create_dir_all(&dir)?;
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("seed-") {
            fs::remove_file(entry.path())?;
        }
    }
    for (n, seed) in (target.seeds)().iter().enumerate() {
        fs::write(dir.join(format!("seed-{n:02}")), seed)?;
    }
    Ok(())
}

/// Runs the corpus of a target and then mutations of it, drawn from `seed`.
///
/// # Errors
/// The first input that fails.
pub fn fuzz(
    target: &Target,
    corpus: &[Vec<u8>],
    seed: u64,
    limits: Limits,
) -> Result<Done, Finding> {
    let mut done = Done::default();
    let mut outcomes = HashSet::new();
    let mut pool: Vec<Vec<u8>> = Vec::new();
    for input in corpus {
        outcomes.insert(attempt(target, input)?);
        pool.push(input.clone());
        done.corpus += 1;
    }
    if pool.is_empty() {
        pool.push(Vec::new());
    }
    let mut mutator = Mutator::new(seed);
    while done.mutations < limits.mutations && Instant::now() < limits.until {
        let mut input = pool[mutator.below(pool.len())].clone();
        let other = mutator.below(pool.len());
        mutator.mutate(&mut input, &pool[other]);
        done.mutations += 1;
        if outcomes.insert(attempt(target, &input)?) {
            if pool.len() < POOL {
                pool.push(input);
            } else {
                // The corpus itself stays.
                let place = mutator.below(POOL);
                if place >= corpus.len() {
                    pool[place] = input;
                }
            }
        }
    }
    done.outcomes = outcomes.len();
    Ok(done)
}

/// Runs one input.
///
/// # Errors
/// When it fails; the finding holds a smaller input that fails, too, where one was found.
pub fn attempt(target: &Target, input: &[u8]) -> Result<u64, Finding> {
    once(target, input).map_err(|what| {
        let (input, what) = shrink(target, input.to_vec(), what);
        Finding { what, input }
    })
}

fn once(target: &Target, input: &[u8]) -> Result<u64, String> {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = start.elapsed();
    match result {
        Ok(_) if took > TOO_SLOW => Err(format!("took {took:?}")),
        Ok(outcome) => Ok(outcome),
        Err(payload) => Err(payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message")
            .to_owned()),
    }
}

/// Leaves out parts, halves first, as long as the rest still fails.
fn shrink(target: &Target, mut input: Vec<u8>, mut what: String) -> (Vec<u8>, String) {
    if what.starts_with("took ") {
        return (input, what);
    }
    let mut runs = 0;
    let mut part = input.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < input.len() && runs < SHRINK_RUNS {
            let mut shorter = input.clone();
            shorter.drain(at..(at + part).min(input.len()));
            runs += 1;
            match once(target, &shorter) {
                Err(again) => (input, what) = (shorter, again),
                Ok(_) => at += part,
            }
        }
        part /= 2;
    }
    (input, what)
}
