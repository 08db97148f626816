//! Memberships end, and are renewed while guests talk.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farlan_tests::lab::Lab;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

const YEAR: u64 = 365 * 86_400;
/// Dates have ten minutes of tolerance.
const TOLERANCE: u64 = 600;
/// How long the short memberships last, tolerance included.
const SHORT: u64 = 80;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// The lines about what the user should do.
fn warnings(node: &Node) -> Vec<String> {
    let status = node.status().unwrap();
    let warnings = status["warnings"].as_array().unwrap().iter();
    warnings.map(|w| w.as_str().unwrap().to_owned()).collect()
}

fn invite(authority: &Authority, boot: &Bootstrap, name: &str) -> String {
    let spec = InviteSpec {
        networks: &[NETWORK],
        name,
        bootstraps: &boot.addresses,
        expires: "1y",
    };
    authority.invite(&spec).unwrap()
}

/// `a` for a year; `b` and `c` until `now + SHORT`, on invites of a year ago. All nodes run.
fn aging() -> (World, u64) {
    let lab = Lab::new().unwrap();
    let (family, model) = (Family::V4, LinkModel::default());
    let host = lab.bootstrap_host("boot", 1, family, model).unwrap();
    let birth = format!("-{}", YEAR + 2 * TOLERANCE);
    let authority = Authority::init_with_clock(&lab, "main", &[NETWORK], Some(&birth)).unwrap();
    let boot = Bootstrap::start(&host, &authority.id).unwrap();
    let mut world = World {
        nodes: Vec::new(),
        boot,
        vms: Vec::new(),
        sites: Vec::new(),
        authority,
        lab,
    };
    let nats = [
        NatKind::PortRewriting,
        NatKind::PortPreserving,
        NatKind::PortRewriting,
    ];
    world.authority.set_clock(None);
    world.add_site(nats[0], family, model).unwrap();
    let end = now() + SHORT;
    for nat in &nats[1..] {
        let issued = end - TOLERANCE - YEAR;
        let shift = format!("-{}", now() - issued);
        world.authority.set_clock(Some(&shift));
        let name = world.next_name().unwrap();
        let invite = invite(&world.authority, &world.boot, &name);
        world.add_site_with(&invite, *nat, family, model).unwrap();
    }
    world.authority.set_clock(None);
    (world.start().unwrap(), end)
}

#[test]
fn trust_8_a_membership_ends_unless_it_is_renewed() {
    require_lab!();
    let (mut world, end) = aging();
    let ends = format!("the membership in {NETWORK} ended on");
    assert_eq!(warnings(&world.nodes[0]), Vec::<String>::new());
    for node in &world.nodes[1..] {
        // In the tolerance: over by the date, and still good.
        let told = warnings(node);
        assert!(told.len() == 1 && told[0].starts_with(&ends), "{told:?}");
        assert!(node.farlan(&["status"]).unwrap().contains("farlan join -"));
    }

    // The second one joins anew while its guest talks to the first.
    let left = end.saturating_sub(now());
    println!("{left} s are left");
    assert!(left > 20, "the lab was too slow");
    let count = u32::try_from((left + 45) * 5).unwrap();
    let mut talk = Ping::new(&world.vms[0].ip)
        .count(count)
        .spawn(&world.vms[1].ns)
        .unwrap();
    let renewal = world.invite("b").unwrap();
    let joined = world.nodes[1].join(&renewal).unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");
    wait_for(
        "the renewed certificate is shown",
        Duration::from_secs(10),
        || {
            let until = world.nodes[1].status().ok()?["member_until"].as_u64()?;
            (until > now() + YEAR - 3_600).then_some(())
        },
    )
    .unwrap();
    assert_eq!(warnings(&world.nodes[1]), Vec::<String>::new());

    // The third one ends: within the 30 s between two judgements, not before.
    let (_, took) = wait_for(
        "the ended member is cut off",
        Duration::from_secs(left + 60),
        || {
            let path = world.nodes[0].path_to("c").ok()?;
            path.is_none_or(|path| path.kind == "none").then_some(())
        },
    )
    .unwrap();
    let at = now();
    println!(
        "cut off after {took:?}, {} s after its end",
        at.saturating_sub(end)
    );
    assert!(
        (end - 2..end + 40).contains(&at),
        "cut off at {at}, end {end}"
    );
    wait_for("its claims are void", Duration::from_secs(10), || {
        let macs = world.nodes[0].macs().ok()?;
        (!macs.iter().any(|mac| mac["mac"] == *world.vms[2].mac)).then_some(())
    })
    .unwrap();
    let lost = Ping::new(&world.vms[0].ip).run(&world.vms[2].ns).unwrap();
    assert_eq!(lost.received, 0);

    // The second one has not noticed.
    let text = talk.wait_log("packets transmitted", Duration::from_secs(90));
    text.unwrap();
    let result = parse_ping(&talk.log()).unwrap();
    println!("renewed: {result:?}");
    assert_eq!(
        result.sent, result.received,
        "frames were lost in the renewal"
    );

    // The third one comes back with a new invite, joined while it does not run.
    world.nodes[2].stop().unwrap();
    let renewal = world.invite("c").unwrap();
    assert_eq!(world.nodes[2].join(&renewal).unwrap().code, 0);
    let start = Instant::now();
    world.nodes[2].up_and_ready().unwrap();
    let took = first_ping(
        &world.vms[2].ns,
        &world.vms[0].ip,
        start,
        Duration::from_secs(30),
    )
    .unwrap();
    println!("back after {took:?}");
}
