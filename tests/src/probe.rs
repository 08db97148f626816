//! Asking the network: ping, TCP transfers, and what a NAT does to ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::Ns;
use crate::proc::{Proc, wait_for};

/// What `ping` counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PingResult {
    /// Requests sent.
    pub sent: u32,
    /// Answers received, duplicates not counted.
    pub received: u32,
    /// Mean round trip, ms; 0 without answers.
    pub mean_ms: f64,
}

/// How to ping.
#[derive(Debug, Clone, Copy)]
pub struct Ping<'a> {
    /// Whom.
    pub to: &'a str,
    /// How often.
    pub count: u32,
    /// Time between requests.
    pub interval: Duration,
    /// ICMP payload bytes: 1472 makes a 1,500-byte IPv4 packet.
    pub size: u16,
    /// Set DF.
    pub dont_fragment: bool,
}

impl<'a> Ping<'a> {
    /// 5 small pings, 200 ms apart.
    #[must_use]
    pub const fn new(to: &'a str) -> Self {
        Self {
            to,
            count: 5,
            interval: Duration::from_millis(200),
            size: 56,
            dont_fragment: false,
        }
    }

    /// Sets the count.
    #[must_use]
    pub const fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Sets the time between requests.
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// `size` payload bytes with DF set.
    #[must_use]
    pub const fn df(mut self, size: u16) -> Self {
        self.size = size;
        self.dont_fragment = true;
        self
    }

    fn line(&self) -> String {
        let df = if self.dont_fragment { "-M do" } else { "" };
        let (count, size, to) = (self.count, self.size, self.to);
        let interval = self.interval.as_secs_f64();
        // -D stamps each answer; -W is the wait after the last request.
        format!("ping -D -n -c {count} -i {interval} -s {size} -W 2 {df} {to}")
    }

    /// Pings and waits for the end.
    ///
    /// # Errors
    /// When the output is not ping's.
    pub fn run(&self, from: &Ns) -> Result<PingResult> {
        parse_ping(&from.sh(&self.line())?.stdout)
    }

    /// Pings in the background; give the log to [`parse_ping`] after its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, from: &Ns) -> Result<Proc> {
        from.spawn(&format!("ping-{}", self.to.replace(':', "_")), &self.line())
    }
}

/// Reads the summary of `ping`.
///
/// # Errors
/// When there is none.
pub fn parse_ping(text: &str) -> Result<PingResult> {
    let line = text
        .lines()
        .rfind(|l| l.contains("packets transmitted"))
        .with_context(|| format!("no summary in {text:?}"))?;
    let number = |part: &str| -> Option<u32> { part.split_whitespace().next()?.parse().ok() };
    let mut parts = line.split(',');
    let sent = parts.next().and_then(number).context("sent")?;
    let received = parts.next().and_then(number).context("received")?;
    let mean_ms = text
        .lines()
        .rfind(|l| l.starts_with("rtt "))
        .and_then(|l| l.split('=').nth(1)?.split('/').nth(1)?.trim().parse().ok())
        .unwrap_or(0.0);
    Ok(PingResult {
        sent,
        received,
        mean_ms,
    })
}

/// Pings `to` every 50 ms until the first answer; returns the time since `start`.
///
/// The guest's kernel asks for the MAC as it always does, once a second, so that the result is
/// what a user of the guest sees.
///
/// # Errors
/// After `timeout`.
pub fn first_ping(from: &Ns, to: &str, start: Instant, timeout: Duration) -> Result<Duration> {
    // ping gives up at "host unreachable", which a guest says after three unanswered ARP requests.
    let one = format!("ping -n -q -i 0.05 -c 1 -w 2 {to} >/dev/null 2>&1");
    let secs = timeout.as_secs_f64();
    let out = from.sh(&format!("timeout {secs} sh -c 'until {one}; do :; done'"))?;
    let took = start.elapsed();
    ensure!(out.code == 0, "no answer from {to} in {timeout:?}");
    Ok(took)
}

/// The first moment at or after `since` at which the log of a running [`Ping`] shows an answer.
///
/// # Errors
/// After `timeout`.
pub fn first_answer_after(ping: &Proc, since: SystemTime, timeout: Duration) -> Result<Duration> {
    let since = since.duration_since(UNIX_EPOCH)?.as_secs_f64();
    let (secs, _) = wait_for("an answer to the running ping", timeout, || {
        let log = ping.log();
        let first = stamps(&log).find(|stamp| *stamp >= since);
        first.map(|stamp| stamp - since)
    })?;
    Ok(Duration::from_secs_f64(secs))
}

/// When each answer in the log of a [`Ping`] came, in seconds of the calendar.
pub fn stamps(log: &str) -> impl Iterator<Item = f64> + '_ {
    log.lines().filter_map(|line| {
        let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
        rest.contains("bytes from").then(|| stamp.parse().ok())?
    })
}

const TCP_LIMIT: Duration = Duration::from_secs(60);

/// The bound on a time in this run: the project's own `figure` in a long run, which measures
/// (`FARLAN_LONG` is set), three times as much in `./test`, which a loaded machine must not fail.
#[must_use]
pub fn figure(figure: Duration) -> Duration {
    if std::env::var_os("FARLAN_LONG").is_some() {
        figure
    } else {
        figure * 3
    }
}

