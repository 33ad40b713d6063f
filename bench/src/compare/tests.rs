use super::*;
use crate::document::Body;
use crate::engine::{EngineReport, Row};
use crate::load::serve::tests::sweep;
use crate::load::{Report, ServeReport, Summary};

fn serve(report: ServeReport) -> Document {
    Document::new("baton bench serve".to_owned(), Body::Serve(report))
}

fn times(times: &mut Option<Summary>) -> &mut Summary {
    times.as_mut().expect("something was measured")
}

/// The same server, some months later.
fn later() -> ServeReport {
    let mut runs = sweep().runs;
    times(&mut runs[1].ttft_ms).p99 *= 1.25;
    runs[1].goodput_per_s *= 0.8;
    times(&mut runs[1].itl_ms).max *= 100.0;
    times(&mut runs[2].tpot_ms).mean *= 0.5;
    ServeReport::new(runs)
}

fn pair(before: f64, after: f64, better: Better) -> Pair {
    Pair { before: Figure::new("", "x", before, better), after: Some(after), doubt: None }
}

#[test]
fn what_got_worse_is_told_from_what_got_better() {
    let loss = |before, after, better| pair(before, after, better).loss();
    assert_eq!(loss(10.0, 12.5, Better::Less), Some(25.0));
    assert_eq!(loss(10.0, 12.5, Better::More), Some(-25.0));
    assert_eq!(loss(10.0, 0.0, Better::More), Some(100.0));
    assert_eq!(loss(0.0, 5.0, Better::Less), None, "nothing to compare with");
    assert_eq!(loss(10.0, 50.0, Better::Unjudged), None);
    assert_eq!(loss(0.0, 4.0, Better::LessPoints), Some(4.0), "no share of nothing");
    assert_eq!(loss(1e-320, 1e9, Better::Less), Some(f64::INFINITY));
    assert!(pair(10.0, 50.0, Better::Unjudged).to_string().ends_with("+400.0 %"));
    assert!(pair(10.0, 10.001, Better::Less).to_string().ends_with("+0.0 %"), "rounding");
}

#[test]
fn what_cannot_be_measured_any_more_got_worse() {
    let gone = |before: Option<f64>, after, better| Pair {
        before: Figure::new("", "x", before, better),
        after,
        doubt: None,
    };
    for better in [Better::Less, Better::More, Better::LessPoints] {
        assert_eq!(gone(Some(10.0), None, better).loss(), Some(f64::INFINITY));
        assert_eq!(gone(None, Some(10.0), better).loss(), None);
        assert_eq!(gone(None, None, better).loss(), None);
    }
    assert!(gone(Some(10.0), None, Better::Less).to_string().ends_with("-          -  worse"));
}

#[test]
fn a_run_in_which_everything_failed_is_better_at_nothing() {
    let mut after = sweep();
    let failed = Report { completed: 0, failed: 100, ..after.runs[2].clone() };
    // As they were written before: zeros.
    let zeros = Some(Summary::default());
    after.runs[2] =
        Report { ttft_ms: zeros, tpot_ms: zeros, itl_ms: zeros, goodput_per_s: 0.0, ..failed };
    let comparison = Comparison::new(&serve(sweep()), &serve(after)).expect("a comparison");
    let text = comparison.to_string();
    assert!(!text.contains("better"), "{text}");
    let worse: Vec<_> = comparison.worse_by(1e6).map(|pair| pair.before.name.as_str()).collect();
    assert!(worse.contains(&"TTFT p99, ms") && worse.contains(&"ITL p50, ms"), "{text}");
    let failed = comparison.worse_by(99.0).any(|pair| pair.before.name == "refused or failed, %");
    assert!(failed && text.contains("+100.0 pt  worse"), "{text}");
}

#[test]
fn sweeps_are_laid_side_by_side_by_rate() {
    let mut after = later();
    after.runs.remove(0);
    after.runs.reverse();
    let comparison = Comparison::new(&serve(sweep()), &serve(after)).expect("a comparison");
    let text = comparison.to_string();
    let worse: Vec<_> = comparison.worse_by(10.0).map(|pair| pair.before.to_string()).collect();
    assert_eq!(worse, ["24/s: goodput, requests/s", "24/s: TTFT p99, ms"], "{text}");
    assert_eq!(comparison.worse_by(30.0).count(), 0);
    assert!(text.contains("\n24/s\n  goodput, requests/s "), "{text}");
    assert!(text.contains("+25.0 %  worse") && text.contains("-50.0 %  better"), "{text}");
    assert!(text.contains("\nnot in both: 16/s (A)"), "{text}");
    assert!(!text.contains("not alike"), "{text}");
    assert_eq!(comparison.missing(), ["16/s"]);
    let back = Comparison::new(&serve(later()), &serve(sweep())).expect("a comparison");
    assert!(back.missing().is_empty());
}

#[test]
fn a_part_is_not_compared_with_a_whole() {
    let mut cut = sweep();
    cut.runs[4].is_cut = true;
    let comparison = Comparison::new(&serve(sweep()), &serve(cut)).expect("a comparison");
    let text = comparison.to_string();
    assert!(text.contains("\nnot in both: 40/s (A), 40/s, cut off (B)"), "{text}");
}

