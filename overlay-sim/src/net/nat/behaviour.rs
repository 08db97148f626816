//! What a NAT or firewall does, as data, and the kinds that are met.

use std::time::Duration;

use nat_traversal::nat_kind::{Filtering, Mapping};

/// What a NAT or firewall does with UDP, in the words of RFC 4787.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatBehaviour {
    /// For which destinations an inside endpoint keeps its external one (section 4.1). `None` does not translate: a
    /// firewall or router. `Unknown` is taken for address-and-port-dependent.
    pub mapping: Mapping,
    /// Whose datagrams come in (section 5). `None` is endpoint-independent, and without translation lets everything in.
    /// `Unknown` is taken for address-and-port-dependent.
    pub filtering: Filtering,
    /// How an external port is chosen (section 4.2).
    pub port: PortChoice,
    /// How long a mapping, and what was sent to somebody, counts without use (section 4.3).
    pub expiry: Duration,
    /// Whether datagrams that come in count as use. Those that go out always do.
    pub inbound_refreshes: bool,
    /// Whether inside hosts reach each other by their external endpoints (section 6).
    pub hairpin: bool,
    /// What becomes of an inbound datagram that nothing asked for.
    pub unsolicited: Unsolicited,
    /// Nothing passes, in neither direction. TCP does.
    pub blocks_udp: bool,
    /// Mappings it holds, and as many remembered destinations; at most [`NatBehaviour::MOST`]. For a new one the least
    /// recently used makes room, so an inside host that opens too many loses its oldest, or somebody else's.
    pub table: usize,
}

/// How the external port of a new mapping is chosen. No two inside endpoints share one at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// The inside port; where that is taken, the next free one above.
    Preserving,
    /// The next free one, counted up from a start that chance gives: who has seen two guesses the third.
    Rewriting,
    /// A free one that chance gives.
    Random,
}

/// What becomes of an inbound datagram that nothing asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// It leaves no trace.
    Dropped,
    /// It does not reach the inside, but the router *accepts* it for itself.
    ///
    /// So does a bare Linux router, one that masquerades and has no rule that drops in its INPUT chain (a Docker host
    /// is one, many a cloud router, and a home router with an open management side). Its conntrack then has an entry
    /// of its own for the tuple: remote endpoint, WAN address, port. When the inside host sends to that same remote
    /// endpoint, masquerading wants to preserve the port, finds the tuple taken and gives *this flow* another port.
    ///
    /// The flows to everybody else keep the port that reflectors have seen, so nothing the host knows of itself is
    /// wrong, and yet the remote sees it at a port that nobody told it. This happens to whoever is probed before it
    /// probes: an early probe spoils the simultaneous one. A remote that lets in only known ports then hears nothing,
    /// until the tuple is
    /// forgotten ([`UNREPLIED`] after the last such probe).
    Accepted,
}

/// How long a router keeps the tuple of a datagram that it accepted for itself and did not answer: Linux's
/// `nf_conntrack_udp_timeout`.
pub const UNREPLIED: Duration = Duration::from_secs(30);

impl NatBehaviour {
    /// More cannot be held: there are 64,512 ports from 1,024 on.
    pub const MOST: usize = 60_000;

    /// The usual home router: keeps the inside port, lets in those who were sent to. Two minutes, as RFC 4787 wants at
    /// least; many have less.
    pub const PORT_PRESERVING: Self = Self {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        port: PortChoice::Preserving,
        expiry: Duration::from_secs(120),
        inbound_refreshes: true,
        hairpin: false,
        unsolicited: Unsolicited::Dropped,
        blocks_udp: false,
        table: 4_096,
    };

    /// The same with other ports outside: an external port is to be learnt, never guessed.
    pub const PORT_REWRITING: Self = Self {
        port: PortChoice::Rewriting,
        hairpin: true,
        ..Self::PORT_PRESERVING
    };

    /// Lets in anybody at an external endpoint that exists, as many games want it.
    pub const FULL_CONE: Self = Self {
        filtering: Filtering::EndpointIndependent,
        hairpin: true,
        ..Self::PORT_PRESERVING
    };

    /// Another external port, by chance, for each destination.
    pub const SYMMETRIC: Self = Self {
        mapping: Mapping::AddressAndPortDependent,
        port: PortChoice::Random,
        expiry: Duration::from_secs(60),
        ..Self::PORT_PRESERVING
    };

    /// Masquerading with nothing beside, see [`Unsolicited::Accepted`]. Simpler than Linux in one thing: Linux lets two inside
    /// endpoints have the same external port while they send to different remotes; here the second gets another.
    pub const BARE_LINUX: Self = Self {
        unsolicited: Unsolicited::Accepted,
        ..Self::PORT_PRESERVING
    };

    /// The provider's NAT that many homes share (RFC 6888): endpoint-independent, forgets soon, and inbound datagrams do not keep
    /// a mapping.
    pub const PROVIDER: Self = Self {
        port: PortChoice::Random,
        expiry: Duration::from_secs(60),
        inbound_refreshes: false,
        hairpin: true,
        table: Self::MOST,
        ..Self::PORT_PRESERVING
    };

    /// No translation; lets in answers only. What is usual for IPv6.
    pub const STATEFUL_FIREWALL: Self = Self {
        mapping: Mapping::None,
        ..Self::PORT_PRESERVING
    };

    /// No translation, no filter, no state.
    pub const ROUTER: Self = Self {
        filtering: Filtering::None,
        ..Self::STATEFUL_FIREWALL
    };

    /// A company's firewall that lets out TCP only, and translates it.
    pub const UDP_BLOCKED: Self = Self {
        blocks_udp: true,
        ..Self::PORT_PRESERVING
    };

    /// A home behind a CGN: two NATs in a row, the one at the internet first; for
    /// [`Net::add_chain`](crate::net::topology::Net::add_chain).
    pub const CARRIER_GRADE: [Self; 2] = [Self::PROVIDER, Self::PORT_PRESERVING];

    /// Whether addresses are translated.
    #[must_use]
    pub const fn translates(&self) -> bool {
        !matches!(self.mapping, Mapping::None)
    }

    /// Whether everything passes and nothing is remembered.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.translates() && matches!(self.filtering, Filtering::None)
    }
}
