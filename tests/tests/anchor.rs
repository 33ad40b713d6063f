//! The anchor: what a cluster generates is what one engine generates alone, token for token.
//!
//! The reference runs every request by itself, on one engine in this process. The cluster gets all
//! of them at once, so that they are batched, chunked, handed over and preempted.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use baton_tests::model::alone::{Alone, Outputs};
use baton_tests::security::Lock;
use baton_tests::{Cluster, ClusterBuilder, Generated, Grpc, TestModel};
use model_folder::ModelFolder;
use proto::v1;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use words::{Sampling, StopRules, TokenLogprob};

/// Change it to try others; a failure prints it.
const SEED: u64 = 20_261_123;
const REQUESTS: usize = 48;
/// Twice what two workers remember of their answers' lengths.
const SHORT_ANSWERS: u32 = 256;
/// More blocks of it than a small pool has for each of its sequences.
const LONG_ANSWER: u32 = 250;
/// Around the borders of blocks (16), of steps (64 tokens here), and long.
const LENGTHS: [usize; 14] = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130, 257, 500];
const OUTPUT_TOKENS: [u32; 5] = [1, 2, 17, 33, 64];

/// A request in words of the house, from which both sides' are made.
#[derive(Clone, Debug)]
struct Case {
    prompt: Vec<u32>,
    choices: u32,
    sampling: Sampling,
    stop: StopRules,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_off_changes_no_token() {
    outputs_agree(Cluster::builder().router_args(&["--handoff", "always"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefilling_on_the_decode_worker_changes_no_token() {
    outputs_agree(Cluster::builder().router_args(&["--handoff", "never"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_either_kind_of_worker_generates_changes_no_token() {
    let mut cluster = Cluster::builder().router_args(&["--handoff", "auto"]).start().await;
    let cases = cases(&mut ChaCha8Rng::seed_from_u64(SEED), cluster.model.vocab_size);
    outputs_of(&mut cluster, cases).await;

    let metrics = cluster.router.metrics().await;
    let placed = |reason| metrics.get("baton_placements", &[("reason", reason)]).unwrap_or(0.0);
    assert!(placed("prefill-decodes") > 0.0, "p0 only computed prompts");
    assert!(placed("local-cheaper") + placed("handoff-cheaper") > 0.0, "d0 generated nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_steps_and_little_memory_change_no_token() {
    // Prompts in many chunks, sequences set back and taken up again.
    let tight = ["--batch-tokens-max", "64", "--sequences-max", "16", "--kv-blocks", "96"];
    let builder = Cluster::builder().router_args(&["--handoff", "always"]).worker_args(&tight);
    let mut cluster = builder.prefill(2).decode(2).start().await;
    expect_short_answers(&cluster).await;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let cases = outgrowing(&mut rng, &cluster.model);
    outputs_of(&mut cluster, cases).await;

    let mut set_back = 0.0;
    for node in cluster.workers() {
        set_back += node.metrics().await.require("baton_preemptions", &[]);
    }
    assert!(set_back > 0.0, "no sequence was ever set back; the test would prove nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_changes_no_token() {
    let locked = Cluster::builder().lock(Lock::Certificates);
    outputs_agree(locked.router_args(&["--handoff", "always"])).await;
}

async fn outputs_agree(builder: ClusterBuilder) {
    let mut cluster = builder.prefill(2).decode(2).start().await;
    let cases = cases(&mut ChaCha8Rng::seed_from_u64(SEED), cluster.model.vocab_size);
    outputs_of(&mut cluster, cases).await;
}

async fn outputs_of(cluster: &mut Cluster, cases: Vec<Case>) {
    let alone = tokio::spawn(reference(cluster.model.clone(), cases.clone()));
    let grpc = cluster.grpc().await;

    // Twice: the second time much of the prompts' KV comes from prefix caches.
    let cold = all_at_once(&grpc, &cases).await;
    let warm = all_at_once(&grpc, &cases).await;

    let alone = alone.await.expect("the reference");
    for (index, case) in cases.iter().enumerate() {
        for (pass, got) in [("cold", &cold[index]), ("warm", &warm[index])] {
            assert_eq!(got, &alone[index], "seed {SEED}, request {index}, {pass}: {case:?}");
        }
    }
    cluster.assert_clean().await;
}

/// Answers of two tokens, the second a decode worker's, until no more is set aside for one: those that follow outgrow it.
async fn expect_short_answers(cluster: &Cluster) {
    let grpc = cluster.grpc().await;
    let short = (1..=SHORT_ANSWERS).map(|token| Case {
        prompt: vec![token],
        choices: 1,
        sampling: Sampling::default(),
        stop: StopRules { max_tokens: 2, ..StopRules::default() },
    });
    all_at_once(&grpc, &short.collect::<Vec<_>>()).await;
}

// --- Requests. ---

fn cases(rng: &mut ChaCha8Rng, vocab_size: u32) -> Vec<Case> {
    let shared: Vec<u32> = (0..200).map(|_| rng.random_range(0..vocab_size)).collect();
    (0..REQUESTS).map(|index| case(index, rng, vocab_size, &shared)).collect()
}

/// The same, and between them short prompts with long answers, which nobody foresees.
fn outgrowing(rng: &mut ChaCha8Rng, model: &TestModel) -> Vec<Case> {
    let ends = ModelFolder::open(&model.dir)
        .and_then(|folder| folder.end_tokens())
        .expect("its end tokens");
    let mut cases = cases(rng, model.vocab_size);
    for case in cases.iter_mut().step_by(2) {
        case.prompt.truncate(16);
        case.choices = 1;
        case.sampling.logit_bias = ends.iter().map(|&token| (token, -100.0)).collect();
        case.stop = StopRules { max_tokens: LONG_ANSWER, ..StopRules::default() };
    }
    cases
}

fn case(index: usize, rng: &mut ChaCha8Rng, vocab_size: u32, shared: &[u32]) -> Case {
    let length = LENGTHS[index % LENGTHS.len()];
    let mut prompt: Vec<u32> = (0..length).map(|_| rng.random_range(0..vocab_size)).collect();
    if index.is_multiple_of(3) {
        // A beginning in common with other requests, at most all but the last token.
        let common = shared.len().min(length - 1);
        prompt[..common].copy_from_slice(&shared[..common]);
    }
    let max_tokens = *OUTPUT_TOKENS.choose(rng).expect("a length");
    let stop = StopRules {
        max_tokens,
        min_tokens: if rng.random_bool(0.2) { max_tokens / 2 } else { 0 },
        stop_token_ids: (0..rng.random_range(0..3))
            .map(|_| rng.random_range(0..vocab_size))
            .collect(),
        ignore_eos: rng.random_bool(0.5),
    };
    let choices = if rng.random_bool(0.2) { 3 } else { 1 };
    Case { prompt, choices, sampling: sampling(rng, vocab_size), stop }
}

/// Greedy half of the time, else a mix of everything.
fn sampling(rng: &mut ChaCha8Rng, vocab_size: u32) -> Sampling {
    let maybe = |rng: &mut ChaCha8Rng| rng.random_bool(0.3);
    let mut sampling = Sampling { seed: rng.random_range(0..1 << 40), ..Sampling::greedy() };
    if rng.random_bool(0.5) {
        sampling.temperature = rng.random_range(0.3..1.5);
    }
    if maybe(rng) {
        sampling.top_k = rng.random_range(1..60);
    }
    if maybe(rng) {
        sampling.top_p = rng.random_range(0.5..1.0);
    }
    if maybe(rng) {
        sampling.min_p = rng.random_range(0.0..0.2);
    }
    if maybe(rng) {
        sampling.repetition_penalty = rng.random_range(0.9..1.4);
    }
    if maybe(rng) {
        sampling.frequency_penalty = rng.random_range(-1.0..1.0);
        sampling.presence_penalty = rng.random_range(-1.0..1.0);
    }
    if maybe(rng) {
        let biased = (0..3).map(|_| (rng.random_range(0..vocab_size), rng.random_range(-5.0..5.0)));
        sampling.logit_bias = biased.collect();
    }
    if maybe(rng) {
        sampling.logprobs = Some(rng.random_range(0..4));
    }
    sampling
}

// --- One engine, one request at a time. ---

async fn reference(model: TestModel, cases: Vec<Case>) -> Vec<Outputs> {
    let alone = Alone::start(&model).await;
    let mut outputs = Vec::new();
    for case in &cases {
        outputs.push(alone.answer(&case.prompt, case.choices, &case.sampling, &case.stop).await);
    }
    outputs
}

// --- A cluster, all requests at once. ---

async fn all_at_once(grpc: &Grpc, cases: &[Case]) -> Vec<Outputs> {
    let requests = cases.iter().map(|case| async move {
        let generated = grpc.generate(case.request()).await;
        outputs(generated.unwrap_or_else(|status| panic!("{status:?} for {case:?}")))
    });
    futures::future::join_all(requests).await
}

fn outputs(generated: Generated) -> Outputs {
    let mut outputs = Outputs::new();
    for (choice, tokens) in generated.tokens {
        outputs.entry(choice).or_default().tokens = tokens;
    }
    for (choice, logprobs) in generated.logprobs {
        let logprobs = logprobs.into_iter().map(|wire| TokenLogprob {
            logprob: wire.logprob,
            top: wire.top.into_iter().map(|top| (top.token, top.logprob)).collect(),
        });
        outputs.entry(choice).or_default().logprobs = logprobs.collect();
    }
    for (choice, kind) in generated.finish {
        outputs.entry(choice).or_default().is_stopped = kind == v1::FinishKind::Stop;
    }
    outputs
}

// === impl Case ===

impl Case {
    /// With every field given, so that no default of the model's comes in.
    fn request(&self) -> v1::InferenceRequest {
        let sampling = &self.sampling;
        let bias = |&(token, bias): &(u32, f32)| v1::LogitBias { token, bias };
        v1::InferenceRequest {
            input: Some(v1::inference_request::Input::TokenIds(v1::TokenIds {
                ids: self.prompt.clone(),
            })),
            n: self.choices,
            max_tokens: Some(self.stop.max_tokens),
            min_tokens: self.stop.min_tokens,
            stop_token_ids: self.stop.stop_token_ids.clone(),
            ignore_eos: self.stop.ignore_eos,
            temperature: Some(sampling.temperature),
            top_k: Some(sampling.top_k),
            top_p: Some(sampling.top_p),
            min_p: Some(sampling.min_p),
            repetition_penalty: Some(sampling.repetition_penalty),
            frequency_penalty: Some(sampling.frequency_penalty),
            presence_penalty: Some(sampling.presence_penalty),
            logit_bias: sampling.logit_bias.iter().map(bias).collect(),
            seed: Some(sampling.seed),
            logprobs: sampling.logprobs,
            ..v1::InferenceRequest::default()
        }
    }
}
