//! The smallest history that still fails: delta debugging (Zeller and Hildebrandt, 2002) over what happens and over the hosts, then a
//! shorter time.

use std::collections::BTreeSet;

use super::plan::{Plan, Timed};

/// What is tried, and how often that may be.
struct Shrinker<F> {
    fails: F,
    runs: usize,
    most: usize,
}

/// The smallest history found that still fails as `plan` does, by at most `most` runs; and how many there were. `fails` runs a
/// history and says whether it fails in the same way.
pub fn shrink(plan: &Plan, most: usize, fails: impl FnMut(&Plan) -> bool) -> (Plan, usize) {
    let mut shrinker = Shrinker {
        fails,
        runs: 0,
        most,
    };
    let mut smallest = plan.clone();
    loop {
        let before = smallest.clone();
        smallest = shrinker.fewer_events(smallest);
        smallest = shrinker.fewer_hosts(smallest);
        smallest = shrinker.less_trouble(smallest);
        smallest = shrinker.less_time(smallest);
        if smallest == before || shrinker.runs >= shrinker.most {
            return (smallest, shrinker.runs);
        }
    }
}

impl<F: FnMut(&Plan) -> bool> Shrinker<F> {
    fn fails(&mut self, plan: &Plan) -> bool {
        self.runs += 1;
        self.runs <= self.most && (self.fails)(plan)
    }

    fn fewer_events(&mut self, plan: Plan) -> Plan {
        let with = |events: &[Timed]| Plan {
            events: events.to_vec(),
            ..plan.clone()
        };
        let events = fewest(plan.events.clone(), |events| self.fails(&with(events)));
        with(&events)
    }

    fn fewer_hosts(&mut self, plan: Plan) -> Plan {
        let hosts: Vec<u16> = plan.hosts.iter().map(|one| one.host).collect();
        let with = |hosts: &[u16]| {
            let hosts: BTreeSet<u16> = hosts.iter().copied().collect();
            plan.without(|host| hosts.contains(&host))
        };
        let hosts = fewest(hosts, |hosts| self.fails(&with(hosts)));
        with(&hosts)
    }

    /// Links that lose nothing, hosts that are there from the beginning, one guest less.
    fn less_trouble(&mut self, mut plan: Plan) -> Plan {
        let quieter: [fn(&mut Plan); 6] = [
            |plan| plan.bootstraps = 1,
            |plan| {
                plan.hosts
                    .iter_mut()
                    .for_each(|one| one.reordered_percent = 0)
            },
            |plan| {
                plan.hosts
                    .iter_mut()
                    .for_each(|one| one.doubled_percent = 0)
            },
            |plan| plan.hosts.iter_mut().for_each(|one| one.loss_percent = 0),
            |plan| plan.hosts.iter_mut().for_each(|one| one.jitter_ms = 0),
            |plan| plan.hosts.iter_mut().for_each(|one| one.starts_ms = 0),
        ];
        for change in quieter {
            let mut quiet = plan.clone();
            change(&mut quiet);
            if quiet != plan && self.fails(&quiet) {
                plan = quiet;
            }
        }
        plan
    }

    /// Half of the time while that fails, for what happens and for what comes after it.
    fn less_time(&mut self, mut plan: Plan) -> Plan {
        loop {
            let mut shorter = plan.clone();
            shorter.heals_ms /= 2;
            for timed in &mut shorter.events {
                timed.at_ms /= 2;
            }
            for host in &mut shorter.hosts {
                host.starts_ms /= 2;
            }
            if shorter.heals_ms < 1_000 || !self.fails(&shorter) {
                break;
            }
            plan = shorter;
        }
        // What comes after the last event is needed only if it fails there.
        let last = plan.events.last().map_or(0, |timed| timed.at_ms);
        let mut sooner = plan.clone();
        sooner.heals_ms = last + (plan.heals_ms.saturating_sub(last)) / 4;
        if sooner.heals_ms < plan.heals_ms && sooner.heals_ms > last && self.fails(&sooner) {
            plan = sooner;
        }
        plan
    }
}

/// A part of `all`, in its order, that still fails, and does not when any one more is missing: `ddmin`.
fn fewest<T: Clone>(all: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    if all.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let (mut left, mut parts) = (all, 2);
    while left.len() > 1 {
        let size = left.len().div_ceil(parts);
        let chunks = left.len().div_ceil(size);
        let without = |turn: usize| -> Vec<T> {
            let (before, after) = (turn * size, (turn + 1) * size);
            let stays = |place: &usize| *place < before || *place >= after;
            let kept = left.iter().enumerate().filter(|(place, _)| stays(place));
            kept.map(|(_, one)| one.clone()).collect()
        };
        let only = |turn: usize| left.iter().skip(turn * size).take(size).cloned().collect();
        // Of two halves each is what is left without the other.
        let rest = if chunks > 2 { chunks } else { 0 };
        let tries = (0..chunks).map(|turn| (only(turn), 2));
        let tries = tries.chain((0..rest).map(|turn| (without(turn), (parts - 1).max(2))));
        let found = tries.into_iter().find(|(some, _): &(Vec<T>, usize)| {
            !some.is_empty() && some.len() < left.len() && fails(some)
        });
        match found {
            Some((some, next)) => (left, parts) = (some, next),
            None if parts >= left.len() => break,
            None => parts = (parts * 2).min(left.len()),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::super::generate::{Shape, generate};
    use super::super::plan::Event;
    use super::*;

    #[test]
    fn what_is_left_is_what_it_takes() {
        let all: Vec<u32> = (0..200).collect();
        let mut runs = 0;
        let left = fewest(all, |some| {
            runs += 1;
            [17, 91, 92].iter().all(|one| some.contains(one))
        });
        assert_eq!(left, [17, 91, 92]);
        assert!(runs < 200, "{runs}");
        assert!(fewest(vec![1, 2, 3], |_| true).is_empty());
        assert_eq!(fewest(vec![1, 2, 3], |some| some.len() == 3), [1, 2, 3]);
        assert_eq!(fewest(vec![7], |some| some == [7]), [7]);
    }

    #[test]
    fn a_history_shrinks_to_the_hosts_and_events_that_matter() {
        let plan = generate(11, &Shape::new(30, 3));
        let killed = |plan: &Plan| {
            let mut events = plan.events.iter();
            events.find_map(|timed| match timed.event {
                Event::Kill(host) => Some(host),
                _ => None,
            })
        };
        let host = killed(&plan).unwrap();
        let fails = |plan: &Plan| {
            let leaves = |timed: &Timed| matches!(timed.event, Event::Leave(_));
            let kills = |timed: &Timed| timed.event == Event::Kill(host);
            plan.events.iter().any(leaves) && plan.events.iter().any(kills)
        };
        assert!(fails(&plan));
        let (small, runs) = shrink(&plan, 1_000, fails);
        assert!(fails(&small));
        assert_eq!(small.events.len(), 2, "{small:?}");
        assert!(small.hosts.len() <= 2, "{small:?}");
        assert!(small.heals_ms < plan.heals_ms / 16);
        assert!(small.hosts.iter().all(|host| host.loss_percent == 0));
        assert!(runs < 200, "{runs}");
    }

    #[test]
    fn it_ends_when_it_may_try_no_more() {
        let plan = generate(12, &Shape::new(30, 3));
        let mut runs = 0;
        let (_, said) = shrink(&plan, 10, |_| {
            runs += 1;
            true
        });
        assert!(runs <= 10 && said >= runs);
    }
}
