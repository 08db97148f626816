//! When to dial which bootstrap: all of them, always.
//!
//! The addresses of one bootstrap are dialled one after the other, QUIC and TCP in turn, each with
//! a head start (RFC 8305 section 5). Never several in one dial: libp2p keeps the first connection
//! of a dial and drops the others when the bootstrap has already taken them for the newest.
//!
//! Order of calls: [`Dialer::set`], then [`Dialer::poll_dial`] until `None` whenever
//! [`Dialer::poll_timeout`] has passed or something was handled; `handle_*` as things happen.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nat_traversal::candidate::admit_anywhere;
use overlay_proto::Entropy;
use overlay_proto::ids::PeerId;

/// Bootstraps that are looked at; invites carry up to 8 each.
const MAX_BOOTSTRAPS: usize = 32;

/// Addresses of one bootstrap: two families, two transports, two sites.
const MAX_ADDRS: usize = 8;

/// The first wait after a failure; doubles up to [`MAX_BACKOFF`], each halved to whole by chance.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The head start of an address over the next one: QUIC is done after two round trips, so the next
/// is only needed when this one does not answer or the way is longer than 150 ms.
const HEAD_START: Duration = Duration::from_millis(300);

/// A bootstrap that closes connections so young, several in a row, has heard the same identity elsewhere:
/// then each of the two waits, or they would throw each other off at the speed of their dials.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const SHORT_LIVES: u32 = 3;

/// Dials to a bootstrap are at least this far apart while another machine has our identity, and up to a
/// fifth more by chance: in step, one of the two would always come just after the other.
const CONTESTED_GAP: Duration = Duration::from_secs(10);

/// How long after it was last told that another machine has our identity.
const CONTESTED_FOR: Duration = Duration::from_secs(60);

/// An address of a bootstrap; `A` is what whoever dials understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way<A> {
    /// Who is there.
    pub peer: PeerId,
    /// By QUIC, and else by TCP.
    pub is_quic: bool,
    /// Where that is; `None` for a name.
    pub socket: Option<SocketAddr>,
    /// The address to dial.
    pub addr: A,
}

/// Dials the bootstraps.
#[derive(Debug)]
pub struct Dialer<A> {
    targets: Vec<Target<A>>,
}

#[derive(Debug)]
struct Target<A> {
    peer: PeerId,
    quic: Vec<Way<A>>,
    tcp: Vec<Way<A>>,
    state: State,
    /// Failed rounds since it was up.
    failures: u32,
    pace: Pace,
}

/// What keeps the rounds of dials apart, beside failures.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// When the last round began.
    dialled: Option<Instant>,
    up_since: Option<Instant>,
    /// Connections in a row that ended before [`SHORT_LIFE`].
    short_lives: u32,
    contested_until: Option<Instant>,
}

impl Pace {
    fn note_down(&mut self, now: Instant) {
        let Some(since) = self.up_since.take() else {
            return;
        };
        self.short_lives = if now.duration_since(since) < SHORT_LIFE {
            self.short_lives.saturating_add(1)
        } else {
            0
        };
    }

    /// No round before; `share` is a chance from 0 to 1.
    fn not_before(&self, now: Instant, share: f64) -> Instant {
        let contested = self.contested_until.is_some_and(|until| now < until);
        let dialled = self
            .dialled
            .filter(|_| contested || self.short_lives >= SHORT_LIVES);
        dialled.map_or(now, |at| at + CONTESTED_GAP.mul_f64(1.0 + share / 5.0))
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing under way until then.
    Waiting(Instant),
    /// `out` dials are under way; that of address number `next` starts at `next_at`.
    Dialing {
        out: u8,
        next: usize,
        next_at: Instant,
    },
    Up,
}

impl<A> Default for Dialer<A> {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
        }
    }
}

