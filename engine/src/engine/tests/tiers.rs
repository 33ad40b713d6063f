//! Prompts whose KV comes up from slower memory.

use super::*;

/// Room for two prompts of 40 tokens, so that half of it is one, over a host that has room for all.
fn small() -> Sizes {
    Sizes { blocks: 24, host_blocks: 64, ..Sizes::default() }
}

fn some_work(stem: u32) -> Arc<Generation> {
    let prompt = some_prompt(40).into_iter().map(|token| 1 + (token + stem) % (POISON - 1));
    Arc::new(work(&prompt.collect::<Vec<_>>(), 3))
}

impl Bench {
    /// Generates, and waits until what is to go down has gone.
    async fn generate_and_sink(&self, work: &Arc<Generation>) {
        self.generate(work).await;
        self.wait_for("copies", |engine| engine.pool().unsaved(1).is_empty()).await;
    }

    /// Computes a prompt, and others until the device has nothing of it.
    async fn displace(&self, work: &Arc<Generation>) {
        self.generate_and_sink(work).await;
        for stem in 1..4 {
            self.generate_and_sink(&some_work(10 * stem)).await;
        }
        assert_eq!(self.engine.cached_prefix(&work.prompt, &work.salt).tokens(), 0);
    }

    /// Submits a prompt whose blocks begin to come up, and don't arrive while the memory is held.
    async fn rising(&self, work: &Arc<Generation>) -> EventStream {
        self.kv.hold(true);
        let rising = self.submit(work, Mode::Generate);
        self.wait_for("its blocks", |engine| !engine.live_blocks().is_empty()).await;
        rising
    }

    fn host(&self) -> crate::TierCounts {
        self.engine.tiers()[1]
    }
}

#[tokio::test]
async fn an_evicted_prompt_comes_back_and_is_not_computed_again() {
    let bench = Bench::new(small());
    let first = some_work(0);
    bench.displace(&first).await;
    let computed = bench.engine.stats().prefill_tokens;
    let again = bench.generate(&first).await;
    assert_eq!(again.answers, expected(&first));
    assert_eq!(again.cached_tokens, Some(39), "all but the last token, as from the device");
    assert_eq!(bench.engine.stats().prefill_tokens, computed, "a token alone is no chunk");
    assert_eq!((bench.host().hit_blocks, bench.engine.tiers()[0].evictions.lost), (10, 0));
    bench.settle().await;
}

#[tokio::test]
async fn others_go_on_while_a_prompt_waits_for_its_blocks() {
    let bench = Bench::new(Sizes { blocks: 40, ..small() });
    let first = some_work(0);
    bench.generate_and_sink(&first).await;
    for stem in 1..6 {
        bench.generate_and_sink(&some_work(7 * stem)).await;
    }
    let rising = bench.rising(&first).await;
    let other = Arc::new(work(&some_prompt(5), 6));
    assert_eq!(bench.generate(&other).await.answers, expected(&other));
    assert_eq!(bench.engine.stats().running, 0, "it waits");
    bench.kv.hold(false);
    assert_eq!(Transcript::of(rising).await.answers, expected(&first));
    bench.settle().await;
}

#[tokio::test]
async fn who_leaves_while_blocks_come_up_loses_none() {
    let bench = Bench::new(small());
    let first = some_work(0);
    bench.displace(&first).await;
    let rising = bench.rising(&first).await;
    drop(rising);
    bench.wait_for("its end", |engine| engine.stats().cancelled == 1).await;
    let pool = bench.engine.pool();
    assert_eq!((pool.counts().active, pool.orphans(bench.engine.live_blocks())), (10, 0));
    bench.kv.hold(false);
    bench.settle().await;
    assert_eq!(bench.generate(&first).await.answers, expected(&first));
    bench.settle().await;
}

#[tokio::test]
async fn what_ends_with_the_engine_is_waited_for() {
    let bench = Bench::new(small());
    let first = some_work(0);
    bench.displace(&first).await;
    let rising = bench.rising(&first).await;
    let (kv, pool) = (Arc::clone(&bench.kv), bench.engine.pool().clone());
    let (engine, soon) = (bench.engine.clone(), Instant::now());
    let mut ending = tokio::task::JoinSet::new();
    ending.spawn(async move { engine.shutdown(soon).await });
    assert!(Transcript::of(rising).await.failed.is_some());
    kv.hold(false);
    assert!(within(ending.join_next()).await.expect("one end").expect("no panic"));
    drop(bench);
    assert_eq!((pool.counts().active, pool.audit()), (0, Ok(())));
}

/// Tenants share nothing on any tier.
#[tokio::test]
async fn another_tenants_prompt_is_not_found_below() {
    let bench = Bench::new(small());
    let first = some_work(0);
    bench.displace(&first).await;
    let salt = TenantSalt((*b"other").into());
    let other = Arc::new(Generation { salt, ..(*first).clone() });
    assert_eq!(bench.generate(&other).await.cached_tokens, Some(0));
    assert_eq!(bench.host().hit_blocks, 0);
    bench.settle().await;
}

#[tokio::test]
async fn scored_prompts_take_nothing_from_below() {
    let bench = Bench::new(small());
    let first = some_work(0);
    bench.displace(&first).await;
    let scored = Arc::new(Generation { prompt_logprobs: Some(1), ..(*first).clone() });
    assert_eq!(bench.generate(&scored).await.cached_tokens, Some(0));
    bench.settle().await;
}
