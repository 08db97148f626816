//! The internet of the lab: one thread that carries IP packets between TUN devices.
//!
//! A *link* is the access line of a site: a TUN device `wan0` in the site's router, and a model
//! for each direction. A packet from site A to site B passes A's link up, three hops, and B's link
//! down. Timers are a heap and a poll with nanosecond timeouts; how late each packet left against
//! its due time is measured and reported, so that a loaded machine is not taken for a slow program.

pub mod model;
pub mod packet;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::Ns;
use crate::tun;
use model::{Chance, LinkModel};
use packet::Icmp;

/// Hops between any two sites: a low-TTL primer sent by one NAT's host dies before the other NAT.
const HOPS: u8 = 3;
/// What a link's queue holds when it has a rate.
const QUEUE: Duration = Duration::from_millis(100);
/// How long a reordered packet is held back.
const REORDER: Duration = Duration::from_millis(5);
/// Packets in flight at most; more are dropped and counted (64 Ki packets are 100 MB).
const IN_FLIGHT: usize = 65_536;

/// Names a link of a [`Wan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(usize);

/// Counters of one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets the site sent into the WAN.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Packets the WAN delivered to the site.
    pub delivered: u64,
    /// Bytes of these.
    pub delivered_bytes: u64,
    /// Lost by chance, cut, or a full queue.
    pub lost: u64,
    /// Dropped because larger than the MTU, with DF.
    pub too_big: u64,
    /// IP fragments the site sent, or the WAN had to make.
    pub fragments: u64,
    /// Hop limit ran out.
    pub expired: u64,
    /// No route.
    pub unroutable: u64,
}

/// How late packets left against their due time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lateness {
    packets: u64,
    sum: Duration,
    /// The worst.
    pub max: Duration,
    over_1ms: u64,
}

impl Lateness {
    fn add(&mut self, late: Duration) {
        self.packets += 1;
        self.sum += late;
        self.max = self.max.max(late);
        self.over_1ms += u64::from(late > Duration::from_millis(1));
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let n = u32::try_from(self.packets.max(1)).unwrap_or(u32::MAX);
        self.sum / n
    }
}

struct Link {
    name: String,
    tun: File,
    up: Direction,
    down: Direction,
    cut: bool,
    stats: LinkStats,
}

struct Direction {
    model: LinkModel,
    /// When the line is free again (serialization at `rate`).
    free_at: Instant,
    /// The due time of the last packet, to keep order under jitter.
    last_due: Instant,
}

impl Direction {
    fn new(model: LinkModel) -> Self {
        let now = Instant::now();
        Self {
            model,
            free_at: now,
            last_due: now,
        }
    }

    /// When a packet of `len` bytes entering at `now` leaves; `None` when it is lost.
    fn carry(&mut self, now: Instant, len: usize, chance: &mut Chance) -> Option<Instant> {
        let m = self.model;
        if chance.hit(m.loss) {
            return None;
        }
        let mut at = now;
        if let Some(rate) = m.rate {
            let start = self.free_at.max(now);
            if start.saturating_duration_since(now) > QUEUE {
                return None;
            }
            let bits = u64::try_from(len).unwrap_or(0) * 8;
            at = start + Duration::from_nanos(bits * 1_000_000_000 / rate.max(1));
            self.free_at = at;
        }
        at += m.delay;
        if chance.hit(m.reorder) {
            return Some(at + REORDER);
        }
        at = (at + chance.duration(m.jitter)).max(self.last_due);
        self.last_due = at;
        Some(at)
    }
}

/// A packet on its way. The order is due time, then entry.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    seq: u64,
    to: LinkId,
    /// False while on the sender's link, true while on the receiver's.
    last_mile: bool,
    bytes: Vec<u8>,
}

struct State {
    links: Vec<Link>,
    routes: Vec<(IpAddr, u8, LinkId)>,
    cut_pairs: HashSet<(LinkId, LinkId)>,
    heap: BinaryHeap<Reverse<Flight>>,
    seq: u64,
    chance: Chance,
    late: Lateness,
    stop: bool,
}

/// The WAN. Dropping it ends the thread and removes all its TUN devices.
#[derive(Debug)]
pub struct Wan {
    state: Arc<Mutex<State>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} links, {} in flight",
            self.links.len(),
            self.heap.len()
        )
    }
}

