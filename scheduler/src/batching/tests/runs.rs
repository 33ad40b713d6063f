//! Promises as properties of whole runs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// One request of a simulated run.
#[derive(Clone, Copy, Debug)]
struct Job {
    arrives_at_step: u32,
    client: u64,
    /// Steps in which its reader has stalled.
    pauses: (u32, u32),
    prompt_tokens: u32,
    output_tokens: u32,
    handed_off: bool,
    due: Due,
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let times = (0..30u32, 0..60u32, 0..40u32);
    let due = prop_oneof![
        prop::option::of(0..200u64).prop_map(|ms| Due::First(ms.map(Duration::from_millis))),
        prop::option::of(0..60u64).prop_map(|ms| Due::Next(ms.map(Duration::from_millis))),
    ];
    let lengths = (1..90u32, 1..40u32);
    let job = (times, 0..3u64, lengths, any::<bool>(), due).prop_map(
        |(
            (arrives_at_step, from, steps),
            client,
            (prompt_tokens, output_tokens),
            handed_off,
            due,
        )| Job {
            due,
            client,
            pauses: (from, from + steps),
            arrives_at_step,
            prompt_tokens,
            output_tokens,
            handed_off,
        },
    );
    proptest::collection::vec(job, 1..14)
}

/// A run of a whole workload over exact block accounts, checking each plan.
struct Run {
    times: StepTimes,
    step_max: Option<Duration>,
    limits: BatchLimits,
    free_blocks: u32,
    views: Vec<SequenceView>,
    left: HashMap<SequenceKey, u32>,
}

impl Run {
    fn arrive(&mut self, number: usize, job: &Job) {
        let block = self.limits.block_tokens;
        let blocks = job.prompt_tokens.div_ceil(block);
        let key = SequenceKey { request: number as u64, choice: 0 };
        let mut view = SequenceView {
            key,
            standing: Standing::Waiting,
            client: ClientId(job.client),
            paused: false,
            stalled: false,
            context_tokens: job.prompt_tokens,
            filled_tokens: 0,
            held_blocks: 0,
            copies_tail: false,
            width: 1,
            due: job.due,
        };
        if job.handed_off && self.free_blocks >= blocks {
            self.free_blocks -= blocks;
            (view.filled_tokens, view.held_blocks) = (job.prompt_tokens, blocks);
            view.context_tokens += 1;
        }
        self.left.insert(key, job.output_tokens);
        self.views.push(view);
        self.views.sort_by_key(|view| view.key);
    }

    fn pause(&mut self, jobs: &[Job], step: u32) {
        for view in &mut self.views {
            let (from, until) = jobs[view.key.request as usize].pauses;
            view.paused = (from..until).contains(&step);
            view.stalled = view.paused;
        }
    }

    fn step(&mut self) {
        let pace = Pace { times: &self.times, step_max: self.step_max };
        let plan =
            plan(&self.limits, &pace, &self.views, self.free_blocks, &mut |_| PrefixHit::default());
        self.check(&plan);
        for key in &plan.preempted {
            let view = self.views.iter_mut().find(|view| view.key == *key).expect("a known key");
            self.free_blocks += view.held_blocks;
            (view.held_blocks, view.filled_tokens, view.standing) = (0, 0, Standing::Waiting);
        }
        for key in &plan.parked {
            let view = self.views.iter_mut().find(|view| view.key == *key).expect("a known key");
            view.standing = Standing::Waiting;
        }
        for row in &plan.rows {
            let view = self.views.iter_mut().find(|v| v.key == row.key).expect("a known key");
            self.free_blocks =
                self.free_blocks.checked_sub(row.blocks).expect("no block is given twice");
            view.standing = Standing::Running;
            view.held_blocks += row.blocks;
            view.filled_tokens += row.tokens;
            if view.filled_tokens == view.context_tokens {
                view.context_tokens += 1;
                *self.left.get_mut(&row.key).expect("a known key") -= 1;
            }
        }
        let (done, going): (Vec<_>, Vec<_>) =
            self.views.drain(..).partition(|view| self.left[&view.key] == 0);
        self.free_blocks += done.iter().map(|view| view.held_blocks).sum::<u32>();
        self.views = going;
    }

