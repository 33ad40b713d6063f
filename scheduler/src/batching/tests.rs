//! Decisions as text tables.

use std::collections::HashMap;
use std::fmt::Write as _;

use rstest::rstest;

use super::*;
use words::Targets;

use crate::cost::{StepSeed, StepTimes};

mod runs;
mod served;

/// Reads a situation and writes the plan for it.
///
/// ```text
/// tokens=32 places=4 block=16 watermark=0 free=3
/// 1  run   ctx=20 kv=19 held=2
/// 2  wait  ctx=40 cached=16
/// ```
/// `limit=ms` in the head is the longest step while others may come. `due=ms` of a sequence is when its next token is
/// wanted. A step takes a millisecond, and one for each of its rows; `tile=n` in the head: of all rows of tiles of so many that are begun. Flags: `streams` (of a prompt: one that is computed again),
/// `paused`, `stalled` (paused for its reader), `client=n`, `copy` (the tail is shared), `width=n`. A cached prefix takes its blocks from the
/// free ones unless `shared` says that another sequence holds them.
fn plan_table(table: &str) -> String {
    let mut lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let head = fields(lines.next().expect("a line of limits"));
    let limits = BatchLimits {
        tokens_max: head["tokens"],
        sequences_max: head["places"],
        block_tokens: head["block"],
        watermark_blocks: head["watermark"],
        wanted_blocks: head.get("wanted").copied().unwrap_or(0),
    };
    let mut hits = HashMap::new();
    let sequences: Vec<_> = lines
        .map(|line| {
            let field = fields(line);
            let get = |name: &str, default| field.get(name).copied().unwrap_or(default);
            let key = key_of(line.split_whitespace().next().expect("a key"));
            let tokens = get("cached", 0);
            let blocks =
                if field.contains_key("shared") { 0 } else { tokens / limits.block_tokens };
            hits.insert(key, PrefixHit { tokens, blocks_taken: blocks });
            SequenceView {
                key,
                standing: if line.contains(" run ") {
                    Standing::Running
                } else {
                    Standing::Waiting
                },
                client: ClientId(get("client", 0).into()),
                paused: field.contains_key("paused") || field.contains_key("stalled"),
                stalled: field.contains_key("stalled"),
                context_tokens: get("ctx", 1),
                filled_tokens: get("kv", 0),
                held_blocks: get("held", 0),
                copies_tail: field.contains_key("copy"),
                width: get("width", 1),
                due: {
                    let due = field.get("due").map(|&ms| Duration::from_millis(ms.into()));
                    let streams =
                        get("ctx", 1) - get("kv", 0) == 1 || field.contains_key("streams");
                    if streams { Due::Next(due) } else { Due::First(due) }
                },
            }
        })
        .collect();
    let step_max = head.get("limit").map(|&ms| Duration::from_millis(ms.into()));
    let times = a_millisecond_a_row(head.get("tile").copied().unwrap_or(1));
    let pace = Pace { times: &times, step_max };
    print_plan(&plan(&limits, &pace, &sequences, head["free"], &mut |key| hits[&key]))
}

/// A machine that takes a millisecond for a step and one for each row, in tiles of so many.
fn a_millisecond_a_row(tile: u32) -> StepTimes {
    StepTimes::new(StepSeed::flat(1e-3, 1e-3).in_tiles(0, tile))
}