/// Sends `bytes` bytes from `client` to `server` over TCP, checks them and returns the time.
///
/// # Errors
/// When the connection fails, a byte differs, or it takes longer than a minute.
pub fn tcp_transfer(client: &Ns, server: &Ns, server_ip: &str, bytes: usize) -> Result<Duration> {
    let addr = SocketAddr::new(server_ip.parse()?, 7001);
    let listener = server.within(move || Ok(TcpListener::bind(addr)?))?;
    let receiver = std::thread::spawn(move || tcp_receive(&listener));
    let took = client.within(move || tcp_send(addr, bytes))?;
    let got = receiver.join().unwrap()?;
    ensure!(got == bytes, "{got} of {bytes} bytes arrived");
    Ok(took)
}

/// Takes one connection, checks every byte of it and acknowledges the end; returns the count.
///
/// # Errors
/// When nobody connects within a minute or a byte differs.
pub fn tcp_receive(listener: &TcpListener) -> Result<usize> {
    let (mut stream, _) = accept(listener, TCP_LIMIT)?;
    stream.set_read_timeout(Some(TCP_LIMIT))?;
    let (mut got, mut buffer) = (0, vec![0; 65_536]);
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            stream.write_all(b"ok")?;
            return Ok(got);
        }
        for byte in &buffer[..n] {
            ensure!(*byte == pattern(got), "byte {got} differs");
            got += 1;
        }
    }
}

/// Sends `bytes` bytes to a [`tcp_receive`] and waits until all have arrived; returns the time.
///
/// # Errors
/// When the connection fails or stalls for a minute.
pub fn tcp_send(to: SocketAddr, bytes: usize) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, TCP_LIMIT)?;
    stream.set_write_timeout(Some(TCP_LIMIT))?;
    stream.set_read_timeout(Some(TCP_LIMIT))?;
    let data: Vec<u8> = (0..bytes).map(pattern).collect();
    stream.write_all(&data)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0; 2])?;
    Ok(start.elapsed())
}

fn accept(listener: &TcpListener, limit: Duration) -> Result<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + limit;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false)?;
                return Ok((stream, from));
            }
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => bail!("nobody connected: {e}"),
        }
    }
}

/// A pattern without short period, so that shifted or swapped segments show.
fn pattern(i: usize) -> u8 {
    let [a, b, c, ..] = (i / 3).to_le_bytes();
    a ^ b.wrapping_mul(31) ^ c.wrapping_mul(7)
}

/// Sends one UDP datagram from `from_port` of `client` to each of `servers` (bound in `server`) and
/// returns the source address each of them saw.
///
/// # Errors
/// When a datagram does not arrive within 2 s.
pub fn observed_sources(
    client: &Ns,
    from_port: u16,
    server: &Ns,
    servers: &[SocketAddr],
) -> Result<Vec<SocketAddr>> {
    let any = if servers.iter().any(SocketAddr::is_ipv6) {
        "[::]"
    } else {
        "0.0.0.0"
    };
    let local = format!("{any}:{from_port}");
    let sender = client.within(move || Ok(UdpSocket::bind(local)?))?;
    let mut seen = Vec::new();
    for to in servers {
        let to = *to;
        let socket = server.within(move || Ok(UdpSocket::bind(to)?))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        sender.send_to(b"who am I", to)?;
        let (_, from) = socket.recv_from(&mut [0; 64])?;
        // The way back works: from exactly the address that was asked.
        socket.send_to(b"you", from)?;
        sender.set_read_timeout(Some(Duration::from_secs(2)))?;
        let (_, back) = sender
            .recv_from(&mut [0; 64])
            .context("no answer through the NAT")?;
        ensure!(back == to, "answer from {back}, asked {to}");
        seen.push(from);
    }
    Ok(seen)
}

/// Whether a datagram from `from` (bound in `outside`) reaches `inside_port` of `client` at `mapped`.
///
/// # Errors
/// When a socket cannot be bound.
pub fn reaches(
    outside: &Ns,
    from: SocketAddr,
    mapped: SocketAddr,
    inside: &UdpSocket,
) -> Result<bool> {
    let socket = outside.within(move || Ok(UdpSocket::bind(from)?))?;
    socket.send_to(b"knock", mapped)?;
    inside.set_read_timeout(Some(Duration::from_millis(400)))?;
    Ok(inside.recv_from(&mut [0; 64]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_summary_is_read() {
        let text = "PING x\n5 packets transmitted, 4 received, 20% packet loss, time 1ms\n\
                    rtt min/avg/max/mdev = 50.1/50.4/51.0/0.2 ms\n";
        let r = parse_ping(text).unwrap();
        assert_eq!((r.sent, r.received), (5, 4));
        assert!((r.mean_ms - 50.4).abs() < 1e-9);
        let text = "2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 1ms\n";
        assert_eq!(parse_ping(text).unwrap().received, 0);
        assert!(parse_ping("ping: unknown host").is_err());
    }
}
