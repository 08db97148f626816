//! The order of things: rounds, contestants, parts.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use farlan_tests::lab::Ns;
use farlan_tests::proc;

use crate::contestants::{Contestant, FARLAN, Running};
use crate::measure::{self, Ends, Tcp, TcpSpec, UdpSpec};
use crate::samples::{Part, Sample, Samples};
use crate::scene::{self, Scene, WIRE};
use crate::side_by_side;
use crate::usage;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds.
    pub rounds: u32,
    /// Seconds of a TCP or UDP run.
    pub seconds: u32,
    /// Idle pings of a round, at least.
    pub pings: u32,
    /// Parts.
    pub parts: Vec<Part>,
    /// TCP congestion control of all runs.
    pub congestion: String,
}

impl Plan {
    /// Whether `part` is asked for.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part) || self.parts.contains(&Part::All)
    }
}

/// The nice value in the unit that the packages bring.
#[must_use]
pub fn unit_nice() -> Option<i32> {
    let unit = include_str!("../../packaging/systemd/farlan.service");
    let line = unit.lines().find_map(|l| l.strip_prefix("Nice="))?;
    line.trim().parse().ok()
}

/// Where samples of one contestant in one round go.
pub struct Pen<'a> {
    /// All samples.
    pub samples: &'a mut Samples,
    /// Round, from 1.
    pub round: u32,
    /// Who.
    pub who: &'a str,
    /// Since the start of the run.
    pub start: Instant,
    /// Measurements that failed.
    pub failures: &'a mut Vec<String>,
}

impl Pen<'_> {
    /// Keeps a sample and says so.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, what: &str, value: f64) -> Result<()> {
        let (round, who) = (self.round, self.who);
        let minutes = self.start.elapsed().as_secs_f64() / 60.0;
        eprintln!("{minutes:6.1} min  round {round}  {who:<16} {what:<14} {value:10.2}");
        self.samples.push(Sample {
            round,
            who: who.to_owned(),
            what: what.to_owned(),
            value,
        })
    }

    /// A measurement that failed leaves a gap, not the end of the run.
    pub fn miss(&mut self, what: &str, error: &anyhow::Error) {
        let (round, who) = (self.round, self.who);
        let line = format!("round {round}, {who}, {what}: {error:#}")
            .trim()
            .to_owned();
        eprintln!("MISSED {line}");
        self.failures.push(line);
    }

    fn keep<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.miss(what, &error);
                None
            }
        }
    }
}

/// Runs all rounds of the parts on the wire. Each round has the contestants in another order, so
/// that none always follows the same one. Returns what failed.
///
/// # Errors
/// When samples cannot be written.
pub fn run(plan: &Plan, contestants: &[Contestant], samples: &mut Samples) -> Result<Vec<String>> {
    let (start, mut failures) = (Instant::now(), Vec::new());
    for round in 1..=plan.rounds {
        let mut order: Vec<&Contestant> = contestants.iter().collect();
        let by = usize::try_from(round - 1)? % order.len().max(1);
        order.rotate_left(by);
        for contestant in order {
            let mut pen = Pen {
                samples,
                round,
                who: &contestant.name,
                start,
                failures: &mut failures,
            };
            let running = Scene::on_a_wire().and_then(|scene| contestant.start(scene));
            if let Some(running) = pen.keep("start", running) {
                let result = one(plan, contestant, &running, &mut pen);
                pen.keep("set-up of a part", result);
            }
        }
    }
    if plan.has(Part::Ping) {
        failures.extend(side_by_side::run(plan, contestants, samples, start)?);
    }
    Ok(failures)
}

fn one(plan: &Plan, who: &Contestant, running: &Running, pen: &mut Pen<'_>) -> Result<()> {
    let pids = running.pids()?;
    let both = pids.concat();
    let ends = ends(plan, running, &both);
    settle(plan, running)?;
    if plan.has(Part::Ping) {
        ping_under_load(plan, who, ends, pen)?;
    }
    if plan.has(Part::Tcp) {
        tcp(plan, who, ends, pen)?;
        if who.has_processes() {
            let larger = pids.map(|p| usage::resident_mib(&p));
            pen.put("rss", larger.into_iter().fold(0.0, f64::max))?;
        }
        variants(plan, who, running, ends, pen)?;
    }
    if plan.has(Part::Udp) {
        udp(plan, ends, pen)?;
    }
    Ok(())
}

