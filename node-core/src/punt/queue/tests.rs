//! No class starves, no bound is passed, and flows share max-min.

use std::collections::BTreeMap;

use overlay_proto::switching::NetIndex;
use proptest::prelude::*;

use super::*;

fn tap(n: u16) -> Flow {
    Flow::Tap(NetIndex(n))
}

fn any_class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

/// Pushes so many of each class, class by class.
fn filled(counts: [usize; Class::COUNT]) -> ClassQueue<(Class, usize)> {
    let mut queue = ClassQueue::default();
    for (class, count) in Class::ALL.into_iter().zip(counts) {
        for n in 0..count {
            queue.push(class, tap(0), (class, n));
        }
    }
    queue
}

#[test]
fn a_flood_of_frames_takes_no_room_and_no_turn_of_handshakes() {
    let mut queue = ClassQueue::default();
    for n in 0..100_000 {
        queue.push(Class::Local, tap(0), (Class::Local, n));
    }
    assert_eq!(queue.len(), Class::Local.bound());
    assert!(
        queue
            .push(Class::Handshake, tap(0), (Class::Handshake, 0))
            .is_none()
    );
    let round: u32 = Class::ALL.iter().map(|class| class.weight()).sum();
    let mut first = std::iter::from_fn(|| queue.pop()).take(round as usize);
    assert!(first.any(|(class, _)| class == Class::Handshake));
}

#[test]
fn a_flow_that_floods_pushes_out_itself() {
    let mut queue = ClassQueue::default();
    for n in 0..10 {
        assert_eq!(queue.push(Class::Local, tap(1), (1, n)), None);
    }
    let mut lost = Vec::new();
    for n in 0..5_000 {
        lost.extend(queue.push(Class::Local, tap(0), (0, n)));
    }
    assert_eq!(lost.len(), 5_010 - Class::Local.bound());
    assert!(lost.iter().all(|(of, _)| *of == 0));
    // The quiet one is served as often as the other, and in its order.
    let served: Vec<_> = std::iter::from_fn(|| queue.pop()).take(20).collect();
    let quiet: Vec<_> = served
        .iter()
        .filter(|(of, _)| *of == 1)
        .map(|(_, n)| *n)
        .collect();
    assert_eq!(quiet, (0..10).collect::<Vec<_>>());
}

/// What max-min gives to each of `demands` out of `room`.
fn max_min(demands: &[usize], room: usize) -> Vec<usize> {
    let (mut left, mut given) = (room, vec![0; demands.len()]);
    let mut open: Vec<usize> = (0..demands.len()).collect();
    while left > 0 {
        open.retain(|n| given[*n] < demands[*n]);
        if open.is_empty() {
            break;
        }
        for n in open.clone() {
            if left > 0 {
                given[n] += 1;
                left -= 1;
            }
        }
    }
    given
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In any stretch of rounds a class that has something gets its weight in each.
    #[test]
    fn no_class_starves(counts in prop::array::uniform6(0_usize..400)) {
        let mut queue = filled(counts);
        let mut left: BTreeMap<Class, usize> = Class::ALL.into_iter().zip(counts).collect();
        for (class, count) in &mut left {
            *count = (*count).min(class.bound());
        }
        let weights: u32 = Class::ALL.iter().map(|class| class.weight()).sum();
        while !queue.is_empty() {
            let before = left.clone();
            for _ in 0..weights {
                let Some((class, _)) = queue.pop() else { break };
                *left.get_mut(&class).unwrap() -= 1;
            }
            for class in Class::ALL {
                let had = before[&class];
                let got = had - left[&class];
                prop_assert!(got >= had.min(class.weight() as usize), "{class:?}: {got} of {had}");
            }
        }
        prop_assert!(left.values().all(|count| *count == 0));
    }

    /// What goes in comes out or is given back, each flow in its order; no class is above its bound.
    #[test]
    fn bounds_hold_and_nothing_vanishes(
        steps in prop::collection::vec((any_class(), 0_u16..5, 1_usize..700, 0_usize..300), 1..20),
    ) {
        let mut queue = ClassQueue::default();
        let mut next: BTreeMap<(Class, u16), usize> = BTreeMap::new();
        let mut seen: BTreeMap<(Class, u16), usize> = BTreeMap::new();
        let mut waiting: BTreeMap<Class, usize> = BTreeMap::new();
        let mut leave = |(class, flow, number): (Class, u16, usize), waiting: &mut BTreeMap<Class, usize>| {
            let expected = seen.entry((class, flow)).or_default();
            assert_eq!(*expected, number, "{class:?} {flow}");
            *expected += 1;
            *waiting.entry(class).or_default() -= 1;
        };
        for (class, flow, pushed, popped) in steps {
            for _ in 0..pushed {
                let number = next.entry((class, flow)).or_default();
                *waiting.entry(class).or_default() += 1;
                let left = queue.push(class, tap(flow), (class, flow, *number));
                *number += 1;
                // It left from the front of its flow.
                left.into_iter().for_each(|item| leave(item, &mut waiting));
                prop_assert!(waiting[&class] <= class.bound());
            }
            for _ in 0..popped {
                queue.pop().into_iter().for_each(|item| leave(item, &mut waiting));
            }
            prop_assert_eq!(queue.len(), waiting.values().sum::<usize>());
        }
        while let Some(item) = queue.pop() {
            leave(item, &mut waiting);
        }
        prop_assert!(queue.is_empty() && waiting.values().all(|count| *count == 0));
    }

    /// Networks that ask for more than there is share the room, and the service, max-min; in whatever order they came.
    #[test]
    fn networks_share_max_min(
        demands in prop::collection::vec(0_usize..1500, 2..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        served in 1_usize..600,
    ) {
        let mut queue = ClassQueue::default();
        let mut left: Vec<(usize, usize)> = demands.iter().copied().enumerate().collect();
        let mut order = order.iter().cycle();
        while !left.is_empty() {
            let at = order.next().unwrap().index(left.len());
            let (flow, count) = &mut left[at];
            // In stretches, as floods come.
            for _ in 0..(*count).min(97) {
                queue.push(Class::Local, tap(*flow as u16), *flow);
            }
            *count = count.saturating_sub(97);
            left.retain(|(_, count)| *count > 0);
        }
        let asked: usize = demands.iter().sum();
        let room = max_min(&demands, Class::Local.bound());
        let share = |given: &[usize], fair: &[usize]| {
            given.iter().zip(fair).all(|(given, fair)| given.abs_diff(*fair) <= 1)
        };
        let mut given = vec![0; demands.len()];
        for _ in 0..served {
            if let Some(flow) = queue.pop() {
                given[flow] += 1;
            }
        }
        let service = max_min(&room, served);
        prop_assert!(share(&given, &service), "{demands:?}: served {given:?}, fair {service:?}");
        while let Some(flow) = queue.pop() {
            given[flow] += 1;
        }
        prop_assert_eq!(given.iter().sum::<usize>(), asked.min(Class::Local.bound()));
        prop_assert!(share(&given, &room), "{demands:?}: kept {given:?}, fair {room:?}");
    }
}
