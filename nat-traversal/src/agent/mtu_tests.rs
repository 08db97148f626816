//! The path MTU machine on lines that are data, and in agents.

#![allow(
    clippy::disallowed_methods,
    reason = "a simulation needs one instant to start from"
)]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::mtu::{GRAIN, Mtu};
use super::simulation::{Kind, World, addr};
use super::*;
use crate::entropy::SeededEntropy;
use crate::nat_kind::Filtering;
use crate::path::{AllocationId, RelayRoute};
use crate::sizes::{MAX_UNDERLAY_MTU, SAFE_DATAGRAM, sealed_of_ip_mtu};

const OPEN: Kind = (Mapping::EndpointIndependent, Filtering::EndpointIndependent);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn v4() -> Path {
    Path::direct(addr("192.0.2.1:1"))
}

fn v6() -> Path {
    Path::direct(addr("[2001:db8::1]:1"))
}

fn relayed(remote: &str) -> Path {
    let (own, peer) = (AllocationId(1), AllocationId(2));
    Path::relayed(addr(remote), RelayRoute { own, peer })
}

/// One path and who answers on it.
struct Line {
    mtu: Mtu,
    now: Instant,
    /// The largest sealed datagram that passes.
    passes: usize,
    /// The largest that the own interface takes.
    interface: usize,
    rtt: Duration,
    /// Chance that a probe, and that an answer is lost.
    loss: [f64; 2],
    /// Large datagrams are lost with this chance, too.
    loss_large: f64,
    up: bool,
    /// When frames went out last; always now if `busy`.
    used: Option<Instant>,
    busy: bool,
    chance: SeededEntropy,
    /// Under way: when the answer is here, the id of a large challenge, when it was sent.
    answers: Vec<(Instant, Option<u64>, Instant)>,
    sent: Vec<usize>,
    most: usize,
}

impl Line {
    fn new(path: &Path, ip_mtu: usize) -> Self {
        let start = Instant::now();
        let mut line = Self {
            mtu: Mtu::new(path),
            now: start,
            passes: sealed_of_ip_mtu(ip_mtu, path),
            interface: usize::MAX,
            rtt: ms(50),
            loss: [0.0; 2],
            loss_large: 0.0,
            up: true,
            used: None,
            busy: true,
            chance: SeededEntropy::new(7),
            answers: Vec::new(),
            sent: Vec::new(),
            most: 0,
        };
        line.mtu.start(start);
        line
    }

    fn lost(&mut self, chance: f64) -> bool {
        f64::from(self.chance.next_u32()) < chance * f64::from(u32::MAX)
    }

    fn ask(&mut self, id: Option<u64>, size: usize) {
        let lost = [
            self.lost(self.loss[0]),
            self.lost(self.loss[1]),
            id.is_some() && self.lost(self.loss_large),
        ];
        if self.up && size <= self.passes && !lost.contains(&true) {
            self.answers.push((self.now + self.rtt, id, self.now));
        }
    }

    fn drive(&mut self) {
        while let Some(size) = self.mtu.to_send() {
            if size > self.interface {
                self.mtu.sent(self.now, 0, Some(self.rtt));
                self.mtu.too_big(self.now, size);
                continue;
            }
            let id = self.chance.next_u64();
            self.mtu.sent(self.now, id, Some(self.rtt));
            self.sent.push(size);
            assert!(size <= sealed_of_ip_mtu(MAX_UNDERLAY_MTU, &v4()));
            self.ask(Some(id), size);
        }
        self.most = self.most.max(self.mtu.payload());
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        self.drive();
        while self.now < end {
            turns += 1;
            assert!(turns < 100_000, "a timer does not move on");
            if self.busy {
                self.used = Some(self.now);
            }
            let due = self.mtu.due_at(self.used);
            let answer = self.answers.iter().map(|answer| answer.0).min();
            let second = self.busy.then(|| self.now + seconds(1));
            let next = [Some(end), due, answer, second].into_iter().flatten().min();
            self.now = next.unwrap().max(self.now);
            let (here, under_way): (Vec<_>, Vec<_>) = std::mem::take(&mut self.answers)
                .into_iter()
                .partition(|answer| answer.0 <= self.now);
            self.answers = under_way;
            for (_, id, sent) in here {
                match id {
                    Some(id) => {
                        self.mtu.answered(self.now, id);
                    }
                    None => self.mtu.short_answered(sent),
                }
            }
            if self.mtu.handle_timeout(self.now, self.used) {
                self.ask(None, 72);
            }
            self.drive();
        }
    }

