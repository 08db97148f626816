//! One server, and whoever asks it, in virtual time.

use std::cell::RefCell;
use std::sync::Arc;

use overlay_proto::ids::OverlayId;
use overlay_proto::membership::test_authority::TestOverlay;
use overlay_proto::membership::{InviteId, ListState, Revocations};

use super::*;
use crate::admission::InfraGate;
use crate::messages::MAX_RECORD;
use crate::records::SignedRecords;

const LOCAL: PeerId = PeerId([9; 32]);
const ONE: PeerId = PeerId([1; 32]);
const OTHER: PeerId = PeerId([2; 32]);
const OVERLAY: OverlayId = OverlayId([5; 32]);
const INVITE: InviteId = InviteId([3; 32]);
const END: UnixTime = UnixTime(2_000_000_000);

/// Remembers whose allocations ended.
#[derive(Default)]
struct Desk(RefCell<Vec<PeerId>>);

impl Relay for Desk {
    fn allocate(&self, _: PeerId) -> Result<Allocation, RefusedReason> {
        Err(RefusedReason::Busy)
    }

    fn permit(&self, _: PeerId, _: AllocationId, _: &[PeerId]) -> Result<(), RefusedReason> {
        Err(RefusedReason::Invalid)
    }

    fn revoke(&self, peer: PeerId) {
        self.0.borrow_mut().push(peer);
    }
}

/// A bootstrap to which both members are connected.
struct House {
    server: Server,
    gate: InfraGate,
    desk: Desk,
    records: Records,
    times: Times,
}

impl House {
    fn new() -> Self {
        let times = Times {
            now: crate::some_instant(),
            wall: Duration::from_secs(END.0 - 100),
        };
        let admitted = AdmittedTable::default();
        let gate = InfraGate::new(OVERLAY, Vec::new(), None, None, None);
        let revocations = gate.revocations();
        let mut server = Server::new(LOCAL, true, admitted.clone(), revocations, times.now);
        for peer in [ONE, OTHER] {
            let member = Admitted::Member {
                root_number: 1,
                lists: ListState::default(),
                invite: INVITE,
                until: END,
                receipt: None,
            };
            admitted.insert(peer, member, false, times.now);
            server.handle_connected(peer, times.now);
        }
        Self {
            server,
            gate,
            desk: Desk::default(),
            records: Records::new(Arc::new(SignedRecords { overlay: OVERLAY })),
            times,
        }
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Server, Times, &mut Means<'_>) -> T) -> T {
        let mut means = Means {
            gate: &self.gate,
            relay: Some(&self.desk),
            records: &mut self.records,
        };
        call(&mut self.server, self.times, &mut means)
    }

    fn ask(&mut self, peer: PeerId, request: Request) -> Step {
        let seen = Some("192.0.2.1:5".parse().unwrap());
        self.call(|server, times, means| {
            server.handle_request(times, Asker { peer, seen }, request, means)
        })
    }

    /// The gate learns a list.
    fn learn(&mut self, authority: &TestOverlay, list: &[u8]) {
        let known = (
            authority.roots.clone(),
            Revocations::clone(&self.gate.revocations()),
        );
        self.gate = InfraGate::new(authority.id(), Vec::new(), Some(known), None, None);
        self.gate.take_revocations(list).unwrap();
    }

    fn lay_down(&mut self, peer: PeerId) -> usize {
        let (rendezvous, card) = ([7; 32], vec![1]);
        match self.ask(peer, Request::Register { rendezvous, card }) {
            Step::Answer(Response::Cards(cards)) => cards.len(),
            other => panic!("{other:?}"),
        }
    }
}

fn refused(reason: RefusedReason) -> Step {
    Step::Answer(Response::Refused(reason))
}

