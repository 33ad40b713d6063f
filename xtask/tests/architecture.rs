//! Rules about the code that the compiler does not know, kept by ordinary tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Which crates a crate may depend on. Everything points down; nothing points sideways.
///
/// What is deliberately absent: `kv-cache`, `words` and `scheduler` know no I/O; the wire carries words and knows no
/// decision; `engine` and `kv-transfer` don't know each other and meet in a worker; the router knows neither; workers
/// don't know each other, nor the router.
const EDGES: &[(&str, &[&str])] = &[
    ("kv-cache", &[]),
    ("words", &["kv-cache"]),
    ("scheduler", &["words"]),
    ("model-folder", &[]),
    ("proto", &["kv-cache", "words"]),
    ("engine", &["kv-cache", "model-folder", "scheduler", "words"]),
    ("kv-transfer", &["kv-cache", "proto"]),
    ("cluster", &["kv-cache", "proto", "scheduler", "words"]),
    ("router", &["cluster", "kv-cache", "model-folder", "proto", "scheduler", "words"]),
    ("worker", &["cluster", "engine", "kv-cache", "kv-transfer", "proto", "scheduler", "words"]),
    ("prefill-worker", WORKER_EDGES),
    ("decode-worker", WORKER_EDGES),
    ("bench", &["engine", "kv-cache", "scheduler", "words"]),
    ("xtask", &[]),
];

const WORKER_EDGES: &[&str] =
    &["cluster", "engine", "kv-cache", "kv-transfer", "proto", "words", "worker"];

/// Compose everything, and nothing depends on them. The simulation is one of them: it puts nodes together
/// as the command does, on other ground.
const TOPS: [&str; 4] = ["baton", "baton-tests", "simulation", "baton-fuzz"];

/// What tests may use beside a crate's own dependencies: its in-memory and fault-injecting parts.
const TEST_SUPPORT: [&str; 1] = ["cluster"];

/// The only files with `unsafe` in them, each behind a safe API.
const UNSAFE_FILES: &[&str] = &[
    "engine/src/backend/cpu/attention.rs",
    "engine/src/backend/cpu/gemm/columns.rs",
    "engine/src/backend/cpu/kernels.rs",
    "engine/src/backend/cpu/kernels/tests.rs",
    "engine/src/backend/cpu/rows.rs",
    "engine/src/backend/cpu/simd.rs",
    "engine/src/backend/cuda/driver/device.rs",
    "engine/src/backend/cuda/driver/graph.rs",
    "engine/src/backend/cuda/driver/green.rs",
    "engine/src/backend/cuda/driver/kernel.rs",
    "engine/src/backend/cuda/driver/memory.rs",
    "engine/src/backend/cuda/driver/module.rs",
    "engine/src/backend/cuda/driver/pinned.rs",
    "engine/src/backend/cuda/driver/probe.rs",
    "engine/src/backend/cuda/driver/tensor_map.rs",
    "engine/src/backend/cuda/gemm/cublaslt.rs",
    "engine/src/backend/cuda/libraries/cublaslt.rs",
    "engine/src/backend/cuda/libraries/find.rs",
    "engine/src/backend/cuda/libraries/nvrtc.rs",
    "engine/src/weights/mapped.rs",
    "simulation/src/entropy.rs",
];

/// Past this, look for the second noun.
const FILE_LINES_MAX: usize = 600;

/// Where nothing runs.
const PURE: [&str; 3] = ["kv-cache/src/", "words/src/", "scheduler/src/"];

/// Decisions take time as an argument and do no I/O.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "tokio",
    "Instant::now",
    "SystemTime::now",
];

/// The modules of the router, each with what the crate's root names of it. Each knows only those behind it.
const ROUTER_FLOORS: &[(&str, &[&str])] = &[
    ("server", &["RouterConfig", "serve"]),
    ("grpc", &[]),
    ("api", &[]),
    ("http", &[]),
    ("gateway", &["Gateway", "GatewayConfig"]),
    ("metrics", &["RouterMetrics"]),
    ("callers", &["GatewayLimits"]),
    ("served_model", &["ModelCatalog", "ServedModel", "ServedModelConfig"]),
    ("error", &["RequestError", "RouterError"]),
    ("text", &[]),
    ("dispatch", &[]),
];

