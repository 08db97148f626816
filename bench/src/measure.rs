//! One measurement each: iperf3 and ping between the guests, and what the kernel counted meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use farlan_tests::lab::Ns;
use farlan_tests::proc::{self, Proc};
use serde_json::Value;

use crate::stats;
use crate::usage::{self, Cpu};

/// Where traffic goes from and to.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// Runs `iperf3 -c` and `ping`.
    pub client: &'a Ns,
    /// Runs `iperf3 -s`.
    pub server: &'a Ns,
    /// The server's address.
    pub server_ip: &'a str,
    /// The contestant's processes at both ends.
    pub pids: &'a [u32],
    /// TCP congestion control.
    pub congestion: &'a str,
}

/// Makes `congestion` what TCP begins with on all routes of `ns`.
///
/// `iperf3 -C` alone comes too late: it changes a connection that is there already. Where the host's
/// default is BBR, cubic then inherits its pacing, a timer for each super-frame.
///
/// # Errors
/// When `ip` refuses.
pub fn begin_with(ns: &Ns, congestion: &str) -> Result<()> {
    for route in ns.ip("-4 route show")?.lines() {
        ns.ip(&format!("-4 route change {route} congctl {congestion}"))?;
    }
    Ok(())
}

/// A TCP run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tcp {
    /// Arrived, in Gbit/s.
    pub gbit: f64,
    /// Arrived, in GB (10^9 bytes).
    pub gigabytes: f64,
    /// Segments sent again.
    pub retransmits: f64,
    /// CPU time used meanwhile.
    pub cpu: Cpu,
}

/// How a TCP run is made.
#[derive(Debug, Clone, Copy)]
pub struct TcpSpec {
    /// Streams at once.
    pub streams: u32,
    /// The server sends.
    pub reverse: bool,
    /// Seconds.
    pub seconds: u32,
}

/// One TCP run.
///
/// # Errors
/// When iperf3 fails.
pub fn tcp(ends: Ends<'_>, spec: TcpSpec) -> Result<Tcp> {
    let mut line = format!(
        "-C {} -P {} -t {}",
        ends.congestion, spec.streams, spec.seconds
    );
    if spec.reverse {
        line.push_str(" -R");
    }
    let before = Cpu::now(ends.pids)?;
    let json = iperf(ends, &line, spec.seconds)?;
    let cpu = Cpu::now(ends.pids)?.since(before);
    Ok(Tcp {
        gbit: number(&json, "/end/sum_received/bits_per_second")? / 1e9,
        gigabytes: number(&json, "/end/sum_received/bytes")? / 1e9,
        retransmits: number(&json, "/end/sum_sent/retransmits")?,
        cpu,
    })
}

/// The payload of a full segment between the ends: the MSS less options that each segment bears.
///
/// # Errors
/// When iperf3 fails.
pub fn mss(ends: Ends<'_>) -> Result<u32> {
    let json = iperf(ends, "-n 1K", 1)?;
    let mss = json.pointer("/start/tcp_mss_default");
    let mss = mss.and_then(Value::as_u64).context("no MSS from iperf3")?;
    Ok(u32::try_from(mss)?)
}

/// A UDP run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Udp {
    /// Datagrams that iperf3 read at the receiver, in thousands a second.
    pub received_k: f64,
    /// The share of those sent that it read, in percent.
    pub arrived_percent: f64,
}

/// How a UDP run is made.
#[derive(Debug, Clone, Copy)]
pub struct UdpSpec {
    /// Flows at once.
    pub flows: u32,
    /// Payload bytes of a datagram.
    pub size: u32,
    /// Bits per second offered, as iperf3 reads it; `0` is as fast as it can.
    pub rate: &'static str,
    /// Seconds.
    pub seconds: u32,
}

/// One UDP run. What arrived is the receiving kernel's count of datagrams that were read.
///
/// # Errors
/// When iperf3 fails.
pub fn udp(ends: Ends<'_>, spec: UdpSpec) -> Result<Udp> {
    let line = format!(
        "-u -P {} -l {} -b {} -w 2M -t {}",
        spec.flows, spec.size, spec.rate, spec.seconds
    );
    let read = |ns: &Ns| -> Result<u64> {
        let counters = usage::counters(ns)?;
        Ok(counters.get("UdpInDatagrams").copied().unwrap_or_default())
    };
    let before = read(ends.server)?;
    let json = iperf(ends, &line, spec.seconds)?;
    let received = read(ends.server)? - before;
    let sent = number(&json, "/end/sum/packets")?;
    ensure!(sent > 0.0, "iperf3 sent nothing");
    // Counts of a few seconds stay far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let received = received as f64;
    Ok(Udp {
        received_k: received / f64::from(spec.seconds) / 1000.0,
        // The datagram that opens a flow is counted by the kernel, not by iperf3.
        arrived_percent: (received / sent * 100.0).min(100.0),
    })
}

/// Round trip times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rtt {
    /// Mean, us.
    pub mean_us: f64,
    /// 99th percentile, us; of fewer than 100 samples there is none.
    pub p99_us: Option<f64>,
}

impl Rtt {
    /// Of round trip times in us; `None` without any.
    #[must_use]
    pub fn of(times: &[f64]) -> Option<Self> {
        Some(Self {
            mean_us: stats::mean(times)?,
            p99_us: stats::percentile(times, 99),
        })
    }
}

