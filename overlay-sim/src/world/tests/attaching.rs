//! Networks are attached to hosts and detached while frames flow.

use node_core::api::AttachRequest;

use super::*;

fn attach() -> Request {
    Request::Attach(AttachRequest::new("lab".parse().unwrap()))
}

fn detach() -> Request {
    Request::Detach(AttachRequest::new("lab".parse().unwrap()))
}

#[test]
fn what_is_detached_is_claimed_by_nobody_and_comes_back_with_its_first_frame() {
    let mut lab = Lab::settled(140, 3);
    lab.does(2, detach());
    lab.within(MS(200), |lab| lab.holder(1, 2).is_none());
    assert!(!lab.reaches(1, 2));
    assert_eq!(lab.hear(1), [3]);
    assert!(lab.warns(2, "network lab is not attached on this host"));
    lab.does(2, attach());
    lab.go(S(2));
    assert!(!lab.warns(2, "network lab is not attached on this host"));
    assert_eq!(lab.hear(2), [1, 3]);
    assert_eq!(lab.holder(1, 2), Some(2));
    assert!(lab.reaches(1, 2));
}

#[test]
fn the_node_carries_frames_and_answers_while_the_host_is_changed() {
    let config = Config {
        change_delay: S(10),
        ..Config::default()
    };
    let mut lab = Lab::with(141, 2, config);
    lab.settle();
    let host = lab.host(2);
    assert_eq!(lab.world.ask(host, detach()), None);
    for _ in 0..9 {
        assert_eq!(lab.hear(1), [2]);
        assert!(lab.meets(2, 1));
    }
    lab.go(S(2));
    assert_eq!(lab.world.take_replies(host).len(), 1);
    assert_eq!(lab.hear(1), NOBODY);
}

#[test]
fn what_cannot_be_changed_is_said_and_changes_nothing() {
    let mut lab = Lab::settled(142, 2);
    assert_eq!(lab.fails(2, attach()), "lab is attached");
    lab.does(2, detach());
    assert_eq!(lab.fails(2, detach()), "lab is not attached");
    lab.does(2, attach());
    assert_eq!(lab.hear(2), [1]);
}

#[test]
fn a_detachment_outlives_the_node() {
    let mut lab = Lab::settled(143, 2);
    lab.does(2, detach());
    lab.kill(2);
    lab.start(2);
    lab.within(S(6), |lab| lab.meets(2, 1));
    assert_eq!(lab.hear(1), NOBODY);
    lab.does(2, attach());
    assert_eq!(lab.hear(2), [1]);
}
