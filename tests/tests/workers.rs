//! Several threads of the data path on one node: what crosses is whole and in order, whatever the
//! number of workers at the two ends, and each of them works.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farlan_tests::lab::{Lab, Ns};
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::probe::{Ping, first_answer_after, first_ping, tcp_transfer};
use farlan_tests::proc::{Usage, check, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::{Family, Site};
use farlan_tests::vm::Vm;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, TAP};

const LIMIT: Duration = Duration::from_secs(30);
/// Resident memory of a node under load with two workers, in KiB.
const MOST_MEMORY: u64 = 64 * 1024;

/// Two hosts on one LAN, with nothing slow between them. Dropped from top to bottom: the programs end
/// before the lab does.
struct Lan {
    nodes: Vec<Node>,
    boot: Bootstrap,
    vms: Vec<Vm>,
    site: Site,
    authority: Authority,
    lab: Arc<Lab>,
}

impl Lan {
    /// The nodes run with so many workers each, and their guests reach each other directly.
    fn start(workers: [usize; 2]) -> Self {
        let lab = Lab::new().unwrap();
        let model = LinkModel::default();
        let host = lab.bootstrap_host("boot", 1, Family::Dual, model).unwrap();
        let authority = Authority::init(&lab, "main", &[NETWORK]).unwrap();
        let boot = Bootstrap::start(&host, &authority.id).unwrap();
        let nat = NatKind::PortPreserving;
        let site = lab.site("a", 1, nat, Family::Dual, 2, model).unwrap();
        let mut lan = Self {
            nodes: Vec::new(),
            boot,
            vms: Vec::new(),
            site,
            authority,
            lab,
        };
        for (n, workers) in (1_u8..).zip(workers) {
            let mut node = lan.joined(usize::from(n) - 1, &format!("n{n}"));
            node.farlan(&["attach", NETWORK]).unwrap();
            node.up(&["--workers", &workers.to_string()]).unwrap();
            node.ready().unwrap();
            let host = lan.site.hosts[usize::from(n) - 1].clone();
            lan.vms.push(lan.lab.vm(n, &host, BRIDGE).unwrap());
            assert_eq!(node.status().unwrap()["workers"], workers);
            for (worker, task) in worker_tasks(&mut node) {
                pin(task, worker);
            }
            lan.nodes.push(node);
        }
        lan.wait();
        lan
    }

    /// A node on host `n` that has joined.
    fn joined(&self, n: usize, name: &str) -> Node {
        let node = Node::new(&self.site.hosts[n], name);
        let invite = self.authority.invite(&InviteSpec {
            networks: &[NETWORK],
            name,
            bootstraps: &self.boot.addresses,
            expires: "1h",
        });
        let joined = node.join(&invite.unwrap()).unwrap();
        assert_eq!(joined.code, 0, "{joined:?}");
        node
    }

    fn wait(&self) {
        first_ping(&self.vms[1].ns, &self.vms[0].ip, Instant::now(), LIMIT).unwrap();
        self.nodes[0].wait_kind("n2", "direct", LIMIT).unwrap();
        self.nodes[1].wait_kind("n1", "direct", LIMIT).unwrap();
    }

    /// One TCP stream in each direction, one after the other.
    fn streams(&self, bytes: usize) {
        let [a, b] = [&self.vms[0], &self.vms[1]];
        for (from, to) in [(a, b), (b, a)] {
            let took = tcp_transfer(&from.ns, &to.ns, &to.ip, bytes).unwrap();
            let gbit = bytes as f64 * 8.0 / took.as_secs_f64() / 1e9;
            println!("{bytes} bytes of TCP in {took:?}: {gbit:.2} Gbit/s");
        }
    }

    /// No frame was lost to what several workers could do wrong.
    fn no_bad_drops(&self) {
        for node in &self.nodes {
            for reason in [
                "replayed",
                "replay_too_old",
                "bad_tag",
                "bad_piece",
                "tap_error",
            ] {
                assert_eq!(node.drops(reason).unwrap(), 0, "{reason}");
            }
        }
    }
}