/// What the simulation runs, as far as it tells the time.
const SIMULATED: &[&str] = &[
    "cluster/src/connections",
    "cluster/src/load",
    "cluster/src/membership",
    "cluster/src/report.rs",
    "cluster/src/rpc",
    "decode-worker/src",
    "engine/src/engine",
    "engine/src/handle",
    "kv-transfer/src",
    "prefill-worker/src",
    "router/src/dispatch",
    "worker/src",
];

// --- Dependencies. ---

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata();
    let names: BTreeSet<&str> = members(&metadata).map(|package| package.name.as_str()).collect();
    let mut violations = Vec::new();
    for package in members(&metadata).filter(|package| !TOPS.contains(&package.name.as_str())) {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| package.name.as_str() == *name)
        else {
            violations.push(format!("{}: a new crate; give it a line in EDGES", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| names.contains(d.name.as_str())) {
            let name = dependency.name.as_str();
            let for_tests = dependency.kind == DependencyKind::Development
                && (TEST_SUPPORT.contains(&name) || name == package.name.as_str());
            if !allowed.contains(&name) && !for_tests {
                violations.push(format!("{} -> {name} ({:?})", package.name, dependency.kind));
            }
        }
    }
    assert!(violations.is_empty(), "edges that are not in the table:\n{}", violations.join("\n"));
}

#[test]
fn nothing_depends_on_the_command_or_on_the_tests() {
    let metadata = metadata();
    for package in members(&metadata) {
        for top in TOPS {
            let depends = package.dependencies.iter().any(|dependency| dependency.name == top);
            assert!(!depends, "{} -> {top}", package.name);
        }
    }
}

#[test]
fn versions_are_written_in_the_root_only() {
    let mut violations = Vec::new();
    for (folder, manifest) in manifests() {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in
                manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten()
            {
                if value.get("path").and_then(toml::Value::as_str) == Some(".") {
                    continue; // A crate's own optional parts, for its own tests.
                }
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    violations.push(format!("{folder}: {name}"));
                }
            }
        }
    }
    assert!(violations.is_empty(), "not `workspace = true`:\n{}", violations.join("\n"));
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    for (folder, manifest) in manifests() {
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(
            inherits.and_then(toml::Value::as_bool),
            Some(true),
            "{folder}/Cargo.toml: want `[lints] workspace = true`"
        );
    }
}

#[test]
fn every_shared_dependency_is_used() {
    let root: toml::Value = read_toml(&root().join("Cargo.toml"));
    let shared = root["workspace"]["dependencies"].as_table().expect("workspace.dependencies");
    let used: BTreeSet<String> = manifests()
        .values()
        .flat_map(|manifest| {
            ["dependencies", "dev-dependencies", "build-dependencies"]
                .into_iter()
                .filter_map(|table| manifest.get(table)?.as_table())
                .flat_map(|table| table.keys().cloned())
                .collect::<Vec<_>>()
        })
        .collect();
    let unused: Vec<&String> = shared.keys().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "in the root Cargo.toml, used by no crate: {unused:?}");
}

// --- Source. ---

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let found: BTreeSet<String> = sources("rs")
        .filter(|(path, text)| {
            !path.ends_with("architecture.rs") && code_lines(text).any(has_unsafe)
        })
        .map(|(path, text)| {
            assert!(text.contains("// SAFETY:"), "{path}: say who keeps the memory alive");
            path
        })
        .collect();
    let listed: BTreeSet<String> = UNSAFE_FILES.iter().map(ToString::to_string).collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    assert!(unlisted.is_empty(), "unsafe code, and not in UNSAFE_FILES: {unlisted:?}");
    let stale: Vec<_> = listed.difference(&found).collect();
    assert!(stale.is_empty(), "in UNSAFE_FILES, and without unsafe code: {stale:?}");
}