    /// Runs until the size is so; how long that took.
    fn until(&mut self, most: Duration, good: impl Fn(usize) -> bool) -> Duration {
        let start = self.now;
        while !good(self.mtu.payload()) {
            assert!(
                self.now - start < most,
                "{} after {most:?}",
                self.mtu.payload()
            );
            self.run(ms(10));
        }
        self.now - start
    }
}

#[test]
fn ethernet_is_found_in_one_round_trip_and_four_sizes() {
    let paths = [
        v4(),
        v6(),
        relayed("192.0.2.1:1"),
        relayed("[2001:db8::1]:1"),
    ];
    for (path, size) in paths.iter().zip([1_472, 1_452, 1_444, 1_424]) {
        let mut line = Line::new(path, 1_500);
        line.run(line.rtt);
        assert_eq!(line.mtu.payload(), size, "{path:?}");
        line.run(seconds(5));
        assert_eq!(line.mtu.payload(), size, "{path:?}");
        // One that passes, three of one that does not.
        let larger = size + GRAIN;
        assert_eq!(line.sent, [size, larger, larger, larger]);
    }
}

#[test]
fn the_usual_underlays_are_found_exactly_and_soon() {
    for path in [
        v4(),
        v6(),
        relayed("192.0.2.1:1"),
        relayed("[2001:db8::1]:1"),
    ] {
        for mtu in [
            1_280, 1_400, 1_420, 1_450, 1_460, 1_480, 1_492, 8_896, 9_000,
        ] {
            let mut line = Line::new(&path, mtu);
            line.run(seconds(5));
            let found = line.mtu.payload();
            println!(
                "{mtu}: {found} of {}, {} probes",
                line.passes,
                line.sent.len()
            );
            assert!(line.passes - found < GRAIN, "{path:?}, {mtu}: {found}");
            let exact = line.passes > SAFE_DATAGRAM + GRAIN;
            assert!(!exact || found == line.passes, "{path:?}, {mtu}: {found}");
            assert!(line.sent.len() <= 24);
        }
    }
}

#[test]
fn every_underlay_is_found_within_eight_bytes() {
    for mtu in (1_228..=MAX_UNDERLAY_MTU).step_by(13) {
        let mut line = Line::new(&v4(), mtu);
        line.run(seconds(15));
        assert!(line.mtu.payload() <= line.passes);
        assert!(line.passes - line.mtu.payload() < GRAIN, "{mtu}");
        assert!(line.sent.len() <= 45, "{mtu}: {}", line.sent.len());
    }
}

#[test]
fn probes_lost_on_one_way_do_not_make_a_size_fail() {
    for loss in [[0.2, 0.0], [0.0, 0.2]] {
        let mut found = 0;
        for seed in 0..100 {
            let mut line = Line::new(&v4(), 1_500);
            line.chance = SeededEntropy::new(seed);
            line.loss = loss;
            line.run(seconds(5));
            found += usize::from(line.mtu.payload() >= 1_472 - GRAIN);
        }
        // One in 125 loses all three.
        assert!(found >= 95, "{found} of 100");
    }
}

#[test]
fn a_path_that_shrinks_is_noticed_within_half_a_minute() {
    let mut line = Line::new(&v4(), 1_500);
    line.run(seconds(5));
    line.passes = 1_372;
    let took = line.until(seconds(33), |size| size <= 1_372);
    line.run(seconds(3));
    assert_eq!(line.mtu.payload(), 1_372, "after {took:?}");
}

#[test]
fn a_black_hole_under_suspicion_is_left_at_once() {
    let mut line = Line::new(&v4(), 9_000);
    line.run(seconds(10));
    assert_eq!(line.mtu.payload(), 8_972);
    line.passes = 1_472;
    line.mtu.suspect(line.now);
    let took = line.until(seconds(2), |size| size == SAFE_DATAGRAM);
    assert!(took <= ms(800), "{took:?}");
    // The next guess is Ethernet again.
    assert!(line.until(seconds(1), |size| size == 1_472) <= ms(60));
}

