//! How long ended transactions stay known, and who says so.

use super::*;

fn ended(w: &mut World, count: usize) -> Vec<Xid> {
    let begun: Vec<Xid> = (0..count).map(|_| w.begin()).collect();
    for xid in &begun {
        assert_eq!(w.commit(*xid), Reply::Decided(Decision::Commit, None));
    }
    begun
}

fn take_office(w: &mut World, ms: u64, transactions: u64) {
    let retention = Retention { ms, transactions };
    let reply = w.apply(Command::TakeOffice(TakeOffice { retention }));
    assert!(matches!(reply, Reply::InOffice(_)));
    w.pass(limits::GRACE_MS);
}

#[test]
fn a_new_leaders_settings_count_from_its_first_entry() {
    let mut w = World::new();
    assert_eq!(w.state.retention(), Retention::default());
    let first = ended(&mut w, 1)[0];
    take_office(&mut w, 20_000, 1_000);
    w.renew();
    w.expire_now();
    assert_eq!(w.state.whereabouts(first), Whereabouts::Known);
    w.pass(20_000 - limits::GRACE_MS);
    w.expire_now();
    assert_eq!(w.state.whereabouts(first), Whereabouts::Forgotten);
}

#[test]
fn a_longer_retention_holds_for_those_that_ended_before() {
    let mut w = World::new();
    let first = ended(&mut w, 1)[0];
    take_office(&mut w, 2 * limits::RETENTION_MS, 1_000);
    w.pass(limits::RETENTION_MS);
    w.expire_now();
    assert_eq!(w.state.whereabouts(first), Whereabouts::Known);
    w.pass(limits::RETENTION_MS);
    w.expire_now();
    assert_eq!(w.state.whereabouts(first), Whereabouts::Forgotten);
}

#[test]
fn when_fewer_may_be_known_the_oldest_go_in_portions() {
    let mut w = World::new();
    let more = limits::EXPIRE_BATCH + 10;
    let known = limits::MIN_RETENTION_TRANSACTIONS as usize;
    // Checking everything after each of so many entries would take long.
    let mut last = w.begin();
    w.commit(last);
    let mut all = alloc::vec![last];
    for _ in 1..known + more {
        last = Xid::new(last.get() + (1 << 13)).expect("it is small");
        let commands = [
            Command::Begin(Begin {
                process: CLIENT,
                xid: last,
                name: "".into(),
                timeout_ms: 1,
                parent: None,
            }),
            Command::Commit(Commit { xid: last }),
        ];
        for command in commands {
            w.apply_unchecked(command);
        }
        all.push(last);
    }
    take_office(&mut w, limits::RETENTION_MS, known as u64);
    assert_eq!(w.state.counts().committed as usize, known + more);
    assert_eq!(
        w.state.next_deadline(),
        Some(w.state.now().plus(limits::GRACE_MS))
    );
    assert_eq!(w.apply(Command::Expire), Reply::MoreIsDue);
    assert_eq!(w.state.counts().committed as usize, known + 10);
    w.expire_now();
    assert_eq!(w.state.counts().committed as usize, known);
    assert_eq!(w.state.whereabouts(all[more - 1]), Whereabouts::Forgotten);
    assert_eq!(w.state.whereabouts(all[more]), Whereabouts::Known);
    // One that ends takes the place of one.
    let next = Xid::new(last.get() + (1 << 13)).expect("it is small");
    assert_eq!(w.begin_reply(next, 60_000, None), Reply::Ok);
    w.commit(next);
    assert_eq!(w.state.counts().committed as usize, known);
    assert_eq!(w.state.whereabouts(all[more]), Whereabouts::Forgotten);
}

#[test]
fn what_is_out_of_bounds_becomes_the_nearest_bound() {
    let mut w = World::new();
    take_office(&mut w, 0, 0);
    let least = Retention {
        ms: limits::MIN_RETENTION_MS,
        transactions: limits::MIN_RETENTION_TRANSACTIONS,
    };
    assert_eq!(w.state.retention(), least);
    take_office(&mut w, u64::MAX, u64::MAX);
    let most = Retention {
        ms: limits::MAX_RETENTION_MS,
        transactions: limits::MAX_RETENTION_TRANSACTIONS,
    };
    assert_eq!(w.state.retention(), most);
}

#[test]
fn what_was_written_before_it_was_a_setting_means_what_it_meant() {
    let batch = codec::decode_batch(&[1, 0, 0, 1, 1]).expect("an old entry");
    let retention = Retention {
        ms: 600_000,
        transactions: 100_000,
    };
    let first = Command::TakeOffice(TakeOffice { retention });
    assert_eq!(batch.commands, [first]);

    let mut w = World::new();
    take_office(&mut w, 30_000, 2_000);
    let back = State::from_snapshot(&w.state.to_snapshot()).expect("its own bytes");
    assert_eq!(back.retention(), w.state.retention());
}

/// What was going on when the snapshots of versions 1 and 2 were taken.
fn as_then() -> World {
    let mut w = World::without_actions();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1", "2"]);
    w.branch(t3, "b", &["1"]);
    w.queue(t2, "a", &["2", "3"]);
    let early = w.next_xid();
    w.queue(early, "a", &["4"]);
    w.roll_back(t3);
    w
}

/// The same with what only the present version has.
fn as_now() -> World {
    let mut w = as_then();
    assert_eq!(w.name_action("freeze"), Reply::Ok);
    let xid = w.begin();
    let freeze = w.action(xid, Mode::Tcc, "freeze");
    assert!(registered(&w.apply(Command::RegisterBranch(freeze))));
    w
}

#[test]
fn a_snapshot_of_version_2_is_read() {
    let old = include_bytes!("../../tests/golden/snapshot-v2.bin");
    assert_eq!(old[0], 2);
    assert_eq!(State::from_snapshot(old), Ok(as_then().state));
}

#[test]
fn a_snapshot_of_version_3_is_read() {
    let old = include_bytes!("../../tests/golden/snapshot-v3.bin");
    assert_eq!(old[0], 3);
    assert_eq!(State::from_snapshot(old), Ok(as_now().state));
}

/// The same with what version 4 brought.
fn as_in_version_4() -> World {
    let mut w = as_now();
    let xid = w.begin();
    let freeze = w.action(xid, Mode::ThreePhase, "freeze");
    assert!(registered(&w.apply(Command::RegisterBranch(freeze))));
    w.done(xid, BranchId(1));
    w.commit(xid);
    w
}

#[test]
fn a_snapshot_of_version_4_is_read() {
    let w = as_in_version_4();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshot-v4.bin");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, w.state.to_snapshot()).expect("it can be written");
    }
    let old = std::fs::read(path).expect("it is there");
    assert_eq!(old[0], 4);
    assert_eq!(State::from_snapshot(&old), Ok(w.state));
}

#[test]
fn a_snapshot_of_version_1_is_read() {
    let old = include_bytes!("../../tests/golden/snapshot-v1.bin");
    assert_eq!(old[0], 1);
    assert_eq!(State::from_snapshot(old), Ok(as_then().state));
}
