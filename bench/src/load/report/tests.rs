use std::time::Duration;

use super::*;
use crate::load::recorder::{Failed, Fault, Measured, Recorder};

const MS: Duration = Duration::from_millis(1);

fn recorder() -> Recorder {
    let slo = Slo { ttft_ms: 200.0, tpot_ms: 10.0, itl_p99_ms: None };
    let (workload, arrivals) = ("test".to_owned(), "2 clients".to_owned());
    Recorder::new(Report { workload, arrivals, slo, ..Report::default() })
}

/// 11 tokens, so that the TPOT is a tenth of the time after the first.
fn request(ttft_ms: u32, total_ms: u32) -> Measured {
    Measured {
        ttft: ttft_ms * MS,
        total: total_ms * MS,
        gaps: vec![5 * MS; 10],
        input_tokens: 100,
        cached_tokens: 25,
        output_tokens: 11,
        path: Some("handoff".to_owned()),
        ..Measured::default()
    }
}

fn failed(why: &str) -> Failed {
    Failed { why: why.to_owned(), fault: Fault::Refused, refusals: 0 }
}

fn of(times: Option<Summary>) -> Summary {
    times.expect("something was measured")
}

fn report() -> Report {
    let mut recorder = recorder();
    recorder.record(&request(100, 200)); // 10 ms a token: good
    recorder.record(&request(100, 210)); // 11 ms a token
    recorder.record(&request(201, 250)); // first token late
    recorder.record(&Measured { output_tokens: 1, ..request(150, 150) }); // no TPOT: good
    recorder.record_failure(&failed("503"));
    assert_eq!(recorder.requests(), 5);
    recorder.finish(Duration::from_secs(2))
}

#[test]
fn goodput_counts_requests_that_meet_both_targets() {
    let report = report();
    assert_eq!((report.completed, report.failed, report.good), (4, 1, 2));
    assert!((report.goodput_per_s - 1.0).abs() < 1e-9);
    assert!((report.requests_per_s - 2.0).abs() < 1e-9);
}

#[test]
fn percentiles_are_of_requests_and_gaps() {
    let report = report();
    let near = |is: f64, want: f64| assert!((is - want).abs() < want * 2e-3, "{is}, want {want}");
    near(of(report.ttft_ms).p50, 100.0);
    near(of(report.ttft_ms).max, 201.0);
    near(of(report.ttft_ms).mean, 137.75);
    near(of(report.itl_ms).p99, 5.0);
    near(report.within_percent, 40.0);
    near(of(report.tpot_ms).max, 11.0);
}

#[test]
fn a_run_in_which_too_much_failed_is_flawed_and_says_why() {
    let report = report();
    assert_eq!(report.flaw(100.0), None);
    assert_eq!(report.flaw(20.0), None, "1 of 5");
    let flaw = report.flaw(19.9).expect("a flaw");
    assert_eq!(
        flaw,
        "1 of 5 requests were refused (20.0 %, more than the 19.9 % of --failures-max), most by: 503"
    );
    let mut recorder = recorder();
    recorder.record_failure(&failed("503"));
    let flaw = recorder.finish(MS).flaw(100.0).expect("all failed");
    assert_eq!(
        flaw,
        "1 of 1 requests were refused (100.0 %), most by: 503; refused: try fewer --clients"
    );
}

#[test]
fn a_run_without_any_answer_says_what_became_of_its_requests() {
    let nothing = Report { duration_s: 5.0, ..Report::default() };
    assert_eq!(nothing.flaw(100.0).as_deref(), Some("no request was sent in 5.0 s"));
    let cut = Report { is_cut: true, unfinished: 8, ..nothing };
    assert_eq!(
        cut.flaw(100.0).as_deref(),
        Some("no request was answered before the end, after 5.0 s: 8 were under way")
    );
    let mut recorder = recorder();
    recorder.record_failure(&Failed { fault: Fault::Unreachable, ..failed("cannot connect") });
    let gone = Report { is_cut: true, is_gone: true, ..recorder.finish(MS) };
    let flaw = gone.flaw(100.0);
    assert_eq!(
        flaw.as_deref(),
        Some("the server is gone: 1 of 1 requests failed, most by: cannot connect")
    );
}

#[test]
fn times_of_nothing_are_none() {
    let mut recorder = recorder();
    recorder.record_failure(&failed("503"));
    let report = recorder.finish(MS);
    let value = serde_json::to_value(&report).expect("JSON");
    assert!(value["ttft_ms"].is_null() && value["itl_ms"].is_null(), "{value}");
    assert_eq!(serde_json::from_value::<Report>(value).expect("a report"), report);
    let text = report.to_string();
    assert!(text.contains(&format!("\nTTFT     {}\n", "         -".repeat(6))), "{text}");
    assert!(text.ends_with("Longest gap: - ms"), "{text}");
}