#[test]
fn suspicion_asks_no_more_often_than_every_five_seconds() {
    let mut line = Line::new(&v4(), 1_500);
    line.run(seconds(5));
    let before = line.sent.len();
    for _ in 0..20 {
        line.mtu.suspect(line.now);
        line.run(ms(500));
    }
    assert!(line.sent.len() - before <= 3, "{:?}", line.sent);
    assert_eq!(line.mtu.payload(), 1_472);
}

#[test]
fn a_path_that_is_silent_for_all_sizes_lowers_nothing() {
    let mut line = Line::new(&v4(), 1_500);
    line.run(seconds(5));
    line.up = false;
    line.run(seconds(90));
    assert_eq!(line.mtu.payload(), 1_472);
    let asked = line.sent.len();
    assert!(asked < 40, "{asked} probes at a dead path");
    line.up = true;
    line.run(seconds(70));
    assert_eq!(line.mtu.payload(), 1_472);
}

#[test]
fn a_path_that_grows_is_noticed() {
    let mut line = Line::new(&v4(), 1_400);
    line.run(seconds(20));
    assert_eq!(line.mtu.payload(), 1_372);
    line.passes = 8_972;
    line.until(seconds(60), |size| size == 8_972);
}

#[test]
fn an_idle_pair_probes_nothing_after_the_search() {
    let mut line = Line::new(&v4(), 1_500);
    line.busy = false;
    line.run(seconds(5));
    let searched = line.sent.len();
    line.run(seconds(7_200));
    assert_eq!(line.sent.len(), searched, "{:?}", line.sent);
    line.used = Some(line.now);
    line.run(seconds(7_200));
    // One frame: one confirmation, one larger size in vain.
    assert_eq!(line.sent.len(), searched + 4, "{:?}", line.sent);
}

#[test]
fn a_busy_pair_probes_little() {
    let mut line = Line::new(&v4(), 1_500);
    line.run(seconds(3_600));
    let bytes: usize = line.sent.iter().sum();
    println!("{} probes, {bytes} bytes in an hour", line.sent.len());
    assert!(bytes / 3_600 <= 100, "{bytes} bytes in an hour");
}

#[test]
fn a_size_that_the_own_host_refuses_is_not_tried_again() {
    let mut line = Line::new(&v4(), 9_000);
    line.interface = 1_472;
    line.run(seconds(5));
    assert_eq!(
        (line.mtu.payload(), line.sent.as_slice()),
        (1_472, [1_472].as_slice())
    );
    // The interface shrinks; a frame is refused, not a probe.
    line.interface = 1_300;
    line.mtu.too_big(line.now, 1_400);
    line.run(ms(1));
    assert_eq!(line.mtu.payload(), SAFE_DATAGRAM);
    line.run(seconds(3));
    assert!((1_300 - GRAIN..=1_300).contains(&line.mtu.payload()));
}

#[test]
fn a_refusal_in_the_middle_of_a_search_confirms_and_goes_on() {
    let mut line = Line::new(&v4(), 9_000);
    line.run(line.rtt);
    assert_eq!(line.mtu.payload(), 1_472);
    line.mtu.too_big(line.now, 1_472);
    line.run(seconds(5));
    assert_eq!(line.mtu.payload(), 8_972);
}

