use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn wall() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a time")
}

fn replica(identity: &str) -> Election {
    Election::new(LeaderConfig::new("kip", "kip-n", identity))
}

/// What the API has after a move was written, and the replica was told so.
fn write(election: &mut Election, now: Instant) -> Lease {
    match election.next(now, wall()) {
        Move::Create(lease) | Move::Replace(lease) => {
            election.claimed(lease.clone(), now);
            lease
        }
        other => panic!("nothing to write: {other:?}"),
    }
}

fn spec(lease: &Lease) -> &LeaseSpec {
    lease.spec.as_ref().expect("a spec")
}

#[test]
fn the_first_replica_leads_and_the_second_stands_by() {
    let now = Instant::now();
    let (mut first, mut second) = (replica("a"), replica("b"));
    first.observe(None, now);
    let lease = write(&mut first, now);
    assert_eq!(lease.metadata.name.as_deref(), Some("kip-n"));
    assert_eq!(spec(&lease).lease_duration_seconds, Some(10));
    assert_eq!(first.deadline(), Some(now + s(7)));

    second.observe(Some(lease), now);
    assert_eq!(second.next(now, wall()), Move::Wait(now + s(2)));
    assert_eq!(second.holder(), Some("a"));
    assert_eq!(second.deadline(), None);
}

#[test]
fn a_lease_that_is_renewed_is_never_taken_and_one_that_is_not_is_taken_on_time() {
    let start = Instant::now();
    let (mut first, mut second) = (replica("a"), replica("b"));
    first.observe(None, start);
    for round in 0..20 {
        let now = start + s(2 * round);
        let lease = write(&mut first, now);
        second.observe(Some(lease), now);
        assert_eq!(second.next(now, wall()), Move::Wait(now + s(2)), "round {round}");
    }
    // The first is killed. The last look comes when the lease ends, not a retry period later.
    let last = start + s(38);
    assert_eq!(second.next(last + s(9), wall()), Move::Wait(last + s(10)));
    let taken = write(&mut second, last + s(10));
    assert_eq!(spec(&taken).holder_identity.as_deref(), Some("b"));
    assert_eq!(spec(&taken).lease_transitions, Some(1));
}

#[test]
fn clocks_that_differ_do_not_cost_the_leader_its_lease() {
    let now = Instant::now();
    for skew in [-86_400, 0, 86_400] {
        let renewed = wall() + jiff::SignedDuration::from_secs(skew);
        let mut first = replica("a");
        first.observe(None, now);
        let Move::Create(lease) = first.next(now, renewed) else {
            panic!("nobody holds it");
        };
        let mut second = replica("b");
        second.observe(Some(lease.clone()), now);
        second.observe(Some(lease), now + s(9));
        assert_eq!(
            second.next(now + s(9), wall()),
            Move::Wait(now + s(10)),
            "skew {skew}"
        );
        assert!(
            matches!(second.next(now + s(10), wall()), Move::Replace(_)),
            "skew {skew}"
        );
    }
}

#[test]
fn a_renewal_changes_the_lease_even_when_the_wall_clock_stands_still() {
    let now = Instant::now();
    let mut first = replica("a");
    first.observe(None, now);
    let before = write(&mut first, now);
    let after = write(&mut first, now + s(2));
    assert_ne!(spec(&before).renew_time, spec(&after).renew_time);
    assert_eq!(spec(&before).acquire_time, spec(&after).acquire_time);
    assert_eq!(spec(&after).lease_transitions, Some(0));
}