#[test]
fn an_envelope_goes_on_as_from_whoever_sent_it() {
    let mut house = House::new();
    let now = house.times.now;
    let envelope = vec![4];
    let forward = |to| Request::Forward {
        to,
        envelope: vec![4],
    };
    let on = Step::Forward {
        to: OTHER,
        request: Request::Deliver {
            from: ONE,
            envelope: envelope.clone(),
        },
        until: now + DELIVERY_TIMEOUT,
    };
    assert_eq!(house.ask(ONE, forward(OTHER)), on);
    let own = Step::Take {
        from: ONE,
        envelope,
    };
    assert_eq!(house.ask(ONE, forward(LOCAL)), own);
    // What an addressee makes up says nothing to the sender.
    let said = |answer| answer_of_forward(answer);
    assert_eq!(said(Some(Response::Delivered)), Response::Delivered);
    assert_eq!(said(Some(Response::Clock(1))), Response::NotConnected);
    assert_eq!(said(None), Response::NotConnected);
}

#[test]
fn who_asks_too_much_or_too_large_is_refused() {
    let mut house = House::new();
    let value = vec![0; MAX_RECORD + 1];
    let large = Request::PutRecord {
        key: [0; 32],
        value,
    };
    assert_eq!(house.ask(ONE, large), refused(RefusedReason::TooLarge));
    let asked = (0..1_000)
        .filter(|_| house.ask(ONE, Request::Clock) != refused(RefusedReason::RateLimited));
    assert_eq!(asked.count(), 255);
    // Each has a share of its own.
    let millis = Response::Clock((END.0 - 100) * 1_000);
    assert_eq!(house.ask(OTHER, Request::Clock), Step::Answer(millis));
}

#[test]
fn a_member_serves_no_cards_and_no_allocations() {
    let mut house = House::new();
    let mut means = Means {
        gate: &house.gate,
        relay: None,
        records: &mut house.records,
    };
    let (peer, seen) = (ONE, None);
    let asker = Asker { peer, seen };
    let (rendezvous, card) = ([7; 32], vec![1]);
    let requests = [
        Request::Register { rendezvous, card },
        Request::Allocate,
        Request::Present { incarnation: 1 },
    ];
    for request in requests {
        let step = house
            .server
            .handle_request(house.times, asker, request, &mut means);
        assert_eq!(step, refused(RefusedReason::NotServed));
    }
}

#[test]
fn whose_membership_ends_is_named_once_and_leaves_nothing() {
    let mut house = House::new();
    assert_eq!((house.lay_down(ONE), house.lay_down(OTHER)), (0, 1));
    let sweep = |house: &mut House, seconds| {
        house.times.now += Duration::from_secs(seconds);
        house.times.wall += Duration::from_secs(seconds);
        house.call(|server, times, means| server.handle_timeout(times, &[ONE], means))
    };
    assert!(sweep(&mut house, 61).is_empty());
    // Within the tolerance of clocks.
    assert!(sweep(&mut house, 61).is_empty());
    // Cards lapse after ten minutes, so this one is laid down again.
    sweep(&mut house, 500);
    house.lay_down(ONE);
    let until = house.server.poll_timeout();
    assert!(until > house.times.now);
    assert_eq!(sweep(&mut house, 90), [ONE]);
    assert_eq!(*house.desk.0.borrow(), [ONE]);
    assert_eq!(house.lay_down(OTHER), 0);
}

#[test]
fn lists_are_told_once_and_whom_they_name_is_out() {
    let authority = TestOverlay::new(1, &[]);
    let mut house = House::new();
    house.lay_down(ONE);
    assert!(house.server.has_followed(&house.gate));
    let follow = |house: &mut House| {
        house.call(|server, _, means| server.follow_revocations(&[ONE, OTHER], means))
    };
    let list = authority.next_list(Revoked::Node(ONE)).encode();
    house.learn(&authority, &list);
    assert!(!house.server.has_followed(&house.gate));
    let followed = Followed {
        cut_off: vec![ONE],
        told: vec![OTHER],
        lists: vec![list.clone()],
    };
    assert_eq!(follow(&mut house), followed);
    assert_eq!(*house.desk.0.borrow(), [ONE]);
    assert_eq!(house.lay_down(OTHER), 0);
    assert!(house.server.has_followed(&house.gate));
    assert!(follow(&mut house).lists.is_empty());
    // By its invite, too, but nobody who is no member.
    let list = authority.next_list(Revoked::Invite(INVITE)).encode();
    house.learn(&authority, &list);
    assert_eq!(follow(&mut house).cut_off, [ONE, OTHER]);
    assert!(!house.server.is_revoked(LOCAL));
}