/// Pings `count` times, `interval` seconds apart. Returns the times of the answers, us.
///
/// # Errors
/// When ping cannot be run.
pub fn ping_times(ends: Ends<'_>, count: u32, interval: f64) -> Result<Vec<f64>> {
    ping_with(ends, &format!("-c {count} -i {interval} -W 2"))
}

fn ping_with(ends: Ends<'_>, options: &str) -> Result<Vec<f64>> {
    let out = ends
        .client
        .sh(&format!("ping -n {options} {}", ends.server_ip))?;
    Ok(times_in(&out.stdout))
}

/// Pings every 10 ms while one TCP stream runs, without its first and last second.
///
/// # Errors
/// When iperf3 or ping fails.
pub fn ping_under_load(ends: Ends<'_>, seconds: u32) -> Result<Rtt> {
    let port = 5300;
    let _server = serve(ends, port)?;
    let (ip, run) = (ends.server_ip, seconds + 2);
    let line = format!("iperf3 -c {ip} -p {port} -t {run} -C {}", ends.congestion);
    let mut load = ends.client.spawn("load", &line)?;
    std::thread::sleep(Duration::from_secs(1));
    // A busy machine delays the pings themselves: the time counts, not how many they are.
    let times = ping_with(ends, &format!("-i 0.01 -w {seconds}"))?;
    ensure!(load.is_running(), "the load ended early: {}", load.log());
    let status = load.wait(Duration::from_secs(u64::from(seconds) + 20))?;
    ensure!(status.success(), "the load failed: {}", load.log());
    Rtt::of(&times).with_context(|| format!("no answer from {}", ends.server_ip))
}

/// What must be 0: segments and datagrams that came to a guest with a wrong checksum, so far.
///
/// # Errors
/// When the counters cannot be read.
pub fn wrong_checksums(guests: &[&Ns]) -> Result<u64> {
    let mut sum = 0;
    for guest in guests {
        let counters = usage::counters(guest)?;
        for name in ["TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors"] {
            sum += counters.get(name).copied().unwrap_or_default();
        }
    }
    Ok(sum)
}

/// An iperf3 run to its end, on a server of its own: a run that hangs leaves the next alone.
fn iperf(ends: Ends<'_>, line: &str, seconds: u32) -> Result<Value> {
    let port = 5201;
    let _server = serve(ends, port)?;
    let (ip, limit) = (ends.server_ip, seconds + 20);
    let out = ends.client.sh(&format!(
        "timeout -k 2 {limit} iperf3 -J -c {ip} -p {port} {line}"
    ))?;
    let json: Value = serde_json::from_str(&out.stdout)
        .with_context(|| format!("iperf3 {line} exited {}: {}", out.code, out.stderr))?;
    if let Some(error) = json.get("error") {
        bail!("iperf3 {line}: {error}");
    }
    Ok(json)
}

fn serve(ends: Ends<'_>, port: u16) -> Result<Proc> {
    let log = ends.server.lab().dir().join("iperf3-server.log");
    let _ = std::fs::remove_file(&log);
    let port = port.to_string();
    let mut cmd = ends.server.command("iperf3");
    cmd.args(["-s", "-1", "--forceflush", "-p", &port]);
    let mut server = Proc::spawn(&mut cmd, &log)?;
    server.wait_log("Server listening", Duration::from_secs(5))?;
    Ok(server)
}

fn number(json: &Value, pointer: &str) -> Result<f64> {
    let value = json.pointer(pointer).and_then(Value::as_f64);
    value.with_context(|| format!("iperf3 gave no {pointer}"))
}

/// The round trip times in ping's output, us. Duplicates count once each.
fn times_in(text: &str) -> Vec<f64> {
    text.lines()
        .filter_map(|l| l.split_once(" time=")?.1.split_once(" ms"))
        .filter_map(|(ms, rest)| Some((ms.parse::<f64>().ok()?, rest)))
        .filter(|(_, rest)| !rest.contains("DUP"))
        .map(|(ms, _)| ms * 1000.0)
        .collect()
}

/// Runs a program to its end for what it says about its version; the first line with a digit, or the first.
#[must_use]
pub fn version(line: &str) -> Option<String> {
    let out = proc::finish(std::process::Command::new("sh").args(["-c", line])).ok()?;
    let text = format!("{}{}", out.stdout, out.stderr);
    let with_digit = |l: &&str| l.contains(|c: char| c.is_ascii_digit());
    let line = text.lines().find(with_digit);
    line.or(text.lines().next())
        .map(|l| l.trim().chars().take(60).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_lines_become_microseconds() {
        let text = "64 bytes from 10.9.0.2: icmp_seq=1 ttl=64 time=0.250 ms\n\
                    64 bytes from 10.9.0.2: icmp_seq=1 ttl=64 time=0.300 ms (DUP!)\n\
                    64 bytes from 10.9.0.2: icmp_seq=2 ttl=64 time=1.5 ms\n\
                    rtt min/avg/max/mdev = 0.250/0.875/1.5/0 ms\n";
        assert_eq!(times_in(text), [250.0, 1500.0]);
    }

    #[test]
    fn a_number_that_is_missing_is_an_error() {
        let json = serde_json::json!({"end": {"sum": {"packets": 7}}});
        assert_eq!(number(&json, "/end/sum/packets").unwrap(), 7.0);
        assert!(number(&json, "/end/sum/bytes").is_err());
    }
}
