//! How a datagram travels: up when it is sent, down when its time comes.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Access, HostId, Lost, Net, RealmId, Station};
use crate::net::link::{Crossed, Dropped};
use crate::net::trace::{Fate, Line};

/// The headers of IPv4 and UDP, and of IPv6 and UDP, bytes.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// What [`Net::deliver`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram for a host.
    Datagram(Delivery),
    /// News for a host about a datagram that it sent.
    TooLarge(Report),
}

/// A datagram as the receiving host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Duration,
    /// Who gets it.
    pub host: HostId,
    /// At which of its addresses and ports.
    pub local: SocketAddr,
    /// From where, as seen there.
    pub source: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// "Packet too big" or "fragmentation needed", as the sending host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub at: Duration,
    /// Who gets it.
    pub host: HostId,
    /// From which of its addresses and ports the datagram was sent.
    pub local: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// The largest IP packet that would have passed there, bytes.
    pub mtu: usize,
}

#[derive(Debug)]
pub(super) enum InFlight {
    Datagram(Flight),
    Report(Report),
}

/// A datagram under way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    sender: HostId,
    sent: Duration,
    /// Source and destination as the sender wrote them.
    local: SocketAddr,
    addressed: SocketAddr,
    /// Source and destination as they are in `realm`.
    from: SocketAddr,
    to: SocketAddr,
    realm: RealmId,
    /// For whom it is in `realm`.
    station: Station,
    leg: Leg,
    bytes: Vec<u8>,
}

/// How far a datagram has come on its way to a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// At the outer end of its access link.
    Link,
    /// At the station.
    Station,
}

/// What climbing has come to.
#[derive(Debug)]
struct Climb {
    at: Duration,
    /// That many more go the same way.
    copies: u64,
}

/// A step on the way down.
enum Step {
    /// On at this time.
    On(Duration),
    /// It has arrived.
    Here(HostId),
}

impl Flight {
    fn packet_len(&self) -> usize {
        let headers = if self.to.is_ipv4() {
            HEADERS_V4
        } else {
            HEADERS_V6
        };
        self.bytes.len().saturating_add(headers)
    }
}

impl Net {
    /// A host sends a datagram. Calls come in the order of their times.
    ///
    /// # Errors
    ///
    /// Why it was lost at once; it may be lost later too. A host learns nothing of it, but for [`Lost::TooLarge`] from its
    /// own link, [`Lost::NoRoute`] and [`Lost::NotOwnAddress`], which its kernel would tell.
    pub fn send(
        &mut self,
        now: Duration,
        host: HostId,
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) -> Result<(), Lost> {
        self.tally.sent += 1;
        let mut flight = Flight {
            sender: host,
            sent: now,
            local: from,
            addressed: to,
            from,
            to,
            realm: Self::INTERNET,
            station: Station::Host(host),
            leg: Leg::Link,
            bytes,
        };
        self.tally.bytes += u64::try_from(flight.packet_len()).unwrap_or(u64::MAX);
        let mut climb = Climb { at: now, copies: 0 };
        if let Err(lost) = self.climb(now, &mut flight, &mut climb) {
            for _ in 0..=climb.copies {
                self.lose(now, &flight, lost);
            }
            return Err(lost);
        }
        for _ in 0..climb.copies {
            // What becomes of a copy is the copy's matter.
            let _ = self.launch(now, climb.at, flight.clone());
        }
        self.launch(now, climb.at, flight)
    }

