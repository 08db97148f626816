//! A newcomer's first hour: the README's own commands, typed on clean Debian hosts in its order, and
//! each mistake made on purpose. After a mistake the command that its message names is typed as it
//! stands there, and has to help.
//!
//! The chapters that wait longest are told by `./test --long packaging` alone (`FARLAN_LONG`).
//!
//! The commands come out of README.md, so that it and this test cannot drift apart. The transcript is
//! `newcomer.txt` in the target directory.

mod day_after;
mod install;
mod joining;
mod running;
mod story;

use farlan_tests::require_lab;

use story::Story;

#[test]
fn the_readme_alone_leads_a_newcomer_through_every_mistake() {
    require_lab!();
    let mut story = Story::begin().unwrap();
    install::packages(&story);
    install::authority(&mut story);
    install::bootstrap(&mut story);
    install::what_the_authority_refuses(&mut story);
    joining::before_the_invite(&story);
    joining::the_first_host(&mut story);
    joining::the_second_host(&mut story);
    running::udp_forgotten(&mut story);
    running::the_first_look(&mut story);
    let long = std::env::var_os("FARLAN_LONG").is_some();
    if long {
        running::udp_shut_at_a_site(&mut story);
        running::nobody_there(&mut story);
    }
    running::names(&mut story);
    day_after::the_books(&mut story);
    day_after::taken_back(&mut story);
    if long {
        day_after::another_overlay(&mut story);
        day_after::lost_state(&mut story);
    }
    day_after::leaving(&mut story);
    story.every_command_was_typed();
    story.transcript.sum_up();
}
