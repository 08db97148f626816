//! The committed corpora, and an engine that finds what there is to find.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use farlan_fuzz::Target;
use farlan_fuzz::engine::{self, Limits};

#[test]
fn seeds_are_what_the_encoders_make() {
    let mut names = HashSet::new();
    for target in farlan_fuzz::all() {
        assert!(names.insert(target.name), "{} twice", target.name);
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let corpus = engine::corpus(&target).unwrap();
        for (n, seed) in seeds.iter().enumerate() {
            assert!(
                corpus.contains(seed),
                "seed {n} of {} is not in its corpus: cargo run -p farlan-fuzz -- corpus",
                target.name
            );
        }
        let outcomes: HashSet<u64> = seeds.iter().map(|seed| (target.run)(seed)).collect();
        let empty = (target.run)(&[]);
        assert!(
            outcomes.iter().any(|outcome| *outcome != empty),
            "the seeds of {} do no more than no input at all",
            target.name
        );
    }
}

#[test]
fn a_planted_fault_is_found_and_made_small() {
    fn planted(input: &[u8]) -> u64 {
        let marks = [0x17, 0x80].map(|mark| input.contains(&mark));
        assert!(marks != [true, true], "planted");
        u64::from(marks[0]) + 2 * u64::from(marks[1])
    }
    let target = Target {
        name: "planted",
        run: planted,
        seeds: || vec![vec![0; 40]],
        speed: 1,
    };
    let limits = Limits {
        mutations: 200_000,
        until: Instant::now() + Duration::from_secs(60),
    };
    let finding = engine::fuzz(&target, &(target.seeds)(), 1, limits).unwrap_err();
    assert_eq!(finding.what, "planted");
    assert_eq!(finding.input.len(), 2);
}
