use super::*;
use crate::attachment::{AttachedNic, AttachedVm, Switches};

fn vm(name: &str, state: PortState) -> AttachedVm {
    AttachedVm {
        name: name.to_owned(),
        state,
    }
}

fn record(vms: &[AttachedVm]) -> Attachment {
    Attachment {
        network: "lab".parse().unwrap(),
        tap: "fl-lab".to_owned(),
        bridge: "br-lab".to_owned(),
        bridge_is_ours: true,
        addresses: Vec::new(),
        nic: None,
        vms: vms.to_vec(),
        switches: Switches::default(),
    }
}

fn ids(ports: &Ports) -> Vec<(u32, PortKind, &str)> {
    let all = ports.iter();
    all.map(|port| (port.id.0, port.kind, port.name.as_str()))
        .collect()
}

#[test]
fn a_port_keeps_its_id_as_long_as_it_is_recorded_and_no_id_comes_back() {
    let (mut given, mut ports) = (PortIds::default(), Ports::default());
    let web = vm("web1", PortState::Open);
    ports.follow(&mut given, &record(std::slice::from_ref(&web)));
    let first = [(1, PortKind::Bridge, "br-lab"), (2, PortKind::Tap, "web1")];
    assert_eq!(ids(&ports), first);
    ports.get(PortId(2)).unwrap().counters.count_punted();
    let nic = AttachedNic {
        name: "eth1".to_owned(),
        is_moved: false,
    };
    let with_nic = Attachment {
        nic: Some(nic),
        ..record(&[web.clone(), vm("web2", PortState::Open)])
    };
    ports.follow(&mut given, &with_nic);
    assert_eq!(
        ids(&ports),
        [
            (1, PortKind::Bridge, "br-lab"),
            (3, PortKind::Nic, "eth1"),
            (2, PortKind::Tap, "web1"),
            (4, PortKind::Tap, "web2"),
        ]
    );
    assert_eq!(ports.get(PortId(2)).unwrap().counters.punted(), 1);
    ports.follow(&mut given, &record(&[]));
    ports.follow(&mut given, &record(&[web]));
    assert_eq!(ids(&ports)[1], (5, PortKind::Tap, "web1"));
}

#[test]
fn an_interface_is_a_port_of_its_own_or_the_bridges() {
    let (mut given, mut ports) = (PortIds::default(), Ports::default());
    assert!(ports.of_interface("web1").is_none());
    ports.follow(&mut given, &record(&[vm("web1", PortState::Open)]));
    let port = |name| ports.of_interface(name).unwrap();
    assert_eq!((port("web1").id, port("vnet0").id), (PortId(2), PortId(1)));
    assert_eq!(port("web1").vm.as_deref(), Some("web1"));
}

#[test]
fn what_is_shut_or_freed_is_told_once() {
    let (mut given, mut ports) = (PortIds::default(), Ports::default());
    let mut follow = |vms: &[AttachedVm]| {
        let changed = ports.follow(&mut given, &record(vms));
        (changed.shut, changed.freed)
    };
    let (open, shut) = (vm("web1", PortState::Open), vm("web1", PortState::Shut));
    let none = (Vec::new(), Vec::new());
    // New and shut: it had nothing to give up.
    assert_eq!(follow(std::slice::from_ref(&shut)), none);
    let freed = (Vec::new(), vec![PortId(2)]);
    assert_eq!(follow(std::slice::from_ref(&open)), freed);
    let is_shut = (vec![PortId(2)], Vec::new());
    assert_eq!(follow(std::slice::from_ref(&shut)), is_shut);
    assert_eq!(follow(&[shut]), none);
    assert_eq!(follow(&[]), freed);
}

#[test]
fn the_fib_shows_the_counters_of_the_ports_and_keeps_those_of_the_newcomers() {
    let (mut given, mut ports) = (PortIds::default(), Ports::default());
    ports.follow(&mut given, &record(&[vm("web1", PortState::Open)]));
    let shown = ports.shown();
    shown.get(PortId(2)).counters.count_refused();
    shown.get(PortId(9)).counters.count_punted();
    assert_eq!(ports.get(PortId(2)).unwrap().counters.refused(), 1);
    ports.clear();
    let shown = ports.shown();
    assert_eq!(shown.get(PortId(2)).id, PortId::NEWCOMERS, "it is gone");
    assert_eq!(shown.newcomers.punted(), 1);
}