impl<A: Clone + PartialEq> Dialer<A> {
    /// The bootstraps from now on. Those already known keep their state; addresses that nobody may dial are left out.
    pub fn set(&mut self, ways: impl IntoIterator<Item = Way<A>>, now: Instant) {
        let mut targets: Vec<Target<A>> = Vec::new();
        for way in ways.into_iter().filter(may_be_dialled) {
            let peer = way.peer;
            if !targets.iter().any(|target| target.peer == peer) {
                if targets.len() >= MAX_BOOTSTRAPS {
                    continue;
                }
                targets.push(self.fresh(peer, now));
            }
            let Some(target) = targets.iter_mut().find(|target| target.peer == peer) else {
                continue;
            };
            let list = if way.is_quic {
                &mut target.quic
            } else {
                &mut target.tcp
            };
            if list.len() < MAX_ADDRS && !list.contains(&way) {
                list.push(way);
            }
        }
        self.targets = targets;
    }

    /// The IP addresses at which `peer` may be reached.
    #[must_use]
    pub fn ips_of(&self, peer: PeerId) -> Vec<IpAddr> {
        let target = self.targets.iter().find(|target| target.peer == peer);
        let addrs = target.map(|target| target.quic.iter().chain(&target.tcp));
        addrs
            .into_iter()
            .flatten()
            .filter_map(|way| way.socket.map(|socket| socket.ip()))
            .collect()
    }

    /// The next dial to start.
    pub fn poll_dial(&mut self, now: Instant) -> Option<(PeerId, A)> {
        self.targets.iter_mut().find_map(|target| {
            let addr = target.poll(now)?;
            Some((target.peer, addr))
        })
    }

    /// When [`Self::poll_dial`] has something again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let wanted = |target: &Target<A>| match target.state {
            State::Waiting(until) => Some(until),
            State::Dialing { next, next_at, .. } => target.addr(next).map(|_| next_at),
            State::Up => None,
        };
        self.targets.iter().filter_map(wanted).min()
    }

    /// A connection with `peer` exists.
    pub fn handle_up(&mut self, peer: PeerId, now: Instant) {
        if let Some(target) = self.target(peer) {
            target.state = State::Up;
            target.failures = 0;
            target.pace.up_since.get_or_insert(now);
        }
    }

    /// The last connection with `peer` is gone.
    pub fn handle_down(&mut self, peer: PeerId, now: Instant, entropy: &mut dyn Entropy) {
        if let Some(target) = self.target(peer) {
            target.pace.note_down(now);
            target.back_off(now, entropy);
        }
    }

    /// `peer` says that another machine has our identity: each of the two dials rarely, so that neither
    /// is gone for long and nobody else pays for the quarrel.
    pub fn handle_contested(&mut self, peer: PeerId, now: Instant) {
        if let Some(target) = self.target(peer) {
            target.pace.contested_until = Some(now + CONTESTED_FOR);
        }
    }

    /// A dial that [`Self::poll_dial`] asked for has failed: the next address need not wait.
    pub fn handle_failed(&mut self, peer: PeerId, now: Instant, entropy: &mut dyn Entropy) {
        let Some(target) = self.target(peer) else {
            return;
        };
        if let State::Dialing { out, next, next_at } = target.state {
            let out = out.saturating_sub(1);
            if target.addr(next).is_some() {
                let next_at = next_at.min(now);
                target.state = State::Dialing { out, next, next_at };
            } else if out > 0 {
                target.state = State::Dialing { out, next, next_at };
            } else {
                target.back_off(now, entropy);
            }
        }
    }

    /// A target without addresses, in the state that `peer` had before.
    fn fresh(&self, peer: PeerId, now: Instant) -> Target<A> {
        let old = self.targets.iter().find(|target| target.peer == peer);
        Target {
            peer,
            quic: Vec::new(),
            tcp: Vec::new(),
            state: old.map_or(State::Waiting(now), |old| old.state),
            failures: old.map_or(0, |old| old.failures),
            pace: old.map_or_else(Pace::default, |old| old.pace),
        }
    }

    fn target(&mut self, peer: PeerId) -> Option<&mut Target<A>> {
        self.targets.iter_mut().find(|target| target.peer == peer)
    }
}

impl<A: Clone + PartialEq> Target<A> {
    /// Address number `index`: QUIC and TCP in turn, then what is left of the longer list.
    fn addr(&self, index: usize) -> Option<&A> {
        let pairs = self.quic.len().min(self.tcp.len());
        let (list, at) = if index / 2 < pairs {
            (
                if index.is_multiple_of(2) {
                    &self.quic
                } else {
                    &self.tcp
                },
                index / 2,
            )
        } else if self.quic.len() > pairs {
            (&self.quic, index - pairs)
        } else {
            (&self.tcp, index - pairs)
        };
        list.get(at).map(|way| &way.addr)
    }

