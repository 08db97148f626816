//! Real taps and bridges, each test in a network namespace of its own that vanishes with its
//! thread. Needs root; skipped loudly without.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{MARK, in_namespace, overlay_tap};

use overlay_proto::ethernet::bridge::{FdbEntry, FdbNews};
use overlay_proto::ethernet::{MacAddr, VlanId};
use tap_bridge::host::{self, NewTap};
use tap_bridge::tap::{self, TapKind};
use tap_bridge::{
    Error, FdbWatch, FrameBatch, FrameQueue, TapQueue, TxFrame, loop_filter, read_fdb,
};

fn sysctl(file: &str) -> String {
    let path = format!("/proc/sys/net/{file}");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// An Ethernet frame of an experimental ethertype (IEEE 802).
fn frame(dst: [u8; 6], src: [u8; 6], filler: u8) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(200, filler);
    frame
}

/// Writes `frame` to `from` until it comes out of one of `queues`: a port that has just got its
/// carrier loses frames. Returns how many other frames came, `None` after two seconds.
fn cross(from: &mut TapQueue, frame: &[u8], queues: &mut [&mut TapQueue]) -> Option<usize> {
    let end = Instant::now() + Duration::from_secs(2);
    let mut batch = FrameBatch::default();
    let mut others = 0;
    while Instant::now() < end {
        assert_eq!(from.write_batch(&[TxFrame::plain(frame)]).written, 1);
        std::thread::sleep(Duration::from_millis(5));
        for queue in queues.iter_mut() {
            queue.read_batch(&mut batch).unwrap();
            if batch.frames().any(|got| got.bytes == frame) {
                return Some(others);
            }
            others += batch.len();
        }
    }
    None
}

#[test]
fn frames_cross_a_bridge_between_two_taps_over_two_queues() {
    in_namespace(|links| async move {
        let (bridge, isolation) = host::make_bridge(&links, "br-lab", 1500, MARK)
            .await
            .unwrap();
        assert_eq!(isolation.not_applied, Vec::<String>::new());
        for name in ["fl-lab", "fl-other"] {
            host::make_tap(&links, overlay_tap(name), &bridge)
                .await
                .unwrap();
        }
        let mut first = TapQueue::open("fl-lab", false).unwrap();
        let mut second = TapQueue::open("fl-lab", false).unwrap();
        let mut other = TapQueue::open("fl-other", false).unwrap();
        let a = [0x52, 0x54, 0, 0, 0, 1];
        let b = [0x52, 0x54, 0, 0, 0, 2];
        let hello = frame([0xff; 6], b, 0xb0);
        let strays = cross(&mut other, &hello, &mut [&mut first, &mut second]);
        assert_eq!(
            strays,
            Some(0),
            "the host spoke on its own taps, or nothing came"
        );
        let answer = frame(b, a, 0xa0);
        assert_eq!(cross(&mut second, &answer, &mut [&mut other]), Some(0));

        // The address of the bridge is fixed, whatever its ports have.
        let again = links.get("br-lab").await.unwrap();
        assert_eq!(again.mac, bridge.mac);
        assert_eq!(bridge.mac.0[0] & 3, 2, "locally administered unicast");
        let ports = links.ports(bridge.index).await.unwrap();
        assert_eq!(ports.len(), 2);
        for link in ports.iter().chain([&again]) {
            assert_eq!(link.alias.as_deref(), Some(MARK), "{}", link.name);
        }
    });
}

