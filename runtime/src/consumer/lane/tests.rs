//! What a lane hands out next, and what waits.

use std::time::Duration;

use super::super::work::tests::block;
use super::*;

const LIMITS: Batch = Batch {
    max_events: 256,
    max_bytes: 1 << 20,
};

fn lane(ordering: Ordering, events: &[(u64, &str)]) -> Lane {
    let mut lane = Lane::new(ordering, LIMITS);
    for _ in 0..9 {
        let size = lane.pace.size();
        lane.pace
            .answered(size, Duration::ZERO, Duration::from_secs(1));
    }
    lane.push(Run::whole(block(events)));
    lane
}

fn offsets(work: &Work) -> Vec<u64> {
    (0..work.len())
        .map(|index| work.event(index).offset())
        .collect()
}

fn retry(work: &Work, index: usize, at: Instant) -> Back {
    let item = work.items[index];
    Back::Retry(
        Item {
            attempt: item.attempt + 1,
            ..item
        },
        at,
    )
}

fn again(work: &Work, index: usize) -> Back {
    Back::Again(work.items[index])
}

#[tokio::test(start_paused = true)]
async fn in_a_partition_a_retry_holds_everything_behind_it() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut lane = lane(Ordering::Partition, &[(0, "a"), (1, "b"), (2, "c")]);
    let work = lane.take(now, LIMITS);
    lane.give_back(&work, vec![retry(&work, 1, later), again(&work, 2)]);
    assert!(!lane.ready(now));
    assert!(lane.take(now, LIMITS).is_empty());
    assert_eq!(lane.wake_at(), Some(later));
    assert_eq!(offsets(&lane.take(later, LIMITS)), [1]);
    assert_eq!(offsets(&lane.take(later, LIMITS)), [2]);
    assert!(lane.is_idle());
}

/// An event that always fails would be tried for ever before one that would not.
#[tokio::test(start_paused = true)]
async fn of_single_events_one_that_fails_waits_for_those_that_did_not() {
    let now = Instant::now();
    let single = Batch {
        max_events: 1,
        ..LIMITS
    };
    let mut lane = lane(Ordering::None, &[(0, "a"), (1, "b")]);
    let work = lane.take(now, single);
    lane.give_back(&work, vec![retry(&work, 0, now)]);
    lane.doubtful = true;
    assert_eq!(offsets(&lane.take(now, single)), [1]);
    assert_eq!(offsets(&lane.take(now, single)), [0]);
    assert!(lane.is_idle());
}

#[tokio::test(start_paused = true)]
async fn with_keys_a_retry_holds_its_key_alone() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut lane = lane(
        Ordering::Key,
        &[(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "c")],
    );
    let work = lane.take(
        now,
        Batch {
            max_events: 3,
            ..LIMITS
        },
    );
    assert_eq!(offsets(&work), [0, 1, 2]);
    lane.give_back(&work, vec![retry(&work, 0, later), again(&work, 2)]);
    assert_eq!(offsets(&lane.take(now, LIMITS)), [3, 4]);
    assert_eq!(offsets(&lane.take(later, LIMITS)), [0]);
    assert_eq!(offsets(&lane.take(later, LIMITS)), [2]);
    assert!(lane.is_idle());
}

/// What a version on probation fails would be tried again by it, or overtaken.
#[tokio::test(start_paused = true)]
async fn what_is_kept_holds_until_another_version_begins_anew() {
    let now = Instant::now();
    let much_later = now + Duration::from_secs(86_400);
    let mut lane = lane(Ordering::Partition, &[(0, "a"), (1, "b"), (2, "c")]);
    let work = lane.take(now, LIMITS);
    let failed = Item {
        attempt: 3,
        failing_since: Some(now),
        ..work.items[0]
    };
    lane.give_back(
        &work,
        vec![Back::Kept(failed), again(&work, 1), again(&work, 2)],
    );
    assert!(!lane.ready(much_later) && lane.take(much_later, LIMITS).is_empty());
    assert_eq!(lane.wake_at(), None);
    lane.begin_anew(now);
    let work = lane.take(now, LIMITS);
    assert_eq!(offsets(&work), [0, 1, 2]);
    assert_eq!(work.items[0].attempt, 1);
    assert!(lane.is_idle());
}

