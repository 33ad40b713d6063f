//! `baton bench engine` where there is no GPU: all rows, of a tiny model.
#![allow(clippy::print_stdout, reason = "the report that was checked")]

use bench::ModelSource;
use bench::engine::{EngineBench, EngineReport, Group, Progress};

#[test]
fn a_tiny_model_is_measured_on_the_cpu() {
    let bench = EngineBench {
        model: ModelSource::Shape("tiny".parse().unwrap()),
        cuda: None,
        only: Vec::new(),
        quick: false,
        seed: 1,
        batch_tokens_max: None,
    };
    let mut seen = 0;
    let report = bench
        .run(&mut |progress| seen += usize::from(matches!(progress, Progress::Row(_))))
        .unwrap();
    println!("{report}");
    assert_eq!(seen, report.rows.len());
    for group in Group::ALL.iter().filter(|group| !group.needs_gpu()) {
        assert!(report.rows.iter().any(|row| row.group == group.name()), "{group:?}");
    }
    for row in &report.rows {
        assert!(row.value > 0.0 && row.value.is_finite(), "{row}");
        assert_eq!(row.floor, None, "the CPU's rates are unknown");
        assert_eq!(row.energy, None, "nor is what it uses");
    }
    let names = |name: &str| report.rows.iter().any(|row| row.name == name);
    assert!(names("64 tokens") && names("64 tokens in a row"), "after rest and without");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<EngineReport>(&json).unwrap().rows.len(), report.rows.len());
}