#[test]
fn the_host_is_not_part_of_the_lan() {
    in_namespace(|links| async move {
        let (bridge, _) = host::make_bridge(&links, "br-lab", 1500, MARK)
            .await
            .unwrap();
        host::make_tap(&links, overlay_tap("fl-lab"), &bridge)
            .await
            .unwrap();
        for name in ["br-lab", "fl-lab"] {
            assert_eq!(sysctl(&format!("ipv6/conf/{name}/disable_ipv6")), "1");
            assert_eq!(sysctl(&format!("ipv6/conf/{name}/accept_ra")), "0");
            assert_eq!(sysctl(&format!("ipv4/conf/{name}/forwarding")), "0");
            assert_eq!(sysctl(&format!("ipv4/conf/{name}/arp_ignore")), "8");
        }
        // The host has an address elsewhere; a guest that asks for it gets no answer.
        let lo = links.get("lo").await.unwrap();
        links.set_up(&lo).await.unwrap();
        let ip = "192.0.2.1".parse().unwrap();
        links.add_address(&lo, ip, 32).await.unwrap();
        let mut queue = TapQueue::open("fl-lab", false).unwrap();
        let guest = [0x52, 0x54, 0, 0, 0, 1];
        let mut ask = [[0xff; 6], guest].concat();
        ask.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        ask.extend(guest);
        ask.extend([192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
        for _ in 0..30 {
            assert_eq!(queue.write_batch(&[TxFrame::plain(&ask)]).written, 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(queue.read_batch(&mut FrameBatch::default()).unwrap(), 0);

        // The same question is answered once the administrator gives the bridge that address:
        // so the silence above was no accident of the test.
        let isolation = host::open_for_address(&links, &bridge, false).await;
        assert_eq!(isolation.not_applied, Vec::<String>::new());
        links.add_address(&bridge, ip, 24).await.unwrap();
        assert_eq!(queue.write_batch(&[TxFrame::plain(&ask)]).written, 1);
        let mut batch = FrameBatch::default();
        let end = Instant::now() + Duration::from_secs(2);
        while queue.read_batch(&mut batch).unwrap() == 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(batch.frames().next().unwrap().bytes[6..12], bridge.mac.0);
    });
}

#[test]
fn names_kinds_and_owners_are_respected() {
    in_namespace(|links| async move {
        let (bridge, _) = host::make_bridge(&links, "br-lab", 1500, MARK)
            .await
            .unwrap();
        let again = host::make_bridge(&links, "br-lab", 1500, MARK).await;
        assert!(matches!(again, Err(Error::NameTaken { .. })), "{again:?}");
        tap::create("fl-lab", TapKind::Overlay, None).unwrap();
        let again = tap::create("fl-lab", TapKind::Overlay, None);
        assert!(matches!(again, Err(Error::NameTaken { .. })), "{again:?}");
        assert_eq!(host::free_name(&links, "fl-", "lab").await.unwrap(), "fl-1");
        let vm = NewTap {
            kind: TapKind::Vm,
            owner: Some(65_534),
            ..overlay_tap("vm0")
        };
        host::make_tap(&links, vm, &bridge).await.unwrap();
        let opened = TapQueue::open("vm0", false);
        assert!(matches!(opened, Err(Error::WrongKind { .. })), "{opened:?}");
        let missing = TapQueue::open("fl-none", false);
        assert!(
            matches!(missing, Err(Error::NoSuchInterface { .. })),
            "{missing:?}"
        );
        assert!(links.find("fl-none").await.unwrap().is_none());
        let tap = links.get("fl-lab").await.unwrap();
        let wrong = links.bridge("fl-lab").await;
        assert!(matches!(wrong, Err(Error::NotABridge { .. })), "{wrong:?}");
        links.delete(&tap).await.unwrap();
        links.delete(&tap).await.unwrap();
        assert!(links.find("fl-lab").await.unwrap().is_none());
    });
}

#[test]
fn a_forwarding_entry_steers_a_mac_to_the_overlay() {
    in_namespace(|links| async move {
        let (bridge, _) = host::make_bridge(&links, "br-lab", 1500, MARK)
            .await
            .unwrap();
        for name in ["fl-lab", "old", "asks"] {
            host::make_tap(&links, overlay_tap(name), &bridge)
                .await
                .unwrap();
        }
        let mut overlay = TapQueue::open("fl-lab", false).unwrap();
        let mut old = TapQueue::open("old", false).unwrap();
        let mut asks = TapQueue::open("asks", false).unwrap();
        let mac = [0x52, 0x54, 0, 0, 0, 7];
        let hello = frame([0xff; 6], mac, 1);
        assert!(cross(&mut old, &hello, &mut [&mut asks]).is_some());
        // The host lost the MAC: frames for it now go to the overlay.
        let port = links.get("fl-lab").await.unwrap().index;
        let mac_addr = MacAddr(mac);
        links
            .fdb_replace(port, mac_addr, VlanId::UNTAGGED)
            .await
            .unwrap();
        let question = frame(mac, [0x52, 0x54, 0, 0, 0, 8], 2);
        assert!(cross(&mut asks, &question, &mut [&mut overlay]).is_some());
        let mut batch = FrameBatch::default();
        old.read_batch(&mut batch).unwrap();
        assert!(batch.frames().all(|frame| frame.bytes != question));
        // It came back: the entry goes, twice is no error.
        links
            .fdb_delete(port, mac_addr, VlanId::UNTAGGED)
            .await
            .unwrap();
        links
            .fdb_delete(port, mac_addr, VlanId::UNTAGGED)
            .await
            .unwrap();
    });
}

#[test]
fn the_bridge_tells_which_macs_come_and_go() {
    in_namespace(|links| async move {
        let mut watch = FdbWatch::start().unwrap();
        let (bridge, _) = host::make_bridge(&links, "br-lab", 1500, MARK)
            .await
            .unwrap();
        let mut ports = Vec::new();
        for name in ["fl-lab", "vm0"] {
            let (link, _) = host::make_tap(&links, overlay_tap(name), &bridge)
                .await
                .unwrap();
            ports.push(link);
        }
        let mut overlay = TapQueue::open("fl-lab", false).unwrap();
        let mut vm = TapQueue::open("vm0", false).unwrap();
        let mac = [0x52, 0x54, 0, 0, 0, 9];
        assert!(cross(&mut vm, &frame([0xff; 6], mac, 3), &mut [&mut overlay]).is_some());
        let entry = FdbEntry {
            bridge: bridge.index,
            port: ports[1].index,
            mac: MacAddr(mac),
            vlan: VlanId::UNTAGGED,
        };
        let wait = Duration::from_secs(2);
        let news = tokio::time::timeout(wait, watch.next()).await;
        assert_eq!(news.unwrap().unwrap(), FdbNews::Learned(entry));
        let all = read_fdb(bridge.index, 9).await.unwrap();
        assert_eq!(all, (vec![entry], false));
        let some = read_fdb(bridge.index, 0).await.unwrap();
        assert_eq!(some, (vec![], true));
        links.delete(&ports[1]).await.unwrap();
        let news = tokio::time::timeout(wait, watch.next()).await;
        assert_eq!(news.unwrap().unwrap(), FdbNews::Gone(entry));
        let none = read_fdb(bridge.index, 9).await.unwrap();
        assert_eq!(none, (vec![], false));
    });
}

#[test]
fn loops_are_held_for_one_bridge_and_tap_until_they_are_released() {
    in_namespace(|_| async {
        assert_eq!(loop_filter::is_held("br-lab", "fl-lab"), Ok(false));
        loop_filter::release("br-lab");
        assert_eq!(loop_filter::hold("br-lab", "fl-lab"), Ok(true));
        assert_eq!(loop_filter::hold("br-lab", "fl-lab"), Ok(false), "it was");
        assert_eq!(loop_filter::hold("br-2", "fl-2"), Ok(true));
        assert_eq!(
            loop_filter::hold("br-lab", "fl-1"),
            Ok(true),
            "the tap has another name"
        );
        assert_eq!(loop_filter::is_held("br-lab", "fl-lab"), Ok(false));
        loop_filter::release("br-lab");
        assert_eq!(loop_filter::is_held("br-lab", "fl-1"), Ok(false));
        assert_eq!(loop_filter::is_held("br-2", "fl-2"), Ok(true));
        // What cannot be asked is no answer.
        assert!(loop_filter::is_held("br lab", "fl-1").is_err());
    });
}

#[test]
fn one_connection_can_be_asked_for_many_lists_at_once() {
    in_namespace(|links| async move {
        // Long lists: the kernel gives them out in pieces, and others are asked for in between.
        for number in 0..400 {
            tap::create(&format!("t{number}"), TapKind::Overlay, None).unwrap();
        }
        let views = (0..8).map(|_| links.host_view(&[]));
        for view in futures::future::join_all(views).await {
            assert!(view.unwrap().links.len() > 400);
        }
    });
}