/// Between the guests; `pids` are the contestant's processes at both ends.
pub(crate) fn ends<'a>(plan: &'a Plan, running: &'a Running, pids: &'a [u32]) -> Ends<'a> {
    let [client, server] = &running.guests;
    Ends {
        client: &client.ns,
        server: &server.ns,
        server_ip: &server.ip,
        pids,
        congestion: &plan.congestion,
    }
}

/// Two seconds to settle, in which paths and their MTU are found.
///
/// # Errors
/// What does not pass the wire, but some third place, is not what is measured.
pub(crate) fn settle(plan: &Plan, running: &Running) -> Result<()> {
    let ends = ends(plan, running, &[]);
    for end in [ends.client, ends.server] {
        measure::begin_with(end, &plan.congestion)?;
    }
    let [a, _] = &running.scene.hosts;
    let before = scene::sent_over_wire(&a.ns)?;
    let answers = measure::ping_times(ends, SETTLING_PINGS, 0.05)?;
    ensure!(!answers.is_empty(), "no answer from {}", ends.server_ip);
    let sent = scene::sent_over_wire(&a.ns)? - before;
    ensure!(
        sent >= u64::from(SETTLING_PINGS) * 9 / 10,
        "of {SETTLING_PINGS} pings only {sent} went over the wire"
    );
    Ok(())
}

fn tcp(plan: &Plan, who: &Contestant, ends: Ends<'_>, pen: &mut Pen<'_>) -> Result<()> {
    for (what, streams, reverse) in [("tcp1", 1, false), ("tcp4", 4, false), ("tcp1r", 1, true)] {
        let spec = TcpSpec {
            streams,
            reverse,
            seconds: plan.seconds,
        };
        let result = measure::tcp(ends, spec);
        let Some(tcp) = pen.keep(what, result) else {
            continue;
        };
        pen.put(what, tcp.gbit)?;
        if what == "tcp1" {
            if who.has_processes() {
                pen.put("cpu", tcp.cpu.own / tcp.gigabytes)?;
            }
            pen.put("cpu_machine", tcp.cpu.machine / tcp.gigabytes)?;
            pen.put("retransmits", tcp.retransmits / tcp.gigabytes)?;
        }
    }
    Ok(())
}

/// Pings before each contestant is measured, 50 ms apart.
const SETTLING_PINGS: u32 = 40;

const OFFLOADS: [&str; 5] = ["tso", "gso", "gro", "tx", "sg"];

/// One stream with the guests' offloads off, then with the underlay's USO off; then the checksums.
fn variants(
    plan: &Plan,
    who: &Contestant,
    running: &Running,
    ends: Ends<'_>,
    pen: &mut Pen<'_>,
) -> Result<()> {
    let guests = [ends.client, ends.server];
    let hosts = running.scene.hosts.each_ref().map(|h| &h.ns);
    let ports = running.guests.each_ref().map(|g| g.ns.name().to_owned());
    let one_stream = |pen: &mut Pen<'_>, name: &str| -> Result<()> {
        let spec = TcpSpec {
            streams: 1,
            reverse: false,
            seconds: plan.seconds,
        };
        let result = measure::tcp(ends, spec);
        if let Some(Tcp {
            gbit,
            gigabytes,
            cpu,
            ..
        }) = pen.keep(name, result)
        {
            pen.put(&format!("{name}.tcp1"), gbit)?;
            if who.has_processes() {
                pen.put(&format!("{name}.cpu"), cpu.own / gigabytes)?;
            }
        }
        Ok(())
    };
    for guest in guests {
        offloads(guest, "eth0", &OFFLOADS, "off")?;
    }
    one_stream(pen, "off")?;
    for guest in guests {
        offloads(guest, "eth0", &OFFLOADS, "on")?;
    }
    for host in hosts {
        scene::ethtool(host, WIRE, "tx-udp-segmentation off")?;
    }
    one_stream(pen, "nouso")?;
    for host in hosts {
        scene::ethtool(host, WIRE, "tx-udp-segmentation on")?;
    }
    // Between veth ends a wrong checksum goes unseen, unless the port completes it for the guest.
    let plain = ["tso", "gso", "tx", "sg"];
    for (host, port) in hosts.iter().zip(&ports) {
        offloads(host, port, &plain, "off")?;
    }
    let result = checksums(ends, guests);
    if let Some(wrong) = pen.keep("csum", result) {
        pen.put("csum", wrong)?;
    }
    for (host, port) in hosts.iter().zip(&ports) {
        offloads(host, port, &plain, "on")?;
    }
    Ok(())
}

