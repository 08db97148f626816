//! A guest floods frames that the fast path cannot place, and a peer of its host restarts meanwhile: what it costs the other
//! guests of that host (ADR 44).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use farlan_tests::frames::{Frame, RawPort};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, figure, first_ping, stamps};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, World};

/// Frames a second that the guest sends, each from a source of its own. A guest that cannot keep to it sends as fast as it can.
const RATE: u32 = 96_000;
/// Pings of the other guest: so many, so often.
const PINGS: u32 = 3000;
const EVERY: Duration = Duration::from_millis(20);
/// What the peer's restart may cost: so long without an answer, and so much of all pings.
const OUTAGE: Duration = Duration::from_secs(1);
const LOST: f64 = 0.02;

/// A guest that floods until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<std::thread::JoinHandle<()>>,
    since: Instant,
}

impl Flood {
    fn start(guest: &Ns) -> Self {
        let port = RawPort::open(guest, "eth0").unwrap();
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (ended, count, since) = (Arc::clone(&stop), Arc::clone(&sent), Instant::now());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let n = count.fetch_add(1, Ordering::Relaxed);
                let [_, b, c, d] = n.to_be_bytes();
                let from = [0x02, 0x77, 0, b, c, d];
                let _ = port.send(&Frame::build([0xff; 6], from, 0x88b5, &n.to_be_bytes()));
                if n % 64 == 0 {
                    let due = Duration::from_secs_f64(f64::from(n) / f64::from(RATE));
                    std::thread::sleep(due.saturating_sub(since.elapsed()));
                }
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
            since,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let sent = f64::from(self.sent.load(Ordering::Relaxed));
        let rate = sent / self.since.elapsed().as_secs_f64();
        println!("sample flood: {rate:.0} frames/s");
    }
}

/// Another guest of the first host pings that of the second, whose node is killed and started after ten seconds. Prints and
/// gives the longest time without an answer, and the share of pings without one.
fn restart_beside(world: &mut World, guest: &Ns, what: &str) -> (Duration, f64) {
    let ping = Ping::new(&world.vms[1].ip).count(PINGS).interval(EVERY);
    let mut ping = ping.spawn(guest).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    world.nodes[1].process().kill();
    world.nodes[1].up(&[]).unwrap();
    ping.wait(PINGS * EVERY * 3).unwrap();
    let log = ping.log();
    let answers: Vec<f64> = stamps(&log).collect();
    let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
    let outage = Duration::from_secs_f64(gaps.fold(0.0, f64::max));
    let lost = 1.0 - answers.len() as f64 / f64::from(PINGS);
    println!(
        "sample restart {what}: outage {outage:?}, {:.2} % lost",
        lost * 100.0
    );
    (outage, lost)
}

#[test]
fn a_peers_restart_beside_a_flood_costs_other_guests_little() {
    require_lab!();
    let nats = [NatKind::PortPreserving, NatKind::PortRewriting];
    let mut world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].up(&["--workers", "2"]).unwrap();
    world.nodes[1].up(&["--workers", "2"]).unwrap();
    for node in &mut world.nodes {
        node.ready().unwrap();
    }
    let other = world.lab.vm(9, &world.sites[0].hosts[0], BRIDGE).unwrap();
    let limit = Duration::from_secs(30);
    first_ping(&other.ns, &world.vms[1].ip, Instant::now(), limit).unwrap();
    world.nodes[0].wait_kind("b", "direct", limit).unwrap();
    restart_beside(&mut world, &other.ns, "alone");
    let flood = Flood::start(&world.vms[0].ns);
    std::thread::sleep(Duration::from_secs(2));
    let (outage, lost) = restart_beside(&mut world, &other.ns, "beside a flood");
    drop(flood);
    for reason in ["punt_overflow", "punt_limit", "claim_overflow"] {
        println!("{reason}: {:?}", world.nodes[0].drops(reason));
    }
    assert!(outage <= figure(OUTAGE), "{outage:?} without an answer");
    let most = LOST * figure(OUTAGE).as_secs_f64() / OUTAGE.as_secs_f64();
    assert!(lost <= most, "{:.1} % lost", lost * 100.0);
}
