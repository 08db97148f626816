//! Long fat pipes: one TCP stream through Farlan, and the same between the hosts without it.
//!
//! The lab's WAN gives delay, loss of single datagrams in both directions, and 200 Mbit/s with a
//! queue of 100 ms. Both flows are in one scene one after the other, in changing order, and have
//! the same payload in a segment: the hosts' routes say the MSS that Farlan's guests have.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use farlan_tests::wan::model::LinkModel;

use crate::contestants::{Contestant, FARLAN};
use crate::measure::{self, Ends, TcpSpec};
use crate::runner::{Pen, Plan};
use crate::samples::Samples;
use crate::scene::Scene;

/// The flow without an overlay.
pub const DIRECT: &str = "direct";
/// Round trip times, ms.
pub const RTTS_MS: [u32; 3] = [20, 50, 80];
/// Loss, percent, as in the keys of the samples.
pub const LOSSES: [(&str, f64); 3] = [("0", 0.0), ("0.1", 0.001), ("1", 0.01)];
/// The rate of both hosts' links, bits per second; the lab's WAN carries no more.
const RATE: u64 = 200_000_000;
/// Rounds at least of the cell that Farlan is judged by: single flows differ a lot there.
const JUDGED_ROUNDS: u32 = 20;
/// That cell: 50 ms, 1 %.
pub const JUDGED: (u32, &str) = (50, "1");
/// Bytes of a TCP segment's timestamp option; the advertised MSS counts it, the payload does not.
const TIMESTAMPS: u32 = 12;

/// Key of a cell.
#[must_use]
pub fn key(rtt_ms: u32, loss: &str) -> String {
    format!("wan.{rtt_ms}.{loss}")
}

/// Runs all cells. Returns what failed.
///
/// # Errors
/// When samples cannot be written.
pub fn run(plan: &Plan, farlan: &Contestant, samples: &mut Samples) -> Result<Vec<String>> {
    let (start, mut failures) = (Instant::now(), Vec::new());
    for round in 1..=plan.rounds.max(JUDGED_ROUNDS) {
        for rtt_ms in RTTS_MS {
            if round > plan.rounds && rtt_ms != JUDGED.0 {
                continue;
            }
            let mut pen = Pen {
                samples,
                round,
                who: FARLAN,
                start,
                failures: &mut failures,
            };
            if let Err(error) = scene(plan, farlan, rtt_ms, &mut pen) {
                pen.miss(&format!("RTT {rtt_ms} ms"), &error);
            }
        }
    }
    Ok(failures)
}

fn scene(plan: &Plan, farlan: &Contestant, rtt_ms: u32, pen: &mut Pen<'_>) -> Result<()> {
    let model = LinkModel {
        // A round trip passes four links.
        delay: Duration::from_millis(rtt_ms.into()) / 4,
        rate: Some(RATE),
        ..LinkModel::default()
    };
    // Other datagrams are lost in each round, the same ones when the run is repeated.
    let seed = u64::from(pen.round) * 1000 + u64::from(rtt_ms);
    let scene = Scene::on_the_wan(model, seed)?;
    let running = farlan.start(scene)?;
    // The path MTU is probed after the first frames.
    std::thread::sleep(Duration::from_secs(3));
    let [one, two] = &running.guests;
    let [a, b] = &running.scene.hosts;
    let direct_ip = b.addrs.first().map(ToString::to_string);
    let direct_ip = direct_ip.unwrap_or_default();
    let inside = Ends {
        client: &one.ns,
        server: &two.ns,
        server_ip: &two.ip,
        pids: &[],
        congestion: &plan.congestion,
    };
    let outside = Ends {
        client: &a.ns,
        server: &b.ns,
        server_ip: &direct_ip,
        pids: &[],
        congestion: &plan.congestion,
    };
    let mss = measure::mss(inside)?;
    for host in [a, b] {
        let advertised = mss + TIMESTAMPS;
        host.ns.ip(&format!(
            "route replace default dev wan0 advmss {advertised}"
        ))?;
    }
    for end in [&one.ns, &two.ns, &a.ns, &b.ns] {
        measure::begin_with(end, &plan.congestion)?;
    }
    let direct_mss = measure::mss(outside)?;
    ensure!(
        mss == direct_mss,
        "a segment holds {mss} bytes in the overlay and {direct_mss} outside"
    );
    for (loss, chance) in LOSSES {
        if pen.round > plan.rounds && loss != JUDGED.1 {
            continue;
        }
        let lossy = LinkModel {
            loss: chance,
            ..model
        };
        running.lab().wan().set_model(a.link, lossy);
        let spec = TcpSpec {
            streams: 1,
            reverse: false,
            // The first seconds of a flow are its start; where losses are many, chance evens out late.
            seconds: plan.seconds * if chance < 0.01 { 2 } else { 4 },
        };
        let mut flows = [(FARLAN, inside), (DIRECT, outside)];
        if pen.round.is_multiple_of(2) {
            flows.reverse();
        }
        for (who, ends) in flows {
            pen.who = who;
            match measure::tcp(ends, spec) {
                Ok(tcp) => pen.put(&key(rtt_ms, loss), tcp.gbit * 1000.0)?,
                Err(error) => pen.miss(&key(rtt_ms, loss), &error),
            }
        }
        running.lab().wan().set_model(a.link, model);
    }
    Ok(())
}
