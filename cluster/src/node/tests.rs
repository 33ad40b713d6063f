#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

use std::time::Duration;

use rstest::rstest;
use words::NodeState;

use super::*;
use crate::ClusterError;

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_drain_waits_for_work_in_flight_and_lets_none_in() {
    let node = Lifecycle::new();
    node.serve();
    let permit = node.gate().enter().unwrap();
    let drain = tokio::spawn({
        let node = node.clone();
        async move { node.drain(LONG).await }
    });
    node.draining().cancelled().await;
    assert_eq!(node.state(), NodeState::Draining);
    while node.gate().is_open() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(node.gate().enter(), Err(ClusterError::Draining)));
    assert!(!drain.is_finished());
    assert!(!permit.cancelled().is_cancelled());
    drop(permit);
    assert_eq!(drain.await.unwrap(), Drained::Clean);
}

#[tokio::test(start_paused = true)]
async fn a_drain_past_its_deadline_cancels_what_is_left() {
    let node = Lifecycle::new();
    let permits = [node.gate().enter().unwrap(), node.gate().enter().unwrap()];
    let work = permits.map(|permit| {
        tokio::spawn(async move { permit.cancelled().clone().cancelled_owned().await })
    });
    assert_eq!(node.drain(Duration::from_secs(1)).await, Drained::Cut { cancelled: 2 });
    for task in work {
        task.await.unwrap();
    }
    assert_eq!(node.gate().in_flight(), 0);
    assert!(!node.stopped().is_cancelled(), "the node still holds KV");
}

#[tokio::test(start_paused = true)]
async fn work_that_ignores_its_cancellation_does_not_hold_up_the_drain() {
    let node = Lifecycle::new();
    let _stuck = node.gate().enter().unwrap();
    assert_eq!(node.drain(Duration::from_secs(1)).await, Drained::Cut { cancelled: 1 });
}

#[tokio::test]
async fn a_life_goes_forward_only() {
    let node = Lifecycle::new();
    assert_eq!(node.state(), NodeState::Starting);
    assert!(node.serve());
    assert!(!node.serve());
    node.drain(LONG).await;
    assert!(!node.serve());
    node.hold_kv(async {}, LONG).await;
    assert_eq!(node.state(), NodeState::HoldingKv);
    assert!(node.stop(LONG).await);
    assert_eq!(node.state(), NodeState::Gone);
}

#[tokio::test(start_paused = true)]
async fn kv_is_held_until_it_is_fetched_or_time_is_up() {
    let node = Lifecycle::new();
    node.hold_kv(std::future::pending(), Duration::from_secs(5)).await;
    assert_eq!(node.state(), NodeState::HoldingKv);
}

#[rstest]
#[case::tracked_tasks_end(true)]
#[case::a_task_that_ignores_the_token(false)]
#[tokio::test(start_paused = true)]
async fn stopping_cancels_the_whole_tree(#[case] heeds: bool) {
    let node = Lifecycle::new();
    let permit = node.gate().enter().unwrap();
    let stopped = node.stopped().clone();
    node.tasks().spawn(async move {
        stopped.cancelled().await;
        if !heeds {
            std::future::pending::<()>().await;
        }
    });
    assert_eq!(node.stop(Duration::from_secs(1)).await, heeds);
    assert!(permit.cancelled().is_cancelled());
    assert!(node.draining().is_cancelled());
}

#[test]
fn a_later_life_has_a_greater_incarnation() {
    let now = SystemTime::now();
    assert!(incarnation(now) < incarnation(now + Duration::from_micros(1)));
}