/// A key with several events keeps its hold while its first event fails, over and over: another
/// key's event would never be tried.
#[tokio::test(start_paused = true)]
async fn of_events_that_failed_the_one_that_waits_longest_is_next() {
    let now = Instant::now();
    let single = Batch {
        max_events: 1,
        ..LIMITS
    };
    let after = |seconds| now + Duration::from_secs(seconds);
    let mut lane = lane(Ordering::Key, &[(0, "a"), (1, "b"), (2, "a")]);
    let work = lane.take(now, LIMITS);
    lane.give_back(
        &work,
        vec![
            retry(&work, 0, after(1)),
            retry(&work, 1, after(2)),
            again(&work, 2),
        ],
    );
    let first = lane.take(after(3), single);
    assert_eq!(offsets(&first), [0]);
    lane.give_back(&first, vec![retry(&first, 0, after(3))]);
    assert_eq!(offsets(&lane.take(after(4), single)), [1]);
}

/// On trial the lane with the lowest offset is next: another one would be named by a commit of
/// its own.
#[tokio::test(start_paused = true)]
async fn the_next_offset_is_the_lowest_that_may_be_called() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut lane = lane(Ordering::Key, &[(3, "a"), (4, "b")]);
    lane.push(Run::picked(block(&[(7, "c"), (8, "d")]), vec![1]));
    assert_eq!(lane.next_offset(now), Some(3));
    let work = lane.take(now, LIMITS);
    assert_eq!(offsets(&work), [3, 4, 8]);
    assert_eq!(lane.next_offset(now), None);
    lane.give_back(&work, vec![retry(&work, 0, later), again(&work, 2)]);
    assert_eq!(lane.next_offset(now), Some(8));
    assert_eq!(lane.next_offset(later), Some(3));
    lane.busy = true;
    assert_eq!(lane.next_offset(later), None);
}

/// The events left in a hold are younger than those that come back from the call before.
#[tokio::test(start_paused = true)]
async fn what_comes_back_goes_before_what_was_left_in_its_hold() {
    let now = Instant::now();
    let mut lane = lane(Ordering::Key, &[(0, "a"), (1, "a"), (2, "a"), (3, "a")]);
    let work = lane.take(now, LIMITS);
    lane.give_back(
        &work,
        vec![
            retry(&work, 0, now),
            again(&work, 1),
            again(&work, 2),
            again(&work, 3),
        ],
    );
    let first = lane.take(now, LIMITS);
    assert_eq!(offsets(&first), [0]);
    let second = lane.take(
        now,
        Batch {
            max_events: 2,
            ..LIMITS
        },
    );
    assert_eq!(offsets(&second), [1, 2]);
    lane.give_back(&second, vec![retry(&second, 0, now), again(&second, 1)]);
    let mut rest = Vec::new();
    while !lane.is_idle() {
        rest.extend(offsets(&lane.take(now, LIMITS)));
    }
    assert_eq!(rest, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn without_order_a_retry_holds_itself_alone() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut lane = lane(Ordering::None, &[(0, "a"), (1, "a"), (2, "a")]);
    let work = lane.take(
        now,
        Batch {
            max_events: 2,
            ..LIMITS
        },
    );
    lane.give_back(&work, vec![retry(&work, 0, later)]);
    assert_eq!(offsets(&lane.take(now, LIMITS)), [2]);
    assert_eq!(offsets(&lane.take(later, LIMITS)), [0]);
}

#[tokio::test(start_paused = true)]
async fn isolated_events_run_one_at_a_time() {
    let now = Instant::now();
    let mut lane = lane(
        Ordering::Partition,
        &[(0, "a"), (1, "a"), (2, "a"), (3, "a")],
    );
    let work = lane.take(
        now,
        Batch {
            max_events: 3,
            ..LIMITS
        },
    );
    lane.isolate(work.len());
    lane.give_back(&work, (0..3).map(|index| again(&work, index)).collect());
    let sizes: Vec<_> = (0..4).map(|_| lane.take(now, LIMITS).len()).collect();
    assert_eq!(sizes, [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_at_its_bytes_but_takes_one_event_always() {
    let now = Instant::now();
    let mut lane = lane(Ordering::Partition, &[(0, "a"), (1, "a"), (2, "a")]);
    let tiny = Batch {
        max_bytes: 1,
        ..LIMITS
    };
    assert_eq!(offsets(&lane.take(now, tiny)), [0]);
    assert_eq!(offsets(&lane.take(now, LIMITS)), [1, 2]);
}
