//! Steps 0 to 3: packages, authority, bootstrap, invites.

use crate::story::Story;

pub(crate) fn packages(story: &Story) {
    story.tell("The packages");
    for host in [&story.hub, &story.a, &story.b] {
        let line = story.readme(0, "apt install ./farlan_");
        host.types(&line).unwrap().works(&[]);
    }
    let line = story.readme(0, "./farlan-bootstrap_");
    story.hub.types(&line).unwrap().works(&[]);
}

pub(crate) fn authority(story: &mut Story) {
    story.tell("The authority; without root first");
    let line = story.readme(1, "farlan init");
    let as_nobody = format!("setpriv --reuid=nobody --clear-groups {line}");
    let said = story.hub.types(&as_nobody).unwrap();
    said.fails(&["run this as root (sudo)"]);
    let said = story.hub.types(&line).unwrap();
    said.works(&[]);
    story.overlay = said.text.lines().last().unwrap().trim().to_owned();
    let said = story.hub.types(&story.readme(1, "network add")).unwrap();
    said.works(&["network lab added"]);

    story.tell("Once more by mistake: the id is not lost");
    let said = story.hub.types(&line).unwrap();
    said.fails(&["holds the authority of an overlay already"]);
    let said = story.hub.types(&said.cure("farlan overlay")).unwrap();
    said.works(&[&story.overlay, "bootstraps none", "lab"]);
    let said = story.hub.types(&said.cure("farlan bootstrap add")).unwrap();
    said.fails(&["ends in /p2p/"]);

    story.tell("On the wrong machine");
    let said = story.a.types("farlan network add lab").unwrap();
    said.fails(&["holds no authority", "at the authority"]);
}

/// What is said in the unit's log, and what it says to type.
fn log(story: &Story) -> farlan_tests::clean::Said {
    let line = "journalctl -u farlan-bootstrap -o cat --no-pager -n 30";
    story.until(&story.hub, line, 10, |text| {
        text.contains("farlan-bootstrap: ")
    })
}

pub(crate) fn bootstrap(story: &mut Story) {
    let block = story.readme.block(2, "With the package").unwrap();
    let [flags, start, look] = &block[..] else {
        panic!("not three commands: {block:?}");
    };
    story.tell("The bootstrap; its flags forgotten");
    story.hub.types(start).unwrap().fails(&["journalctl"]);
    log(story).says(&["FARLAN_BOOTSTRAP_FLAGS", "/etc/default/farlan-bootstrap"]);

    story.tell("The flags copied as they stand in the README");
    story.hub.types(flags).unwrap().works(&[]);
    story
        .hub
        .types("systemctl restart farlan-bootstrap")
        .unwrap()
        .fails(&[]);
    log(story).says(&["OVERLAY-ID", "farlan overlay"]);

    story.tell("By hand as root first, then the unit");
    let by_hand = story.readme(2, "farlan-bootstrap --overlay OVERLAY-ID");
    let said = story
        .hub
        .types(&format!("timeout -s INT 2 {by_hand}"))
        .unwrap();
    said.says(&["going on as that user", "/p2p/"]);
    story.hub.types(&story.fill(flags)).unwrap().works(&[]);
    story.hub.types(start).unwrap().works(&[]);
    let said = story.hub.types(look).unwrap();
    said.works(&["/quic-v1/p2p/", "/tcp/22611/p2p/"]);
    for kind in ["/quic-v1/", "/tcp/"] {
        let address = said.text.lines().find(|line| line.contains(kind)).unwrap();
        story.addresses.push(address.trim().to_owned());
    }

    story.tell("By hand while the unit runs");
    let said = story.hub.types(&by_hand).unwrap();
    said.fails(&["a farlan-bootstrap runs on /var/lib/farlan-bootstrap"]);
    story
        .hub
        .types(&said.cure("systemctl stop"))
        .unwrap()
        .works(&[]);
    let said = story
        .hub
        .types(&format!("timeout -s INT 2 {by_hand}"))
        .unwrap();
    said.says(&["/p2p/"]);

    story.tell("By hand as somebody else");
    let nobody = format!("setpriv --reuid=nobody --clear-groups {by_hand}");
    let said = story.hub.types(&nobody).unwrap();
    said.fails(&["cannot write /var/lib/farlan-bootstrap"]);
    story
        .hub
        .types(&said.cure("systemctl start"))
        .unwrap()
        .works(&[]);

    story.tell("Files of root's in the service's directory, as an older version left them");
    story
        .hub
        .types("systemctl stop farlan-bootstrap")
        .unwrap()
        .works(&[]);
    story
        .hub
        .types("chown root: /var/lib/farlan-bootstrap/identity")
        .unwrap()
        .works(&[]);
    story
        .hub
        .types("systemctl start farlan-bootstrap")
        .unwrap()
        .fails(&["journalctl"]);
    let said = log(story);
    said.says(&["belongs to root", "an earlier run as root left it"]);
    story.hub.types(&said.cure("chown")).unwrap().works(&[]);
    story
        .hub
        .types("systemctl start farlan-bootstrap")
        .unwrap()
        .works(&[]);
}

