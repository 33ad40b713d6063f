//! The loop without a thread, a turn at a time.

use super::*;

/// An engine whose turns the test runs.
fn driven() -> (EngineHandle, DrivenEngine<ScriptModel>) {
    let (sizes, control) = (Sizes::default(), Arc::<Control>::default());
    let model = ScriptModel::new(sizes.blocks, sizes.block_tokens, sizes.overlaps, control);
    let (info, config) = sizes.settings();
    let region = model.kv();
    DrivenEngine::new(model, info, region, &config).expect("a configuration that works")
}

/// Runs turns until there is nothing to do, with time for readers between them; how many moved.
async fn run(engine: &mut DrivenEngine<ScriptModel>) -> usize {
    let mut moved = 0;
    for _ in 0..1000 {
        match engine.turn() {
            Turn::Moved => moved += 1,
            Turn::Stalled => {}
            Turn::Idle | Turn::Over => return moved,
        }
        tokio::task::yield_now().await;
    }
    panic!("no end after 1000 turns");
}

fn submit(handle: &EngineHandle, work: &Arc<Generation>) -> EventStream {
    let (work, mode) = (Arc::clone(work), Mode::Generate);
    handle.submit(Submission::new(work, mode)).expect("room for it")
}

#[tokio::test]
async fn nothing_moves_but_by_turns() {
    let (handle, mut engine) = driven();
    assert_eq!(engine.turn(), Turn::Idle);
    let work = Arc::new(work(&[1, 2, 3, 4, 5], 6));
    let transcript = Transcript::of(submit(&handle, &work));
    tokio::pin!(transcript);
    assert!(is_pending(&mut transcript).await);
    let (moved, transcript) = tokio::join!(run(&mut engine), transcript);
    assert!(moved >= 6, "{moved} turns, and a step for each token");
    assert_eq!(engine.turn(), Turn::Idle);
    assert_eq!(transcript.answers, expected(&work));
    assert_eq!(handle.pool().counts().active, 0);
}

#[tokio::test]
async fn work_that_arrives_wakes_whoever_runs_the_turns() {
    let (handle, engine) = driven();
    let arrived = engine.arrived();
    tokio::pin!(arrived);
    assert!(is_pending(&mut arrived).await);
    let _events = submit(&handle, &Arc::new(work(&[1, 2], 2)));
    within(arrived).await;
}

#[tokio::test]
async fn it_is_over_once_nobody_holds_it() {
    let (handle, mut engine) = driven();
    drop(handle);
    assert_eq!(engine.turn(), Turn::Over);
}

#[tokio::test]
async fn its_end_ends_what_is_under_way() {
    let (handle, mut engine) = driven();
    let transcript = Transcript::of(submit(&handle, &Arc::new(work(&[1, 2, 3], 40))));
    for _ in 0..4 {
        engine.turn();
    }
    drop(engine);
    assert_eq!(within(transcript).await.failed, Some(SequenceError::ShuttingDown));
    assert!(!handle.is_healthy());
    assert_eq!(handle.pool().counts().active, 0);
}

/// Whether a future has not come to its end.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = std::future::ready(()) => true,
    }
}