    fn check(&self, plan: &Plan) {
        let limits = self.limits;
        let tokens: u32 = plan.rows.iter().map(|row| row.tokens).sum();
        assert!(tokens <= limits.tokens_max, "{tokens} tokens");
        for row in &plan.rows {
            assert!(!plan.preempted.contains(&row.key), "{:?} runs and is preempted", row.key);
            assert!(!plan.parked.contains(&row.key), "{:?} runs and is parked", row.key);
            let view = self.views.iter().find(|view| view.key == row.key).expect("a known key");
            let end = view.filled_tokens + row.tokens;
            assert!(end <= view.context_tokens, "{row:?} of {view:?}");
            assert!(end <= (view.held_blocks + row.blocks) * limits.block_tokens);
        }
        let running = self.views.iter().filter(|view| {
            let stays = !plan.preempted.contains(&view.key) && !plan.parked.contains(&view.key);
            let runs = view.standing == Standing::Running && stays;
            runs || plan.rows.iter().any(|row| row.key == view.key)
        });
        assert!(running.count() as u32 <= limits.sequences_max);
        let has_place = |view: &SequenceView| view.standing == Standing::Running;
        let places_taken = self.views.iter().filter(|view| has_place(view)).count() as u32;
        let active = || self.views.iter().filter(|view| !view.paused);
        let oldest = active().next().filter(|_| places_taken < limits.sequences_max);
        let leader =
            active().find(|view| has_place(view) || Some(view.key) == oldest.map(|o| o.key));
        let leader_moves = leader
            .is_none_or(|leader| plan.rows.iter().any(|row| row.key == leader.key))
            || leader.is_some_and(|leader| !has_place(leader) && !plan.rows.is_empty());
        assert!(leader_moves, "the oldest stands still in {plan:?} of {:?}", self.views);
    }
}

proptest! {
    /// Whatever arrives, in whatever little memory the largest request fits: the oldest running
    /// sequence moves in every step, limits hold, everything ends and all blocks come back.
    #[test]
    fn every_workload_ends(
        jobs in jobs(),
        block_tokens in prop_oneof![Just(1u32), Just(4), Just(16)],
        spare_blocks in 0..20u32,
        sequences_max in 1..6u32,
        spare_tokens in 0..40u32,
        watermark_blocks in 0..3u32,
        wanted_blocks in 0..3u32,
        step_max_ms in prop::option::of(0..40u64),
        tile in prop_oneof![Just(1u32), Just(4), Just(16)],
    ) {
        let largest = jobs.iter().map(|job| job.prompt_tokens + job.output_tokens).max().unwrap_or(1);
        let total_blocks = largest.div_ceil(block_tokens) + spare_blocks;
        let limits = BatchLimits {
            tokens_max: sequences_max + block_tokens + spare_tokens,
            sequences_max,
            block_tokens,
            watermark_blocks,
            wanted_blocks,
        };
        let mut run = Run {
            times: a_millisecond_a_row(tile),
            step_max: step_max_ms.map(Duration::from_millis),
            limits,
            free_blocks: total_blocks,
            views: Vec::new(),
            left: HashMap::new(),
        };
        let mut step = 0;
        while step < 30 || !run.views.is_empty() {
            for (number, job) in jobs.iter().enumerate().filter(|(_, j)| j.arrives_at_step == step) {
                run.arrive(number, job);
            }
            run.pause(&jobs, step);
            run.step();
            step += 1;
            prop_assert!(step < 20_000, "still going: {:?}", run.views);
        }
        prop_assert_eq!(run.free_blocks, total_blocks);
    }
}