#[test]
fn a_path_used_again_starts_safe_and_asks_first_what_passed_before() {
    let mut line = Line::new(&v4(), 1_331);
    line.run(seconds(5));
    let found = line.mtu.payload();
    assert!(found > 1_295);
    line.mtu.stop();
    line.run(seconds(100));
    line.mtu.start(line.now);
    assert_eq!(line.mtu.payload(), SAFE_DATAGRAM);
    line.sent.clear();
    line.run(line.rtt);
    assert_eq!((line.mtu.payload(), line.sent[0]), (found, found));
    // Narrower than before: the memory is no proof.
    line.mtu.stop();
    line.passes = 1_250;
    line.mtu.start(line.now);
    line.run(seconds(5));
    assert!((1_243..=1_250).contains(&line.mtu.payload()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_above_the_truth_and_within_eight_bytes_of_it(
        ip_mtu in 1_228usize..=MAX_UNDERLAY_MTU, v6_path: bool, up in 0.0..0.2, down in 0.0..0.2,
        rtt in 1u64..600, seed: u64,
    ) {
        let path = if v6_path { v6() } else { v4() };
        let mut line = Line::new(&path, ip_mtu.max(1_248));
        line.chance = SeededEntropy::new(seed);
        line.rtt = ms(rtt);
        // Together at most a fifth of the datagrams.
        line.loss = [up / 2.0, down / 2.0];
        line.run(seconds(1_800));
        prop_assert!(line.most <= line.passes);
        prop_assert!(line.passes - line.most < GRAIN, "{} of {}", line.most, line.passes);
    }

    #[test]
    fn a_path_that_changes_is_followed(
        before in 1_248usize..=MAX_UNDERLAY_MTU, after in 1_248usize..=MAX_UNDERLAY_MTU, rtt in 1u64..300,
    ) {
        let mut line = Line::new(&v4(), before);
        line.rtt = ms(rtt);
        line.run(seconds(30));
        line.passes = sealed_of_ip_mtu(after, &v4());
        line.run(seconds(120));
        let found = line.mtu.payload();
        prop_assert!(found <= line.passes && line.passes - found < GRAIN, "{found} of {}", line.passes);
    }
}

fn mtu_events(world: &World, side: usize) -> Vec<usize> {
    let events = world.sides[side].events.iter();
    let size = |(_, event): &(Duration, PathEvent)| match event {
        PathEvent::Mtu { payload, .. } => Some(*payload),
        _ => None,
    };
    events.filter_map(size).collect()
}

#[test]
fn two_agents_find_the_mtu_and_tell_their_drivers() {
    let mut world = World::new([OPEN, OPEN]);
    world.run(seconds(5), true);
    for side in 0..2 {
        assert_eq!(world.sides[side].agent.path_mtu_payload(), 1_472);
        assert_eq!(mtu_events(&world, side).last(), Some(&1_472));
    }
}

#[test]
fn a_black_hole_for_large_datagrams_is_left_and_the_path_kept() {
    let mut world = World::new([OPEN, OPEN]);
    world.run(seconds(5), true);
    let path = world.sides[0].agent.chosen();
    world.direct_mtu = 1_232;
    world.run(seconds(5), true);
    for side in 0..2 {
        let size = world.sides[side].agent.path_mtu_payload();
        assert!(size <= 1_232, "{size} after 5 s");
        assert!(mtu_events(&world, side).contains(&SAFE_DATAGRAM));
    }
    world.run(seconds(5), true);
    assert_eq!(world.sides[0].agent.chosen(), path, "small ones pass");
    let size = world.sides[0].agent.path_mtu_payload();
    assert!((1_225..=1_232).contains(&size), "{size}");
}

#[test]
fn another_path_starts_at_the_safe_size() {
    let mut world = World::new([OPEN, OPEN]);
    world.run(seconds(5), true);
    world.direct_up = false;
    world.run(seconds(10), true);
    assert_eq!(
        world.sides[0].agent.chosen().unwrap().kind(),
        PathKind::Relayed
    );
    let events = mtu_events(&world, 0);
    let sizes = events.get(events.len() - 3..).unwrap();
    assert_eq!(sizes, [1_472, SAFE_DATAGRAM, 1_444]);
}

#[test]
fn a_challenge_is_as_long_as_what_it_proves_and_its_answer_is_short() {
    let mut world = World::new([OPEN, OPEN]);
    let now = world.now;
    let agent = &mut world.sides[0].agent;
    let out = Outgoing {
        path: agent.chosen().unwrap(),
        message: ProbeMessage::Challenge {
            id: 5,
            in_use: true,
            climb: false,
        },
        padded_len: sizes::frame_of_sealed(1_444),
    };
    let bytes = out.message.encode(out.padded_len);
    assert_eq!(sizes::sealed_of_frame(bytes.len()), 1_444);
    let message = ProbeMessage::decode(&bytes).unwrap();
    let answer = agent.handle_probe(now, out.path, message).unwrap();
    assert_eq!(answer.message.encode(answer.padded_len).len(), PROBE_LEN);
}
