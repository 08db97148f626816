//! Steps 7 and 8, and a bootstrap that is not what it was.

use farlan_tests::clean::CleanHost;

use crate::story::Story;

pub(crate) fn the_books(story: &mut Story) {
    story.tell("Who has used which invite");
    let said = story.hub.types(&story.readme(7, "farlan invites")).unwrap();
    said.works(&["site-a"]);
    let look = said.cure("farlan members").replace("FILE", "seen");
    story.a.types(&look).unwrap().works(&[]);
    let seen = story.a.read("/root/seen").unwrap();
    let kept = story.lab.dir().join("seen");
    std::fs::write(&kept, seen).unwrap();
    story.hub.bring(&kept).unwrap();
    let see = said.cure("farlan invites").replace("FILE", "seen");
    story.hub.types(&see).unwrap().works(&["12D3Koo"]);
}

fn id_of(host: &CleanHost) -> String {
    let out = host.quietly("farlan status --json").unwrap();
    let status: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    status["node"].as_str().unwrap().to_owned()
}

pub(crate) fn taken_back(story: &mut Story) {
    story.tell("A host is taken back by its node's id, and the line carried to a member");
    let id = id_of(&story.b);
    story
        .hub
        .types(&format!("farlan revoke {id} > line"))
        .unwrap()
        .works(&[]);
    story.carry("line", &story.a);
    let said = story.a.types("farlan apply line").unwrap();
    said.fails(&["farlan apply @line"]);
    story
        .a
        .types(&said.cure("farlan apply"))
        .unwrap()
        .works(&["in force"]);
    story.until(&story.a, "farlan peers", 20, |text| {
        !text.contains("kitchen")
    });
    story.until(&story.b, "farlan status", 20, |text| {
        text.contains("revoked")
    });

    story.tell("It comes back with a new invite");
    let line = "farlan invite --network lab --name pantry --output pantry.invite";
    story.hub.types(line).unwrap().works(&[]);
    story.carry("pantry.invite", &story.b);
    let said = story.b.types("farlan join - < pantry.invite").unwrap();
    said.fails(&["leave, then join again"]);
    story
        .b
        .types(&said.cure("farlan leave"))
        .unwrap()
        .works(&["left overlay"]);
    let invite = story.b.read("/root/pantry.invite").unwrap();
    let joined = story
        .b
        .types_with(&said.cure("farlan join"), &invite)
        .unwrap();
    joined.works(&["member until"]);
    story
        .b
        .types(&joined.cure("farlan attach"))
        .unwrap()
        .works(&[]);
    story
        .b
        .types(&joined.cure("systemctl start"))
        .unwrap()
        .works(&[]);
    story.is_well(&story.b);

    story.tell("By name, as the README does it; two invites lead to that host");
    let revoke = story.readme(7, "farlan revoke site-a");
    for line in [&revoke, &revoke.replace("site-a", "cellar")] {
        story.hub.types(line).unwrap().works(&[]);
        story.carry("out", &story.b);
        story
            .b
            .types("farlan apply - < out")
            .unwrap()
            .works(&["in force"]);
    }
    let said = story.until(&story.a, "farlan status", 20, |text| {
        text.contains("not admitted")
    });
    said.says(&["the authority has revoked", "new invite"]);
    assert!(!said.text.contains("no bootstrap is up"), "{}", said.text);
    let line = "farlan invite --network lab --name loft --output loft.invite";
    story.hub.types(line).unwrap().works(&[]);
    story.carry("loft.invite", &story.a);
    story
        .a
        .types("farlan join - < loft.invite")
        .unwrap()
        .works(&["loft"]);
    story.is_well(&story.a);
}

/// Writes the flags of the bootstrap's unit for the overlay `id`, as the README does.
fn flags(story: &Story, id: &str) {
    let line = story
        .readme(2, "FARLAN_BOOTSTRAP_FLAGS")
        .replace(&story.overlay, id);
    story.hub.types(&line).unwrap().works(&[]);
}