impl Wan {
    /// Starts the thread, without any link.
    ///
    /// # Errors
    /// When the kernel gives no eventfd or thread.
    pub fn start(seed: u64) -> Result<Self> {
        // SAFETY: eventfd takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let wake = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        let state = Arc::new(Mutex::new(State {
            links: Vec::new(),
            routes: Vec::new(),
            cut_pairs: HashSet::new(),
            heap: BinaryHeap::new(),
            seq: 0,
            chance: Chance::new(seed),
            late: Lateness::default(),
            stop: false,
        }));
        let (s, w) = (Arc::clone(&state), Arc::clone(&wake));
        let thread = std::thread::Builder::new()
            .name("wan".into())
            .spawn(move || run(&s, &w))?;
        Ok(Self {
            state,
            wake,
            thread: Some(thread),
        })
    }

    /// Makes `wan0` in `ns`, brings it up and connects it with `model` in both directions.
    ///
    /// # Errors
    /// When the device cannot be made.
    pub fn add_link(&self, ns: &Ns, model: LinkModel) -> Result<LinkId> {
        let tun = ns.within(|| tun::open("wan0"))?;
        ns.ip("link set wan0 mtu 1500 txqueuelen 2000 up")?;
        let mut s = self.lock();
        let id = LinkId(s.links.len());
        s.links.push(Link {
            name: ns.name().to_owned(),
            tun,
            up: Direction::new(model),
            down: Direction::new(model),
            cut: false,
            stats: LinkStats::default(),
        });
        drop(s);
        self.wake();
        Ok(id)
    }

    /// Sends `address/prefix` to `link`. The longest prefix wins.
    pub fn add_route(&self, address: IpAddr, prefix: u8, link: LinkId) {
        let mut s = self.lock();
        s.routes.push((address, prefix, link));
        s.routes.sort_by_key(|r| Reverse(r.1));
    }

    /// Replaces the model of both directions of a link, while it runs.
    pub fn set_model(&self, link: LinkId, model: LinkModel) {
        let mut s = self.lock();
        s.links[link.0].up.model = model;
        s.links[link.0].down.model = model;
    }

    /// Cuts a link, or mends it.
    pub fn cut(&self, link: LinkId, cut: bool) {
        self.lock().links[link.0].cut = cut;
    }

    /// Cuts all traffic between two sites, or mends it; each still reaches the others.
    pub fn cut_pair(&self, a: LinkId, b: LinkId, cut: bool) {
        let mut s = self.lock();
        for pair in [(a, b), (b, a)] {
            if cut {
                s.cut_pairs.insert(pair);
            } else {
                s.cut_pairs.remove(&pair);
            }
        }
    }

    /// The counters of a link.
    #[must_use]
    pub fn stats(&self, link: LinkId) -> LinkStats {
        self.lock().links[link.0].stats
    }

    /// How late packets left so far.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        self.lock().late
    }

    /// The counters and the own queueing error, one line each.
    #[must_use]
    pub fn report(&self) -> String {
        let s = self.lock();
        let mut out = format!(
            "wan: {} packets, late by mean {:?} max {:?}, {} over 1 ms",
            s.late.packets,
            s.late.mean(),
            s.late.max,
            s.late.over_1ms
        );
        for l in &s.links {
            let t = l.stats;
            out += &format!(
                "\nwan: {:8} sent {} delivered {} lost {} too-big {} fragments {} expired {} unroutable {}",
                l.name,
                t.sent,
                t.delivered,
                t.lost,
                t.too_big,
                t.fragments,
                t.expired,
                t.unroutable
            );
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from a live array to a descriptor that `self` owns.
        unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.lock().stop = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread: wait for a packet or a due time, take in what came, deliver what is due.
fn run(state: &Mutex<State>, wake: &OwnedFd) {
    be_punctual();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = vec![0u8; 65_536];
    loop {
        let (mut fds, due) = {
            let s = lock();
            if s.stop {
                return;
            }
            let fd = |fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            let mut fds = vec![fd(wake.as_raw_fd())];
            fds.extend(s.links.iter().map(|l| fd(l.tun.as_raw_fd())));
            (fds, s.heap.peek().map(|f| f.0.due))
        };
        poll(&mut fds, due);
        if fds[0].revents != 0 {
            let mut count = [0u8; 8];
            // SAFETY: reads at most 8 bytes into a live array of 8.
            unsafe { libc::read(fds[0].fd, count.as_mut_ptr().cast(), count.len()) };
        }
        let mut s = lock();
        for (i, fd) in fds.iter().skip(1).enumerate() {
            if fd.revents != 0 {
                // A budget keeps one busy link from making all others late.
                for _ in 0..32 {
                    match (&s.links[i].tun).read(&mut buffer) {
                        Ok(n) if n > 0 => s.enter(LinkId(i), buffer[..n].to_vec()),
                        _ => break,
                    }
                }
            }
        }
        s.deliver();
    }
}

/// A real-time priority and no timer slack, so that a busy machine does not add to the delay.
/// Without the right to it the WAN is only less punctual, and its report says how much.
fn be_punctual() {
    // SAFETY: sched_param is plain data for which all zeroes is valid.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: both calls change the calling thread only; `param` lives through the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR, &param);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
}

fn poll(fds: &mut [libc::pollfd], due: Option<Instant>) {
    let wait = due.map_or(Duration::from_secs(1), |d| {
        d.saturating_duration_since(Instant::now())
    });
    let timeout = libc::timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1),
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    let n = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
    // SAFETY: `fds` has `n` entries and outlives the call; the timeout is a valid timespec.
    unsafe { libc::ppoll(fds.as_mut_ptr(), n, &timeout, std::ptr::null()) };
}

impl State {
    /// A packet that a site sent.
    fn enter(&mut self, from: LinkId, mut bytes: Vec<u8>) {
        let link = &mut self.links[from.0];
        link.stats.sent += 1;
        link.stats.sent_bytes += u64::try_from(bytes.len()).unwrap_or(0);
        let Some(to) = packet::destination(&bytes) else {
            return;
        };
        // Neighbour discovery and multicast do not leave the site.
        if to.is_multicast() || matches!(to, IpAddr::V6(a) if a.is_unicast_link_local()) {
            return;
        }
        link.stats.fragments += u64::from(packet::is_fragment(&bytes));
        let Some(to) = self.route(to) else {
            self.links[from.0].stats.unroutable += 1;
            return self.complain(from, &bytes, Icmp::Unreachable);
        };
        if !packet::take_hops(&mut bytes, HOPS) {
            self.links[from.0].stats.expired += 1;
            return self.complain(from, &bytes, Icmp::TimeExceeded);
        }
        let mtu = self.links[from.0]
            .up
            .model
            .mtu
            .min(self.links[to.0].down.model.mtu);
        if bytes.len() <= usize::from(mtu) {
            return self.launch(from, to, bytes);
        }
        if packet::dont_fragment(&bytes) {
            self.links[from.0].stats.too_big += 1;
            let say = self.links[from.0].up.model.icmp_too_big
                && self.links[to.0].down.model.icmp_too_big;
            if say {
                self.complain(from, &bytes, Icmp::TooBig(mtu));
            }
            return;
        }
        for piece in packet::fragment(&bytes, usize::from(mtu)) {
            self.links[from.0].stats.fragments += 1;
            self.launch(from, to, piece);
        }
    }

    /// Onto the sender's link, unless it or the pair is cut.
    fn launch(&mut self, from: LinkId, to: LinkId, bytes: Vec<u8>) {
        let cut = self.links[from.0].cut
            || self.links[to.0].cut
            || self.cut_pairs.contains(&(from, to))
            || self.heap.len() >= IN_FLIGHT;
        let now = Instant::now();
        let link = &mut self.links[from.0];
        match link.up.carry(now, bytes.len(), &mut self.chance) {
            Some(due) if !cut => self.push(due, to, false, bytes),
            _ => link.stats.lost += 1,
        }
    }

    /// An ICMP error travels the sender's own link there and back.
    fn complain(&mut self, from: LinkId, about: &[u8], kind: Icmp) {
        let Some(bytes) = packet::icmp_error(about, kind) else {
            return;
        };
        let link = &self.links[from.0];
        if !link.cut && self.heap.len() < IN_FLIGHT {
            let due = Instant::now() + link.up.model.delay + link.down.model.delay;
            self.push(due, from, true, bytes);
        }
    }

    fn push(&mut self, due: Instant, to: LinkId, last_mile: bool, bytes: Vec<u8>) {
        self.seq += 1;
        let seq = self.seq;
        self.heap.push(Reverse(Flight {
            due,
            seq,
            to,
            last_mile,
            bytes,
        }));
    }

    /// Moves every packet that is due to its next leg or out of its TUN device.
    fn deliver(&mut self) {
        while self.heap.peek().is_some_and(|f| f.0.due <= Instant::now()) {
            let Some(Reverse(f)) = self.heap.pop() else {
                return;
            };
            let link = &mut self.links[f.to.0];
            if link.cut {
                link.stats.lost += 1;
            } else if f.last_mile {
                self.late.add(f.due.elapsed());
                if (&link.tun).write_all(&f.bytes).is_ok() {
                    link.stats.delivered += 1;
                    link.stats.delivered_bytes += u64::try_from(f.bytes.len()).unwrap_or(0);
                }
            } else {
                // From the due time, not from now: lateness must not add up over the legs.
                match link.down.carry(f.due, f.bytes.len(), &mut self.chance) {
                    Some(due) => self.push(due, f.to, true, f.bytes),
                    None => link.stats.lost += 1,
                }
            }
        }
    }

    fn route(&self, to: IpAddr) -> Option<LinkId> {
        let hit = self
            .routes
            .iter()
            .find(|(net, prefix, _)| covers(*net, *prefix, to));
        hit.map(|r| r.2)
    }
}

fn covers(net: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            let shift = 32 - u32::from(prefix.min(32));
            (u64::from(n.to_bits()) >> shift) == (u64::from(a.to_bits()) >> shift)
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => {
            let shift = 128 - u32::from(prefix.min(128));
            n.to_bits().checked_shr(shift) == a.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}
