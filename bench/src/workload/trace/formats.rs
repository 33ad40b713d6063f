//! The formats of published traces. Which one a file has is seen by its beginning.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;

use super::TraceRequest;

/// What every gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// More than any published trace has, packed or not.
const BYTES_MAX: u64 = 2 << 30;

/// Columns of a table, by what they hold.
struct Columns {
    time: usize,
    input: usize,
    output: usize,
}

/// Reads the first `requests_max` requests of a file, in the order of the file.
///
/// - JSON lines as Mooncake's, or with sessions; a pack of them (gzip), too.
/// - A table with a heading, as Azure's (`TIMESTAMP,ContextTokens,GeneratedTokens`) or BurstGPT's
///   (`Timestamp,Model,Request tokens,Response tokens,..`).
pub(super) fn read(path: &Path, requests_max: usize) -> Result<Vec<TraceRequest>> {
    let name = path.display();
    let text = text(path).with_context(|| format!("cannot read {name}"))?;
    let first = text.lines().next().unwrap_or_default();
    let requests = match Columns::of(first) {
        Some(columns) => table(&text, &columns, requests_max),
        None => json_lines(&text, requests_max),
    };
    let requests = requests.with_context(|| name.to_string())?;
    ensure!(!requests.is_empty(), "{name} holds no request");
    Ok(requests)
}

fn text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.starts_with(&GZIP) {
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).take(BYTES_MAX).read_to_string(&mut text)?;
        return Ok(text);
    }
    String::from_utf8(bytes).context("it is no text")
}

fn json_lines(text: &str, requests_max: usize) -> Result<Vec<TraceRequest>> {
    let lines = text.lines().enumerate().take(requests_max);
    let read = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("line {}", index + 1))
    };
    lines.map(read).collect()
}

/// Requests without a prompt or an answer were never served: BurstGPT keeps those that failed.
fn table(text: &str, columns: &Columns, requests_max: usize) -> Result<Vec<TraceRequest>> {
    let mut requests: Vec<TraceRequest> = Vec::new();
    for (index, line) in text.lines().enumerate().skip(1) {
        if requests.len() == requests_max {
            break;
        }
        let request = columns.request(line).with_context(|| format!("line {}", index + 1))?;
        if request.input_length > 0 && request.output_length > 0 {
            requests.push(request);
        }
    }
    Ok(requests)
}

// === impl Columns ===

impl Columns {
    /// Those of a heading; `None` if it is none that is known.
    fn of(heading: &str) -> Option<Self> {
        let names: Vec<String> =
            heading.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        let find =
            |wanted: [&str; 2]| names.iter().position(|name| wanted.contains(&name.as_str()));
        Some(Self {
            time: find(["timestamp", "timestamp"])?,
            input: find(["contexttokens", "request tokens"])?,
            output: find(["generatedtokens", "response tokens"])?,
        })
    }

    fn request(&self, line: &str) -> Result<TraceRequest> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |at: usize| fields.get(at).copied().context("it is too short");
        let tokens = |at: usize| Ok::<_, anyhow::Error>(field(at)?.parse::<f64>()? as u32);
        Ok(TraceRequest {
            timestamp: milliseconds(field(self.time)?)?,
            input_length: tokens(self.input)?,
            output_length: tokens(self.output)?,
            ..TraceRequest::default()
        })
    }
}

/// A time as seconds, or as a date and a time of day (`2023-11-16 18:15:46.6805900`).
fn milliseconds(text: &str) -> Result<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(seconds * 1e3);
    }
    let Some((day, time)) = text.split_once(' ') else { bail!("{text:?} is no time") };
    // What zone it is of doesn't matter: times are counted from the first request's.
    let time = time.trim_end_matches('Z').split('+').next().unwrap_or_default();
    let parsed = humantime::parse_rfc3339_weak(&format!("{day} {time}"));
    let parsed = parsed.with_context(|| format!("{text:?} is no time"))?;
    Ok(parsed.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use rstest::rstest;

    use super::*;

    /// The first requests of four published traces (`fixtures/README.md`).
    #[rstest]
    #[case::mooncake("mooncake.jsonl", 0.0, (6758, 500, 14))]
    #[case::agents("agents.jsonl", 0.0, (21_266, 130, 42))]
    #[case::azure("azure.csv", 1_700_158_546_680.59, (374, 44, 0))]
    #[case::burst("burst.csv", 5_000.0, (472, 18, 0))]
    fn published_formats_are_read(
        #[case] file: &str,
        #[case] timestamp: f64,
        #[case] (input, output, blocks): (u32, u32, usize),
    ) {
        let requests = read(&fixture(file), usize::MAX).expect("a trace");
        let first = &requests[0];
        assert!((first.timestamp - timestamp).abs() < 0.01, "{}", first.timestamp);
        assert_eq!((first.input_length, first.output_length), (input, output));
        assert_eq!(first.hash_ids.len(), blocks);
        assert!(requests.len() >= 4 && read(&fixture(file), 2).expect("two").len() == 2);
    }

    #[test]
    fn a_packed_file_is_unpacked() {
        let plain = std::fs::read(fixture("agents.jsonl")).expect("a fixture");
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(&plain).expect("in memory");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agents.jsonl.gz");
        std::fs::write(&path, packer.finish().expect("in memory")).expect("a file");
        let both = [path, fixture("agents.jsonl")].map(|path| read(&path, usize::MAX).unwrap());
        assert_eq!(both[0], both[1]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("trace");
        let line = r#"{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [0]}"#;
        for text in
            [format!("{line}\n{{}}\n"), "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2".into()]
        {
            std::fs::write(&path, text).expect("a file");
            let error = read(&path, usize::MAX).expect_err("a bad line");
            assert!(format!("{error:#}").contains("line 2"), "{error:#}");
        }
    }

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
    }
}
