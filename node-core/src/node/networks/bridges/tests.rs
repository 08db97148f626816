use super::*;

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

fn key(vlan: u16) -> MacKey {
    MacKey {
        vlan: VlanId::new(vlan).unwrap(),
        mac: MAC,
    }
}

fn entry(vlan: u16, port: u32) -> FdbEntry {
    FdbEntry {
        bridge: 1,
        port,
        mac: MAC,
        vlan: VlanId::new(vlan).unwrap(),
    }
}

fn bridge(untagged: Option<u16>) -> Bridge {
    Bridge {
        index: 1,
        tap: 2,
        untagged: untagged.and_then(VlanId::new),
        ports: BTreeSet::from([3, 4]),
        ..Bridge::default()
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
fn a_flood_of_news_costs_one_walk_through_the_database_in_half_a_minute() {
    let (mut whole, start) = (Paced::default(), Instant::now());
    let at = |ms: u64| start + Duration::from_millis(ms);
    let walks = (0..120_000).step_by(50).filter(|ms| {
        whole.owed = true;
        whole.take(at(*ms))
    });
    assert_eq!(walks.count(), 4);
    // The last wish is granted, once.
    assert!(whole.take(at(120_000)) && !whole.take(at(150_000)));
    assert!(!Paced::default().take(start));
}

#[test]
fn a_bridge_that_does_not_filter_has_a_mac_in_all_its_vlans() {
    let mut bridge = bridge(None);
    let local = [key(0), key(100)];
    bridge.learn(&entry(0, 3));
    assert!(bridge.has(&key(0)) && bridge.has(&key(100)));
    assert!(bridge.lose(local.iter()).is_empty());
    bridge.ports.remove(&3);
    assert!(!bridge.has(&key(100)));
    assert_eq!(bridge.lose(local.iter()), local);
    assert!(bridge.lose(local.iter()).is_empty(), "once");
}

#[test]
fn a_port_that_the_bridge_forgot_first_is_remembered_for_our_own() {
    let mut bridge = bridge(None);
    let local = [key(100)];
    bridge.learn(&entry(0, 3));
    bridge.learned.get_mut(&key(0)).unwrap().current = false;
    assert!(bridge.lose(local.iter()).is_empty());
    bridge.ports.remove(&3);
    assert_eq!(bridge.lose(local.iter()), local);
}

#[test]
fn a_bridge_that_filters_has_a_port_for_each_vlan() {
    let mut bridge = bridge(Some(1));
    let local = [key(0), key(100)];
    bridge.learn(&entry(1, 3));
    bridge.learn(&entry(100, 4));
    bridge.ports.remove(&4);
    assert!(bridge.has(&key(0)) && !bridge.has(&key(100)));
    assert_eq!(bridge.lose(local.iter()), [key(100)]);
}