#[test]
fn what_was_measured_otherwise_is_said() {
    let mut other = sweep();
    other.runs[0].model = "another".to_owned();
    let comparison = Comparison::new(&serve(sweep()), &serve(other)).expect("a comparison");
    let text = comparison.to_string();
    assert!(text.contains("not alike: model: A a-model; B another"), "{text}");
}

#[test]
fn what_rests_on_too_little_is_shown_and_not_judged() {
    let mut after = later();
    (after.runs[0].completed, after.runs[1].completed) = (19, 99);
    after.runs[0].goodput_per_s = 0.1;
    after.runs[2].paths = [("local".to_owned(), 100)].into();
    times(&mut after.runs[2].handover_ms).p50 *= 9.0;
    let comparison = Comparison::new(&serve(sweep()), &serve(after)).expect("a comparison");
    let worse: Vec<_> = comparison.worse_by(1.0).map(|pair| pair.before.to_string()).collect();
    assert_eq!(worse, ["24/s: goodput, requests/s"], "{comparison}");
    let text = comparison.to_string();
    let line = "\nnot judged: 16/s: all, of fewer than 20 requests; 24/s: p99 of fewer than 100 samples; \
                28/s: hand-over, as nothing was handed over";
    assert!(text.ends_with(line) && comparison.judges(), "{text}");
    let few = Report { completed: 3, ..sweep().runs.remove(0) };
    let few = ServeReport::new(vec![few]);
    let nothing = Comparison::new(&serve(few.clone()), &serve(few)).expect("a comparison");
    assert!(!nothing.judges(), "{nothing}");
}

#[test]
fn limits_of_sweeps_are_compared() {
    let mut runs = sweep().runs;
    runs[2].within_percent = 90.0;
    let lower = |runs| Comparison::new(&serve(sweep()), &serve(ServeReport::new(runs)));
    let comparison = lower(runs.clone()).expect("a comparison");
    let served = |comparison: &Comparison| {
        comparison.worse_by(10.0).any(|pair| pair.before.name == "served up to, requests/s")
    };
    assert!(served(&comparison), "27.9/s, and then 23.9/s: {comparison}");
    runs[3].completed = 19;
    let comparison = lower(runs).expect("a comparison");
    assert!(!served(&comparison), "who knows of 32/s: {comparison}");
    let text = comparison.to_string();
    assert!(text.contains("limit: higher rates were of fewer than 20 requests"), "{text}");
}

#[test]
fn what_came_from_a_cache_and_went_another_way_is_said() {
    let mut cached = sweep();
    for run in &mut cached.runs {
        run.cached_tokens = run.input_tokens / 2;
        run.paths = [("handoff".to_owned(), 50), ("local".to_owned(), 50)].into();
    }
    cached.runs[0].seed = 7;
    let [mine, theirs] = [serve(sweep()), serve(cached)];
    let text = Comparison::new(&mine, &theirs).expect("a comparison").to_string();
    for part in [
        "\nnot alike: seed: A 0; B 7\n",
        "\nnot alike: prompt tokens from a cache: A 0.0 %; B 50.0 %\n",
        "\nnot alike: paths: A handoff 100 %; B handoff 50 %, local 50 %\n",
        "\nwarning: 50.0 % of B's prompt tokens came from a cache, and 0.0 % of A's",
    ] {
        assert!(text.contains(part), "{part:?} in:\n{text}");
    }
    let back = Comparison::new(&theirs, &mine).expect("a comparison").to_string();
    assert!(back.contains("from a cache: A 50.0 %") && !back.contains("warning"), "{back}");
}

#[test]
fn rows_of_an_engine_are_compared_by_their_names() {
    let row = |value, is_rate, j_per_token| Row {
        group: "prefill".to_owned(),
        name: "2048 tokens in a row".to_owned(),
        unit: "ms/prompt".to_owned(),
        value,
        is_rate,
        energy: Some(crate::energy::Energy { j_per_token, watts: 690.0 }),
        ..Row::default()
    };
    let document = |row| {
        let report = EngineReport { rows: vec![row], ..EngineReport::default() };
        Document::new(String::new(), Body::Engine(report))
    };
    let (before, after) = (document(row(50.0, false, 0.02)), document(row(44.0, false, 0.03)));
    let comparison = Comparison::new(&before, &after).expect("a comparison");
    let worse: Vec<_> = comparison.worse_by(5.0).map(|pair| pair.before.name.as_str()).collect();
    assert_eq!(worse, ["2048 tokens in a row, J/token"], "{comparison}");
    let rates = Comparison::new(&document(row(50.0, true, 1.0)), &document(row(44.0, true, 1.0)));
    assert_eq!(rates.expect("a comparison").worse_by(5.0).count(), 1, "less of a rate is worse");
}

#[test]
fn what_has_nothing_in_common_is_not_compared() {
    let engine = Document::new(String::new(), Body::Engine(EngineReport::default()));
    let why = Comparison::new(&serve(sweep()), &engine).expect_err("another kind");
    assert_eq!(why.to_string(), "A is of `baton bench serve`, and B of `baton bench engine`");
    let one = |number: usize| ServeReport::new(vec![sweep().runs.remove(number)]);
    let why = Comparison::new(&serve(one(0)), &serve(one(1))).expect_err("other rates");
    assert_eq!(why.to_string(), "A and B have no figure in common: 16/s (A), 24/s (B)");
}
