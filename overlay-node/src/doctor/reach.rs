//! Does each bootstrap answer: by TCP, by QUIC, by UDP as frames' datagrams go?

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use control_plane::{Multiaddr, addr};
use nat_traversal::host::HostView;
use nat_traversal::nat_kind::{Mapping, NatKind, Observer};
use nat_traversal::reflector::{TransactionId, decode_response, encode_request};
use overlay_proto::Entropy;
use overlay_proto::ids::PeerId;

use super::Finding;
use crate::control_socket::api::StatusReport;
use crate::state::OsEntropy;

/// How long an answer may take. Three tries of it fit.
const PATIENCE: Duration = Duration::from_millis(2_100);

/// From one try by UDP to the next.
const TRY_EVERY: Duration = Duration::from_millis(700);

/// What the QUIC port is above the one for frames, unless the operator says otherwise.
const QUIC_OFFSET: u16 = 1;

/// QUIC's smallest first datagram (RFC 9000 section 14.1), in bytes.
const QUIC_INITIAL: usize = 1_200;

/// A version that nobody has (RFC 9000 section 15), so that every server names those that it has.
const QUIC_NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];

/// A bootstrap to try, by its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contact {
    peer: Option<PeerId>,
    tcp: BTreeSet<SocketAddr>,
    quic: BTreeSet<SocketAddr>,
}

impl FromStr for Contact {
    type Err = String;

    /// A multiaddr, with or without `/p2p/`, or `HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self {
                peer: None,
                tcp: [socket].into(),
                quic: socket
                    .port()
                    .checked_add(QUIC_OFFSET)
                    .map(|port| SocketAddr::new(socket.ip(), port))
                    .into_iter()
                    .collect(),
            });
        }
        let wrong = || {
            format!(
                "`{text}` is no address of a bootstrap; write 192.0.2.1:22611, /ip4/192.0.2.1/tcp/22611 or \
                 /ip4/192.0.2.1/udp/22612/quic-v1"
            )
        };
        let parsed: Multiaddr = text.parse().map_err(|_| wrong())?;
        let bare = addr::without_peer(&parsed);
        let socket = addr::socket_addr(&bare).ok_or_else(wrong)?;
        let mut contact = Self {
            peer: addr::peer_of(&parsed),
            ..Self::default()
        };
        if bare == addr::tcp(socket) {
            contact.tcp.insert(socket);
        } else if bare == addr::quic(socket) {
            contact.quic.insert(socket);
        } else {
            return Err(wrong());
        }
        Ok(contact)
    }
}

impl Contact {
    /// Adds `more` to `all`: to the one of the same node, if there is one.
    pub(super) fn add(all: &mut Vec<Self>, more: Self) {
        let same = |one: &&mut Self| one.peer.is_some() && one.peer == more.peer;
        match all.iter_mut().find(same) {
            Some(known) => {
                known.tcp.extend(more.tcp);
                known.quic.extend(more.quic);
            }
            None => all.push(more),
        }
    }

    /// Where frames' datagrams go: the TCP port's number, or the one below QUIC's.
    fn data(&self) -> BTreeSet<SocketAddr> {
        let below = |quic: &SocketAddr| {
            let port = quic.port().checked_sub(QUIC_OFFSET)?;
            Some(SocketAddr::new(quic.ip(), port))
        };
        let from_quic = self.quic.iter().filter_map(below);
        self.tcp.iter().copied().chain(from_quic).collect()
    }

    fn name(&self) -> String {
        let addresses = self.tcp.iter().chain(&self.quic);
        match (self.peer, addresses.clone().next()) {
            (Some(peer), Some(first)) => {
                let id = peer.to_string();
                let end = id.get(id.len().saturating_sub(6)..).unwrap_or_default();
                format!("..{end} at {}", first.ip())
            }
            (_, first) => first.map_or_else(String::new, |first| first.ip().to_string()),
        }
    }
}

/// What became of one address.
#[derive(Debug)]
struct Tried {
    at: SocketAddr,
    outcome: Result<Duration, String>,
}

