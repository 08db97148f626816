//! The host's own network: looked at when the kernel tells of a change, beside the slow path.
//!
//! What follows from a look is decided in [`nat_traversal::host`]. It is taken over here: which
//! addresses peers are told, what is not sent to, and whether the way out still leads out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nat_traversal::host::{AttachedNetwork, HostView, LocalAddresses, LostWay, WayOut};
use nat_traversal::path::SocketId;
use overlay_proto::drop_reason::DropReason;

use super::Candidates;
use crate::node::effects::Effect;
use crate::node::host_orders::HostTask;
use crate::node::outside::Outside;
use crate::node::warnings::Topic;

/// Time for the kernel to finish what it began when it told of a change, and the shortest time between
/// two looks.
const SETTLE: Duration = Duration::from_millis(50);

/// Between two looks passes this many times what the last one took: a router that changes a thousand
/// routes a second costs a hundredth of a core at most.
const LOOK_SHARE: u32 = 100;

/// A look without any news, in case they got lost.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// Bootstrap addresses whose way is asked for.
const MAX_WAYS: usize = 8;

/// Stand for "anywhere" while no bootstrap is known. Nothing is sent there; documentation (RFC 5737,
/// RFC 3849).
pub const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The looks at the host's network.
#[derive(Debug, Default)]
pub(super) struct HostLooks {
    under_way: bool,
    /// Another one is wanted after it.
    again: bool,
    looked: Option<Instant>,
    /// What the last look took.
    took: Duration,
    view: HostView,
    /// The ways out while they led out, one for each family, with the names of their links.
    usual: Vec<(WayOut, String)>,
    /// The way out that leads into the overlay.
    lost: Option<LostWay>,
    /// How many own datagrams had come to the taps at the last look at the counter.
    counted: u64,
}

impl HostLooks {
    /// Takes over what follows from the newest look. `true`: the host gets out another way than before.
    fn note(&mut self, local: &LocalAddresses, before: &HostView) -> bool {
        self.lost.clone_from(&local.lost_way);
        if self.lost.is_none() {
            for way in &self.view.ways_out {
                let Some(link) = self.view.link_of(way) else {
                    continue;
                };
                let usual = (way.clone(), link.to_owned());
                self.usual
                    .retain(|(old, _)| old.to.is_ipv4() != way.to.is_ipv4());
                self.usual.push(usual);
            }
        }
        let key = |view: &HostView| -> Vec<_> {
            let ways = view.ways_out.iter();
            ways.map(|way| (way.link, way.gateway, way.source))
                .collect()
        };
        let (old, mut new) = (key(before), key(&self.view));
        // More bootstraps by a way that is known are no other way.
        new.retain(|way| !old.contains(way));
        !new.is_empty() && !old.is_empty()
    }

    /// Whether a look is due without news.
    fn is_due(&self, now: Instant) -> bool {
        let long_ago = |at| now.saturating_duration_since(at) >= AT_LEAST_EVERY;
        self.looked.is_none_or(long_ago)
    }

    /// What `status` says while own datagrams come to an own tap because of the way out.
    fn warning(&self) -> Option<String> {
        let lost = self.lost.as_ref()?;
        let (to, link) = (lost.way.to, &lost.link);
        let via =
            |gateway: Option<IpAddr>| gateway.map_or(String::new(), |ip| format!(" via {ip}"));
        let family = if to.is_ipv4() { "" } else { "-6 " };
        let route = lost.route.filter(|net| net.prefix_len() > 0);
        let route = route.map_or("default".to_owned(), |net| net.to_string());
        let usual = self
            .usual
            .iter()
            .find(|(way, _)| way.to.is_ipv4() == to.is_ipv4());
        let cure = match usual {
            Some((way, name)) => {
                let via = via(way.gateway);
                format!("`ip {family}route replace {route}{via} dev {name}` leads out again")
            }
            None => {
                let via = via(lost.way.gateway);
                format!("`ip {family}route del {route}{via} dev {link}` takes that route away")
            }
        };
        let via = via(lost.way.gateway);
        Some(format!(
            "the host's route to {to} goes{via} dev {link}, into the overlay itself: what this node sends there is dropped; {cure}"
        ))
    }
}

impl Candidates {
    /// Looks at the host's network, beside the slow path. One look at a time; a wish meanwhile is granted
    /// after it.
    pub(crate) fn look_at_host(&mut self, out: &mut Outside) {
        if self.host.under_way {
            self.host.again = true;
            return;
        }
        self.host.under_way = true;
        let pause = SETTLE.max(self.host.took * LOOK_SHARE);
        let toward = self.toward();
        let look = HostTask::LookAtHost { toward, pause };
        out.effects.push(Effect::Host(look));
    }

    fn toward(&self) -> Vec<IpAddr> {
        let mut toward = self.underlay.infra_ips();
        toward.truncate(MAX_WAYS);
        for anywhere in ANYWHERE {
            if toward.iter().all(|ip| ip.is_ipv4() != anywhere.is_ipv4()) {
                toward.push(anywhere);
            }
        }
        toward
    }

