//! Nodes killed and started, links cut, MACs moved, for as long as `FARLAN_CHURN_SECONDS` says:
//! what a node that lives through it uses does not grow.

use std::time::{Duration, Instant};

use farlan_tests::frames::{RawPort, gratuitous_arp, mac};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::proc::{Usage, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::{Chance, LinkModel};
use farlan_tests::world::{BRIDGE, World};

const FOUR: [NatKind; 4] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
    NatKind::PortPreserving,
];
/// Without `FARLAN_CHURN_SECONDS`: enough to run every operation.
const SHORT: Duration = Duration::from_secs(20);
/// What died is forgotten after this: connections, sessions, sockets.
const CALM: Duration = Duration::from_secs(90);

/// What a process uses, and how many tasks its runtime has; none where it did not say.
#[derive(Debug, Clone, Copy)]
struct Seen {
    usage: Usage,
    tasks: Option<u64>,
}

impl Seen {
    /// No more than before; a few tasks belong to connections under way.
    fn is_flat(&self, before: &Self) -> bool {
        let tasks = |seen: &Self| seen.tasks.expect("the number of tasks is told");
        self.usage.is_flat(&before.usage) && tasks(self) <= tasks(before) + 8
    }
}

struct Churn {
    world: World,
    chance: Chance,
    /// At which host the last guest is; the guest that moves.
    place: usize,
}

impl Churn {
    fn below(&mut self, n: u64) -> usize {
        usize::try_from(self.chance.next_u64() % n).unwrap()
    }

    /// The first node and the bootstrap live throughout; what they use must not grow.
    fn survivors(&mut self) -> [(&'static str, Seen); 2] {
        [
            ("farlan", self.node(0)),
            ("farlan-bootstrap", self.bootstrap()),
        ]
    }

    fn node(&mut self, n: usize) -> Seen {
        let node = &mut self.world.nodes[n];
        Seen {
            usage: Usage::of(node.process().pid()).unwrap(),
            tasks: node.status().ok().and_then(|s| s["tasks"].as_u64()),
        }
    }

    fn bootstrap(&self) -> Seen {
        let process = &self.world.boot.process;
        let log = process.log();
        // Said every 5 s.
        let last = log.rsplit("alive tasks=").next().unwrap_or_default();
        Seen {
            usage: Usage::of(process.pid()).unwrap(),
            tasks: last.split_whitespace().next().and_then(|n| n.parse().ok()),
        }
    }

    /// Prints what everybody uses, also the nodes that are new ones after each kill.
    fn print(&mut self, when: &str) {
        println!(
            "sample churn {when} farlan-bootstrap {:?}",
            self.bootstrap()
        );
        for n in 0..self.world.nodes.len() {
            println!("sample churn {when} node {n} {:?}", self.node(n));
        }
    }

    fn once(&mut self) -> &'static str {
        let wan = self.world.lab.wan();
        match self.chance.next_u64() % 4 {
            0 => {
                let n = 1 + self.below(3);
                self.world.nodes[n].process().kill();
                std::thread::sleep(Duration::from_millis(500));
                self.world.nodes[n].up_and_ready().unwrap();
                "killed a node and started it"
            }
            1 => {
                let link = self.world.sites[1].link;
                wan.cut(link, true);
                std::thread::sleep(Duration::from_secs(2));
                self.world.lab.wan().cut(link, false);
                "cut a site off"
            }
            2 => {
                let pair = [0, 2].map(|n| self.world.sites[n].link);
                wan.cut_pair(pair[0], pair[1], true);
                std::thread::sleep(Duration::from_secs(2));
                self.world.lab.wan().cut_pair(pair[0], pair[1], false);
                "cut a pair"
            }
            _ => {
                let to = 1 + (self.place + self.below(2)) % 3;
                if to == self.place {
                    return "nothing";
                }
                let (from, host) = (
                    &self.world.sites[self.place].hosts[0],
                    &self.world.sites[to].hosts[0],
                );
                let guest = &self.world.vms[3];
                guest.unplug_and_move(from, host, BRIDGE).unwrap();
                let raw = RawPort::open(&guest.ns, "eth0").unwrap();
                let announce = gratuitous_arp(mac(&guest.mac), [10, 9, 0, 4]);
                raw.send(&announce).unwrap();
                self.place = to;
                "moved a guest"
            }
        }
    }
}

#[test]
fn nothing_grows_under_churn() {
    require_lab!();
    let time = std::env::var("FARLAN_CHURN_SECONDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .map_or(SHORT, Duration::from_secs);
    let world = World::running(&FOUR, Family::V4, LinkModel::default()).unwrap();
    let mut churn = Churn {
        world,
        chance: Chance::new(7),
        place: 3,
    };
    let count = u32::try_from(time.as_millis() / 100).unwrap();
    let mut pings = Vec::new();
    for n in 1..4 {
        let ping = Ping::new(&churn.world.vms[0].ip)
            .count(count)
            .interval(Duration::from_millis(100));
        pings.push(ping.spawn(&churn.world.vms[n].ns).unwrap());
    }
    // Every operation once before the first look: what is made on first use is there.
    let (begin, mut operations) = (Instant::now(), 0);
    while begin.elapsed() < time / 10 || operations < 4 {
        churn.once();
        operations += 1;
    }
    let first = churn.survivors();
    churn.print("start");
    while begin.elapsed() < time {
        let what = churn.once();
        operations += 1;
        std::thread::sleep(Duration::from_millis(500));
        if operations % 10 == 0 {
            println!(
                "sample churn {:.0} s, {what}, {:?}",
                begin.elapsed().as_secs_f64(),
                churn.survivors()
            );
        }
    }
    println!(
        "sample churn operations {operations} in {:?}",
        begin.elapsed()
    );
    drop(pings);
    let flat = |churn: &mut Churn| {
        let last = churn.survivors();
        let grown = first
            .iter()
            .zip(&last)
            .any(|((_, a), (_, b))| !b.is_flat(a));
        (!grown).then_some(last)
    };
    let settled = wait_for(
        "flat use of memory, descriptors, threads, tasks",
        CALM,
        || flat(&mut churn),
    );
    churn.print("end");
    settled.unwrap();
    // And it all still works.
    for n in 1..4 {
        let (from, to) = (&churn.world.vms[n].ns, &churn.world.vms[0].ip);
        first_ping(from, to, Instant::now(), Duration::from_secs(30)).unwrap();
    }
}