#[test]
fn the_table_says_what_matters() {
    let text = report().to_string();
    for part in [
        "4 answered, 1 refused, 0 failed",
        "goodput 1.00",
        "refused: 1 x 503",
        "path handoff: 4",
        "25.0 %",
    ] {
        assert!(text.contains(part), "{part:?} in:\n{text}");
    }
    assert!(!text.contains("too slow"), "{text}");
}

#[test]
fn a_report_comes_back_from_json() {
    let report = report();
    let value = serde_json::to_value(&report).expect("JSON");
    assert_eq!(value["goodput_per_s"], 1.0);
    assert_eq!(serde_json::from_value::<Report>(value).expect("a report"), report);
}

#[test]
fn an_empty_run_divides_by_nothing() {
    let report = recorder().finish(Duration::ZERO);
    assert!(!report.to_string().contains("NaN"));
    assert!(!serde_json::to_string(&report).expect("JSON").contains("s_per_s\":null"));
    assert_eq!((report.ttft_ms, report.longest_gap_ms()), (None, None));
}

#[test]
fn the_gap_at_the_hand_over_is_told_apart() {
    let mut recorder = recorder();
    let mut handed = request(100, 250);
    handed.gaps[0] = 60 * MS;
    recorder.record(&handed);
    recorder.record(&request(100, 200));
    recorder.record(&Measured { gaps: Vec::new(), output_tokens: 1, ..request(100, 100) });
    let report = recorder.finish(Duration::from_secs(1));
    let near = |is: f64, want: f64| assert!((is - want).abs() < want * 2e-3, "{is}, want {want}");
    near(of(report.handover_ms).mean, 32.5);
    near(of(report.handover_ms).max, 60.0);
    near(of(report.itl_ms).max, 5.0);
    near(report.longest_gap_ms().expect("gaps"), 60.0);
    assert!(report.to_string().contains("Longest gap: 60.0 ms"), "{report}");
}

#[test]
fn a_rate_is_served_if_nearly_all_of_it_is() {
    let slo = Slo { itl_p99_ms: Some(30.0), ..Slo::default() };
    let itl_ms = Some(Summary { p99: 30.0, ..Summary::default() });
    let served = Report { completed: 100, within_percent: 99.0, itl_ms, slo, ..Report::default() };
    assert!(served.is_within());
    assert!(!Report { within_percent: 98.9, ..served.clone() }.is_within());
    let uneven = Some(Summary { p99: 30.1, ..Summary::default() });
    assert!(!Report { itl_ms: uneven, ..served.clone() }.is_within());
    assert!(!Report { is_cut: true, ..served.clone() }.is_within(), "who knows of the rest");
    assert!(!Report { completed: 19, ..served.clone() }.is_within(), "a handful");
    assert!(
        Report { completed: 19, failed: 1, within_percent: 99.0, ..served.clone() }.is_within()
    );
    assert!(!Report { completed: 0, ..served }.is_within(), "nobody was");
}

#[test]
fn who_comes_back_as_told_is_counted_and_has_waited() {
    let mut recorder = recorder();
    recorder.record(&request(100, 200));
    recorder.record(&Measured { refusals: 2, waited: 150 * MS, ..request(100, 200) });
    recorder.record_failure(&Failed { refusals: 3, ..failed("429") });
    let report = recorder.finish(Duration::from_secs(1));
    assert_eq!((report.refusals, report.good), (5, 1), "250 ms are more than were wanted");
    let text = report.to_string();
    assert!(text.contains("sent again when the server said: 5 times; of those"), "{text}");
    assert!((of(report.waited_ms).max - 150.0).abs() < 1.0, "{:?}", report.waited_ms);
    assert!(
        (of(report.ttft_ms).max - 250.0).abs() < 1.0,
        "as goodput counts: {:?}",
        report.ttft_ms
    );
    assert!((of(report.total_ms).max - 350.0).abs() < 1.0, "{:?}", report.total_ms);
    assert!(text.ends_with("TTFT, total: since the first attempt, waiting to be let in included"));
}

#[test]
fn where_most_was_refused_it_is_said_what_to_try() {
    let refused = Report {
        completed: 10,
        failed: 30,
        refused: 30,
        rate_per_s: Some(10.0),
        ..Report::default()
    };
    let flaw = refused.flaw(50.0).expect("a flaw");
    assert!(flaw.starts_with("30 of 40 requests were refused (75.0 %"), "{flaw}");
    assert!(
        flaw.ends_with("refused: try a lower --rate, or a sweep such as `--rate 1..8`"),
        "{flaw}"
    );
    let flaw = Report { refused: 5, ..refused }.flaw(50.0).expect("a flaw");
    assert!(flaw.starts_with("of 40 requests 5 were refused and 25 failed (75.0 %"), "{flaw}");
    assert!(!flaw.contains("try"), "{flaw}");
}
