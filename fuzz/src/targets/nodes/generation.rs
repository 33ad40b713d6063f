//! What routers and decode workers ask of a worker, on its way into the engine.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use engine::{Event, EventStream, Mode, Submission, SubmitError, Turn};
use futures::FutureExt as _;
use prost::Message as _;
use proto::{Sealed, WireError, v1};
use words::{
    Address, ClientId, Generation, Incarnation, RequestId, Sampling, StopRules, Targets, WorkerId,
};
use worker::Ask;

use crate::Target;
use crate::fixtures::engine::{Driven, VOCAB};

pub(in crate::targets) const TARGET: Target = Target::new("generation", run).with_seeds(seeds);

/// The engine's turns for one request. It may have all of the context to generate, a token a step.
const TURNS_MAX: usize = 512;

thread_local! {
    static ENGINE: RefCell<Driven> = RefCell::new(Driven::new());
}

/// Takes a request as on the wire, after a byte that says whether it is one to generate or to prefill.
fn run(input: &[u8]) {
    let Some((&which, message)) = input.split_first() else { return };
    let read = if which % 2 == 0 { generate(message) } else { prefill(message) };
    let Ok((generation, peers)) = read else { return };
    for peer in peers {
        if let Err(error) = Address::try_from(peer) {
            assert!(!error.field.is_empty(), "{error}");
        }
    }
    ENGINE.with_borrow_mut(|driven| {
        let mode = if which % 2 == 0 { Mode::Generate } else { Mode::Prefill };
        work(driven, generation, mode);
    });
}

fn generate(message: &[u8]) -> Result<(Generation, Vec<v1::Address>), WireError> {
    let unread = |_| WireError::invalid("*", "is no message");
    let mut request = v1::GenerateRequest::decode(message).map_err(unread)?;
    refuses_damage(request.clone());
    request.generation = request.generation.map(|it| it.sealed(0));
    let mut request = request.sealed(0);
    request.check_seal(0).expect("a message that was sealed");
    let _ = cluster::rpc::deadline_from(request.deadline_ms);
    Ok((read(request.generation)?, request.prefill_peers))
}

fn prefill(message: &[u8]) -> Result<(Generation, Vec<v1::Address>), WireError> {
    let unread = |_| WireError::invalid("*", "is no message");
    let mut request = v1::PrefillRequest::decode(message).map_err(unread)?;
    refuses_damage(request.clone());
    request.generation = request.generation.map(|it| it.sealed(0));
    let request = request.sealed(0);
    let target = request.target.unwrap_or_default();
    let _ = proto::convert::transfer::handoff_id(&target.handoff_id);
    Ok((read(request.generation)?, target.address.into_iter().collect()))
}

/// A seal that is another by a bit is none.
fn refuses_damage<M: Sealed + Clone>(message: M) {
    let mut message = message.sealed(0);
    *message.seal_mut() ^= 1 << 17;
    assert!(message.check_seal(0).is_err());
}

fn read(wire: Option<v1::Generation>) -> Result<Generation, WireError> {
    let generation = Generation::try_from(proto::convert::required("generation", wire)?);
    if let Err(error) = &generation {
        assert!(!error.field.is_empty() && !error.damaged, "{error}");
        assert!(error.to_string().len() < 1024, "{error}");
    }
    let generation = generation?;
    let again = Generation::try_from(v1::Generation::from(&generation));
    assert_eq!(again.as_ref(), Ok(&generation));
    Ok(generation)
}

/// Has the engine do it, as far as it goes, and goes away.
fn work(driven: &mut Driven, generation: Generation, mode: Mode) {
    let handle = &driven.handle;
    let ask = match mode {
        Mode::Prefill => Ask::to_prefill(handle, &generation),
        _ => Ask::to_generate(handle, &generation, true),
    };
    let info = handle.info();
    assert!(
        ask.need.places <= info.sequences_max && ask.need.blocks <= info.total_blocks,
        "{ask:?}"
    );
    match handle.submit(Submission::new(Arc::new(generation), mode)) {
        Ok(events) => follow(driven, events),
        Err(SubmitError::TooLong { .. } | SubmitError::Invalid(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

fn follow(driven: &mut Driven, mut events: EventStream) {
    for _ in 0..TURNS_MAX {
        let turn = driven.engine.turn();
        assert_ne!(turn, Turn::Over);
        while let Some(Some(event)) = events.recv().now_or_never() {
            if let Event::Token(token) = event {
                assert!(token.token < VOCAB, "{token:?}");
            }
        }
        if turn == Turn::Idle {
            break;
        }
    }
    drop(events);
    while driven.engine.turn() != Turn::Idle {}
    let counts = driven.handle.pool().counts();
    assert_eq!(counts.available(), driven.handle.info().total_blocks, "{counts:?}");
    driven.handle.pool().audit().expect("a pool that agrees with itself");
}

fn seeds() -> Vec<Vec<u8>> {
    let generation = Generation {
        id: RequestId("req-1".into()),
        prompt: [1, 2, 3, 4, 5, 6, 7, 8, 9].into(),
        generated: [].into(),
        choices: vec![0, 1],
        sampling: Sampling {
            seed: 7,
            temperature: 0.5,
            top_k: 5,
            repetition_penalty: 1.1,
            logit_bias: vec![(5, -1.5)],
            logprobs: Some(2),
            ..Sampling::default()
        },
        stop: StopRules { max_tokens: 8, min_tokens: 2, stop_token_ids: vec![4], ignore_eos: true },
        prompt_logprobs: Some(1),
        salt: words::TenantSalt([1, 2].into()),
        client: ClientId(7),
        targets: Targets { ttft: Some(Duration::from_millis(300)), ..Targets::default() },
    };
    let address = Address {
        worker: WorkerId::from("p0"),
        incarnation: Incarnation(3),
        uri: "http://127.0.0.1:1".into(),
    };
    let generate = v1::GenerateRequest {
        generation: Some((&generation).into()),
        deadline_ms: 1000,
        incarnation: 3,
        prefill_peers: vec![(&address).into()],
        start_within_ms: 100,
        step_max_us: 50_000,
        waited_us: 80_000,
        seal: 0,
    };
    let resumed = Generation { generated: [9, 8].into(), choices: vec![1], ..generation.clone() };
    let resumed = v1::GenerateRequest { generation: Some((&resumed).into()), ..generate.clone() };
    let prefill = v1::PrefillRequest {
        generation: Some((&generation).into()),
        deadline_ms: 1000,
        incarnation: 3,
        target: Some(v1::HandoffTarget {
            handoff_id: vec![3; 16],
            address: Some((&address).into()),
            transports: vec!["grpc".into()],
            held_blocks: 1,
            kv_layout: "l".into(),
        }),
        start_within_ms: 0,
        waited_us: 80_000,
        seal: 0,
    };
    let generates =
        [generate, resumed].into_iter().map(|it| [vec![0], it.encode_to_vec()].concat());
    generates.chain([[vec![1], prefill.encode_to_vec()].concat()]).collect()
}