#[test]
fn crates_without_unsafe_files_forbid_it() {
    let metadata = metadata();
    for package in members(&metadata) {
        let folder = folder_of(package);
        let may_be_unsafe = UNSAFE_FILES.iter().any(|file| file.starts_with(&format!("{folder}/")));
        for target in package.targets.iter().filter(|target| target.is_lib() || target.is_bin()) {
            let text = fs::read_to_string(&target.src_path).expect("a crate's root");
            let attribute =
                if may_be_unsafe { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
            assert!(text.contains(attribute), "{}: want {attribute}", target.src_path);
        }
    }
}

#[test]
fn decisions_do_no_io_and_read_no_clock() {
    for (path, text) in sources("rs") {
        let is_pure = PURE.iter().any(|folder| path.starts_with(folder));
        if !is_pure || is_test(&path) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        for line in code_lines(code) {
            for word in IMPURE {
                assert!(!line.contains(word), "{path}: {word} in {line:?}");
            }
        }
    }
}

/// What a simulation runs must live in its time: deadlines and ages by another clock would never come.
#[test]
fn what_is_simulated_reads_no_clock_but_the_runtimes() {
    for (path, text) in sources("rs") {
        let is_simulated = SIMULATED.iter().any(|folder| path.starts_with(folder));
        if !is_simulated || is_test(&path) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        let imports = |line: &str| line.starts_with("use std::time::") && line.contains("Instant");
        let is_std = code_lines(code).any(imports);
        for line in code_lines(code).filter(|line| line.contains("Instant::now")) {
            let is_runtimes = line.contains("tokio::time::Instant::now")
                || !is_std && !line.contains("std::time::Instant");
            assert!(is_runtimes, "{path}: {line:?}; want `clock::now()`");
        }
    }
}

#[test]
fn the_routers_modules_point_one_way() {
    let floor_of = |word: &str| {
        ROUTER_FLOORS.iter().position(|(name, named)| *name == word || named.contains(&word))
    };
    for (path, text) in sources("rs").filter(|(path, _)| !is_test(path)) {
        let Some(inside) = path.strip_prefix("router/src/") else { continue };
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        if matches!(module, "lib" | "testing") {
            continue;
        }
        let own = floor_of(module).unwrap_or_else(|| panic!("{path}: give it a floor"));
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        for word in crate_names(code) {
            let floor = floor_of(word).unwrap_or_else(|| panic!("{path}: where is {word}?"));
            assert!(own <= floor, "{path}: {module} must not know {word}");
        }
    }
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut violations = Vec::new();
    for extension in ["rs", "proto", "cu", "cuh", "py"] {
        for (path, text) in sources(extension) {
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                violations.push(format!("{path}: {lines} lines"));
            }
        }
    }
    assert!(violations.is_empty(), "over {FILE_LINES_MAX} lines:\n{}", violations.join("\n"));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let checkout = format!("{}/", root().display());
    let needles = ["/home/", "/root/", "/Users/", &checkout];
    for extension in ["rs", "toml", "md", "proto", "py", "sh", "yaml", "yml", "json", "cu", "cuh"] {
        for (path, text) in
            sources(extension).filter(|(path, _)| !path.ends_with("architecture.rs"))
        {
            for needle in needles {
                assert!(!text.contains(needle), "{path}: {needle}");
            }
        }
    }
}

#[test]
fn text_files_end_with_one_newline_and_have_no_trailing_blanks() {
    for extension in ["rs", "toml", "proto", "py", "cu", "cuh"] {
        for (path, text) in sources(extension) {
            assert!(text.is_empty() || text.ends_with('\n'), "{path}: no newline at the end");
            assert!(!text.ends_with("\n\n"), "{path}: blank lines at the end");
            for (index, line) in text.lines().enumerate() {
                let blank = line.ends_with(' ') || line.ends_with('\t');
                assert!(!blank, "{path}:{}: blanks at the end of the line", index + 1);
            }
        }
    }
}

