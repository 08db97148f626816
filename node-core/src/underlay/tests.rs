//! Which bootstraps the underlay keeps.

use super::*;

fn peer(n: u8) -> PeerId {
    PeerId([n; 32])
}

#[test]
fn a_bootstrap_that_is_replaced_gives_its_place_to_the_new_one() {
    let mut underlay = Underlay::new(BTreeMap::from([(SocketId::V4, 22_611)]), 1);
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let add = |underlay: &mut Underlay, n: u8| {
        let addr = SocketAddr::from(([192, 0, 2, n], 22_611));
        underlay.add_infra(now, peer(n), &[addr]);
    };
    let full = u8::try_from(MAX_RELAYS).unwrap();
    for n in 1..=full {
        add(&mut underlay, n);
    }
    let new = full + 1;
    add(&mut underlay, new);
    assert!(!underlay.without_relay(now).contains(&peer(new)));
    let pinned: BTreeSet<PeerId> = (2..=new).map(peer).collect();
    underlay.keep_infra(now, &pinned);
    assert!(!underlay.without_relay(now).contains(&peer(1)));
    add(&mut underlay, new);
    assert!(underlay.without_relay(now).iter().eq(&pinned));
    let asked: Vec<SocketAddr> = std::iter::from_fn(|| {
        underlay.handle_timeout(now, &mut overlay_proto::SeededEntropy::new(1));
        underlay.poll_transmit(now).map(|datagram| datagram.to)
    })
    .take(64)
    .collect();
    assert!(
        asked
            .iter()
            .all(|to| to.ip() != SocketAddr::from(([192, 0, 2, 1], 0)).ip())
    );
}