/// What became of one bootstrap.
#[derive(Debug)]
pub(super) struct Reached {
    contact: Contact,
    tcp: Vec<Tried>,
    quic: Vec<Tried>,
    udp: Vec<Tried>,
    /// Where reflectors see the one socket that asked them all.
    seen: Vec<(SocketAddr, SocketAddr)>,
}

impl Reached {
    /// Its addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.contact.tcp.iter().chain(&self.contact.quic).copied()
    }
}

/// Tries all addresses of all `contacts` at once.
pub(super) fn try_all(contacts: Vec<Contact>) -> Vec<Reached> {
    let sockets = AskingSockets::bind();
    let one = |contact: Contact| -> Reached {
        std::thread::scope(|scope| {
            let tcp = contact
                .tcp
                .iter()
                .map(|&at| scope.spawn(move || try_tcp(at)));
            let tcp: Vec<_> = tcp.collect();
            let quic = contact
                .quic
                .iter()
                .map(|&at| scope.spawn(move || try_quic(at)));
            let quic: Vec<_> = quic.collect();
            let mut udp = Vec::new();
            let mut seen = Vec::new();
            for at in contact.data() {
                let outcome = sockets.ask(at).map(|(took, observed)| {
                    seen.push((at, observed));
                    took
                });
                udp.push(Tried { at, outcome });
            }
            let done = |threads: Vec<std::thread::ScopedJoinHandle<'_, Tried>>| -> Vec<Tried> {
                threads
                    .into_iter()
                    .filter_map(|one| one.join().ok())
                    .collect()
            };
            Reached {
                tcp: done(tcp),
                quic: done(quic),
                udp,
                seen,
                contact: contact.clone(),
            }
        })
    };
    contacts.into_iter().map(one).collect()
}

fn try_tcp(at: SocketAddr) -> Tried {
    let began = Instant::now();
    let outcome = TcpStream::connect_timeout(&at, PATIENCE)
        .map(|_| began.elapsed())
        .map_err(|error| said(&error));
    Tried { at, outcome }
}

/// A datagram of an unknown version: a QUIC server answers with those that it knows.
fn try_quic(at: SocketAddr) -> Tried {
    let mut packet = vec![0; QUIC_INITIAL];
    let mut ids = [0; 16];
    OsEntropy.fill(&mut ids);
    let (destination, source) = ids.split_at(8);
    let head = [
        &[0xc0][..],
        &QUIC_NO_VERSION,
        &[8],
        destination,
        &[8],
        source,
    ]
    .concat();
    packet.splice(..head.len(), head);
    let is_answer = |bytes: &[u8]| {
        let long = bytes.first().is_some_and(|first| first & 0x80 != 0);
        // A version of 0 is the answer; it names the connection the other way round.
        long && bytes.get(1..5) == Some(&[0; 4]) && bytes.get(6..14) == Some(source)
    };
    let outcome = exchange(&unconnected(at), at, &packet, |bytes| {
        is_answer(bytes).then_some(())
    });
    let outcome = outcome.map(|(took, ())| took);
    Tried { at, outcome }
}

