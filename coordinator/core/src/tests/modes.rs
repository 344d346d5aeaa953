//! What differs from mode to mode.

use std::vec;

use super::*;

fn act(w: &mut World, xid: Xid, mode: Mode, action: &str) -> BranchId {
    let registration = w.action(xid, mode, action);
    let Reply::Registered { branch, .. } = w.apply(Command::RegisterBranch(registration)) else {
        panic!("it is registered");
    };
    assert_eq!(w.done(xid, branch), Reply::Ok);
    branch
}

fn refused(w: &mut World, registration: RegisterBranch) -> Rejection {
    match w.apply(Command::RegisterBranch(registration)) {
        Reply::Refused(rejection) => rejection,
        other => panic!("{other:?} is no refusal"),
    }
}

fn ordered(w: &World) -> Vec<u32> {
    w.orders()
        .into_iter()
        .map(|(_, branch, ..)| branch)
        .collect()
}

#[test]
fn the_payload_comes_back_with_every_order_and_ends_with_the_branch() {
    let mut w = World::new();
    let xid = w.begin();
    let mut registration = w.action(xid, Mode::Tcc, "freeze");
    registration.payload = Payload::from(&b"{\"amount\":5}"[..]);
    let reply = w.apply(Command::RegisterBranch(registration.clone()));
    assert!(registered(&reply));
    assert_eq!(
        w.apply(Command::RegisterBranch(registration.clone())),
        reply
    );
    let other = RegisterBranch {
        payload: Payload::from(&b"{\"amount\":6}"[..]),
        ..registration.clone()
    };
    assert_eq!(refused(&mut w, other), Rejection::DifferentContent);
    let branch = BranchId(1);
    w.done(xid, branch);
    assert_eq!(w.state.counts().payload_bytes, 12);
    w.commit(xid);
    for _ in 0..2 {
        let carried = w.effects.iter().find_map(|effect| match effect {
            Effect::Order(order) => Some((order.mode, order.payload.clone())),
            _ => None,
        });
        let expected = (Mode::Tcc, registration.payload.clone());
        assert_eq!(carried, Some(expected));
        w.apply(Command::TakeOffice(TakeOffice::default()));
        w.effects = w.state.resume();
    }
    w.finish(xid, branch, Outcome::Finished);
    assert!(w.branch_of(xid, branch).payload().is_empty());
    assert_eq!(w.state.counts().payload_bytes, 0);
}

#[test]
fn a_mode_takes_what_belongs_to_it() {
    let mut w = World::new();
    let xid = w.begin();
    for mode in Mode::ALL {
        let database = mode.takes_row_locks();
        assert_eq!(database, matches!(mode, Mode::At | Mode::Xa));
        assert_eq!(mode.takes_payload(), mode != Mode::At);
        let locks = vec![LockKey::from(&b"1"[..]).into()];
        let place = if database { "a" } else { "freeze" };
        let plain = RegisterBranch {
            payload: Payload::default(),
            ..w.action(xid, mode, place)
        };
        let with_locks = RegisterBranch {
            request: w.request(),
            locks,
            ..plain.clone()
        };
        let with_payload = w.action(xid, mode, place);
        assert_eq!(
            registered(&w.apply(Command::RegisterBranch(with_locks))),
            database
        );
        assert_eq!(
            registered(&w.apply(Command::RegisterBranch(with_payload))),
            mode.takes_payload()
        );
        assert!(
            registered(&w.apply(Command::RegisterBranch(plain))),
            "{mode:?}"
        );
    }
}

#[test]
fn a_name_is_a_database_or_an_action_whichever_came_first() {
    let mut w = World::new();
    let xid = w.begin();
    for (mode, resource, why) in [
        (Mode::At, "freeze", Rejection::ResourceIsAction),
        (Mode::Xa, "freeze", Rejection::ResourceIsAction),
        (Mode::Tcc, "a", Rejection::ResourceIsDatabase),
        (Mode::Saga, "a", Rejection::ResourceIsDatabase),
        (Mode::ThreePhase, "a", Rejection::ResourceIsDatabase),
        (Mode::At, "unheard-of", Rejection::ResourceUnknown),
        (Mode::Tcc, "unheard-of", Rejection::ResourceUnknown),
    ] {
        let registration = RegisterBranch {
            payload: Payload::default(),
            ..w.action(xid, mode, resource)
        };
        assert_eq!(refused(&mut w, registration.clone()), why, "{mode:?}");
        assert_eq!(
            refused(&mut w, registration),
            why,
            "a repeat hears the same"
        );
    }
    let bind = BindResource {
        resource: "freeze".into(),
        database: [9; 16],
    };
    let bound = w.apply(Command::BindResource(bind));
    assert_eq!(bound, Reply::Refused(Rejection::ResourceIsAction));
    assert_eq!(
        w.name_action("a"),
        Reply::Refused(Rejection::ResourceIsDatabase)
    );
    assert_eq!(
        w.name_action("freeze"),
        Reply::Ok,
        "once more is no mistake"
    );
    let check = CheckLocks {
        resource: "freeze".into(),
        ..w.check_outside(&["1"])
    };
    let looked = w.apply(Command::CheckLocks(check));
    assert_eq!(looked, Reply::Refused(Rejection::ResourceIsAction));
    assert_eq!(w.state.actions().count(), 2);
}

