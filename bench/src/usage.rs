//! What the kernel counted: CPU time of processes and of the machine, memory, checksum errors.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use farlan_tests::lab::Ns;

/// CPU time so far, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cpu {
    /// Of the contestant's own processes at both ends.
    pub own: f64,
    /// Of the whole machine: every state but idle, waiting for disks, and stolen.
    pub machine: f64,
}

impl Cpu {
    /// Now, for the processes `pids`.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read. A process that is gone counts as 0.
    pub fn now(pids: &[u32]) -> Result<Self> {
        let ticks: u64 = pids
            .iter()
            .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .filter_map(|stat| process_ticks(&stat))
            .sum();
        let stat = std::fs::read_to_string("/proc/stat")?;
        let machine = machine_ticks(&stat).context("no line cpu in /proc/stat")?;
        Ok(Self {
            own: seconds(ticks),
            machine: seconds(machine),
        })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            own: self.own - before.own,
            machine: self.machine - before.machine,
        }
    }
}

/// The processes that run in a namespace.
///
/// # Errors
/// When `ip` fails.
pub fn pids(ns: &Ns) -> Result<Vec<u32>> {
    let out = farlan_tests::proc::ip(&format!("netns pids {}", ns.full_name()))?;
    Ok(out.lines().filter_map(|l| l.trim().parse().ok()).collect())
}

/// Resident memory of the processes together, in MiB.
#[must_use]
pub fn resident_mib(pids: &[u32]) -> f64 {
    let kib: f64 = pids
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| resident_kib(&status))
        .sum();
    kib / 1024.0
}

/// The counters of `/proc/net/snmp` in a namespace, such as `TcpInCsumErrors`.
///
/// # Errors
/// When it cannot be read.
pub fn counters(ns: &Ns) -> Result<BTreeMap<String, u64>> {
    Ok(parse_snmp(&ns.sh("cat /proc/net/snmp")?.stdout))
}

/// Fields 14 and 15 of `/proc/PID/stat`: user and system time. The name in field 2 may hold spaces
/// and brackets.
fn process_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// user, nice, system, irq and softirq of the first line of `/proc/stat`.
fn machine_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|f| f.parse().ok())
        .collect();
    [0, 1, 2, 5, 6].iter().map(|i| fields.get(*i)).sum()
}

fn resident_kib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lines come in pairs: names, then values, both after the same prefix.
fn parse_snmp(text: &str) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let [names, values] = pair else { continue };
        let (Some((prefix, names)), Some((_, values))) =
            (names.split_once(": "), values.split_once(": "))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // MaxConn is -1: no count.
            if let Ok(value) = value.parse() {
                out.insert(format!("{prefix}{name}"), value);
            }
        }
    }
    out
}

fn seconds(ticks: u64) -> f64 {
    // SAFETY: sysconf takes a constant and returns a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u32::try_from(per_second).unwrap_or(100).max(1);
    // Ticks since boot stay far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let ticks = ticks as f64;
    ticks / f64::from(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_counted_whatever_its_name() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(300));
        assert_eq!(process_ticks("17 (x"), None);
    }

    #[test]
    fn the_machine_is_busy_without_idle_waiting_and_stolen() {
        let stat = "cpu  1 2 4 1000 2000 8 16 4000 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(machine_ticks(stat), Some(31));
        assert_eq!(machine_ticks("cpu  1 2"), None);
    }

    #[test]
    fn snmp_pairs_names_with_values() {
        let text = "Tcp: MaxConn RetransSegs InCsumErrors\nTcp: -1 7 0\nUdp: InDatagrams\nUdp: 5\n";
        let c = parse_snmp(text);
        assert_eq!(c.get("TcpRetransSegs"), Some(&7));
        assert_eq!(c.get("TcpInCsumErrors"), Some(&0));
        assert_eq!(c.get("UdpInDatagrams"), Some(&5));
        assert_eq!(c.get("TcpMaxConn"), None);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2048.0));
    }
}