fn unconnected(at: SocketAddr) -> io::Result<UdpSocket> {
    match at {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// One socket for each family, for all reflectors: only so do their answers show how a NAT maps.
struct AskingSockets {
    v4: io::Result<UdpSocket>,
    v6: io::Result<UdpSocket>,
}

impl AskingSockets {
    fn bind() -> Self {
        Self {
            v4: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
            v6: UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
        }
    }

    /// Asks the reflector at `at`: how long the answer took, and where it sees us.
    fn ask(&self, at: SocketAddr) -> Result<(Duration, SocketAddr), String> {
        let mut id = [0; 12];
        OsEntropy.fill(&mut id);
        let id = TransactionId(id);
        let socket = if at.is_ipv4() { &self.v4 } else { &self.v6 };
        exchange(socket, at, &encode_request(id), |bytes| {
            let (answered, observed) = decode_response(bytes).ok()?;
            (answered == id).then_some(observed)
        })
    }
}

/// Sends `packet` until an answer comes that `read` takes.
fn exchange<T>(
    socket: &io::Result<UdpSocket>,
    to: SocketAddr,
    packet: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<(Duration, T), String> {
    let socket = socket.as_ref().map_err(said)?;
    let began = Instant::now();
    let mut buffer = [0; 2_048];
    while began.elapsed() < PATIENCE {
        socket.send_to(packet, to).map_err(|error| said(&error))?;
        let tried = Instant::now();
        while let Some(left) = TRY_EVERY
            .checked_sub(tried.elapsed())
            .filter(|left| !left.is_zero())
        {
            socket
                .set_read_timeout(Some(left))
                .map_err(|error| said(&error))?;
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) if from == to => {
                    if let Some(answer) = buffer.get(..len).and_then(&read) {
                        return Ok((began.elapsed(), answer));
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(said(&error)),
            }
        }
    }
    Err(format!("no answer within {} s", PATIENCE.as_secs()))
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused: nothing listens there".to_owned(),
        io::ErrorKind::TimedOut => format!("no answer within {} s", PATIENCE.as_secs()),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "no route leads there".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A line for each bootstrap and each way to it.
pub(super) fn findings(reached: &[Reached]) -> Vec<Finding> {
    if reached.is_empty() {
        return vec![Finding::note(
            "bootstrap",
            "none is known; join first, or name one with --bootstrap",
        )];
    }
    reached.iter().flat_map(of_one).collect()
}

fn of_one(one: &Reached) -> Vec<Finding> {
    let name = one.contact.name();
    let mut findings = Vec::new();
    let answers = |tried: &[Tried]| tried.iter().any(|one| one.outcome.is_ok());
    let (tcp, quic) = (answers(&one.tcp), answers(&one.quic));
    let ways = [("TCP", &one.tcp, quic), ("QUIC", &one.quic, tcp)];
    for (way, tried, other_way) in ways {
        if tried.is_empty() {
            continue;
        }
        let evidence = format!("{name} by {way}: {}", outcomes(tried));
        findings.push(if answers(tried) {
            Finding::ok("bootstrap", evidence)
        } else if other_way {
            Finding::new("bootstrap", super::Verdict::Note, evidence, None)
        } else {
            let port = tried.first().map_or(0, |one| one.at.port());
            let proto = if way == "TCP" { "TCP" } else { "UDP" };
            Finding::fail(
                "bootstrap",
                evidence,
                format!(
                    "see that farlan-bootstrap runs there, and that {proto} port {port} is open at it and \
                     in this site's firewall"
                ),
            )
        });
    }
    let evidence = format!("{name} by UDP, as frames go: {}", outcomes(&one.udp));
    findings.push(if answers(&one.udp) {
        Finding::ok("bootstrap", evidence)
    } else {
        let port = one.udp.first().map_or(0, |one| one.at.port());
        Finding::fail(
            "bootstrap",
            evidence,
            format!(
                "open UDP port {port} at the bootstrap, and let UDP out of this site's firewall; without it \
                 frames pass on a LAN only"
            ),
        )
    });
    findings
}

fn outcomes(tried: &[Tried]) -> String {
    let one = |tried: &Tried| match &tried.outcome {
        Ok(took) => format!("{} answers in {:.0} ms", tried.at, took.as_secs_f64() * 1e3),
        Err(why) => format!("{}: {why}", tried.at),
    };
    tried.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What kind of NAT is in front of this host: the node's word, or what the reflectors saw just now.
pub(super) fn nat(reached: &[Reached], view: &HostView, status: Option<&StatusReport>) -> Finding {
    let (mapping, seen) = match status {
        Some(status) => (status.nat.mapping, status.nat.reflexive.clone()),
        None => judged(reached, view),
    };
    let at = seen
        .first()
        .map_or_else(String::new, |at| format!(", seen at {at}"));
    match mapping {
        Mapping::None => Finding::ok("nat", "none: this host is seen at its own address"),
        Mapping::EndpointIndependent => Finding::ok(
            "nat",
            format!("maps alike for all{at}: direct paths are likely"),
        ),
        Mapping::AddressDependent | Mapping::AddressAndPortDependent => Finding::warning(
            "nat",
            format!(
                "maps each destination to another port ({}){at}",
                mapping.name()
            ),
            "forward the node's UDP port on the router; without it peers behind such NATs are relayed",
        ),
        Mapping::Unknown if seen.is_empty() => {
            Finding::note("nat", "not known: nobody has seen this host by UDP")
        }
        Mapping::Unknown => Finding::note(
            "nat",
            format!(
                "there is one{at}; one observer cannot show how it maps, a second bootstrap would"
            ),
        ),
    }
}

fn judged(reached: &[Reached], view: &HostView) -> (Mapping, Vec<SocketAddr>) {
    let mut kind = NatKind::new();
    let now = Instant::now();
    let mut own = Vec::new();
    for (_, observed) in reached.iter().flat_map(|one| &one.seen) {
        let at = |ip| SocketAddr::new(ip, observed.port());
        own.extend(view.addresses.iter().map(|own| at(own.net.addr())));
    }
    kind.set_local(&own);
    for (reflector, observed) in reached.iter().flat_map(|one| &one.seen) {
        kind.handle_observation(now, (Observer::Reflector, *reflector), *observed);
    }
    (kind.mapping(), kind.current(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn an_address_says_which_ways_there_are() {
        let short: Contact = "192.0.2.1:22611".parse().unwrap();
        assert_eq!(short.data(), ["192.0.2.1:22611".parse().unwrap()].into());
        assert_eq!(short.quic, ["192.0.2.1:22612".parse().unwrap()].into());
        let quic: Contact = "/ip4/192.0.2.1/udp/22612/quic-v1".parse().unwrap();
        assert!(quic.tcp.is_empty());
        assert_eq!(quic.data(), short.data());
        for wrong in ["", "boot", "/dns4/boot/tcp/1", "/ip4/192.0.2.1/udp/7"] {
            assert!(wrong.parse::<Contact>().is_err(), "{wrong}");
        }
    }

    /// A reflector and a server that answers nothing, on this host.
    #[test]
    fn who_answers_is_told_from_who_is_silent() {
        let reflector = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = reflector.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            let (len, from) = reflector.recv_from(&mut buffer).unwrap();
            let id = nat_traversal::reflector::decode_request(&buffer[..len]).unwrap();
            let answer = nat_traversal::reflector::encode_response(id, from);
            reflector.send_to(&answer, from).unwrap();
        });
        let sockets = AskingSockets::bind();
        let (_, observed) = sockets.ask(at).unwrap();
        let own = sockets.v4.as_ref().unwrap().local_addr().unwrap();
        assert_eq!(observed.port(), own.port());
        answering.join().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tried = try_quic(silent.local_addr().unwrap());
        assert!(tried.outcome.unwrap_err().contains("no answer"));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = closed.local_addr().unwrap();
        assert!(try_tcp(at).outcome.is_ok());
        drop(closed);
        assert!(try_tcp(at).outcome.unwrap_err().contains("nothing listens"));
    }

    #[test]
    fn one_way_of_the_two_is_enough_for_control_but_not_for_frames() {
        let tried = |ok: bool| {
            vec![Tried {
                at: "192.0.2.1:22611".parse().unwrap(),
                outcome: if ok {
                    Ok(Duration::ZERO)
                } else {
                    Err("silent".to_owned())
                },
            }]
        };
        let reached = |tcp, quic, udp| Reached {
            contact: "192.0.2.1:22611".parse().unwrap(),
            tcp: tried(tcp),
            quic: tried(quic),
            udp: tried(udp),
            seen: Vec::new(),
        };
        let verdicts = |one: &Reached| -> Vec<Verdict> {
            of_one(one).iter().map(|finding| finding.verdict).collect()
        };
        let [good, note, fail] = [Verdict::Ok, Verdict::Note, Verdict::Fail];
        assert_eq!(verdicts(&reached(true, true, true)), [good, good, good]);
        assert_eq!(verdicts(&reached(true, false, true)), [good, note, good]);
        assert_eq!(verdicts(&reached(false, false, false)), [fail, fail, fail]);
        assert_eq!(verdicts(&reached(true, true, false)), [good, good, fail]);
    }
}