fn fields(line: &str) -> HashMap<String, u32> {
    line.split_whitespace()
        .map(|word| word.split_once('=').unwrap_or((word, "1")))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

fn key_of(word: &str) -> SequenceKey {
    let (request, choice) = word.split_once('.').unwrap_or((word, "0"));
    SequenceKey {
        request: request.parse().expect("a request number"),
        choice: choice.parse().expect("a choice"),
    }
}

fn print_plan(plan: &Plan) -> String {
    let mut text = String::new();
    for key in &plan.preempted {
        write!(text, "out {}.{}; ", key.request, key.choice).expect("a string takes all");
    }
    for key in &plan.parked {
        write!(text, "park {}.{}; ", key.request, key.choice).expect("a string takes all");
    }
    for row in &plan.rows {
        let PlannedRow { key, tokens, blocks } = row;
        write!(text, "{}.{} +{tokens}", key.request, key.choice).expect("a string takes all");
        text.push_str(&if *blocks > 0 { format!(" b{blocks}; ") } else { "; ".to_owned() });
    }
    text.trim_end_matches("; ").to_owned()
}

#[rstest]
#[case::decode_rows_come_before_an_older_prompt(
    "tokens=32 places=4 block=16 watermark=0 free=9
     1 run ctx=100 kv=16 held=1
     2 run ctx=20 kv=19 held=2
     3 run ctx=17 kv=16 held=1",
    "2.0 +1; 3.0 +1 b1; 1.0 +30 b2"
)]
#[case::a_chunk_ends_anywhere_in_a_block(
    "tokens=40 places=4 block=16 watermark=0 free=9
     1 wait ctx=100",
    "1.0 +40 b3"
)]
#[case::the_last_chunk_may_end_anywhere(
    "tokens=40 places=4 block=16 watermark=0 free=9
     1 run ctx=37 kv=16 held=1",
    "1.0 +21 b2"
)]
#[case::what_the_oldest_prompt_leaves_goes_to_the_next(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=40 kv=16 held=1
     2 run ctx=90 kv=32 held=2",
    "1.0 +24 b2; 2.0 +40 b3"
)]
#[case::a_short_prompt_of_another_client_does_not_wait_for_a_long_one(
    "tokens=64 places=4 block=16 watermark=0 free=40
     1 run ctx=200 kv=16 held=1 client=1
     2 run ctx=200 kv=16 held=1 client=1
     3 wait ctx=20 client=2",
    "1.0 +44 b3; 3.0 +20 b2"
)]
#[case::what_a_share_leaves_goes_to_the_oldest(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=200 kv=16 held=1 client=1
     2 wait ctx=40 cached=32 client=2",
    "1.0 +56 b4; 2.0 +8 b1"
)]
#[case::equally_long_prompts_are_computed_one_after_the_other(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=100 kv=16 held=1 client=1
     2 run ctx=100 kv=16 held=1 client=2
     3 wait ctx=100 client=3",
    "1.0 +64 b4"
)]
#[case::the_oldest_prompt_goes_on_beside_many_short_ones(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=200 kv=16 held=1 client=1
     2 wait ctx=30 client=2
     3 wait ctx=30 client=3
     4 wait ctx=30 client=4",
    "1.0 +34 b3; 2.0 +30 b2"
)]
#[case::a_cached_prefix_leaves_budget_for_others(
    "tokens=32 places=4 block=16 watermark=0 free=9
     1 wait ctx=70 cached=64
     2 wait ctx=20 cached=0",
    "1.0 +6 b1; 2.0 +20 b2"
)]
#[case::no_prompt_is_admitted_beyond_the_places(
    "tokens=64 places=2 block=16 watermark=0 free=20
     1 run ctx=20 kv=19 held=2
     2 wait ctx=8
     3 wait ctx=8",
    "1.0 +1; 2.0 +8 b1"
)]
#[case::choices_take_a_place_each(
    "tokens=64 places=3 block=16 watermark=0 free=20
     1 run ctx=20 kv=19 held=2
     2 wait ctx=8 width=3
     3 wait ctx=8",
    "1.0 +1"
)]
#[case::a_prompt_waits_until_all_of_it_fits(
    "tokens=32 places=4 block=16 watermark=0 free=4
     1 run ctx=20 kv=19 held=2
     2 wait ctx=60",
    "1.0 +1"
)]
#[case::blocks_promised_to_a_running_prompt_are_not_given_twice(
    "tokens=64 places=4 block=16 watermark=0 free=7
     1 run ctx=100 kv=48 held=3
     2 wait ctx=30",
    "1.0 +52 b4"
)]
#[case::the_watermark_stays_free(
    "tokens=64 places=4 block=16 watermark=3 free=5
     1 run ctx=20 kv=19 held=2
     2 wait ctx=20",
    "1.0 +1"
)]
#[case::alone_it_starts_with_what_there_is(
    "tokens=64 places=4 block=16 watermark=3 free=2
     1 wait ctx=100",
    "1.0 +32 b2"
)]
#[case::a_row_preempts_the_youngest(
    "tokens=64 places=4 block=16 watermark=0 free=0
     1 run ctx=17 kv=16 held=1
     2 run ctx=20 kv=19 held=2
     3 run ctx=20 kv=19 held=2",
    "out 3.0; 1.0 +1 b1; 2.0 +1"
)]
#[case::it_preempts_the_stalled_before_the_young(
    "tokens=64 places=4 block=16 watermark=0 free=0
     1 run ctx=17 kv=16 held=1 paused
     2 run ctx=17 kv=16 held=1
     3 run ctx=20 kv=19 held=2",
    "out 1.0; 2.0 +1 b1; 3.0 +1"
)]
#[case::the_youngest_holds_still_rather_than_lose_its_work(
    "tokens=64 places=4 block=16 watermark=0 free=0
     1 run ctx=20 kv=19 held=2
     2 run ctx=17 kv=16 held=1",
    "1.0 +1"
)]
#[case::the_oldest_prompt_takes_back_even_planned_rows(
    "tokens=64 places=4 block=16 watermark=0 free=1
     1 run ctx=90 kv=16 held=1
     2 run ctx=20 kv=19 held=2
     3 run ctx=17 kv=16 held=1",
    "out 3.0; 2.0 +1; 1.0 +32 b2"
)]
#[case::a_younger_prompt_waits_for_memory(
    "tokens=64 places=4 block=16 watermark=0 free=0
     1 run ctx=20 kv=19 held=2
     2 run ctx=90 kv=16 held=1
     3 run ctx=20 kv=19 held=2",
    "1.0 +1; 3.0 +1"
)]
#[case::a_shared_tail_costs_a_block(
    "tokens=64 places=4 block=16 watermark=0 free=1
     1.0 run ctx=20 kv=19 held=2 copy
     1.1 run ctx=20 kv=19 held=2",
    "1.0 +1 b1; 1.1 +1"
)]
#[case::a_handed_off_sequence_passes_prompts(
    "tokens=64 places=4 block=16 watermark=0 free=2
     1 run ctx=20 kv=19 held=2
     2 wait ctx=90
     3 wait ctx=41 kv=40 held=3",
    "1.0 +1; 3.0 +1"
)]
#[case::but_leaves_the_place_an_older_prompt_waits_for(
    "tokens=64 places=2 block=16 watermark=0 free=2
     1 run ctx=20 kv=19 held=2
     2 wait ctx=90
     3 wait ctx=41 kv=40 held=3",
    "1.0 +1"
)]
#[case::waiting_memory_is_taken_too(
    "tokens=64 places=1 block=16 watermark=0 free=0
     1 run ctx=17 kv=16 held=1
     2 wait ctx=41 kv=40 held=3",
    "out 2.0; 1.0 +1 b1"
)]
#[case::the_oldest_takes_its_place_back(
    "tokens=64 places=4 block=16 watermark=0 free=0
     1 wait ctx=40
     2 run ctx=20 kv=19 held=2
     3 run ctx=20 kv=19 held=2",
    "out 3.0; 2.0 +1; 1.0 +32 b2"
)]
#[case::paused_rows_keep_their_place_and_do_nothing(
    "tokens=64 places=2 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 paused
     2 run ctx=20 kv=19 held=2 paused
     3 wait ctx=8",
    ""
)]
#[case::a_stalled_reader_gives_its_place(
    "tokens=32 places=1 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 stalled
     2 wait ctx=10",
    "park 1.0; 2.0 +10 b1"
)]
#[case::and_its_blocks(
    "tokens=32 places=2 block=16 watermark=0 free=0
     1 run ctx=20 kv=19 held=2 stalled
     2 wait ctx=10",
    "out 1.0; 2.0 +10 b1"
)]
#[case::and_its_blocks_to_whoever_waits_outside(
    "tokens=32 places=2 block=16 watermark=0 free=1 wanted=3
     1 run ctx=20 kv=19 held=2 stalled
     2 run ctx=20 kv=19 held=2",
    "out 1.0; 2.0 +1"
)]
#[case::a_stalled_reader_keeps_what_nobody_needs(
    "tokens=32 places=2 block=16 watermark=0 free=5 wanted=3
     1 run ctx=20 kv=19 held=2 stalled
     2 wait ctx=10",
    "2.0 +10 b1"
)]
#[case::a_crowd_gives_a_place_to_another_client(
    "tokens=32 places=2 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 client=1
     2 run ctx=20 kv=19 held=2 client=1
     3 wait ctx=10 client=1
     4 wait ctx=10 client=2",
    "park 2.0; 1.0 +1; 4.0 +10 b1"
)]
#[case::clients_with_a_place_each_keep_it(
    "tokens=32 places=2 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 client=1
     2 run ctx=20 kv=19 held=2 client=2
     3 wait ctx=10 client=3",
    "1.0 +1; 2.0 +1"
)]
#[case::nobody_is_parked_while_its_prompt_is_computed(
    "tokens=32 places=2 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 client=1
     2 run ctx=40 kv=16 held=1 client=1
     3 wait ctx=10 client=2",
    "1.0 +1; 2.0 +24 b2"
)]
#[case::free_places_go_by_turns(
    "tokens=32 places=3 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 client=1
     2 wait ctx=10 client=1
     3 wait ctx=10 client=2
     4 wait ctx=10 client=2",
    "1.0 +1; 3.0 +10 b1; 2.0 +10 b1"
)]
#[case::what_was_parked_goes_on_when_a_place_is_free(
    "tokens=32 places=2 block=16 watermark=0 free=9
     1 run ctx=20 kv=19 held=2 client=1
     2 wait ctx=20 kv=19 held=2 client=1",
    "1.0 +1; 2.0 +1"
)]
#[case::a_step_is_as_long_as_its_rows_have_time(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=20 kv=19 held=2 due=40
     2 run ctx=20 kv=19 held=2 due=36
     3 run ctx=90 kv=16 held=1",
    "1.0 +1; 2.0 +1; 3.0 +33 b3"
)]
#[case::and_without_anybody_who_hurries_as_long_as_it_may_be(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=20 kv=19 held=2
     2 run ctx=20 kv=19 held=2
     3 run ctx=90 kv=16 held=1",
    "1.0 +1; 2.0 +1; 3.0 +62 b4"
)]
#[case::a_prompt_moves_beside_rows_that_are_late(
    "tokens=64 places=4 block=16 watermark=0 free=20
     1 run ctx=20 kv=19 held=2 due=0
     2 run ctx=20 kv=19 held=2 due=0
     3 run ctx=90 kv=16 held=1",
    "1.0 +1; 2.0 +1; 3.0 +16 b1"
)]
#[case::as_long_as_the_rows_themselves_at_least(
    "tokens=64 places=24 block=16 watermark=0 free=20
     1 run ctx=20 kv=19 held=2 due=0 width=20
     2 run ctx=20 kv=19 held=2 due=0
     3 run ctx=20 kv=19 held=2 due=0
     4 run ctx=20 kv=19 held=2 due=0
     5 run ctx=90 kv=80 held=5
     6 run ctx=90 kv=16 held=1",
    "1.0 +1; 2.0 +1; 3.0 +1; 4.0 +1; 5.0 +10 b1"
)]
#[case::a_step_is_short_where_others_may_come(
    "tokens=64 places=4 block=16 watermark=0 free=20 limit=36
     1 run ctx=90 kv=16 held=1",
    "1.0 +35 b3"
)]
#[case::the_shortest_prompt_comes_first_and_half_is_the_oldests(
    "tokens=64 places=4 block=16 watermark=0 free=40
     1 run ctx=200 kv=16 held=1
     2 wait ctx=60
     3 wait ctx=20",
    "1.0 +44 b3; 3.0 +20 b2"
)]
#[case::a_prompt_that_is_late_leaves_others_their_time(
    "tokens=64 places=4 block=16 watermark=0 free=40
     1 run ctx=200 kv=16 held=1 due=1
     2 wait ctx=48 due=90",
    "1.0 +16 b1; 2.0 +48 b3"
)]
#[case::where_all_are_late_half_is_the_oldests_again(
    "tokens=64 places=4 block=16 watermark=0 free=40
     1 run ctx=200 kv=16 held=1 due=1
     2 wait ctx=48 due=2",
    "1.0 +32 b2; 2.0 +32 b2"
)]
#[case::who_has_less_time_comes_first_where_both_can_be_in_time(
    "tokens=32 places=4 block=16 watermark=0 free=40
     1 run ctx=80 kv=16 held=1 due=70
     2 wait ctx=48 due=500
     3 wait ctx=40 due=500",
    "1.0 +32 b2"
)]
#[case::a_stream_that_was_preempted_comes_before_new_prompts(
    "tokens=64 places=4 block=16 watermark=0 free=40
     1 run ctx=90 kv=16 held=1
     2 wait ctx=20
     3 wait ctx=100 streams",
    "1.0 +32 b2; 3.0 +32 b2"
)]
#[case::nobody_passes_an_older_prompt_that_waits_for_memory(
    "tokens=64 places=4 block=16 watermark=0 free=6
     1 run ctx=20 kv=19 held=2
     2 wait ctx=100
     3 wait ctx=20",
    "1.0 +1"
)]
#[case::nobody_begins_for_less_than_a_block(
    "tokens=64 places=4 block=16 watermark=0 free=40
     1 run ctx=68 kv=16 held=1
     2 wait ctx=90",
    "1.0 +52 b4"
)]
#[case::a_chunk_that_is_cut_ends_with_a_tile(
    "tokens=64 places=4 block=16 watermark=0 free=20 tile=16
     1 run ctx=20 kv=19 held=2 due=40
     2 run ctx=20 kv=19 held=2 due=40
     3 run ctx=90 kv=16 held=1",
    "1.0 +1; 2.0 +1; 3.0 +30 b2"
)]
#[case::where_tokens_are_what_cuts_it_too(
    "tokens=20 places=4 block=16 watermark=0 free=20 tile=16
     1 run ctx=20 kv=19 held=2
     2 run ctx=90 kv=16 held=1",
    "1.0 +1; 2.0 +15 b1"
)]
#[case::few_rows_that_begin_a_tile_are_left(
    "tokens=64 places=4 block=16 watermark=0 free=20 tile=16
     1 run ctx=20 kv=19 held=2
     2 wait ctx=17",
    "1.0 +1; 2.0 +15 b1"
)]
#[case::most_of_a_tile_is_not(
    "tokens=64 places=4 block=16 watermark=0 free=20 tile=16
     1 run ctx=20 kv=19 held=2
     2 wait ctx=27",
    "1.0 +1; 2.0 +27 b2"
)]
#[case::nor_what_is_due(
    "tokens=64 places=4 block=16 watermark=0 free=20 tile=16
     1 run ctx=20 kv=19 held=2
     2 wait ctx=17 due=60",
    "1.0 +1; 2.0 +17 b2"
)]
#[case::nor_what_would_cost_a_step_of_its_own(
    "tokens=64 places=4 block=16 watermark=0 free=20 tile=16
     1 wait ctx=17",
    "1.0 +17 b2"
)]
#[case::a_prompt_that_goes_on_leaves_them(
    "tokens=53 places=4 block=16 watermark=0 free=20 tile=16
     1 run ctx=90 kv=16 held=1
     2 wait ctx=20",
    "1.0 +28 b2; 2.0 +20 b2"
)]
#[case::nothing_to_do("tokens=64 places=2 block=16 watermark=0 free=9", "")]
fn plans(#[case] situation: &str, #[case] expected: &str) {
    assert_eq!(plan_table(situation), expected, "for\n{situation}");
}

#[test]
fn a_prefix_is_looked_up_only_for_those_that_may_start() {
    let limits = BatchLimits {
        tokens_max: 64,
        sequences_max: 1,
        block_tokens: 16,
        watermark_blocks: 0,
        wanted_blocks: 0,
    };
    let waiting = |request| SequenceView {
        key: SequenceKey { request, choice: 0 },
        standing: Standing::Waiting,
        client: ClientId::default(),
        paused: false,
        stalled: false,
        context_tokens: 8,
        filled_tokens: 0,
        held_blocks: 0,
        copies_tail: false,
        width: 1,
        due: Due::First(None),
    };
    let mut asked = Vec::new();
    let pace = Pace { times: &a_millisecond_a_row(1), step_max: None };
    let _ = plan(&limits, &pace, &[waiting(1), waiting(2), waiting(3)], 9, &mut |key| {
        asked.push(key.request);
        PrefixHit::default()
    });
    assert_eq!(asked, [1]);
}
