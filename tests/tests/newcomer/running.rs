//! Steps 4 to 6, and what may keep frames from passing.

use crate::story::Story;

/// Drops what comes to the bootstrap's data port, as a firewall does in which it was forgotten.
const SHUT: &str = "nft 'table inet fw { chain in { type filter hook input priority 0 ; udp dport 22611 drop ; } ; }'";
const OPEN: &str = "nft delete table inet fw";

pub(crate) fn udp_forgotten(story: &mut Story) {
    story.tell("The bootstrap's UDP port forgotten in its firewall; the network not attached");
    let done = story.hub.ns.sh(SHUT).unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    let start = std::time::Instant::now();
    story
        .b
        .types(&story.readme(4, "systemctl start"))
        .unwrap()
        .works(&[]);
    let said = story.until(&story.b, "farlan status", 8, |text| {
        text.contains("no UDP answer comes from")
    });
    println!("warned of the port after {:?}", start.elapsed());
    said.says(&[
        "no UDP answer comes from",
        "192.0.2.11:22611",
        "open this UDP port at the bootstrap",
        "no frame passes until then",
    ]);
    let cure = said.cure("farlan attach");
    story.b.types(&cure).unwrap().works(&["br-lab"]);
    story.tell("The port is opened");
    let done = story.hub.ns.sh(OPEN).unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    story.is_well(&story.b);
    story.is_well(&story.a);
}

pub(crate) fn the_first_look(story: &mut Story) {
    story.tell("Guests, and where they are");
    for (index, site) in (1..).zip(&story.sites) {
        story
            .vms
            .push(story.lab.vm(index, &site.hosts[0], "br-lab").unwrap());
    }
    let from = &story.vms[0].ns;
    let now = std::time::Instant::now();
    let limit = std::time::Duration::from_secs(10);
    farlan_tests::probe::first_ping(from, &story.vms[1].ip, now, limit).unwrap();
    story
        .a
        .types("farlan attach lab --vm web1")
        .unwrap()
        .works(&["web1"]);
    for line in ["farlan status", "farlan macs", "farlan where 10.9.0.2"] {
        story
            .a
            .types(&story.readme(6, line))
            .unwrap()
            .works(&["site-b"]);
    }
    story
        .a
        .types("farlan where site-b")
        .unwrap()
        .works(&["10.9.0.2"]);
    story
        .b
        .types("farlan where site-a")
        .unwrap()
        .works(&["10.9.0.1"]);
    story
        .b
        .types("farlan where 10.9.0.2")
        .unwrap()
        .works(&["here"]);
    let said = story.a.types("farlan detach lab").unwrap();
    said.fails(&["--force"]);
}

/// A site that lets no UDP out: its host's node cannot know more than that nothing comes back.
pub(crate) fn udp_shut_at_a_site(story: &mut Story) {
    story.tell("A site's firewall lets no UDP out");
    let shut = SHUT
        .replace("input", "forward")
        .replace("udp dport 22611", "meta l4proto udp");
    let router = &story.sites[1].router;
    assert_eq!(router.sh(&shut).unwrap().code, 0);
    story
        .b
        .types("systemctl restart farlan")
        .unwrap()
        .works(&[]);
    let said = story.until(&story.b, "farlan status", 8, |text| {
        text.contains("no UDP answer comes from")
    });
    said.says(&["let UDP out of this site's firewall"]);
    let said = story.until(&story.a, "farlan peers", 20, |text| {
        !text.contains("direct")
    });
    said.works(&["~site-b"]);
    let said = story.until(&story.b, "farlan peers", 20, |text| {
        text.contains("udp-blocked")
    });
    said.says(&["UDP"]);
    assert_eq!(router.sh(OPEN).unwrap().code, 0);
    story.is_well(&story.b);
    story.is_well(&story.a);
}

pub(crate) fn nobody_there(story: &mut Story) {
    story.tell("The other host's node is stopped");
    story.b.types("systemctl stop farlan").unwrap().works(&[]);
    let said = story.until(&story.a, "farlan peers", 20, |text| {
        text.contains("peer-offline")
    });
    let cure = said.cure("farlan status");
    let said = story.b.types(&cure).unwrap();
    said.fails(&["no node runs"]);
    story
        .b
        .types(&said.cure("systemctl start"))
        .unwrap()
        .works(&[]);
    story.is_well(&story.a);

    story.tell("The bootstrap is stopped");
    story
        .hub
        .types("systemctl stop farlan-bootstrap")
        .unwrap()
        .works(&[]);
    let said = story.until(&story.a, "farlan status", 20, |text| {
        text.contains("no bootstrap is up")
    });
    story.hub.types(&said.cure("systemctl status")).unwrap();
    let cure = said.cure("systemctl start");
    story.hub.types(&cure).unwrap().works(&[]);
    story.is_well(&story.a);

    story.tell("A second node by hand, beside the unit");
    let said = story.a.types("farlan up").unwrap();
    said.fails(&["a node runs on /var/lib/farlan already"]);
    story
        .a
        .types(&said.cure("systemctl stop"))
        .unwrap()
        .works(&[]);
    let done = story.a.types("timeout -s INT 2 farlan up").unwrap();
    done.says(&["INFO"]);
    story.a.types("systemctl start farlan").unwrap().works(&[]);
    story.is_well(&story.a);
}

pub(crate) fn names(story: &mut Story) {
    story.tell("Names");
    story.until(&story.a, "farlan peers", 10, |text| {
        text.contains("~site-b")
    });
    story.until(&story.b, "farlan peers", 10, |text| text.contains("site-a"));
    story
        .b
        .types("farlan rename kitchen")
        .unwrap()
        .works(&["kitchen"]);
    story.until(&story.a, "farlan peers", 10, |text| {
        text.contains("~kitchen")
    });
    for line in [
        "farlan peers kitchen",
        "farlan macs --node kitchen",
        "farlan where kitchen",
    ] {
        story.a.types(line).unwrap().works(&["kitchen"]);
    }
    let said = story.a.types("farlan peers nobody").unwrap();
    said.fails(&[]);
    story
        .a
        .types(&said.cure("farlan "))
        .unwrap()
        .works(&["kitchen"]);
    let said = story.hub.types("farlan revoke kitchen").unwrap();
    said.fails(&["signed"]);
    story
        .hub
        .types(&said.cure("farlan invites"))
        .unwrap()
        .works(&["site-a"]);

    story.tell("A name that the authority has signed stays, until it signs another");
    let said = story.a.types("farlan rename cellar").unwrap();
    said.fails(&["the authority named this node `site-a`"]);
    let invite = said
        .cure("farlan invite")
        .replace("NETWORK", "lab")
        .replace("NAME", "cellar");
    let given = story.hub.types(&invite).unwrap();
    given.works(&["farlan-invite-"]);
    let join = said.cure("farlan join");
    story
        .a
        .types_with(&join, &given.text)
        .unwrap()
        .works(&["cellar"]);
    story.until(&story.b, "farlan peers", 20, |text| text.contains("cellar"));
}
