//! Checked bytes between two guests, and what their kernels say of the checksums they got.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::lab::Ns;
use crate::probe::tcp_transfer;
use crate::proc;

/// Payloads of datagrams, in bytes: odd ones, those around what is merged, what fits one frame of 1,500
/// bytes on IPv6 and on IPv4, and more than that.
const SIZES: [usize; 11] = [1, 63, 64, 65, 333, 1000, 1399, 1452, 1471, 1472, 5001];

/// What a namespace's kernel received, and what it refused for its checksum.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// TCP segments.
    pub segments: u64,
    /// UDP datagrams, to open ports and to closed ones.
    pub datagrams: u64,
    /// Wrong checksums: TCP's, UDP's over IPv4 and IPv6, and of IPv4 headers.
    pub wrong: u64,
}

impl Received {
    /// Since `ns` was made.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn by(ns: &Ns) -> Result<Self> {
        let text = ns.sh("cat /proc/net/snmp /proc/net/netstat /proc/net/snmp6")?;
        Self::parse(&text.stdout)
    }

    /// From the text of `/proc/net/snmp`, and of `netstat` and `snmp6` where there are any.
    ///
    /// # Errors
    /// When the counters of TCP or UDP are not there.
    pub fn parse(text: &str) -> Result<Self> {
        let find = |table: &str, name: &str| -> Option<u64> {
            let mut lines = text.lines().filter(|line| line.starts_with(table));
            let (names, values) = (lines.next()?, lines.next()?);
            let at = names.split_whitespace().position(|word| word == name)?;
            values.split_whitespace().nth(at)?.parse().ok()
        };
        let of_v6 = |name: &str| -> u64 {
            let mut words = text.lines().map(str::split_whitespace);
            let found = words.find_map(|mut line| (line.next() == Some(name)).then(|| line.next()));
            found.flatten().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        let must = |table, name| find(table, name).with_context(|| format!("{table} {name}"));
        Ok(Self {
            segments: must("Tcp:", "InSegs")?,
            datagrams: must("Udp:", "InDatagrams")?
                + must("Udp:", "NoPorts")?
                + of_v6("Udp6InDatagrams"),
            wrong: must("Tcp:", "InCsumErrors")?
                + must("Udp:", "InCsumErrors")?
                + of_v6("Udp6InCsumErrors")
                + find("IpExt:", "InCsumErrors").unwrap_or(0),
        })
    }
}

/// Sends TCP both ways and datagrams of all kinds both ways between `a` and `b`, by each pair of their
/// addresses, and checks every byte; then asks both kernels whether a checksum was wrong.
///
/// # Errors
/// What did not arrive, differed, or was refused.
pub fn exchange(a: &Ns, b: &Ns, addresses: &[(&str, &str)], bytes: usize) -> Result<()> {
    for (of_a, of_b) in addresses {
        for (from, to, ip) in [(a, b, *of_b), (b, a, *of_a)] {
            let before = Received::by(to)?;
            let took = tcp_transfer(from, to, ip, bytes).with_context(|| {
                format!("TCP to {ip}; before {before:?}, now {:?}", Received::by(to))
            })?;
            let count = datagrams(from, to, ip.parse()?).with_context(|| {
                format!("UDP to {ip}; before {before:?}, now {:?}", Received::by(to))
            })?;
            let now = Received::by(to)?;
            println!("to {ip}: {bytes} bytes in {took:?}, {count} datagrams; {now:?}");
            ensure!(now.wrong == before.wrong, "wrong checksums: {now:?}");
            // A merged frame counts once.
            let (segments, datagrams) = (
                now.segments - before.segments,
                now.datagrams - before.datagrams,
            );
            ensure!(segments as usize > bytes / 65_536, "{before:?} {now:?}");
            ensure!(datagrams >= count as u64, "{before:?} {now:?}");
        }
    }
    Ok(())
}