pub(crate) fn another_overlay(story: &mut Story) {
    story.tell("The bootstrap is given another overlay's id");
    let said = story.hub.types("farlan init --state /root/other").unwrap();
    said.works(&[]);
    flags(story, said.text.lines().last().unwrap());
    let said = story
        .hub
        .types("systemctl restart farlan-bootstrap")
        .unwrap();
    said.works(&[]);
    let line = "farlan invite --network lab --name shed --output shed.invite";
    story.hub.types(line).unwrap().works(&[]);
    story.carry("shed.invite", &story.b);
    story.b.types("systemctl stop farlan").unwrap().works(&[]);
    let join = "farlan join - < shed.invite";
    let said = story.b.types(join).unwrap();
    said.works(&[
        "not yet",
        "it does not serve this overlay",
        "/etc/default/farlan-bootstrap",
    ]);
    flags(story, &story.overlay);
    story
        .hub
        .types(&said.cure("systemctl restart"))
        .unwrap()
        .works(&[]);
    story.b.types(join).unwrap().works(&["member until"]);
    story
        .b
        .types(&said.cure("systemctl start farlan"))
        .unwrap()
        .works(&[]);
    story.is_well(&story.b);
    story.is_well(&story.a);
}

pub(crate) fn lost_state(story: &mut Story) {
    story.tell("The bootstrap loses its state");
    story
        .hub
        .types("systemctl stop farlan-bootstrap")
        .unwrap()
        .works(&[]);
    story
        .hub
        .types("mkdir lost; mv /var/lib/farlan-bootstrap/* lost/")
        .unwrap()
        .works(&[]);
    story
        .hub
        .types("systemctl start farlan-bootstrap")
        .unwrap()
        .works(&[]);
    let asks = |text: &str| text.contains("did it lose its state?");
    let said = story.until(&story.a, "farlan status", 40, asks);
    said.says(&["it answers as 12D3Koo", "the invite names 12D3Koo"]);

    story.tell("It stays lost: one host is invited again");
    story
        .hub
        .types(&said.cure("farlan bootstrap remove"))
        .unwrap()
        .works(&[]);
    let look = story.readme(2, "journalctl");
    let found = story.hub.types(&look).unwrap();
    let lines: Vec<&str> = found.text.lines().collect();
    story.addresses.clear();
    for kind in ["/quic-v1/", "/tcp/"] {
        let newest = lines.iter().rev().find(|line| line.contains(kind));
        story.addresses.push(newest.unwrap().trim().to_owned());
    }
    let add = story.fill(&said.cure("farlan bootstrap add"));
    story.hub.types(&add).unwrap().works(&["/p2p/"]);
    let again = said.cure("farlan invite --again").replace("NETWORK", "lab");
    let again = again.replace("NAME", "loft") + " --output loft2.invite";
    story.hub.types(&again).unwrap().works(&[]);
    story.carry("loft2.invite", &story.a);
    story
        .a
        .types("farlan join - < loft2.invite")
        .unwrap()
        .works(&["loft"]);
    story.until(&story.a, "farlan status", 40, |text| {
        !text.contains("warning")
    });

    story.tell("It is restored: the other host needs no invite");
    story
        .hub
        .types("systemctl stop farlan-bootstrap")
        .unwrap()
        .works(&[]);
    story
        .hub
        .types("rm -r /var/lib/farlan-bootstrap/*; mv lost/* /var/lib/farlan-bootstrap/")
        .unwrap()
        .works(&[]);
    story
        .hub
        .types("systemctl start farlan-bootstrap")
        .unwrap()
        .works(&[]);
    story.is_well(&story.b);
    story.is_well(&story.a);
}

pub(crate) fn leaving(story: &mut Story) {
    story.tell("Leaving");
    story.b.types("farlan leave").unwrap().fails(&["--yes"]);
    let said = story
        .b
        .types_at_terminal("farlan leave", "to leave: ", "no\n")
        .unwrap();
    said.fails(&["nothing was changed"]);
    let said = story
        .b
        .types_at_terminal("farlan leave", "to leave: ", "yes\n")
        .unwrap();
    said.works(&["left overlay"]);
}