#[test]
fn decision_records_are_numbered_once_and_titled_alike() {
    let folder = root().join("docs/adr");
    let mut numbers = BTreeSet::new();
    for path in
        entries(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a file name").to_owned();
        let (number, _) =
            name.split_once('-').unwrap_or_else(|| panic!("{name}: want NNNN-title.md"));
        assert!(numbers.insert(number.to_owned()), "{name}: the number is taken");
        let text = fs::read_to_string(&path).expect("a decision record");
        let title = text.lines().next().unwrap_or_default();
        let number = number.trim_start_matches('0');
        let wanted = format!("# {}. ", if number.is_empty() { "N" } else { number });
        assert!(title.starts_with(&wanted), "{name}: want a title like {wanted:?}, got {title:?}");
        assert!(text.contains(" Status: "), "{name}: want a status");
    }
    assert!(!numbers.is_empty(), "no decision record in {}", folder.display());
}

// --- Habits. ---

/// What is green on one machine is green on the others: nobody's CI knows steps of its own.
#[test]
fn workflows_call_the_verbs_and_nothing_else() {
    let mut verbs = 0;
    for path in entries(&root().join(".github/workflows")) {
        let text = fs::read_to_string(&path).expect("a workflow");
        for line in text.lines().map(str::trim_start) {
            let Some(command) = line.trim_start_matches("- ").strip_prefix("run:") else {
                continue;
            };
            verbs += 1;
            let is_verb = command.trim_start().starts_with("cargo xtask ");
            assert!(is_verb, "{}: {line}; want a verb of `cargo xtask`", path.display());
        }
    }
    assert!(verbs > 0, "no workflow runs anything");
}

/// What is pinned is what is tested, so an older one can't be promised.
#[test]
fn the_pinned_rust_is_the_oldest_that_is_promised() {
    let pinned = read_toml(&root().join("rust-toolchain.toml"));
    let pinned = pinned["toolchain"]["channel"].as_str().expect("a version").to_owned();
    let promised = read_toml(&root().join("Cargo.toml"));
    let promised =
        promised["workspace"]["package"]["rust-version"].as_str().expect("a version").to_owned();
    assert!(pinned.starts_with(&format!("{promised}.")), "{pinned} is pinned, {promised} promised");
}

// --- The checkout. ---

fn root() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    path.canonicalize().expect("the root of the checkout")
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata")
}

fn members(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter()
}

fn folder_of(package: &Package) -> String {
    let folder = package.manifest_path.parent().and_then(|folder| folder.file_name());
    folder.expect("a crate's folder").to_owned()
}

/// Folder and manifest of every crate.
fn manifests() -> BTreeMap<String, toml::Value> {
    members(&metadata())
        .map(|package| (folder_of(package), read_toml(package.manifest_path.as_std_path())))
        .collect()
}

fn read_toml(path: &Path) -> toml::Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Path from the root and text of every file with this extension, build output aside.
fn sources(extension: &'static str) -> impl Iterator<Item = (String, String)> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, extension, &mut paths);
    paths.into_iter().map(move |path| {
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(&root).expect("below the root").display().to_string();
        (name, String::from_utf8(text).unwrap_or_else(|_| panic!("{}: not UTF-8", path.display())))
    })
}

fn collect(folder: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            // The output of cargo, of training and of git.
            if !name.starts_with('.')
                && !["target", "build", "node_modules", "__pycache__"].contains(&name)
            {
                collect(&path, extension, paths);
            }
        } else if path.extension().is_some_and(|is| is == extension) {
            paths.push(path);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder's entry").path())
        .collect();
    paths.sort();
    paths
}

/// Lines without what is in a `//` comment.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or(line))
}

/// A suite that other crates' tests call is a test, too.
fn is_test(path: &str) -> bool {
    let ends = ["tests.rs", "/conformance.rs"];
    ends.iter().any(|end| path.ends_with(end)) || path.contains("/tests/")
}

/// What a file names of its crate, by the first name after `crate::`.
fn crate_names(code: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let paths = |rest| match str::strip_prefix(rest, '{') {
        Some(list) => list.split('}').next().unwrap_or_default(),
        None => rest.split(',').next().unwrap_or_default(),
    };
    let names = code.split("crate::").skip(1).map(paths).flat_map(|paths| paths.split(','));
    let names = names.filter_map(move |path| path.trim().split(|c| !is_word(c)).next());
    names.filter(|name| !name.is_empty())
}

fn has_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"]
        .iter()
        .any(|form| line.contains(form))
}