    /// When the next datagram or report moves on; it may still be lost then.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.flights.next_at()
    }

    /// What has arrived by `now`, in the order of its times: to be called until it gives nothing.
    pub fn deliver(&mut self, now: Duration) -> Option<Arrival> {
        while let Some((at, event)) = self.flights.pop_until(now) {
            match event {
                InFlight::Datagram(flight) => {
                    if let Some(delivery) = self.descend(at, flight) {
                        return Some(Arrival::Datagram(delivery));
                    }
                }
                InFlight::Report(report) => {
                    self.reports = self.reports.saturating_sub(1);
                    if let Some(report) = self.tell(at, report) {
                        return Some(Arrival::TooLarge(report));
                    }
                }
            }
        }
        None
    }

    /// Up to the first realm that knows the destination.
    fn climb(&mut self, now: Duration, flight: &mut Flight, climb: &mut Climb) -> Result<(), Lost> {
        let host = self.host(flight.sender).ok_or(Lost::HostDown)?;
        if !host.running {
            return Err(Lost::HostDown);
        }
        let mut interfaces = host.interfaces.iter();
        let own = interfaces.find(|known| known.addresses.contains(&flight.from.ip()));
        flight.realm = own.ok_or(Lost::NotOwnAddress)?.realm;
        if flight.from.is_ipv4() != flight.to.is_ipv4() {
            return Err(Lost::NoRoute);
        }
        let mut came = Station::Host(flight.sender);
        loop {
            self.cross_up(came, flight, climb)?;
            let here = self.realm_mut(flight.realm).ok_or(Lost::NoRoute)?;
            if let Some(owner) = here.owners.get(&flight.to.ip()) {
                flight.station = *owner;
                climb.at = climb.at.saturating_add(here.medium);
                return self.cross_medium(came, flight, climb);
            }
            let parent = here.parent.ok_or(Lost::NoRoute)?;
            let nat = here.nat_mut(flight.to.ip()).ok_or(Lost::NoRoute)?;
            flight.from = nat.outbound(now, flight.from, flight.to)?;
            if nat.behaviour().translates() && nat.wan() == flight.to.ip() {
                flight.to = nat.inbound(now, flight.from, flight.to)?;
                let owner = here.owners.get(&flight.to.ip());
                flight.station = *owner.ok_or(Lost::NoRoute)?;
                return Ok(());
            }
            came = Station::Realm(flight.realm);
            flight.realm = parent;
        }
    }

    fn cross_up(&mut self, came: Station, flight: &Flight, climb: &mut Climb) -> Result<(), Lost> {
        let access = self.access_mut(came, flight.realm).ok_or(Lost::CutOff)?;
        connected(access)?;
        match access.up.cross(climb.at, flight.packet_len()) {
            Ok(Crossed { at, twice }) => {
                climb.at = at;
                climb.copies += u64::from(twice);
                self.tally.duplicated += u64::from(twice);
                Ok(())
            }
            Err(dropped) => {
                // An own link that is too small is known at once.
                if matches!(came, Station::Realm(_)) {
                    self.report(climb.at, flight, dropped);
                }
                Err(dropped.into())
            }
        }
    }

    fn cross_medium(&self, came: Station, flight: &Flight, climb: &mut Climb) -> Result<(), Lost> {
        if self.is_partitioned(flight.realm, came, flight.station) {
            return Err(Lost::Partitioned);
        }
        let place = |station| {
            self.access(station, flight.realm)
                .map(|access| access.place)
        };
        if let (Some(from), Some(to)) = (place(came), place(flight.station)) {
            climb.at = climb.at.saturating_add(from.distance(to));
        }
        Ok(())
    }

    /// Begins the way down. A link that treats all alike is crossed in thought, which spares an event.
    fn launch(&mut self, now: Duration, mut at: Duration, mut flight: Flight) -> Result<(), Lost> {
        let access = self.access(flight.station, flight.realm);
        if access.is_some_and(|access| access.down.behaviour().is_stateless()) {
            match self.cross_down(at, &mut flight) {
                Ok(out) => at = out,
                Err(lost) => {
                    self.lose(now, &flight, lost);
                    return Err(lost);
                }
            }
        }
        self.flights.push(at, InFlight::Datagram(flight));
        Ok(())
    }

    fn cross_down(&mut self, at: Duration, flight: &mut Flight) -> Result<Duration, Lost> {
        let access = self.access_mut(flight.station, flight.realm);
        let access = access.ok_or(Lost::NoRoute)?;
        connected(access)?;
        match access.down.cross(at, flight.packet_len()) {
            Ok(Crossed { at: out, twice }) => {
                flight.leg = Leg::Station;
                if twice {
                    self.tally.duplicated += 1;
                    self.flights.push(out, InFlight::Datagram(flight.clone()));
                }
                Ok(out)
            }
            Err(dropped) => {
                self.report(at, flight, dropped);
                Err(dropped.into())
            }
        }
    }

    fn descend(&mut self, at: Duration, mut flight: Flight) -> Option<Delivery> {
        loop {
            match self.step_down(at, &mut flight) {
                Ok(Step::On(later)) if later > at => {
                    self.flights.push(later, InFlight::Datagram(flight));
                    return None;
                }
                Ok(Step::On(_)) => {}
                Ok(Step::Here(host)) => {
                    self.tally.delivered += 1;
                    self.record(at, &flight, Fate::Delivered(host));
                    return Some(Delivery {
                        at,
                        host,
                        local: flight.to,
                        source: flight.from,
                        bytes: flight.bytes,
                    });
                }
                Err(lost) => {
                    self.lose(at, &flight, lost);
                    return None;
                }
            }
        }
    }

    fn step_down(&mut self, at: Duration, flight: &mut Flight) -> Result<Step, Lost> {
        if flight.leg == Leg::Link {
            return self.cross_down(at, flight).map(Step::On);
        }
        let ip = flight.to.ip();
        match flight.station {
            Station::Host(id) => {
                let host = self.host(id).ok_or(Lost::NoRoute)?;
                let mut interfaces = host.interfaces.iter();
                let own = interfaces.find(|known| known.realm == flight.realm);
                let own = own.filter(|known| known.addresses.contains(&ip));
                connected(&own.ok_or(Lost::NoRoute)?.access)?;
                if !host.running {
                    return Err(Lost::HostDown);
                }
                Ok(Step::Here(id))
            }
            Station::Realm(id) => {
                let below = self.realm_mut(id).ok_or(Lost::NoRoute)?;
                connected(&below.access)?;
                let nat = below.nat_mut(ip).ok_or(Lost::NoRoute)?;
                if nat.behaviour().translates() && nat.wan() != ip {
                    return Err(Lost::NoRoute);
                }
                flight.to = nat.inbound(at, flight.from, flight.to)?;
                let owner = below.owners.get(&flight.to.ip());
                flight.station = *owner.ok_or(Lost::NoRoute)?;
                flight.realm = id;
                flight.leg = Leg::Link;
                Ok(Step::On(at))
            }
        }
    }

    /// The way back of a report is as long as the way of its datagram was. Links do not lose it.
    fn report(&mut self, at: Duration, flight: &Flight, dropped: Dropped) {
        let Dropped::Told(mtu) = dropped else { return };
        let back = at.saturating_add(at.saturating_sub(flight.sent));
        self.reports += 1;
        let report = Report {
            at: back,
            host: flight.sender,
            local: flight.local,
            to: flight.addressed,
            mtu,
        };
        self.flights.push(back, InFlight::Report(report));
    }

    fn tell(&mut self, at: Duration, report: Report) -> Option<Report> {
        let host = self.host(report.host)?;
        let mut addresses = (host.interfaces.iter()).flat_map(|known| &known.addresses);
        if !host.running || !addresses.any(|ip| *ip == report.local.ip()) {
            return None;
        }
        self.tally.told += 1;
        let line = Line {
            at,
            sender: report.host,
            from: report.local,
            to: report.to,
            len: 0,
            fate: Fate::Told(report.mtu),
        };
        self.trace.record(line, &[]);
        Some(Report { at, ..report })
    }

    fn lose(&mut self, at: Duration, flight: &Flight, lost: Lost) {
        *self.tally.lost.entry(lost).or_insert(0) += 1;
        self.record(at, flight, Fate::Lost(lost));
    }

    fn record(&mut self, at: Duration, flight: &Flight, fate: Fate) {
        let line = Line {
            at,
            sender: flight.sender,
            from: flight.from,
            to: flight.to,
            len: flight.bytes.len(),
            fate,
        };
        self.trace.record(line, &flight.bytes);
    }
}

const fn connected(access: &Access) -> Result<(), Lost> {
    if access.connected {
        Ok(())
    } else {
        Err(Lost::CutOff)
    }
}