#[test]
fn an_edit_that_renews_nothing_does_not_keep_a_dead_leader() {
    let now = Instant::now();
    let mut second = replica("b");
    let mut first = replica("a");
    first.observe(None, now);
    let mut lease = write(&mut first, now);
    second.observe(Some(lease.clone()), now);
    lease.metadata.resource_version = Some("77".to_owned());
    lease.metadata.labels = Some([("team".to_owned(), "x".to_owned())].into());
    second.observe(Some(lease), now + s(9));
    let Move::Replace(taken) = second.next(now + s(10), wall()) else {
        panic!("it has run out");
    };
    assert_eq!(taken.metadata.resource_version.as_deref(), Some("77"));
    assert!(taken.metadata.labels.is_some(), "what others wrote stays");
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let now = Instant::now();
    let mut first = replica("a");
    first.observe(None, now);
    write(&mut first, now);
    let released = first.release(wall()).expect("it holds it");
    let mut second = replica("b");
    second.observe(Some(released), now);
    assert_eq!(second.holder(), None);
    assert!(matches!(second.next(now, wall()), Move::Replace(_)));
    assert_eq!(second.release(wall()), None, "what is not ours is not released");
}

#[test]
fn a_leader_that_cannot_renew_stops_before_anyone_can_take_over() {
    let sent = Instant::now();
    let mut first = replica("a");
    first.observe(None, sent);
    let lease = write(&mut first, sent);
    // The write reached the API at once, so this is the earliest anyone can have seen it.
    let mut second = replica("b");
    second.observe(Some(lease), sent);
    let almost = sent + s(7) - Duration::from_millis(1);
    assert!(matches!(first.next(almost, wall()), Move::Replace(_)));
    assert_eq!(first.next(sent + s(7), wall()), Move::Overdue);
    assert!(matches!(second.next(sent + s(7), wall()), Move::Wait(_)));
    // Once overdue, a lease that is still its own does not help: something was stopped for long.
    assert_eq!(first.next(sent + s(100), wall()), Move::Overdue);
}

#[test]
fn a_leader_whose_lease_was_taken_by_hand_stops_at_once() {
    let now = Instant::now();
    let mut first = replica("a");
    first.observe(None, now);
    let mut lease = write(&mut first, now);
    lease.spec.get_or_insert_default().holder_identity = Some("b".to_owned());
    first.observe(Some(lease), now + s(1));
    assert_eq!(first.next(now + s(1), wall()), Move::Taken("b".to_owned()));
}

#[test]
fn a_lease_deleted_or_emptied_by_hand_is_claimed_again_by_its_leader() {
    let now = Instant::now();
    let mut first = replica("a");
    first.observe(None, now);
    let lease = write(&mut first, now);
    let mut deleted = first.clone();
    deleted.observe(None, now + s(1));
    assert!(matches!(deleted.next(now + s(1), wall()), Move::Create(_)));
    first.observe(Some(Lease { spec: None, ..lease }), now + s(1));
    assert!(matches!(first.next(now + s(1), wall()), Move::Replace(_)));
}

#[test]
fn a_claim_whose_answer_was_lost_is_recognised_as_our_own() {
    let now = Instant::now();
    let mut first = replica("a");
    first.observe(None, now);
    let Move::Create(written) = first.next(now, wall()) else {
        panic!("nobody holds it");
    };
    first.observe(Some(written), now + s(1));
    assert!(matches!(first.next(now + s(1), wall()), Move::Replace(_)));
    assert_eq!(first.deadline(), None, "it leads only once a write was confirmed");
}

#[test]
fn a_lease_with_nonsense_in_it_neither_panics_nor_blocks_for_ever() {
    let now = Instant::now();
    for seconds in [None, Some(0), Some(-5), Some(i32::MIN)] {
        let mut second = replica("b");
        let lease = Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some("a".to_owned()),
                lease_duration_seconds: seconds,
                renew_time: Some(MicroTime(Timestamp::MAX)),
                lease_transitions: Some(i32::MAX),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        second.observe(Some(lease), now);
        assert!(matches!(second.next(now, Timestamp::MAX), Move::Wait(_)));
        assert!(matches!(
            second.next(now + s(10), Timestamp::MAX),
            Move::Replace(_)
        ));
    }
}