/// One datagram of each size, and the kernel's own trains of them, the last shorter; the count.
fn datagrams(from: &Ns, to: &Ns, ip: IpAddr) -> Result<usize> {
    let (at, any) = (
        SocketAddr::new(ip, 7002),
        if ip.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" },
    );
    let rx = to.within(move || Ok(UdpSocket::bind(at)?))?;
    let tx = from.within(move || Ok(UdpSocket::bind(any)?))?;
    tx.connect(at)?;
    rx.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut count = 0;
    for (n, size) in SIZES.into_iter().enumerate() {
        // The kernel cuts no train into datagrams above the MTU.
        let mtu = if ip.is_ipv6() { 1452 } else { 1472 };
        let trains = if size > mtu { &[1][..] } else { &[1, 20] };
        for &in_train in trains {
            let bytes = size * in_train - if in_train > 1 { size / 2 } else { 0 };
            let sent: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251 + n) as u8).collect();
            round(&tx, &rx, &sent, size).with_context(|| format!("{in_train} of {size} bytes"))?;
            count += in_train;
        }
    }
    Ok(count)
}

/// Sends `data` in datagrams of `size` bytes and compares what comes. What is lost on the way is sent
/// again; a datagram that is refused each time is not.
fn round(tx: &UdpSocket, rx: &UdpSocket, data: &[u8], size: usize) -> Result<()> {
    let mut got = vec![0; 65_536];
    let mut seen = 0;
    for _ in 0..3 {
        send(tx, data, size)?;
        seen = 0;
        for wanted in data.chunks(size) {
            let Ok(len) = rx.recv(&mut got) else { break };
            ensure!(
                got[..len] == *wanted,
                "datagram {seen}: {len} bytes, not as sent"
            );
            seen += 1;
        }
        if seen == data.len().div_ceil(size) {
            return Ok(());
        }
        // The rest of this round must not be taken for the next.
        while rx.recv(&mut got).is_ok() {}
    }
    bail!("{seen} datagrams came")
}

/// All at once where the guest's kernel cuts datagrams, else one by one.
fn send(tx: &UdpSocket, data: &[u8], size: usize) -> Result<()> {
    let set = |size: usize| -> Result<()> {
        let size = libc::c_int::try_from(size)?;
        // SAFETY: the option is an int, which lives during the call.
        let done = unsafe {
            libc::setsockopt(
                tx.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const size).cast(),
                size_of_val(&size) as libc::socklen_t,
            )
        };
        ensure!(done == 0, std::io::Error::last_os_error());
        Ok(())
    };
    if data.len() > size {
        set(size)?;
        let sent = tx.send(data);
        set(0)?;
        match sent {
            Ok(_) => return Ok(()),
            // A device without checksum offload, to kernels before 6.11.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for one in data.chunks(size) {
        tx.send(one)?;
    }
    Ok(())
}

/// Leaves `dev` none of the offloads that hide a wrong checksum or a frame above the MTU: what goes
/// out by it is completed and cut before, as on a wire.
///
/// # Errors
/// When `ethtool` fails.
pub fn no_offloads(ns: &Ns, dev: &str) -> Result<()> {
    let mut cmd = ns.command("ethtool");
    cmd.args([
        "-K", dev, "tx", "off", "tso", "off", "gso", "off", "gro", "off", "sg", "off",
    ]);
    proc::check(&mut cmd)?;
    let features = proc::check(ns.command("ethtool").args(["-k", dev]))?;
    for name in [
        "tx-checksumming",
        "scatter-gather",
        "tcp-segmentation-offload",
    ] {
        ensure!(features.contains(&format!("{name}: off")), "{features}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let text = "Tcp: A InSegs InCsumErrors\nTcp: 1 20 3\nUdp: InDatagrams NoPorts InCsumErrors\n\
                    Udp: 5 6 7\nUdpLite: InDatagrams\nUdpLite: 9\n\
                    IpExt: X InCsumErrors\nIpExt: 0 100\nUdp6InDatagrams 1000\nUdp6InCsumErrors 2000\n";
        let wanted = Received {
            segments: 20,
            datagrams: 1011,
            wrong: 2110,
        };
        assert_eq!(Received::parse(text).unwrap(), wanted);
        assert!(Received::parse("Tcp: A\n").is_err());
    }
}