pub(crate) fn what_the_authority_refuses(story: &mut Story) {
    story.tell("An invite before the authority knows a bootstrap");
    let invite = story.readme(3, "farlan invite");
    let said = story.hub.types(&invite).unwrap();
    said.fails(&["--bootstrap ADDR"]);
    let cure = story.fill(&said.cure("farlan bootstrap add"));
    story.hub.types(&cure).unwrap().works(&["/p2p/"]);
    let add = story.readme(3, "farlan bootstrap add");
    story.hub.types(&add).unwrap().works(&["/p2p/"]);

    story.tell("An address without its end, and one that cannot be dialled");
    let cut = story.addresses[1].split("/p2p/").next().unwrap();
    let said = story
        .hub
        .types(&format!("farlan bootstrap add {cut}"))
        .unwrap();
    said.fails(&["ends in /p2p/"]);

    story.tell("A network that is not there");
    let said = story
        .hub
        .types("farlan invite --network attic --name spare")
        .unwrap();
    said.fails(&["no network `attic`"]);
    let said = story.hub.types(&said.cure("farlan network add")).unwrap();
    said.works(&["network attic added"]);
    let said = story.hub.types("farlan network add attic").unwrap();
    said.fails(&["exists already"]);
    story
        .hub
        .types("farlan network remove attic")
        .unwrap()
        .works(&["removed"]);

    story.tell("A name twice, and a file twice");
    let spare = "farlan invite --network lab --name spare --output spare.invite";
    story
        .hub
        .types(spare)
        .unwrap()
        .works(&["spare.invite", "farlan join @spare.invite"]);
    let said = story.hub.types(spare).unwrap();
    said.fails(&["`spare` is the name", "--again"]);
    let said = story.hub.types(&said.cure("farlan revoke spare")).unwrap();
    said.works(&["farlan-revocation-"]);
    let said = story.hub.types(spare).unwrap();
    said.fails(&["exists already", "choose another file"]);
    let other = spare.replace("spare.invite", "other.invite");
    story.hub.types(&other).unwrap().works(&["other.invite"]);
    let again = other.replace("other.invite", "again.invite") + " --again";
    story.hub.types(&again).unwrap().works(&["again.invite"]);
    let said = story.hub.types("farlan network remove lab").unwrap();
    said.fails(&["--force"]);
    story
        .hub
        .types("stat -c '%a %n' spare.invite")
        .unwrap()
        .works(&["600"]);

    story.hub.types(&invite).unwrap().works(&["site-a.invite"]);
    let said = story.hub.types("farlan overlay").unwrap();
    said.works(&[&story.overlay, &story.addresses[0], "lab"]);
}