/// Traffic of all kinds for a few seconds; how much of it came with a wrong checksum.
fn checksums(ends: Ends<'_>, guests: [&Ns; 2]) -> Result<f64> {
    let before = measure::wrong_checksums(&guests)?;
    for reverse in [false, true] {
        let spec = TcpSpec {
            streams: 2,
            reverse,
            seconds: 2,
        };
        measure::tcp(ends, spec)?;
    }
    let spec = UdpSpec {
        flows: 2,
        size: 1300,
        rate: "50M",
        seconds: 1,
    };
    measure::udp(ends, spec)?;
    let wrong = measure::wrong_checksums(&guests)? - before;
    Ok(f64::from(u32::try_from(wrong).unwrap_or(u32::MAX)))
}

fn offloads(ns: &Ns, device: &str, names: &[&str], to: &str) -> Result<()> {
    // The order matters to ethtool: tso needs tx and sg, and goes before them.
    let mut names: Vec<&&str> = names.iter().collect();
    if to == "on" {
        names.reverse();
    }
    let words: Vec<String> = names.iter().map(|n| format!("{n} {to}")).collect();
    scene::ethtool(ns, device, &words.join(" "))
}

fn udp(plan: &Plan, ends: Ends<'_>, pen: &mut Pen<'_>) -> Result<()> {
    let runs = [
        ("udp64", 1, 64, "0"),
        ("udp64x16", 16, 64, "0"),
        ("udp1300", 1, 1300, "1G"),
    ];
    for (what, flows, size, rate) in runs {
        let spec = UdpSpec {
            flows,
            size,
            rate,
            seconds: plan.seconds,
        };
        let result = measure::udp(ends, spec);
        if let Some(udp) = pen.keep(what, result) {
            let value = match what {
                "udp1300" => udp.arrived_percent,
                _ => udp.received_k,
            };
            pen.put(what, value)?;
        }
    }
    Ok(())
}

fn ping_under_load(plan: &Plan, who: &Contestant, ends: Ends<'_>, pen: &mut Pen<'_>) -> Result<()> {
    let result = measure::ping_under_load(ends, plan.seconds);
    if let Some(load) = pen.keep("load", result) {
        pen.put("load", load.mean_us / 1000.0)?;
        if let Some(p99) = load.p99_us {
            pen.put("load_p99", p99 / 1000.0)?;
        }
    }
    if who.name != FARLAN {
        return Ok(());
    }
    let nice = unit_nice().context("no Nice= in the unit")?;
    renice(ends.pids, nice)?;
    let result = measure::ping_under_load(ends, plan.seconds);
    if let Some(load) = pen.keep("load_unit", result) {
        pen.put("load_unit", load.mean_us / 1000.0)?;
    }
    renice(ends.pids, 0)
}

/// Sets the priority of all threads: `nice` is a thread's own.
fn renice(pids: &[u32], nice: i32) -> Result<()> {
    let mut cmd = std::process::Command::new("renice");
    cmd.args(["-n", &nice.to_string(), "-p"]);
    for pid in pids {
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            cmd.arg(entry.file_name());
        }
    }
    proc::check(&mut cmd)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_says_its_priority() {
        assert!(unit_nice().unwrap() < 0);
    }

    #[test]
    fn all_is_every_part() {
        let mut plan = Plan {
            rounds: 1,
            seconds: 1,
            pings: 1,
            parts: vec![Part::All],
            congestion: String::new(),
        };
        assert!(plan.has(Part::Udp));
        plan.parts = vec![Part::Tcp, Part::Wan];
        assert!(plan.has(Part::Wan) && !plan.has(Part::Ping));
    }
}
