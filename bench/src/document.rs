//! A report as it is kept: JSON that says what it is, who wrote it, when and how.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::EngineReport;
use crate::figure::Figure;
use crate::kernels::KernelReport;
use crate::load::ServeReport;
use crate::simulate::SimulateReport;

/// Goes up when a reader of the last format would misread the next. What is only added changes nothing.
pub const FORMAT: u32 = 1;

/// The longest file that is read; a sweep of 200 rates has less than one.
const BYTES_MAX: u64 = 16 << 20;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// How it is written: [`FORMAT`].
    pub format: u32,
    /// Of the program that measured.
    pub version: String,
    /// When it was written.
    pub date: String,
    /// How the program was called, without what is secret.
    pub command: String,
    /// What was measured.
    #[serde(flatten)]
    pub body: Body,
}

/// The kinds of reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Body {
    /// Of `bench serve`.
    Serve(ServeReport),
    /// Of `bench engine`.
    Engine(EngineReport),
    /// Of `bench kernels`.
    Kernels(KernelReport),
    /// Of `simulate`.
    Simulate(SimulateReport),
}

// === impl Document ===

impl Document {
    /// A report of now.
    #[must_use]
    pub fn new(command: String, body: Body) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command,
            body,
        }
    }

    /// Reads what [`Document::write`] wrote.
    ///
    /// # Errors
    /// If there is no such file, or it is none of this format.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = text(path).with_context(|| format!("can't read {name}"))?;
        Self::parse(&text).with_context(|| format!("{name} can't be compared"))
    }

    /// Writes it.
    ///
    /// # Errors
    /// If it can't be.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("it is not JSON")?;
        let (Some(kind), Some(format)) = (value["kind"].as_str(), value["format"].as_u64()) else {
            bail!(
                "it is no report of `baton bench`, or of a version that didn't say what it wrote: measure again"
            );
        };
        ensure!(
            format == u64::from(FORMAT),
            "its format is {format}, and this version reads {FORMAT}"
        );
        let kind = format!("it says that it is of `baton bench {kind}`, and reads otherwise");
        let document: Self = serde_json::from_value(value).context(kind)?;
        match document.body.figures().iter().find(|figure| !figure.is_sane()) {
            Some(figure) => {
                bail!("{figure} is {:e}, which can't be", figure.value.unwrap_or_default())
            }
            None => Ok(document),
        }
    }
}

/// What a file holds, up to what a report may be long.
fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    ensure!(
        text.len() as u64 <= BYTES_MAX,
        "it is longer than {} MiB, and no report is",
        BYTES_MAX >> 20
    );
    Ok(text)
}

// === impl Body ===

impl Body {
    /// The command that measures this.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Serve(_) => "serve",
            Self::Engine(_) => "engine",
            Self::Kernels(_) => "kernels",
            Self::Simulate(_) => "simulate",
        }
    }

    pub(crate) fn figures(&self) -> Vec<Figure> {
        match self {
            Self::Serve(report) => report.figures(),
            Self::Engine(report) => report.figures(),
            Self::Kernels(report) => report.figures(),
            Self::Simulate(report) => report.figures(),
        }
    }

    /// What a comparison presumes to be the same.
    pub(crate) fn setting(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Serve(report) => report.setting(),
            Self::Engine(report) => report.setting(),
            Self::Kernels(report) => report.setting(),
            Self::Simulate(report) => report.setting(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::serve::tests::sweep;

    fn why(text: &str) -> String {
        format!("{:#}", Document::parse(text).expect_err(text))
    }

    #[test]
    fn a_document_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.json");
        let document = Document::new("baton bench serve".to_owned(), Body::Serve(sweep()));
        document.write(&path).expect("it is written");
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.starts_with("{\n  \"format\": 1,\n  \"version\": "), "{text}");
        assert!(text.contains("\"kind\": \"serve\",\n  \"runs\": ["), "{text}");
        assert_eq!(Document::read(&path).expect("it is read"), document);
    }

    #[test]
    fn a_file_with_more_in_it_is_read_and_one_with_less_is_not() {
        let document = Document::new(String::new(), Body::Serve(sweep()));
        let mut value = serde_json::to_value(&document).expect("JSON");
        value["news"] = 1.into();
        value["runs"][0]["news"] = 2.into();
        assert_eq!(Document::parse(&value.to_string()).expect("it is read"), document);
        value["runs"][0].as_object_mut().expect("a run").remove("ttft_ms");
        let why = why(&value.to_string());
        assert!(
            why.contains("of `baton bench serve`, and reads otherwise: missing field `ttft_ms`"),
            "{why}"
        );
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let document = Document::new(String::new(), Body::Serve(sweep()));
        let table = [
            ("goodput_per_s", "-1e308", "16/s: goodput, requests/s is -1e308, which can't be"),
            ("within_percent", "100.1", "16/s: within, % is 1.001e2, which can't be"),
            ("requests_per_s", "1e300", "16/s: all, requests/s is 1e300, which can't be"),
        ];
        for (field, number, want) in table {
            let mut value = serde_json::to_value(&document).expect("JSON");
            value["runs"][0][field] = serde_json::from_str(number).expect("a number");
            assert_eq!(why(&value.to_string()), want);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_an_end_is_not_read_to_it() {
        let why = Document::read(Path::new("/dev/zero")).expect_err("no report");
        assert!(
            format!("{why:#}").ends_with("it is longer than 16 MiB, and no report is"),
            "{why:#}"
        );
    }

    #[test]
    fn what_is_something_else_says_so() {
        // What `bench serve --json` wrote before formats had numbers.
        let older = r#"{"workload": "100 requests, 1024 in, 128 out", "arrivals": "Poisson, 20/s", "duration_s": 5.1,
            "completed": 100, "failed": 0, "ttft_ms": {"mean": 20, "p50": 19, "p90": 25, "p95": 27, "p99": 30, "max": 40}}"#;
        assert!(why(older).contains("a version that didn't say what it wrote"), "{}", why(older));
        assert!(why("[]").contains("no report of `baton bench`"));
        assert!(why("not JSON").contains("it is not JSON"));
        let newer = r#"{"format": 2, "kind": "serve"}"#;
        assert_eq!(why(newer), "its format is 2, and this version reads 1");
        let tea = r#"{"format": 1, "version": "", "date": "", "command": "", "kind": "tea"}"#;
        assert!(why(tea).contains("unknown variant `tea`"), "{}", why(tea));
    }
}
