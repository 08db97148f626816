//! Step 4: each host.

use crate::story::Story;

pub(crate) fn before_the_invite(story: &Story) {
    story.tell("The node's commands before it has joined");
    let attach = story.readme(4, "farlan attach");
    for line in [
        &attach,
        "farlan up",
        "farlan status",
        "farlan peers",
        "farlan leave --yes",
    ] {
        let said = story.a.types(line).unwrap();
        said.fails(&["holds no membership"]);
        assert_eq!(said.cure("farlan join"), "farlan join -", "{line}");
    }
    // A unit whose condition does not hold is no failure to systemd; `status` says what is missing.
    story
        .a
        .types(&story.readme(4, "systemctl start"))
        .unwrap()
        .works(&[]);
    story
        .a
        .types("farlan status")
        .unwrap()
        .fails(&["farlan join -"]);

    story.tell("No invite, half an invite, something else");
    story
        .a
        .types("farlan join")
        .unwrap()
        .fails(&["farlan join @FILE"]);
    story
        .a
        .types("farlan join - < /dev/null")
        .unwrap()
        .fails(&[]);
    story
        .a
        .types("echo hello | farlan join -")
        .unwrap()
        .fails(&["farlan-invite-"]);
    story.carry("site-a.invite", &story.a);
    let said = story
        .a
        .types("head -c 300 site-a.invite | farlan join -")
        .unwrap();
    said.fails(&["again"]);
    story
        .a
        .types("farlan join site-a.invite")
        .unwrap()
        .fails(&["farlan join @site-a.invite"]);
}

pub(crate) fn the_first_host(story: &mut Story) {
    story.tell("The first host: at a terminal, the invite pasted");
    let invite = story.a.read("/root/site-a.invite").unwrap();
    let said = story
        .a
        .types_at_terminal(&story.readme(4, "farlan join"), "Ctrl-C ends): ", &invite)
        .unwrap();
    said.works(&["Paste the invite", "member until", "site-a"]);
    assert!(
        !said.text.contains(invite.trim()),
        "the invite is shown: {}",
        said.text
    );
    let (attach, start) = (said.cure("farlan attach"), said.cure("systemctl start"));
    assert_eq!(attach, story.readme(4, "farlan attach"));
    assert_eq!(start, story.readme(4, "systemctl start"));
    story.a.types(&attach).unwrap().works(&["br-lab", "fl-lab"]);
    story.a.types(&start).unwrap().works(&[]);
    let look = story.readme(4, "farlan status");
    let said = story.until(&story.a, &look, 10, |text| text.contains("up"));
    said.works(&[&story.overlay[..12]]);
}

pub(crate) fn the_second_host(story: &mut Story) {
    story.tell("The second host: with the first one's invite");
    story.carry("site-a.invite", &story.b);
    let said = story.b.types("farlan join - < site-a.invite").unwrap();
    said.fails(&["not joined", "has been used by as many", "farlan invite"]);
    story
        .b
        .types("farlan status")
        .unwrap()
        .fails(&["holds no membership"]);
    // Without a name: the host's will do.
    let line = "farlan invite --network lab --output site-b.invite";
    story
        .hub
        .types(line)
        .unwrap()
        .works(&["farlan join @site-b.invite"]);
    story.carry("site-b.invite", &story.b);

    story.tell("Its clock two days ahead");
    let lib = farlan_tests::proc::check(
        std::process::Command::new("sh")
            .args(["-c", "dpkg -L libfaketime | grep 'libfaketime.so.1$'"]),
    );
    story
        .b
        .bring(std::path::Path::new(lib.unwrap().trim()))
        .unwrap();
    let clock =
        |by: &str, line: &str| format!("LD_PRELOAD=/root/libfaketime.so.1 FAKETIME={by} {line}");
    let join = "farlan join - < site-b.invite";
    let said = story.b.types(&clock("+2d", join)).unwrap();
    said.fails(&["this host's clock says", "join again"]);
    let cure = said.cure("timedatectl");
    story.b.types(&cure).unwrap().works(&[]);

    story.tell("Two hours behind");
    let said = story.b.types(&clock("-2h", join)).unwrap();
    said.says(&["clock"]);
    let cure = said.cure("timedatectl");
    story.b.types(&cure).unwrap().works(&[]);
    let said = story.b.types("farlan join @site-b.invite").unwrap();
    said.works(&["member until", "~site-b"]);
}
