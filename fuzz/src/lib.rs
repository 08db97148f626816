//! Fuzzing on stable Rust.
//!
//! A [`Target`] is a function from bytes to what it saw, as a number; it panics when a promise is
//! broken. There is one for each parser, whose oracle is mostly "what was read is written as the
//! same bytes", and one for each state machine, where the bytes are a sequence of operations and
//! the oracle a small model. What a signature, checksum or MAC would hide is signed anew by the
//! target, so that mutations reach the code behind it.
//!
//! The engine knows no coverage. It takes the number a target returns, a hash of the outcomes, for
//! it: an input with a new one joins the pool that is mutated ([`engine`]). Everything is seeded,
//! so that a finding repeats.
//!
//! Corpora are in `corpus/TARGET/`: `seed-*` is made by the encoders (`farlan-fuzz corpus` writes
//! them again when a format changes), anything else once made a target fail.

pub mod engine;
pub mod input;
pub mod mutate;
pub mod sequences;
pub mod targets;

use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// What is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also that of its corpus directory.
    pub name: &'static str,
    /// Runs one input. Panics when a promise is broken, else gives a hash of what came out.
    pub run: fn(&[u8]) -> u64,
    /// Valid inputs, made by encoders, the same in every run.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// About how many inputs a second a debug build takes, in hundreds: `replay` shares its
    /// mutations by it.
    pub speed: u32,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Target> {
    [targets::all(), sequences::all()].concat()
}

/// What a target saw, folded into one number.
#[derive(Default)]
pub struct Seen(DefaultHasher);

impl Seen {
    /// Adds an outcome. Give kinds and reasons, not payloads: each new number is kept as new.
    pub fn note(&mut self, what: &impl Debug) {
        format!("{what:?}").hash(&mut self.0);
    }

    /// Adds whether something succeeded, and why not.
    pub fn result<T, E: Debug>(&mut self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.note(&"ok"),
            Err(error) => self.note(error),
        }
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.finish()
    }
}
