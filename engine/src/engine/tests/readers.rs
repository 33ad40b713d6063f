//! Readers that stall, and the clients that share an engine with them.

use super::*;

#[tokio::test]
async fn a_reader_that_stalls_pauses_its_sequence_and_no_other() {
    let bench = Bench::new(Sizes::default());
    let slow = Arc::new(work(&some_prompt(3), 200));
    let stalled = bench.submit(&slow, Mode::Generate);
    bench.wait_for("pause", |engine| engine.stats().paused == 1).await;
    let other = Arc::new(work(&some_prompt(5), 30));
    assert_eq!(bench.generate(&other).await.answers, expected(&other));
    assert_eq!(bench.engine.stats().paused, 1);
    assert_eq!(Transcript::of(stalled).await.answers, expected(&slow), "it resumes where it was");
    bench.settle().await;
}

#[tokio::test]
async fn a_stalled_reader_s_memory_goes_to_others() {
    let bench = Bench::new(Sizes { blocks: 24, ..Sizes::default() });
    let slow = Arc::new(work(&some_prompt(3), 90));
    let stalled = bench.submit(&slow, Mode::Generate);
    bench.wait_for("pause", |engine| engine.stats().paused == 1).await;
    let big = Arc::new(work(&some_prompt(60), 30));
    assert_eq!(bench.generate(&big).await.answers, expected(&big));
    assert_eq!(Transcript::of(stalled).await.answers, expected(&slow));
    assert!(bench.engine.stats().preemptions > 0);
    bench.settle().await;
}

#[tokio::test]
async fn stalled_readers_give_their_places_to_others() {
    let bench = Bench::new(Sizes { sequences: 2, blocks: 256, ..Sizes::default() });
    let slow: Vec<_> = (1..=2).map(|n| Arc::new(work(&some_prompt(3 * n), 200))).collect();
    let stalled: Vec<_> = slow.iter().map(|work| bench.submit(work, Mode::Generate)).collect();
    bench.wait_for("pauses", |engine| engine.stats().paused == 2).await;
    let other = Arc::new(work(&some_prompt(5), 30));
    assert_eq!(bench.generate(&other).await.answers, expected(&other));
    let stats = bench.engine.stats();
    assert!(stats.parkings > 0 && stats.preemptions == 0, "{stats:?}");
    for (work, stream) in slow.iter().zip(stalled) {
        assert_eq!(Transcript::of(stream).await.answers, expected(work), "each where it was");
    }
    bench.settle().await;
}

#[tokio::test]
async fn a_stalled_reader_s_memory_goes_to_whoever_waits_outside() {
    let bench = Bench::new(Sizes { blocks: 24, prefix_cache: false, ..Sizes::default() });
    let slow = Arc::new(work(&some_prompt(3), 90));
    let stalled = bench.submit(&slow, Mode::Generate);
    bench.wait_for("pause", |engine| engine.stats().paused == 1).await;
    bench.engine.want_blocks(24);
    bench.wait_for("room", |engine| engine.pool().counts().available() == 24).await;
    bench.engine.want_blocks(0);
    assert_eq!(Transcript::of(stalled).await.answers, expected(&slow));
    bench.settle().await;
}

#[rstest]
#[tokio::test]
async fn a_crowd_gives_a_place_to_another_client(#[values(false, true)] overlaps: bool) {
    let bench = Bench::new(Sizes { sequences: 2, blocks: 256, overlaps, ..Sizes::default() });
    bench.control.hold();
    let of = |client, prompt, tokens| {
        let client = ClientId(client);
        Arc::new(Generation { client, ..work(&some_prompt(prompt), tokens) })
    };
    let crowd: Vec<_> = (1..=3).map(|n| of(1, 3 * n, 60)).collect();
    let streams: Vec<_> = crowd.iter().map(|work| bench.submit(work, Mode::Generate)).collect();
    bench.control.allow(6);
    bench.wait_for("a crowd", |engine| engine.stats().running == 2).await;
    let other = of(2, 5, 5);
    let stream = bench.submit(&other, Mode::Generate);
    bench.control.release();
    assert_eq!(Transcript::of(stream).await.answers, expected(&other));
    assert!(bench.engine.stats().parkings > 0);
    for (work, stream) in crowd.iter().zip(streams) {
        assert_eq!(Transcript::of(stream).await.answers, expected(work));
    }
    bench.settle().await;
}