    /// A look is over; `None`: the kernel did not tell. `true`: the host gets out another way than before.
    pub(crate) fn handle_host(
        &mut self,
        now: Instant,
        out: &mut Outside,
        seen: Option<(HostView, Duration)>,
        attached: &[AttachedNetwork],
    ) -> bool {
        self.host.under_way = false;
        let another =
            seen.is_some_and(|(view, took)| self.take_view(now, out, (view, took), attached));
        if std::mem::take(&mut self.host.again) {
            self.look_at_host(out);
        }
        another
    }

    /// What a look at the host saw, and how long it took. `true`: the host gets out another way than before.
    pub(crate) fn take_view(
        &mut self,
        now: Instant,
        out: &mut Outside,
        (view, took): (HostView, Duration),
        attached: &[AttachedNetwork],
    ) -> bool {
        self.host.looked = Some(now);
        self.host.took = took;
        let before = std::mem::replace(&mut self.host.view, view);
        let local = self.apply_host(now, out, attached);
        self.host.note(&local, &before)
    }

    /// Sorts the last look by what is attached now.
    pub(crate) fn apply_host(
        &mut self,
        now: Instant,
        out: &mut Outside,
        attached: &[AttachedNetwork],
    ) -> LocalAddresses {
        let local = self.host.view.underlay(attached);
        out.fib_stale |= self.underlay.set_host(now, &local);
        local
    }

    /// The host gets out another way: reflectors and relays are asked now whether they are reached by it.
    pub(crate) fn follow_way_out(&mut self, now: Instant) {
        tracing::info!(ways = ?self.host.view.ways_out, "the host's way out is another one");
        self.underlay.ask_all_now(now);
    }

    /// Looked at every second: do own datagrams come to the taps because the way out leads there?
    pub(crate) fn watch_way_out(&mut self, now: Instant, out: &mut Outside) {
        let counted = out.drops.get(DropReason::OverlayOnItself);
        let more = std::mem::replace(&mut self.host.counted, counted) != counted;
        match self.host.warning() {
            Some(text) if more => out.warnings.raise(now, Topic::WayOut, "", text),
            Some(_) => {}
            None => out.warnings.lower(Topic::WayOut, ""),
        }
        if self.host.is_due(now) && !self.host.under_way {
            self.look_at_host(out);
        }
    }

    /// The data sockets at each address of the host.
    pub(crate) fn own_sockets(&self) -> Vec<SocketAddr> {
        let own = &self.underlay.filter().own_addresses;
        let at = |ip: &IpAddr| {
            let addr = SocketAddr::new(*ip, 0);
            let port = self.underlay.port(SocketId::for_addr(&addr))?;
            Some(SocketAddr::new(*ip, port))
        };
        own.iter().filter_map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(gateway: &str, link: u32) -> WayOut {
        WayOut {
            to: "192.0.2.11".parse().unwrap(),
            link,
            source: None,
            gateway: Some(gateway.parse().unwrap()),
        }
    }

    fn lost(route: &str) -> LostWay {
        LostWay {
            way: way("10.9.0.2", 3),
            link: "br-lab".to_owned(),
            route: Some(route.parse().unwrap()),
        }
    }

    #[test]
    fn the_warning_names_the_way_back() {
        let mut looks = HostLooks::default();
        assert_eq!(looks.warning(), None);
        looks.lost = Some(lost("0.0.0.0/0"));
        let text = looks.warning().unwrap();
        assert!(text.contains("goes via 10.9.0.2 dev br-lab"), "{text}");
        let cure = "`ip route del default via 10.9.0.2 dev br-lab`";
        assert!(text.contains(cure), "{text}");
        looks.usual = vec![(way("192.168.1.1", 2), "eth0".to_owned())];
        let text = looks.warning().unwrap();
        let cure = "`ip route replace default via 192.168.1.1 dev eth0`";
        assert!(text.contains(cure), "{text}");
        looks.lost = Some(lost("192.0.0.0/16"));
        let text = looks.warning().unwrap();
        assert!(
            text.contains("replace 192.0.0.0/16 via 192.168.1.1"),
            "{text}"
        );
    }

    #[test]
    fn another_gateway_is_another_way_and_another_bootstrap_is_none() {
        let mut looks = HostLooks::default();
        let view = |ways: &[WayOut]| HostView {
            ways_out: ways.to_vec(),
            ..HostView::default()
        };
        let usual = view(&[way("192.168.1.1", 2)]);
        let mut turn = |before: &HostView, after: &HostView| {
            looks.view = after.clone();
            looks.note(&LocalAddresses::default(), before)
        };
        assert!(!turn(&view(&[]), &usual));
        let mut second = way("192.168.1.1", 2);
        second.to = "192.0.2.99".parse().unwrap();
        assert!(!turn(&usual, &view(&[way("192.168.1.1", 2), second])));
        assert!(turn(&usual, &view(&[way("10.9.0.2", 3)])));
        assert!(turn(&view(&[way("10.9.0.2", 3)]), &usual));
        assert!(!turn(&usual, &view(&[])));
    }
}
