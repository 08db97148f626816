//! An office: switches in a namespace of their own, desks on them, and cables to hosts of the lab.

use std::time::{Duration, UNIX_EPOCH};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Ns;
use crate::overlay::Node;
use crate::probe::{Ping, first_answer_after, stamps};
use crate::proc::{Proc, wait_for};
use crate::world::World;

/// Switches of an office in a namespace of their own.
#[derive(Debug)]
pub struct Office(pub Ns);

impl Office {
    /// The switches of these names, with nothing plugged in.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn new(world: &World, switches: &[&str]) -> Result<Self> {
        let office = Self(world.lab.namespace("office")?);
        for switch in switches {
            office.switch(switch)?;
        }
        Ok(office)
    }

    /// One switch more.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn switch(&self, name: &str) -> Result<()> {
        self.0.ip(&format!("link add {name} type bridge"))?;
        silence(&self.0, name)?;
        self.0.ip(&format!("link set {name} up"))?;
        Ok(())
    }

    /// A cable from `switch` to `far` in `ns`, which stays down there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn cable(&self, switch: &str, port: &str, ns: &Ns, far: &str) -> Result<()> {
        let full = ns.full_name();
        let line = format!("link add {port} type veth peer name {far} netns {full}");
        self.0.ip(&line)?;
        silence(&self.0, port)?;
        silence(ns, far)?;
        self.0.ip(&format!("link set {port} master {switch} up"))?;
        Ok(())
    }

    /// A cable between two switches: `first` is its end at the first.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn join(&self, switches: [&str; 2], first: &str) -> Result<()> {
        let second = format!("{first}-b");
        self.0
            .ip(&format!("link add {first} type veth peer name {second}"))?;
        for (end, switch) in [(first, switches[0]), (&second, switches[1])] {
            silence(&self.0, end)?;
            self.0.ip(&format!("link set {end} master {switch} up"))?;
        }
        Ok(())
    }

    /// A desk on `switch` with the address 10.9.0.`n`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn desk(&self, world: &World, switch: &str, n: u8) -> Result<Ns> {
        let ns = world.lab.namespace(&format!("desk{n}"))?;
        self.cable(switch, &format!("d{n}"), &ns, "eth0")?;
        ns.ip(&format!("addr add 10.9.0.{n}/24 dev eth0"))?;
        ns.ip("link set eth0 up")?;
        Ok(ns)
    }

    /// Frames that came out of these ports into the office.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn frames(&self, ports: &[&str]) -> Result<u64> {
        let mut all = 0;
        for port in ports {
            all += counter(&self.0, port, "rx_packets")?;
        }
        Ok(all)
    }
}

/// The host's kernel says nothing of its own there: it would be counted.
///
/// # Errors
/// When there is no such device.
pub fn silence(ns: &Ns, dev: &str) -> Result<()> {
    ns.sysctl(&format!("net/ipv6/conf/{dev}/disable_ipv6"), "1")
}

/// One of the kernel's counters of `dev`.
///
/// # Errors
/// When there is no such device.
pub fn counter(ns: &Ns, dev: &str, name: &str) -> Result<u64> {
    let line = format!("cat /sys/class/net/{dev}/statistics/{name}");
    let text = ns.sh(&line)?.stdout;
    text.trim()
        .parse()
        .with_context(|| format!("{name} of {dev}: {text:?}"))
}

/// What `status` says of the untagged LAN: the forwarder and the port.
#[must_use]
pub fn shared(node: &Node) -> Option<(String, String)> {
    let status = node.status().ok()?;
    let shared = status["networks"][0]["shared"].as_array()?.first()?.clone();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some((text(&shared["forwarder"])?, text(&shared["port"])?))
}

/// The warnings of `node` that name each of `words`.
///
/// # Panics
/// When the node does not answer.
#[must_use]
pub fn warnings(node: &Node, words: &[&str]) -> Vec<String> {
    let status = node.status().unwrap();
    let all = status["warnings"].as_array().unwrap().clone();
    let all = all
        .iter()
        .filter_map(|line| line.as_str().map(str::to_owned));
    all.filter(|line| words.iter().all(|word| line.contains(word)))
        .collect()
}

/// The forwarder and the port, once all of `nodes` name the same, and how long that took.
///
/// # Errors
/// After 20 s.
pub fn agreed(nodes: &[&Node]) -> Result<((String, String), Duration)> {
    wait_for(
        "all agree on the forwarder",
        Duration::from_secs(20),
        || {
            let (first, rest) = nodes.split_first()?;
            let said = shared(first)?;
            let same = |node: &&Node| shared(node).as_ref() == Some(&said);
            rest.iter().all(same).then_some(said)
        },
    )
}

/// Pings of several stations, twenty a second each, that run through a whole test.
#[derive(Debug)]
pub struct Watched(Vec<(String, Proc)>);

impl Watched {
    /// From `from`, returns once each has answered.
    ///
    /// # Errors
    /// When one does not within 20 s.
    pub fn start(from: &Ns, stations: &[&str]) -> Result<Self> {
        let mut all = Vec::new();
        for station in stations {
            let ping = Ping::new(station).count(1_000_000);
            let ping = ping.interval(Duration::from_millis(50)).spawn(from)?;
            all.push(((*station).to_owned(), ping));
        }
        let watched = Self(all);
        watched.answer_after(SystemTime::now())?;
        Ok(watched)
    }

    /// Waits until each has answered after `since`.
    ///
    /// # Errors
    /// When one does not within 20 s.
    pub fn answer_after(&self, since: SystemTime) -> Result<()> {
        for (station, ping) in &self.0 {
            first_answer_after(ping, since, Duration::from_secs(20))
                .with_context(|| format!("no answer of {station}"))?;
        }
        Ok(())
    }

    /// What was done at `since` is to show now: watches for `time` and returns for how long the worst
    /// station was not reached since then. All of them are printed.
    ///
    /// # Errors
    /// When one does not answer at the end.
    pub fn longest_gap(&self, what: &str, since: SystemTime, time: Duration) -> Result<Duration> {
        let start = Instant::now();
        let waited = since.elapsed().unwrap_or_default();
        std::thread::sleep(time.saturating_sub(waited));
        self.answer_after(SystemTime::now())?;
        let (since, end) = (seconds(since)?, seconds(SystemTime::now())?);
        let mut worst = 0.0;
        for (station, ping) in &self.0 {
            let log = ping.log();
            let before = stamps(&log).filter(|at| *at < since).last();
            let mut last = before.unwrap_or(since);
            let mut gap = 0.0_f64;
            for at in stamps(&log).filter(|at| *at >= since).chain([end]) {
                gap = gap.max(at - last);
                last = at;
            }
            println!("{what}: {station} was not reached for {gap:.2} s");
            worst = gap.max(worst);
        }
        println!("{what}: watched for {:?}", start.elapsed() + waited);
        Ok(Duration::from_secs_f64(worst))
    }
}

fn seconds(at: SystemTime) -> Result<f64> {
    Ok(at.duration_since(UNIX_EPOCH)?.as_secs_f64())
}