    fn poll(&mut self, now: Instant) -> Option<A> {
        let (out, next) = match self.state {
            State::Waiting(until) if until <= now => {
                self.pace.dialled = Some(now);
                (0, 0)
            }
            State::Dialing { out, next, next_at } if next_at <= now => (out, next),
            _ => return None,
        };
        let addr = self.addr(next)?.clone();
        self.state = State::Dialing {
            out: out + 1,
            next: next + 1,
            next_at: now + HEAD_START,
        };
        Some(addr)
    }

    fn back_off(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let longest = MIN_BACKOFF
            .saturating_mul(1 << self.failures.min(8))
            .min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        let chance = f64::from(entropy.next_u32()) / f64::from(u32::MAX);
        let share = 0.5 + chance / 2.0;
        let until = now + longest.mul_f64(share);
        self.state = State::Waiting(until.max(self.pace.not_before(now, chance)));
    }
}

/// The filter of probes (TRUST.md 19), as far as it needs no knowledge of this host. A bootstrap of this very host is no
/// attack: an invite names it, which the authority has signed.
fn may_be_dialled<A>(way: &Way<A>) -> bool {
    way.socket.is_none_or(|socket| {
        let own = socket.ip().to_canonical().is_loopback() && socket.port() != 0;
        own || admit_anywhere(socket).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use overlay_proto::SeededEntropy;

    use super::*;

    fn bootstrap(transports: &[&'static str]) -> (PeerId, Vec<Way<&'static str>>) {
        let peer = PeerId([1; 32]);
        let way = |addr: &&'static str| Way {
            peer,
            is_quic: addr.ends_with("quic-v1"),
            socket: Some(([192, 0, 2, 1], 22_612).into()),
            addr: *addr,
        };
        (peer, transports.iter().map(way).collect())
    }

    #[test]
    fn quic_first_then_tcp_then_back_off() {
        let (peer, addrs) = bootstrap(&["tcp/1", "udp/2/quic-v1"]);
        let (mut dialer, start) = (Dialer::default(), crate::some_instant());
        let mut entropy = SeededEntropy::new(1);
        dialer.set(addrs.clone(), start);
        assert_eq!(dialer.poll_dial(start), Some((peer, addrs[1].addr)));
        assert_eq!(dialer.poll_dial(start), None);
        assert_eq!(dialer.poll_timeout(), Some(start + HEAD_START));
        // A quick failure of QUIC does not wait for TCP's turn.
        dialer.handle_failed(peer, start, &mut entropy);
        assert_eq!(dialer.poll_dial(start), Some((peer, addrs[0].addr)));
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            dialer.handle_failed(peer, start, &mut entropy);
            let next = dialer.poll_timeout().unwrap();
            last = next - start;
            assert!(last >= MIN_BACKOFF / 2 && last <= MAX_BACKOFF);
            assert!(dialer.poll_dial(next).is_some());
            assert!(dialer.poll_dial(next + HEAD_START).is_some());
            dialer.handle_failed(peer, start, &mut entropy);
            dialer.handle_failed(peer, start, &mut entropy);
        }
        assert!(last >= MAX_BACKOFF / 2);
    }

    #[test]
    fn each_address_in_a_dial_of_its_own_and_in_turn() {
        let (peer, addrs) =
            bootstrap(&["udp/1/quic-v1", "udp/2/quic-v1", "tcp/3", "udp/4/quic-v1"]);
        let (mut dialer, start) = (Dialer::default(), crate::some_instant());
        dialer.set(addrs.clone(), start);
        let mut dialled = Vec::new();
        for step in 0..8 {
            let now = start + HEAD_START * step;
            dialled.extend(dialer.poll_dial(now).map(|(_, addr)| addr));
            assert_eq!(dialer.poll_dial(now), None);
        }
        let order = [0, 2, 1, 3].map(|index: usize| addrs[index].addr);
        assert_eq!(dialled, order);
        assert_eq!(dialer.poll_timeout(), None);
        let mut entropy = SeededEntropy::new(3);
        for _ in 0..4 {
            assert_eq!(dialer.poll_timeout(), None);
            dialer.handle_failed(peer, start, &mut entropy);
        }
        assert!(dialer.poll_timeout().is_some());
    }

    #[test]
    fn trust_19_an_address_of_no_single_host_is_not_dialled() {
        let (mut dialer, start) = (Dialer::default(), crate::some_instant());
        let way = |socket: &'static str| Way {
            peer: PeerId([1; 32]),
            is_quic: false,
            socket: Some(socket.parse().unwrap()),
            addr: socket,
        };
        let refused = [
            "224.0.0.1:9",
            "255.255.255.255:9",
            "0.0.0.0:9",
            "192.0.2.1:0",
            "127.0.0.1:0",
        ];
        let may = ["127.0.0.1:9", "10.0.0.1:9", "[2001:db8::1]:9"];
        dialer.set(refused.iter().chain(&may).map(|socket| way(socket)), start);
        let dialled = (0..8).filter_map(|step| dialer.poll_dial(start + HEAD_START * step));
        assert_eq!(dialled.map(|(_, addr)| addr).collect::<Vec<_>>(), may);
    }

    /// How often a node dials whose connections are each closed after `life`, in `within`.
    fn dials(contested: bool, life: Duration, within: Duration) -> usize {
        let (peer, addrs) = bootstrap(&["udp/1/quic-v1"]);
        let (mut dialer, start) = (Dialer::default(), crate::some_instant());
        let mut entropy = SeededEntropy::new(5);
        dialer.set(addrs.clone(), start);
        let (mut now, mut count) = (start, 0);
        while now < start + within {
            assert!(dialer.poll_dial(now).is_some());
            count += 1;
            dialer.handle_up(peer, now);
            if contested {
                dialer.handle_contested(peer, now);
            }
            now += life;
            dialer.handle_down(peer, now, &mut entropy);
            now = dialer.poll_timeout().unwrap();
        }
        count
    }

    #[test]
    fn two_with_one_identity_dial_once_in_ten_seconds() {
        let minute = Duration::from_secs(60);
        for life in [Duration::from_millis(50), Duration::from_secs(7)] {
            let dials = dials(true, life, minute);
            assert!((5..=6).contains(&dials), "{dials}");
        }
        // Without a word from the bootstrap, after a few tries.
        let told_nothing = dials(false, Duration::from_millis(50), minute);
        assert!(
            (5..=6 + SHORT_LIVES as usize).contains(&told_nothing),
            "{told_nothing}"
        );
        // A bootstrap that restarts now and then is dialled at once.
        let restarts = dials(false, Duration::from_secs(11), minute);
        assert!(restarts >= 5, "{restarts}");
    }

    #[test]
    fn a_bootstrap_that_was_up_for_long_is_dialled_at_once_after_a_quarrel() {
        let (peer, addrs) = bootstrap(&["tcp/1"]);
        let (mut dialer, start) = (Dialer::default(), crate::some_instant());
        let mut entropy = SeededEntropy::new(6);
        dialer.set(addrs.clone(), start);
        assert!(dialer.poll_dial(start).is_some());
        dialer.handle_up(peer, start);
        dialer.handle_contested(peer, start);
        let later = start + CONTESTED_FOR;
        dialer.handle_down(peer, later, &mut entropy);
        assert!(dialer.poll_timeout().unwrap() <= later + MIN_BACKOFF);
    }

    #[test]
    fn up_and_down() {
        let (peer, addrs) = bootstrap(&["tcp/1"]);
        let (mut dialer, now) = (Dialer::default(), crate::some_instant());
        let mut entropy = SeededEntropy::new(2);
        dialer.set(addrs.clone(), now);
        assert!(dialer.poll_dial(now).is_some());
        dialer.handle_up(peer, now);
        assert_eq!(dialer.poll_timeout(), None);
        // The same list again does not dial again.
        dialer.set(addrs.clone(), now);
        assert_eq!(dialer.poll_dial(now), None);
        dialer.handle_down(peer, now, &mut entropy);
        assert!(dialer.poll_timeout().unwrap() <= now + MIN_BACKOFF);
        dialer.set([], now);
        assert_eq!(dialer.poll_timeout(), None);
    }
}