/// Keeps a thread (0: this one) on one processor. A veth queues what is sent on the sender's
/// processor, so a thread that is moved to another one may overtake itself there.
fn pin(task: i32, to: usize) {
    let processors = std::thread::available_parallelism().unwrap().get();
    // SAFETY: a `cpu_set_t` is a set of bits, empty when all zero; it lives during both calls.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(to % processors, &mut set);
        libc::sched_setaffinity(task, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The threads of the workers, by their number from 0.
fn worker_tasks(node: &mut Node) -> BTreeMap<usize, i32> {
    let tasks = format!("/proc/{}/task", node.process().pid());
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir(tasks).unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if let Some(lane) = name.trim().strip_prefix("farlan-lane-") {
            let lane: usize = lane.parse().unwrap();
            let task = task.file_name().into_string().unwrap();
            all.insert(lane - 1, task.parse().unwrap());
        }
    }
    all
}

/// Nanoseconds that each worker of a node has run, by its number from 0.
fn worked(node: &mut Node) -> Vec<u64> {
    let tasks = worker_tasks(node).into_values();
    let ran = tasks.map(|task| {
        let text = std::fs::read_to_string(format!("/proc/{task}/schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    });
    ran.collect()
}

/// What one end of the flows saw.
#[derive(Debug, Default)]
struct Seen {
    received: usize,
    out_of_order: usize,
}

const FLOWS: u16 = 8;
const PER_FLOW: u32 = 5_000;

/// Sends numbered datagrams in all flows and receives those of the other end, at once. Each flow
/// begins with one datagram there and one back, as those of most protocols do: with the first answer
/// a flow may move to another worker.
fn flows(own: &str, other: &str, size: usize, first: bool) -> Seen {
    pin(0, usize::from(first));
    let sockets: Vec<UdpSocket> = (0..FLOWS)
        .map(|flow| {
            let port = 9000 + flow;
            let socket = UdpSocket::bind((own, port)).unwrap();
            socket.connect((other, port)).unwrap();
            socket
        })
        .collect();
    for socket in &sockets {
        socket.set_nonblocking(false).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let hello = |again: bool| {
            if again {
                socket.send(b"hello").unwrap();
            }
            socket.recv(&mut [0; 10]).is_ok()
        };
        while !hello(first) {}
        if !first {
            socket.send(b"hello").unwrap();
        }
        socket.set_nonblocking(true).unwrap();
    }
    let mut seen = Seen::default();
    let mut newest = [0_u32; FLOWS as usize];
    let mut bytes = vec![0; size];
    let mut receive = |buffer: &mut [u8]| {
        for (socket, newest) in sockets.iter().zip(&mut newest) {
            while let Ok(len) = socket.recv(buffer) {
                if len != size {
                    continue;
                }
                let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                seen.received += 1;
                seen.out_of_order += usize::from(number <= *newest);
                *newest = number.max(*newest);
            }
        }
    };
    let mut buffer = vec![0; 2000];
    for number in 1..=PER_FLOW {
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        for socket in &sockets {
            // A full buffer is loss, which this is not about.
            let _ = socket.send(&bytes);
        }
        receive(&mut buffer);
        if number % 4 == 0 {
            std::thread::sleep(Duration::from_micros(400));
        }
    }
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        receive(&mut buffer);
        std::thread::sleep(Duration::from_millis(1));
    }
    seen
}

/// Flows in both directions at once, begun at once: none is out of order.
fn flows_keep_their_order(lan: &mut Lan, size: usize) {
    let before: Vec<Vec<u64>> = lan.nodes.iter_mut().map(worked).collect();
    let run = |own: &Vm, other: &Vm, first: bool| {
        let (ns, own, other) = (own.ns.clone(), own.ip.clone(), other.ip.clone());
        std::thread::spawn(move || within(&ns, move || flows(&own, &other, size, first)))
    };
    let [a, b] = [&lan.vms[0], &lan.vms[1]];
    let ends = [run(b, a, false), run(a, b, true)];
    for seen in ends.map(|end| end.join().unwrap()) {
        println!("{size} bytes: {seen:?}");
        assert_eq!(seen.out_of_order, 0, "{seen:?}");
        let all = usize::from(FLOWS) * PER_FLOW as usize;
        assert!(seen.received >= all / 2, "{seen:?} of {all}");
    }
    let after: Vec<Vec<u64>> = lan.nodes.iter_mut().map(worked).collect();
    for (node, (before, after)) in before.iter().zip(&after).enumerate() {
        let ms = |(b, a): (&u64, &u64)| (a - b) / 1_000_000;
        let ran: Vec<u64> = before.iter().zip(after).map(ms).collect();
        println!("node {node}: its workers ran for {ran:?} ms");
    }
}

fn within<T: Send + 'static>(ns: &Ns, work: impl FnOnce() -> T + Send + 'static) -> T {
    ns.within(move || Ok(work())).unwrap()
}

#[test]
fn streams_are_whole_and_flows_in_order_between_any_numbers_of_workers() {
    require_lab!();
    for workers in [[1, 2], [2, 2], [4, 1], [4, 2]] {
        println!("{workers:?} workers");
        let mut lan = Lan::start(workers);
        lan.streams(100_000_000);
        flows_keep_their_order(&mut lan, 200);
        flows_keep_their_order(&mut lan, 1300);
        lan.no_bad_drops();
    }
}

#[test]
fn each_worker_works_and_memory_stays_small() {
    require_lab!();
    let mut lan = Lan::start([2, 2]);
    let before: Vec<Vec<u64>> = lan.nodes.iter_mut().map(worked).collect();
    let [a, b] = [&lan.vms[0], &lan.vms[1]];
    let _server = b.ns.spawn("server", "iperf3 -s").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let load = format!("iperf3 -c {} -P 24 -t 4", b.ip);
    let mut load = a.ns.spawn("load", &load).unwrap();
    let mut most = 0;
    while load.is_running() {
        for node in &mut lan.nodes {
            most = most.max(Usage::of(node.process().pid()).unwrap().memory_kib);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("resident under 24 TCP streams with 2 workers: {most} KiB at most");
    assert!(most <= MOST_MEMORY, "{most} KiB");
    for (node, before) in lan.nodes.iter_mut().zip(&before) {
        let after = worked(node);
        let ran: Vec<u64> = after
            .iter()
            .zip(before)
            .map(|(a, b)| (a - b) / 1_000_000)
            .collect();
        println!("the workers of {} ran for {ran:?} ms", node.name);
        assert_eq!(ran.len(), 2);
        // Chance gives each flow its worker: of 24 all have the same in one run in eight million.
        assert!(ran.iter().all(|ms| *ms > 50), "{ran:?}");
    }
    lan.no_bad_drops();
}

/// A NIC that merges what comes, and a sender whose datagrams leave one by one: so the kernel may put
/// datagrams of two workers into one train.
#[test]
fn trains_made_by_the_receiver_do_not_break_the_order() {
    require_lab!();
    let mut lan = Lan::start([2, 2]);
    let [a, b] = [&lan.site.hosts[0].ns, &lan.site.hosts[1].ns];
    let router = &lan.site.router;
    for (ns, port) in [(a, "eth0"), (b, "eth0"), (router, "lan0"), (router, "lan1")] {
        // A veth merges only what comes from an end without TSO.
        for what in ["tx-udp-segmentation off", "tso off", "gro on"] {
            let mut cmd = ns.command("ethtool");
            check(cmd.args(["-K", port]).args(what.split(' '))).unwrap();
        }
    }
    flows_keep_their_order(&mut lan, 1300);
    lan.streams(100_000_000);
    lan.no_bad_drops();
}

#[test]
fn a_tap_comes_and_goes_and_a_node_restarts_with_several_workers() {
    require_lab!();
    let mut lan = Lan::start([2, 3]);
    let queues = |lan: &Lan, n: usize| {
        let line = format!("ls /sys/class/net/{TAP}/queues | grep -c tx-");
        let text = lan.site.hosts[n].ns.sh(&line).unwrap().stdout;
        text.trim().parse::<usize>().unwrap()
    };
    assert_eq!([queues(&lan, 0), queues(&lan, 1)], [2, 3]);
    let ping = Ping::new(&lan.vms[0].ip)
        .count(6000)
        .interval(Duration::from_millis(20))
        .spawn(&lan.vms[1].ns)
        .unwrap();
    let mut before = None;
    for round in 0..6 {
        lan.nodes[0]
            .farlan(&["detach", NETWORK, "--force"])
            .unwrap();
        lan.nodes[0].farlan(&["attach", NETWORK]).unwrap();
        lan.site.hosts[0]
            .ns
            .ip(&format!("link set vm1 master {BRIDGE}"))
            .unwrap();
        first_answer_after(&ping, std::time::SystemTime::now(), LIMIT).unwrap();
        let open = || (queues(&lan, 0) == 2).then_some(());
        wait_for("two queues", Duration::from_secs(2), open).unwrap();
        let used = Usage::of(lan.nodes[0].process().pid()).unwrap();
        println!("round {round}: {used:?}");
        // The first rounds find their own size.
        if round < 2 {
            before = Some(used);
        }
        assert!(used.descriptors <= before.unwrap().descriptors + 4);
    }
    for n in [0, 1] {
        lan.nodes[n].process().kill();
        let workers = ["1", "2"][n];
        lan.nodes[n].up(&["--workers", workers]).unwrap();
        lan.nodes[n].ready().unwrap();
        first_answer_after(&ping, std::time::SystemTime::now(), LIMIT).unwrap();
        assert_eq!(queues(&lan, n), n + 1);
    }
    lan.streams(20_000_000);
    lan.no_bad_drops();
}

#[test]
fn a_port_that_workers_share_is_busy_for_another_node() {
    require_lab!();
    let mut lan = Lan::start([2, 1]);
    let other = lan.joined(0, "other");
    for workers in ["1", "2"] {
        let up = ["up", "--workers", workers, "--listen", "0.0.0.0:22611"];
        let out = other.run(&up).unwrap();
        assert_eq!(out.code, 1, "{out:?}");
        assert!(out.stderr.contains("in use by another program"), "{out:?}");
    }
    for wrong in ["0", "8", "two"] {
        assert_eq!(other.run(&["up", "--workers", wrong]).unwrap().code, 2);
    }
    assert!(lan.nodes[0].process().is_running());
    lan.wait();
}