#[test]
fn names_and_payloads_are_bounded() {
    let mut w = World::new();
    let xid = w.begin();
    let large = vec![7; limits::MAX_PAYLOAD_BYTES + 1];
    let registration = RegisterBranch {
        payload: Payload::from(&large[1..]),
        ..w.action(xid, Mode::Tcc, "freeze")
    };
    assert!(registered(&w.apply(Command::RegisterBranch(registration))));
    let registration = RegisterBranch {
        payload: Payload::from(&large[..]),
        ..w.action(xid, Mode::Tcc, "freeze")
    };
    let what = "a branch's payload";
    let (found, limit) = (large.len() as u64, limits::MAX_PAYLOAD_BYTES as u64);
    let too_large = Rejection::TooLarge { what, found, limit };
    assert_eq!(refused(&mut w, registration), too_large);

    w.state.payload_bytes = limits::MAX_PAYLOAD_BYTES_IN_ALL;
    let limit = limits::MAX_PAYLOAD_BYTES_IN_ALL;
    let full = Reply::Refused(Rejection::PayloadsFull { limit });
    let not_begun = w.next_xid();
    for of in [xid, not_begun] {
        let registration = w.action(of, Mode::Tcc, "freeze");
        assert_eq!(
            w.apply_unchecked(Command::RegisterBranch(registration)),
            full
        );
    }
    let without = RegisterBranch {
        payload: Payload::default(),
        ..w.action(xid, Mode::Tcc, "freeze")
    };
    assert!(registered(
        &w.apply_unchecked(Command::RegisterBranch(without))
    ));

    let mut w = World::without_actions();
    for number in 0..limits::MAX_ACTIONS {
        let action = std::format!("action-{number}").into();
        w.apply_unchecked(Command::NameAction(NameAction { action }));
    }
    assert!(matches!(
        w.name_action("one-more"),
        Reply::Refused(Rejection::TooLarge { .. })
    ));
    assert_eq!(w.name_action("action-0"), Reply::Ok);
}

#[test]
fn each_mode_is_undone_in_its_own_order() {
    let mut w = World::new();
    let xid = w.begin();
    let at = [w.branch(xid, "a", &["1"]), w.branch(xid, "a", &["2"])];
    let xa = [0, 1].map(|_| {
        let registration = RegisterBranch {
            mode: Mode::Xa,
            ..w.registration(xid, "b", &[])
        };
        let Reply::Registered { branch, .. } = w.apply(Command::RegisterBranch(registration))
        else {
            panic!("it is registered");
        };
        w.done(xid, branch);
        branch
    });
    let tcc = [0, 1].map(|_| act(&mut w, xid, Mode::Tcc, "freeze"));
    // Different actions, and yet one after the other.
    let saga = ["ship", "freeze", "ship"].map(|action| act(&mut w, xid, Mode::Saga, action));
    let asked = [0, 1].map(|_| act(&mut w, xid, Mode::ThreePhase, "ship"));
    w.roll_back(xid);
    let mut at_once = ordered(&w);
    at_once.sort_unstable();
    let mut expected = std::vec![at[1].0, saga[2].0];
    expected.extend(
        [xa, tcc, asked]
            .as_flattened()
            .iter()
            .map(|branch| branch.0),
    );
    expected.sort_unstable();
    assert_eq!(at_once, expected);
    // A stuck step holds back the earlier ones.
    w.finish(xid, saga[2], Outcome::Stuck(problem("the parcel is gone")));
    w.finish(xid, at[1], Outcome::Finished);
    assert_eq!(ordered(&w), [at[0].0]);
    let skip = Repair {
        xid,
        branch: Some(saga[2]),
        verb: RepairVerb::Skip,
        by: "ada".into(),
        reason: "refunded by hand".into(),
    };
    w.apply(Command::Repair(skip));
    assert_eq!(ordered(&w), [saga[1].0]);
    w.finish(xid, saga[1], Outcome::Finished);
    assert_eq!(ordered(&w), [saga[0].0]);
    for id in expected.into_iter().map(BranchId).chain([saga[0], at[0]]) {
        w.finish(xid, id, Outcome::Finished);
    }
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn a_commit_finishes_all_at_once() {
    let mut w = World::new();
    let xid = w.begin();
    for mode in [Mode::Saga, Mode::Saga, Mode::Tcc, Mode::ThreePhase] {
        act(&mut w, xid, mode, "freeze");
    }
    w.branch(xid, "a", &["1"]);
    w.commit(xid);
    assert_eq!(ordered(&w), [1, 2, 3, 4, 5]);
}

#[test]
fn parked_payloads_are_counted_until_the_begin_comes_or_does_not() {
    let mut w = World::new();
    let [comes, never] = [0, 1].map(|_| w.next_xid());
    for xid in [comes, never] {
        let registration = w.action(xid, Mode::Tcc, "freeze");
        let waits = Reply::Waiting(waiter(&registration));
        assert_eq!(w.apply(Command::RegisterBranch(registration)), waits);
    }
    assert_eq!(w.state.counts().payload_bytes, 4);
    assert_eq!(w.begin_reply(comes, 60_000, None), Reply::Ok);
    assert!(registered(&w.answers()[0].1));
    w.expire();
    assert_eq!(w.state.counts().payload_bytes, 2);
    w.apply(Command::WithdrawBranch(WithdrawBranch {
        xid: comes,
        request: RequestId {
            process: AGENT,
            sequence: 1,
        },
    }));
    assert_eq!(w.state.counts().payload_bytes, 0);
}
